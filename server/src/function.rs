//! A query function as the service sees it: read, called, written.

use std::time::Duration;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use envelope_format::Signature;
use tokio::time::Instant;

use crate::Coercion;
use crate::batcher::{Batcher, Called};
use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::error::Refusal;
use crate::telemetry::{FunctionMetrics, Timer};

/// Everything that a call of one function needs, prepared once.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) signature: Signature,
    /// Columns of what it gives.
    pub(crate) gives: SchemaRef,
    pub(crate) decoder: Decoder,
    /// What is changed of calls in `MLflow`'s protocol.
    pub(crate) coercion: Option<Coercion>,
    pub(crate) batcher: Batcher,
    pub(crate) encoder: Encoder,
    /// Writes a row of a series as an object, too, as `MLflow` does.
    pub(crate) records: Encoder,
    pub(crate) metrics: FunctionMetrics,
}

impl Function {
    /// The output for `rows`, within `patience`. None need no worker.
    pub(crate) async fn call(
        &self,
        rows: RecordBatch,
        patience: Duration,
        timer: &mut Timer,
    ) -> Result<RecordBatch, Refusal> {
        timer.has_rows(rows.num_rows());
        if rows.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(self.gives.clone()));
        }
        let deadline = Instant::now() + patience;
        let Called { output, course } = self.batcher.call(rows, deadline).await;
        timer.went(course);
        output
    }
}
