//! `EnvelopeNumber`: says of each row where it is in the table.

use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::physical_plan::FileScanConfig;
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt as _;

use crate::map_exec::properties;
use crate::plan::only;
use crate::scan::beginning;

/// Adds two columns by which rows can be sorted as they are in the table.
///
/// A table is cut into ranges that follow each other, and each partition reads its ranges in their order. So the place where
/// a partition begins, then the number of the row within it, orders rows in one way, into however many partitions the
/// table is cut. A partition does not ask the engine which one it is: on an executor it is the only one there is, and
/// what Ballista calls it is its place in what comes of it, not in the table.
#[derive(Debug)]
pub(crate) struct NumberExec {
    /// How the columns are called.
    pub(crate) columns: [String; 2],
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl NumberExec {
    pub(crate) fn new(columns: [String; 2], input: Arc<dyn ExecutionPlan>) -> Self {
        let fields = input.schema().fields().iter().cloned().collect::<Vec<_>>();
        let numbers = columns
            .iter()
            .map(|column| Arc::new(Field::new(column, DataType::UInt64, false)));
        let schema = Schema::new(fields.into_iter().chain(numbers).collect::<Vec<_>>());
        let properties = properties(Arc::new(schema), &input);
        Self {
            columns,
            input,
            properties,
        }
    }
}

/// Where in the table the rows of a partition begin.
fn beginning_of(input: &Arc<dyn ExecutionPlan>, partition: usize) -> Result<u64> {
    let mut node = input;
    loop {
        if let Some(scan) = node.downcast_ref::<DataSourceExec>() {
            let scan = scan.data_source().downcast_ref::<FileScanConfig>();
            let part = scan.and_then(|scan| scan.file_groups.get(partition));
            return part.and_then(beginning).ok_or_else(|| {
                DataFusionError::Internal("a part of the table does not know its place".into())
            });
        }
        match node.children()[..] {
            [child] => node = child,
            // No table, and no rows.
            _ => return Ok(0),
        }
    }
}

impl DisplayAs for NumberExec {
    fn fmt_as(
        &self,
        _format: DisplayFormatType,
        formatter: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        write!(
            formatter,
            "EnvelopeNumber: columns=[{}]",
            self.columns.join(", ")
        )
    }
}

impl ExecutionPlan for NumberExec {
    fn name(&self) -> &'static str {
        "EnvelopeNumber"
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
        Ok(Arc::new(Self::new(self.columns.clone(), only(children)?)))
    }

    /// Dealing batches round would lose what the numbers are about.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn execute(
        &self,
        partition: usize,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let part = beginning_of(&self.input, partition)?;
        let schema = self.schema();
        let input = self.input.execute(partition, context)?;
        let mut next = 0;
        let numbered = input.map(move |batch| numbered(&batch?, &schema, part, &mut next));
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            numbered,
        )))
    }
}

fn numbered(
    batch: &RecordBatch,
    schema: &SchemaRef,
    part: u64,
    next: &mut u64,
) -> Result<RecordBatch> {
    let first = *next;
    *next += batch.num_rows() as u64;
    let parts: ArrayRef = Arc::new(UInt64Array::from_value(part, batch.num_rows()));
    let rows: ArrayRef = Arc::new(UInt64Array::from_iter_values(first..*next));
    let columns = batch.columns().iter().cloned().chain([parts, rows]);
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
}
