//! What clients of other protocols ask of a server before they call: which models there are.

use bytes::Bytes;
use envelope_format::Manifest;
use serde_json::{Value, json};

use crate::protocol::tensors;

/// The functions of the envelope, each of which is a model to others.
#[derive(Debug)]
pub(crate) struct Models {
    pub(crate) name: String,
    pub(crate) functions: Vec<String>,
    calls_at_once: usize,
    max_body_bytes: u64,
}

impl Models {
    pub(crate) fn new(manifest: &Manifest, calls_at_once: usize, max_body_bytes: u64) -> Self {
        let functions = manifest.functions.iter();
        Self {
            name: manifest.name.clone(),
            functions: functions.map(|function| function.name.clone()).collect(),
            calls_at_once,
            max_body_bytes,
        }
    }

    /// `GET /v1/models` and `GET /v2/models`.
    pub(crate) fn list(&self) -> Bytes {
        json!({"models": self.functions}).to_string().into()
    }

    /// `POST /v2/repository/index`, which is Triton's.
    pub(crate) fn index(&self, is_ready: bool) -> Bytes {
        let state = if is_ready { "READY" } else { "UNAVAILABLE" };
        let indexed = |name: &String| json!({"name": name, "version": tensors::model::VERSION, "state": state, "reason": ""});
        let index: Value = self.functions.iter().map(indexed).collect();
        index.to_string().into()
    }

    /// `GET /v2`.
    pub(crate) fn server(&self) -> Bytes {
        let server = json!({
            "name": self.name,
            "version": env!("CARGO_PKG_VERSION"),
            "extensions": tensors::model::EXTENSIONS,
        });
        server.to_string().into()
    }

    /// `GET /execution-parameters`, for `SageMaker`'s batch transform.
    pub(crate) fn execution_parameters(&self) -> Bytes {
        let parameters = json!({
            "MaxConcurrentTransforms": self.calls_at_once,
            "BatchStrategy": "MULTI_RECORD",
            "MaxPayloadInMB": (self.max_body_bytes >> 20).clamp(1, 100),
        });
        parameters.to_string().into()
    }
}
