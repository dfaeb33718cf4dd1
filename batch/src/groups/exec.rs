//! `EnvelopeGroups` at work: cuts sorted rows into groups, keeps calls in flight, gives results in order.
//!
//! As in `EnvelopeMap`, each partition is two tasks, so that sorting, the workers and encoding overlap:
//!
//! ```text
//!  gather: sort, cut  ─►  call: some groups in flight at once, coalesce  ─►  the sink above
//! ```

use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::coalesce::BatchCoalescer;
use datafusion::arrow::compute::SortOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{
    Distribution, LexRequirement, OrderingRequirements, PhysicalExpr, PhysicalSortRequirement,
};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, InputDistributionRequirements, PlanProperties,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::cut::{Cut, Cutter};
use super::{BATCH_ROWS, GroupsSpec};
use crate::Error;
use crate::function::reduces;
use crate::map_exec::{Caller, MapExec, Rows, properties, told, unless_cancelled};
use crate::plan::only;
use crate::task::Task;

/// The physical `EnvelopeGroups`.
#[derive(Debug)]
pub(crate) struct GroupsExec {
    pub(crate) spec: Arc<GroupsSpec>,
    /// Columns that rows are grouped by, in the input.
    key: Vec<Column>,
    /// The columns that say where a row is in the table.
    place: Vec<Column>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl GroupsExec {
    pub(crate) fn try_new(
        spec: GroupsSpec,
        schema: SchemaRef,
        input: Arc<dyn ExecutionPlan>,
    ) -> Result<Self> {
        let columns = input.schema();
        let column = |name: &String| Column::new_with_schema(name, &columns);
        Ok(Self {
            key: spec.key().iter().map(column).collect::<Result<_>>()?,
            place: spec.place.iter().map(column).collect::<Result<_>>()?,
            properties: properties(schema, &input),
            spec: Arc::new(spec),
            input,
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }

    /// How many rows of the table have come to groups below `plan` and are done; none where there are no
    /// groups. Of one partition, or of all.
    pub(crate) fn rows_done(
        plan: &Arc<dyn ExecutionPlan>,
        partition: Option<usize>,
    ) -> Option<u64> {
        let mut node = plan;
        while node.downcast_ref::<Self>().is_none() {
            let [child] = node.children()[..] else {
                return None;
            };
            node = child;
        }
        let metrics = node.metrics().unwrap_or_default();
        let of_rows = metrics.iter().filter(|metric| {
            let wanted = partition.is_none() || metric.partition() == partition;
            wanted && metric.value().name() == MapExec::ROWS
        });
        Some(of_rows.map(|metric| metric.value().as_usize() as u64).sum())
    }
}

impl DisplayAs for GroupsExec {
    fn fmt_as(
        &self,
        _format: DisplayFormatType,
        formatter: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        fmt::Display::fmt(&self.spec, formatter)
    }
}

impl ExecutionPlan for GroupsExec {
    fn name(&self) -> &'static str {
        "EnvelopeGroups"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (spec, schema) = (self.spec.as_ref().clone(), self.schema());
        Ok(Arc::new(Self::try_new(spec, schema, only(children)?)?))
    }

    /// All rows of a group are in one partition.
    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        let key = self.key.iter().cloned().map(expression).collect();
        InputDistributionRequirements::new(vec![Distribution::KeyPartitioned(key)])
    }

    /// They follow each other, as they do in the table.
    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        let columns = self.key.iter().chain(&self.place).cloned();
        let sorted = columns.map(|column| {
            PhysicalSortRequirement::new(expression(column), Some(SortOptions::default()))
        });
        vec![LexRequirement::new(sorted).map(OrderingRequirements::new)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let task = Task::of(&context);
        let map = Arc::new(self.spec.map.clone());
        let mut caller = Caller::of(map, self, (&self.metrics, partition), &context)?;
        caller.reduces = reduces(&self.spec.map.signature);
        let spec = Arc::clone(&self.spec);
        let groups = Arc::new(Groups { spec, caller });
        let key = self.key.iter().map(Column::index).collect();
        let input = self.input.execute(partition, context)?;
        let cutter = Cutter::new(input, key, self.spec.max_group_bytes)?;
        let mut tasks = RecordBatchReceiverStreamBuilder::new(self.schema(), 1);
        let (gathered, ready) = mpsc::channel(1);
        let gathering = gather(Arc::clone(&groups), cutter, gathered);
        tasks.spawn(unless_cancelled(Arc::clone(&task), gathering));
        tasks.spawn(unless_cancelled(task, call(groups, ready, tasks.tx())));
        Ok(tasks.build())
    }
}

fn expression(column: Column) -> Arc<dyn PhysicalExpr> {
    Arc::new(column)
}

/// Everything that a partition needs to call the function for its groups.
struct Groups {
    spec: Arc<GroupsSpec>,
    caller: Caller,
}

/// A group, and the permit to hold it in memory.
type Admitted = (Rows, OwnedSemaphorePermit);

/// Reads the groups. The permit comes first: there are as many groups in memory as there are permits, those
/// included whose rows still come.
async fn gather(
    groups: Arc<Groups>,
    mut cutter: Cutter,
    gathered: mpsc::Sender<Admitted>,
) -> Result<()> {
    let (permits, _) = &groups.caller.permits;
    loop {
        let Ok(permit) = Arc::clone(permits).acquire_owned().await else {
            return Ok(()); // Nobody closes them.
        };
        let cut = cutter.next().await;
        let Some(cut) = cut.map_err(|source| groups.caller.unreadable(source).into_engine())?
        else {
            return Ok(());
        };
        let rows = groups.rows_of(cut).map_err(Error::into_engine)?;
        if gathered.send((rows, permit)).await.is_err() {
            return Ok(()); // Nobody wants more: the partition has failed elsewhere.
        }
    }
}

/// Calls the function for each group; sends what it gives on, in order and many groups at a time.
async fn call(
    groups: Arc<Groups>,
    ready: mpsc::Receiver<Admitted>,
    given: mpsc::Sender<Result<RecordBatch>>,
) -> Result<()> {
    let (_, most) = groups.caller.permits;
    let received = stream::unfold(ready, |mut ready| async move {
        let next = ready.recv().await?;
        Some((next, ready))
    });
    let results = received
        .map(|(rows, permit)| {
            let groups = Arc::clone(&groups);
            async move { groups.call(rows).await.map(|batch| (batch, permit)) }
        })
        .buffered(most)
        .map_err(Error::into_engine);
    let mut results = std::pin::pin!(results);
    let mut coalescer = BatchCoalescer::new(Arc::clone(&groups.caller.given), BATCH_ROWS);
    loop {
        let next = results.try_next().await?;
        let is_last = next.is_none();
        match next {
            Some((batch, _permit)) => coalescer.push_batch(batch)?,
            None => coalescer.finish_buffered_batch()?,
        }
        while let Some(batch) = coalescer.next_completed_batch() {
            if given.send(Ok(batch)).await.is_err() {
                return Ok(());
            }
        }
        if is_last {
            return Ok(());
        }
    }
}

impl Groups {
    /// The rows of a group as the function takes them.
    fn rows_of(&self, cut: Cut) -> Result<Rows, Error> {
        match cut {
            Cut::Whole(rows) => self.caller.rows_of(&rows),
            Cut::TooLarge(some) => Err(Error::GroupTooLarge {
                table: self.spec.map.table.clone(),
                group: self.group(&self.caller.rows_of(&some)?.kept),
                most_bytes: self.spec.max_group_bytes as u64,
            }),
        }
    }

    async fn call(&self, rows: Rows) -> Result<RecordBatch, Error> {
        let Rows { kept, taken } = rows;
        let count = taken.num_rows();
        let group = kept
            .iter()
            .map(|column| column.slice(0, 1))
            .collect::<Vec<_>>();
        let answer = {
            let _timer = self.caller.time.timer();
            self.caller.answer(taken).await
        };
        let output = answer.map_err(|source| self.failed(&group, source))?;
        let (kept, wanted) = match self.caller.reduces {
            true => (group, 1),
            false => (kept, count),
        };
        if output.num_rows() != wanted {
            let reason = format!("{} rows for {wanted}", output.num_rows());
            return Err(self.failed(&kept, self.caller.wrong(reason)));
        }
        self.caller.rows.add(count);
        self.caller.join(kept, &output)
    }

    fn failed(&self, kept: &[ArrayRef], source: runtime::Error) -> Error {
        Error::Group {
            function: self.spec.map.function.clone(),
            table: self.spec.map.table.clone(),
            group: self.group(kept),
            source,
        }
    }

    /// The group as text: `region=UK, day=null`.
    fn group(&self, kept: &[ArrayRef]) -> String {
        told(self.spec.key().iter().map(String::as_str).zip(kept), 0)
    }
}
