//! `EnvelopeNumber`: says of each row where it is in the table.

use std::fmt;
use std::sync::Arc;

use arrow_array::{ArrayRef, RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt as _;

use crate::map_exec::properties;
use crate::plan::only;
use crate::task::Task;

/// Adds a column by which rows can be sorted as they are in the table.
///
/// A table is cut into ranges that follow each other, and each partition reads its ranges in their order. So the number of
/// the partition, then that of the row within it, orders rows in one way, into however many partitions the table is cut.
#[derive(Debug)]
pub(crate) struct NumberExec {
    /// How the column is called.
    pub(crate) column: String,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

/// Bits for the number within a partition: a million million rows, of 16 million partitions.
const ROW_BITS: u32 = 40;

impl NumberExec {
    pub(crate) fn new(column: String, input: Arc<dyn ExecutionPlan>) -> Self {
        let fields = input.schema().fields().iter().cloned().collect::<Vec<_>>();
        let number = Arc::new(Field::new(&column, DataType::UInt64, false));
        let schema = Schema::new(fields.into_iter().chain([number]).collect::<Vec<_>>());
        let properties = properties(Arc::new(schema), &input);
        Self {
            column,
            input,
            properties,
        }
    }
}

impl DisplayAs for NumberExec {
    fn fmt_as(
        &self,
        _format: DisplayFormatType,
        formatter: &mut fmt::Formatter<'_>,
    ) -> fmt::Result {
        write!(formatter, "EnvelopeNumber: column={}", self.column)
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
        Ok(Arc::new(Self::new(self.column.clone(), only(children)?)))
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
        let partition_of_all = Task::of(&context).partition(partition) as u64;
        let schema = self.schema();
        let input = self.input.execute(partition, context)?;
        let mut next = partition_of_all << ROW_BITS;
        let numbered = input.map(move |batch| numbered(&batch?, &schema, &mut next));
        Ok(Box::pin(RecordBatchStreamAdapter::new(
            self.schema(),
            numbered,
        )))
    }
}

fn numbered(batch: &RecordBatch, schema: &SchemaRef, next: &mut u64) -> Result<RecordBatch> {
    let first = *next;
    *next += batch.num_rows() as u64;
    let numbers: ArrayRef = Arc::new(UInt64Array::from_iter_values(first..*next));
    let columns = batch.columns().iter().cloned().chain([numbers]).collect();
    Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
}
