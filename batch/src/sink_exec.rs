//! `EnvelopeSink` at work: writes part files that nobody reads yet, gives one row for each.

mod open_files;

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow_array::cast::AsArray as _;
use arrow_array::{RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::metrics::{
    Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, Time,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt as _, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use self::open_files::OpenFiles;
use crate::Error;
use crate::attempt::file_name;
use crate::coverage::Written;
use crate::delta_schema::convert;
use crate::groups::GroupsExec;
use crate::layout::{Layout, Values};
use crate::map_exec::properties;
use crate::part_file::{Part, PartFile};
use crate::plan::{SinkSpec, only};
use crate::point;
use crate::split::Split;
use crate::stores::store_url;
use crate::task::Task;

/// The physical `EnvelopeSink`.
#[derive(Debug)]
pub(crate) struct SinkExec {
    pub(crate) spec: Arc<SinkSpec>,
    pub(crate) written: SchemaRef,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

static ROWS_SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        // In JSON.
        Field::new("written", DataType::Utf8, false),
    ]))
});

impl SinkExec {
    /// Metric: rows that are written to part files.
    pub(crate) const ROWS: &'static str = "rows_written";
    /// Metric: part files that are complete.
    pub(crate) const FILES: &'static str = "files_written";
    /// Metric: time spent on encoding and writing.
    const TIME: &'static str = "write_time";

    pub(crate) fn new(spec: SinkSpec, written: SchemaRef, input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = properties(Self::rows_schema(), &input);
        Self {
            spec: Arc::new(spec),
            written,
            input,
            properties,
            metrics: ExecutionPlanMetricsSet::new(),
        }
    }

    /// Columns of the rows that it gives.
    pub(crate) fn rows_schema() -> SchemaRef {
        Arc::clone(&ROWS_SCHEMA)
    }

    /// The rows that it gives, read back.
    pub(crate) fn read(batch: &RecordBatch) -> Result<Vec<Written>> {
        let texts = batch.column(0).as_string::<i32>().iter().flatten();
        texts
            .map(|text| serde_json::from_str(text).map_err(external))
            .collect()
    }
}

fn row_of(written: &Written) -> Result<RecordBatch> {
    let text = serde_json::to_string(written).map_err(external)?;
    let column = Arc::new(StringArray::from(vec![text]));
    Ok(RecordBatch::try_new(SinkExec::rows_schema(), vec![column])?)
}

fn external(error: serde_json::Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl DisplayAs for SinkExec {
    fn fmt_as(
        &self,
        _format: DisplayFormatType,
        formatter: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        fmt::Display::fmt(&self.spec, formatter)
    }
}

impl ExecutionPlan for SinkExec {
    fn name(&self) -> &'static str {
        "EnvelopeSink"
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
            Arc::clone(&self.written),
            only(children)?,
        )))
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
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
        let store = context
            .runtime_env()
            .object_store(store_url(&self.spec.store)?)?;
        let task = Task::of(&context);
        let sink = Sink {
            spec: Arc::clone(&self.spec),
            written: Arc::clone(&self.written),
            store,
            here: partition,
            partition: task.partition(partition),
            attempt: task.attempt.clone(),
            rows: MetricBuilder::new(&self.metrics).counter(Self::ROWS, partition),
            files: MetricBuilder::new(&self.metrics).counter(Self::FILES, partition),
            time: MetricBuilder::new(&self.metrics).subset_time(Self::TIME, partition),
        };
        let input = Arc::clone(&self.input);
        let parts = stream::once(sink.run(input, context)).map(|written| row_of(&written?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Self::rows_schema(),
            parts,
        )))
    }
}

/// One partition of the sink.
struct Sink {
    spec: Arc<SinkSpec>,
    written: SchemaRef,
    store: Arc<dyn ObjectStore>,
    /// Number of the partition in the plan that is here.
    here: usize,
    /// Its number in the whole plan.
    partition: usize,
    /// Which attempt at the partition it is; empty where there is only one.
    attempt: String,
    rows: Count,
    files: Count,
    time: Time,
}

impl Sink {
    /// Gives the files of the partition: those that an earlier attempt has finished, or new ones.
    async fn run(
        self,
        input: Arc<dyn ExecutionPlan>,
        context: Arc<TaskContext>,
    ) -> Result<Written> {
        let split = self.split(&input, &context).await?;
        if let Some(split) = &split
            && let Some(parts) = split
                .finished(&self.store, &self.folder().map_err(Error::into_engine)?)
                .await?
        {
            for part in &parts {
                self.rows
                    .add(usize::try_from(part.rows).unwrap_or(usize::MAX));
                self.files.add(1);
            }
            return Ok(self.done(parts, None, true));
        }
        point::reached(point::BEFORE_FILE);
        let parts = self.write(input.execute(self.here, context)?).await?;
        let taken = GroupsExec::rows_done(&input, Some(self.here));
        if let Some(split) = split {
            split.note(&self.store, &parts).await?;
            point::reached(point::AFTER_NOTE);
        }
        Ok(self.done(parts, taken, false))
    }

    fn done(&self, parts: Vec<Part>, taken: Option<u64>, reused: bool) -> Written {
        Written {
            partition: self.partition as u64,
            parts,
            taken,
            reused,
        }
    }

    /// The partition as other attempts know it, if there may be others.
    async fn split(
        &self,
        input: &Arc<dyn ExecutionPlan>,
        context: &TaskContext,
    ) -> Result<Option<Split>> {
        let Some(folder) = &self.spec.splits else {
            return Ok(None);
        };
        let written = format!(
            "{:?} by {:?} {} {} {:?}",
            self.written,
            self.spec.partition_by,
            self.spec.file_rows,
            self.spec.statistics,
            self.spec.filter
        );
        let folder = Path::parse(folder)?;
        Split::of((input, self.here), written, &context.runtime_env(), &folder).await
    }

    /// Writes all rows.
    async fn write(&self, mut input: SendableRecordBatchStream) -> Result<Vec<Part>> {
        let layout = Layout::new(&self.written, &self.spec.partition_by);
        let layout = layout.map_err(Error::into_engine)?;
        let mut files = OpenFiles::new(self, &layout);
        while let Some(batch) = input.next().await.transpose()? {
            let _timer = self.time.timer();
            let batch = convert(&batch, &self.written).map_err(Error::into_engine)?;
            files.write(&batch).await?;
            self.rows.add(batch.num_rows());
        }
        files.finish().await.map_err(Error::into_engine)
    }

    fn folder(&self) -> Result<Path, Error> {
        Path::parse(&self.spec.folder).map_err(|source| Error::Location {
            location: self.spec.folder.clone(),
            reason: source.to_string(),
        })
    }

    fn begin(&self, position: usize, layout: &Layout, values: Values) -> Result<PartFile, Error> {
        // Two attempts at a partition may be under way at the same time, on two machines.
        let job = match self.attempt.as_str() {
            "" => self.spec.job.clone(),
            attempt => format!("{}-{attempt}", self.spec.job),
        };
        let name = file_name(self.partition, position, &job);
        let name = format!("{}{name}", layout.folder(&values)?);
        PartFile::begin(
            (Arc::clone(&self.store), &self.folder()?),
            (name, values),
            &layout.of_files(),
            self.spec.statistics,
        )
    }

    async fn finish(&self, file: PartFile) -> Result<Part, Error> {
        let part = file.finish().await?;
        self.files.add(1);
        point::reached(point::AFTER_FILE);
        Ok(part)
    }
}
