//! A query function as the service sees it: read, called, written.

use arrow_schema::SchemaRef;
use envelope_format::Signature;

use crate::Coercion;
use crate::batcher::Batcher;
use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::telemetry::FunctionMetrics;

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
