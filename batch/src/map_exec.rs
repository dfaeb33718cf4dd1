//! `EnvelopeMap` at work: reads ahead, keeps calls in flight, gives batches in order.
//!
//! Each partition is three tasks joined by channels of one batch, so that decoding, the workers
//! and encoding overlap:
//!
//! ```text
//!  gather: scan, coalesce, cast  ─►  call: some batches in flight at once  ─►  the sink above
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use arrow_array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_cast::cast::{CastOptions, cast_with_options};
use arrow_cast::display::array_value_to_string;
use arrow_schema::{DataType, SchemaRef};
use arrow_select::coalesce::BatchCoalescer;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{
    Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, Time,
};
use datafusion::physical_plan::stream::RecordBatchReceiverStreamBuilder;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, Partitioning,
    PlanProperties,
};
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use crate::Error;
use crate::function::Callable;
use crate::pace::Pace;
use crate::plan::{Callables, MapSpec, only};
use crate::task::Task;

/// The physical `EnvelopeMap`.
#[derive(Debug)]
pub(crate) struct MapExec {
    pub(crate) spec: Arc<MapSpec>,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl MapExec {
    /// Metric: rows that the function has given output for.
    pub(crate) const ROWS: &'static str = "python_rows";
    /// Metric: time that calls took, waiting for a worker included.
    const TIME: &'static str = "python_time";

    pub(crate) fn new(spec: MapSpec, schema: SchemaRef, input: Arc<dyn ExecutionPlan>) -> Self {
        let metrics = ExecutionPlanMetricsSet::new();
        let properties = properties(schema, &input);
        Self {
            spec: Arc::new(spec),
            input,
            properties,
            metrics,
        }
    }
}

/// One partition out for each partition in.
pub(crate) fn properties(schema: SchemaRef, input: &Arc<dyn ExecutionPlan>) -> Arc<PlanProperties> {
    Arc::new(PlanProperties::new(
        EquivalenceProperties::new(schema),
        Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
        EmissionType::Incremental,
        Boundedness::Bounded,
    ))
}

impl DisplayAs for MapExec {
    fn fmt_as(
        &self,
        _format: DisplayFormatType,
        formatter: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        fmt::Display::fmt(&self.spec, formatter)
    }
}

impl ExecutionPlan for MapExec {
    fn name(&self) -> &'static str {
        "EnvelopeMap"
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
        Ok(Arc::new(Self::new(
            self.spec.as_ref().clone(),
            self.schema(),
            only(children)?,
        )))
    }

    /// The scan is shared out by its files already; dealing batches round would copy for nothing.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    /// Rows stay in their order, but the engine must not sort the input instead of the output: it tells columns
    /// by their number, and these have others below.
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
        let spec = Arc::clone(&self.spec);
        let caller = Caller::of(spec, self, (&self.metrics, partition), &context)?;
        let caller = Arc::new(caller);
        let task = Task::of(&context);
        let input = self.input.execute(partition, context)?;
        // The engine's own receiver ends the tasks when it is dropped and passes panics on.
        let mut tasks = RecordBatchReceiverStreamBuilder::new(self.schema(), 1);
        let (gathered, batches) = mpsc::channel(1);
        let gathering = gather(Arc::clone(&caller), input, gathered);
        tasks.spawn(unless_cancelled(Arc::clone(&task), gathering));
        tasks.spawn(unless_cancelled(task, call(caller, batches, tasks.tx())));
        Ok(tasks.build())
    }
}

/// Ends `work` when the task is not wanted any more. A call that is dropped ends its worker.
pub(crate) async fn unless_cancelled(
    task: Arc<Task>,
    work: impl Future<Output = Result<()>>,
) -> Result<()> {
    let done = task.cancelled.run_until_cancelled(work).await;
    done.unwrap_or_else(|| Err(Error::Cancelled.into_engine()))
}

/// Everything that a partition needs to call the function.
pub(crate) struct Caller {
    spec: Arc<MapSpec>,
    pace: Pace,
    callable: Arc<Callable>,
    /// For batches between scan and sink, and how many there are.
    pub(crate) permits: (Arc<Semaphore>, usize),
    /// What the function takes.
    taken: SchemaRef,
    /// Kept columns, then what the function gives.
    pub(crate) given: SchemaRef,
    /// Whether the function gives one row for all the rows of a call.
    pub(crate) reduces: bool,
    pub(crate) rows: Count,
    pub(crate) time: Time,
}

