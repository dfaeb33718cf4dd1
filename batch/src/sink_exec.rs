//! `EnvelopeSink` at work: writes part files that nobody reads yet, gives one row for each.

use std::fmt;
use std::sync::{Arc, LazyLock};

use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt64Type;
use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray, UInt64Array};
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
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

use crate::Error;
use crate::coverage::Written;
use crate::delta_schema::convert;
use crate::map_exec::properties;
use crate::part_file::{Part, PartFile};
use crate::plan::{SinkSpec, only};
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
        Field::new("partition", DataType::UInt64, false),
        Field::new("attempt", DataType::Utf8, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("rows", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, false),
        Field::new("statistics", DataType::Utf8, true),
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
    pub(crate) fn read(batch: &RecordBatch) -> Vec<Written> {
        let text = |column: usize| batch.column(column).as_string::<i32>();
        let number = |column: usize| batch.column(column).as_primitive::<UInt64Type>();
        let optional = |column, row| {
            let column: &StringArray = text(column);
            column.is_valid(row).then(|| column.value(row).to_owned())
        };
        let written = |row| Written {
            partition: number(0).value(row),
            attempt: text(1).value(row).to_owned(),
            part: optional(2, row).map(|name| Part {
                name,
                rows: number(3).value(row),
                bytes: number(4).value(row),
                statistics: optional(5, row),
            }),
        };
        (0..batch.num_rows()).map(written).collect()
    }
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
            .object_store(ObjectStoreUrl::local_filesystem())?;
        let task = Task::of(&context);
        let (whole, attempt) = (task.partition(partition), task.attempt.clone());
        let sink = Sink {
            spec: Arc::clone(&self.spec),
            written: Arc::clone(&self.written),
            store,
            partition: whole,
            attempt: attempt.clone(),
            rows: MetricBuilder::new(&self.metrics).counter(Self::ROWS, partition),
            files: MetricBuilder::new(&self.metrics).counter(Self::FILES, partition),
            time: MetricBuilder::new(&self.metrics).subset_time(Self::TIME, partition),
        };
        let input = self.input.execute(partition, context)?;
        let parts = stream::once(sink.write(input))
            .map(move |parts| Ok(rows_of(whole as u64, &attempt, parts?)?));
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            Self::rows_schema(),
            parts,
        )))
    }
}

/// One row for each file; one without a file where there is none, which says that the partition was
/// done.
fn rows_of(partition: u64, attempt: &str, parts: Vec<Part>) -> Result<RecordBatch, ArrowError> {
    let parts = parts.into_iter().map(Some);
    let parts: Vec<Option<Part>> = match parts.len() {
        0 => vec![None],
        _ => parts.collect(),
    };
    let number = |of: fn(&Part) -> u64| -> UInt64Array {
        let numbers = parts.iter().map(|part| part.as_ref().map_or(0, of));
        numbers.collect()
    };
    let text = |of: fn(&Part) -> Option<&str>| -> StringArray {
        parts
            .iter()
            .map(|part| part.as_ref().and_then(of))
            .collect()
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(UInt64Array::from_value(partition, parts.len())),
        Arc::new(StringArray::from_iter_values(parts.iter().map(|_| attempt))),
        Arc::new(text(|part| Some(part.name.as_str()))),
        Arc::new(number(|part| part.rows)),
        Arc::new(number(|part| part.bytes)),
        Arc::new(text(|part| part.statistics.as_deref())),
    ];
    RecordBatch::try_new(SinkExec::rows_schema(), columns)
}

/// One partition of the sink.
struct Sink {
    spec: Arc<SinkSpec>,
    written: SchemaRef,
    store: Arc<dyn ObjectStore>,
    /// Number of the partition in the whole plan.
    partition: usize,
    /// Which attempt at the partition it is.
    attempt: String,
    rows: Count,
    files: Count,
    time: Time,
}

impl Sink {
    /// Writes all rows; begins a file only when there is a row for it.
    async fn write(self, mut input: SendableRecordBatchStream) -> Result<Vec<Part>> {
        let mut parts = vec![];
        let mut open: Option<PartFile> = None;
        while let Some(batch) = input.next().await.transpose()? {
            if batch.num_rows() == 0 {
                continue;
            }
            let _timer = self.time.timer();
            let batch = convert(&batch, &self.written).map_err(Error::into_engine)?;
            let mut file = match open.take() {
                Some(file) => file,
                None => self.begin(parts.len()).map_err(Error::into_engine)?,
            };
            file.write(&batch).await.map_err(Error::into_engine)?;
            self.rows.add(batch.num_rows());
            if file.rows() >= self.spec.file_rows {
                parts.push(self.finish(file).await.map_err(Error::into_engine)?);
            } else {
                open = Some(file);
            }
        }
        if let Some(file) = open {
            parts.push(self.finish(file).await.map_err(Error::into_engine)?);
        }
        Ok(parts)
    }

    fn begin(&self, position: usize) -> Result<PartFile, Error> {
        let Self {
            partition, attempt, ..
        } = self;
        // Two attempts at a partition may be under way at the same time, on two machines.
        let dash = if attempt.is_empty() { "" } else { "-" };
        let name = format!(
            "part-{partition:05}-{position:05}-{}{dash}{attempt}.parquet",
            self.spec.job
        );
        let folder = Path::parse(&self.spec.folder).map_err(|source| Error::Location {
            location: self.spec.folder.clone(),
            reason: source.to_string(),
        })?;
        let location = folder.parts().chain([name.as_str().into()]).collect();
        PartFile::begin(
            Arc::clone(&self.store),
            location,
            name,
            &self.written,
            self.spec.statistics,
        )
    }

    async fn finish(&self, file: PartFile) -> Result<Part, Error> {
        let part = file.finish().await?;
        self.files.add(1);
        Ok(part)
    }
}
