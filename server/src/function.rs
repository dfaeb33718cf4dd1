//! A query function as the service sees it: read, called, written.

use crate::batcher::Batcher;
use crate::decode::Decoder;
use crate::encode::Encoder;
use crate::telemetry::FunctionMetrics;

/// Everything that a call of one function needs, prepared once.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) name: String,
    pub(crate) decoder: Decoder,
    pub(crate) batcher: Batcher,
    pub(crate) encoder: Encoder,
    pub(crate) metrics: FunctionMetrics,
}