/// Rows of one call.
pub(crate) struct Rows {
    /// Kept columns.
    pub(crate) kept: Vec<ArrayRef>,
    /// Columns that the function takes.
    pub(crate) taken: RecordBatch,
    /// Of those, how many each row has.
    row_bytes: usize,
}

impl Rows {
    /// The first `count` rows, and the others if there are more.
    fn cut(self, count: usize) -> (Self, Option<Self>) {
        let all = self.taken.num_rows();
        if all <= count {
            return (self, None);
        }
        let rest = self.slice(count, all - count);
        (self.slice(0, count), Some(rest))
    }

    fn slice(&self, offset: usize, length: usize) -> Self {
        let columns = self.kept.iter();
        Self {
            kept: columns.map(|column| column.slice(offset, length)).collect(),
            taken: self.taken.slice(offset, length),
            row_bytes: self.row_bytes,
        }
    }
}

/// Reads the input in batches of the most rows that the function is called with.
async fn gather(
    caller: Arc<Caller>,
    mut input: SendableRecordBatchStream,
    gathered: mpsc::Sender<Rows>,
) -> Result<()> {
    // A batch that is large enough already is not worth a copy.
    let large_enough = Some(caller.spec.batch_rows / 2);
    let mut coalescer = BatchCoalescer::new(input.schema(), caller.spec.batch_rows)
        .with_biggest_coalesce_batch_size(large_enough);
    let mut open = true;
    while open {
        let batch = input.next().await.transpose();
        match batch.map_err(|source| caller.unreadable(source).into_engine())? {
            Some(batch) => coalescer.push_batch(batch)?,
            None => {
                coalescer.finish_buffered_batch()?;
                open = false;
            }
        }
        while let Some(batch) = coalescer.next_completed_batch() {
            let rows = caller.rows_of(&batch).map_err(Error::into_engine)?;
            if gathered.send(rows).await.is_err() {
                return Ok(()); // Nobody wants more: the partition has failed elsewhere.
            }
        }
    }
    Ok(())
}

/// Calls the function; sends what it gives on, in order.
async fn call(
    caller: Arc<Caller>,
    batches: mpsc::Receiver<Rows>,
    given: mpsc::Sender<Result<RecordBatch>>,
) -> Result<()> {
    let (_, most) = caller.permits;
    let results = admitted(Arc::clone(&caller), batches)
        .map(|(rows, permit)| {
            let caller = Arc::clone(&caller);
            async move { caller.call(rows).await.map(|batch| (batch, permit)) }
        })
        .buffered(most)
        .map_err(Error::into_engine);
    let mut results = std::pin::pin!(results);
    while let Some((batch, _permit)) = results.try_next().await? {
        if given.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// Rows of calls that may be between scan and sink. The permit comes first: rows that wait for one
/// would take the memory that the permit is there to bound.
fn admitted(
    caller: Arc<Caller>,
    batches: mpsc::Receiver<Rows>,
) -> impl Stream<Item = (Rows, OwnedSemaphorePermit)> {
    stream::unfold((batches, None), move |(mut batches, begun)| {
        let caller = Arc::clone(&caller);
        async move {
            let permit = Arc::clone(&caller.permits.0).acquire_owned().await.ok()?;
            let rows: Rows = match begun {
                Some(rows) => rows,
                None => batches.recv().await?,
            };
            let call_rows = caller.pace.rows(rows.row_bytes);
            let (rows, rest) = rows.cut(call_rows);
            Some(((rows, permit), (batches, rest)))
        }
    })
}

impl Caller {
    /// For a partition of `node`, which has `metrics`.
    pub(crate) fn of(
        spec: Arc<MapSpec>,
        node: &dyn ExecutionPlan,
        (metrics, partition): (&ExecutionPlanMetricsSet, usize),
        context: &TaskContext,
    ) -> Result<Self> {
        let callables = context.session_config().get_extension::<Callables>();
        let callables = callables.ok_or_else(|| {
            DataFusionError::Configuration("nothing in this session runs envelopes".into())
        })?;
        let callable = callables.find(&spec.digest)?;
        let partitions = node.properties().partitioning.partition_count();
        Ok(Self {
            pace: Pace::new(spec.batch_rows, spec.tile, spec.paced),
            permits: callable.permits(partitions),
            callable,
            taken: runtime::arrow_schema(&spec.signature.input),
            given: node.schema(),
            reduces: false,
            rows: MetricBuilder::new(metrics).counter(MapExec::ROWS, partition),
            time: MetricBuilder::new(metrics).subset_time(MapExec::TIME, partition),
            spec,
        })
    }

    /// Picks the columns that are kept and those that the function takes.
    pub(crate) fn rows_of(&self, batch: &RecordBatch) -> Result<Rows, Error> {
        let column = |name: &str| {
            batch
                .column_by_name(name)
                .cloned()
                .ok_or_else(|| Error::Engine {
                    source: DataFusionError::Internal(format!("the scan lost the column `{name}`")),
                })
        };
        let kept = self.spec.keep.iter().zip(self.given.fields());
        let kept = kept
            .map(|(name, field)| self.exact(name, &column(name)?, field.data_type()))
            .collect::<Result<_, _>>()?;
        let taken = self.taken.fields().iter().map(|field| {
            let found = column(field.name())?;
            if !field.is_nullable() && found.logical_null_count() > 0 {
                return Err(Error::MissingValue {
                    table: self.spec.table.clone(),
                    column: field.name().clone(),
                    file: None,
                });
            }
            self.exact(field.name(), &found, field.data_type())
        });
        let taken = taken.collect::<Result<Vec<_>, _>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let taken = RecordBatch::try_new_with_options(Arc::clone(&self.taken), taken, &rows)
            .map_err(|source| self.unreadable(source))?;
        let row_bytes = taken.get_array_memory_size() / taken.num_rows().max(1);
        Ok(Rows {
            kept,
            taken,
            row_bytes,
        })
    }

    /// Values of a column as another type, which must hold them.
    fn exact(&self, name: &str, found: &ArrayRef, to: &DataType) -> Result<ArrayRef, Error> {
        let exact = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        let cast = |from: &ArrayRef, to: &DataType| {
            cast_with_options(from, to, &exact).map_err(|source| self.unreadable(source))
        };
        let made = cast(found, to)?;
        // Whole numbers of JSON lines: this is the one cast that would drop a fraction.
        if found.data_type().is_decimal()
            && to.is_integer()
            && cast(&made, found.data_type())?.to_data() != found.to_data()
        {
            let reason = format!("column `{name}` has a number that is not whole");
            return Err(self.unreadable(std::io::Error::other(reason)));
        }
        Ok(made)
    }

    async fn call(&self, rows: Rows) -> Result<RecordBatch, Error> {
        let count = rows.taken.num_rows();
        let asked = runtime::padded(rows.taken, self.spec.tile);
        let asked = asked.map_err(|source| self.unreadable(source))?;
        let wanted = asked.num_rows();
        let began = Instant::now();
        let answer = self.answer(asked.clone()).await;
        self.time.add_elapsed(began);
        let output = match answer {
            Ok(output) => output,
            Err(source) if is_of_rows(&source) => {
                let taken = asked.slice(0, count);
                return Err(self.blamed(source, &rows.kept, &taken).await);
            }
            Err(source) => return Err(self.failed(source)),
        };
        if output.num_rows() != wanted {
            return Err(self.wrong_output(format!("{} rows for {wanted}", output.num_rows())));
        }
        self.pace.learn(wanted, began.elapsed());
        let output = output.slice(0, count);
        self.rows.add(count);
        self.join(rows.kept, &output)
    }

    /// Calls the function; once more when the worker died, which may have been the worker's bad luck:
    /// the kernel may have ended it for memory that another process took. Rows that kill their worker
    /// kill two.
    pub(crate) async fn answer(&self, asked: RecordBatch) -> Result<RecordBatch, runtime::Error> {
        let mut answer = self.ask(asked.clone()).await;
        if let Err(runtime::Error::Crashed { .. }) = &answer {
            answer = self.ask(asked).await;
        }
        answer
    }

    /// Finds the first row that the function fails on alone: half of the rows, and half of those, as
    /// rows do not depend on each other. Where none does, the error is what it was.
    async fn blamed(
        &self,
        mut source: runtime::Error,
        kept: &[ArrayRef],
        taken: &RecordBatch,
    ) -> Error {
        let (mut first, mut rows) = (0, taken.num_rows());
        while rows > 1 {
            let Some((start, length, error)) = self.guilty(&taken.slice(first, rows)).await else {
                return self.failed(source);
            };
            (first, rows, source) = (first + start, length, error);
        }
        let columns = self.spec.keep.iter().map(String::as_str).zip(kept);
        let names = self
            .taken
            .fields()
            .iter()
            .map(|field| field.name().as_str());
        let row = told(columns.chain(names.zip(taken.columns())), first);
        Error::Function {
            function: self.spec.function.clone(),
            table: self.spec.table.clone(),
            row: Some(row),
            source,
        }
    }

    /// Where the half of some rows begins that the function fails on, how long it is, and the failure.
    async fn guilty(&self, rows: &RecordBatch) -> Option<(usize, usize, runtime::Error)> {
        let half = rows.num_rows() / 2;
        for (start, length) in [(0, half), (half, rows.num_rows() - half)] {
            let Err(error) = self.ask(rows.slice(start, length)).await else {
                continue;
            };
            if is_of_rows(&error) {
                if start == 0 {
                    // Workers that die one after the other without an answer are started more and more slowly.
                    _ = self.ask(rows.slice(half, 1)).await;
                }
                return Some((start, length, error));
            }
        }
        None
    }

    async fn ask(&self, rows: RecordBatch) -> Result<RecordBatch, runtime::Error> {
        let (function, deadline) = (&self.spec.function, self.spec.call_deadline);
        match self.reduces {
            true => self.callable.call(function, rows, deadline).await,
            false => self.callable.map(function, rows, deadline).await,
        }
    }

    /// Kept columns and output columns.
    pub(crate) fn join(
        &self,
        kept: Vec<ArrayRef>,
        output: &RecordBatch,
    ) -> Result<RecordBatch, Error> {
        let mut columns = kept;
        for field in &self.spec.signature.output.fields {
            let Some(column) = output.column_by_name(&field.name) else {
                return Err(self.wrong_output(format!("no column `{}`", field.name)));
            };
            columns.push(Arc::clone(column));
        }
        RecordBatch::try_new(Arc::clone(&self.given), columns)
            .map_err(|source| self.wrong_output(source.to_string()))
    }

    fn failed(&self, source: runtime::Error) -> Error {
        Error::Function {
            function: self.spec.function.clone(),
            table: self.spec.table.clone(),
            row: None,
            source,
        }
    }

    fn wrong_output(&self, reason: String) -> Error {
        self.failed(self.wrong(reason))
    }

    pub(crate) fn wrong(&self, reason: String) -> runtime::Error {
        runtime::Error::Output {
            function: self.spec.function.clone(),
            reason,
        }
    }

    pub(crate) fn unreadable(
        &self,
        source: impl std::error::Error + Send + Sync + 'static,
    ) -> Error {
        Error::Read {
            table: self.spec.table.clone(),
            file: None,
            source: Box::new(source),
        }
    }
}

/// Whether some row may be to blame.
fn is_of_rows(error: &runtime::Error) -> bool {
    matches!(
        error,
        runtime::Error::Function { .. } | runtime::Error::Crashed { .. }
    )
}

/// How many columns of a row are told, and how much of each value, in characters.
const TOLD: (usize, usize) = (12, 60);

/// A row as text: `id=7, price=1.5`.
pub(crate) fn told<'c>(
    columns: impl Iterator<Item = (&'c str, &'c ArrayRef)>,
    row: usize,
) -> String {
    let (most, length) = TOLD;
    let mut parts = vec![];
    for (name, column) in columns {
        if parts.len() == most {
            parts.push("…".to_owned());
            break;
        }
        let value = array_value_to_string(column, row).unwrap_or_default();
        let value = if column.is_null(row) {
            "null".into()
        } else {
            value
        };
        let cut: String = value.chars().take(length).collect();
        let more = if cut.len() < value.len() { "…" } else { "" };
        parts.push(format!("{name}={cut}{more}"));
    }
    parts.join(", ")
}
