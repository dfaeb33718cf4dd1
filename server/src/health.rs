//! `GET /healthz`: that the service is alive, and with what.

use std::sync::Arc;

use envelope_format::Digest;
use runtime::SandboxLevel;
use serde_json::json;

use crate::calls::Calls;

/// What is told of the envelope that is served.
#[derive(Debug)]
pub(crate) struct Health {
    pub(crate) digest: Digest,
    /// What was asked for.
    pub(crate) sandbox: SandboxLevel,
    pub(crate) calls: Arc<dyn Calls>,
}

impl Health {
    pub(crate) fn document(&self) -> String {
        let usage = self.calls.usage();
        // Where nobody confines anything there is nothing to compare.
        let sandbox = self.calls.confinement().map(|achieved| {
            json!({
                "asked": self.sandbox.name(),
                "achieved": achieved.level.name(),
                "layers": achieved.layers,
            })
        });
        json!({
            "live": true,
            "digest": self.digest,
            "workers": {
                "live": usage.workers,
                "busy": usage.busy,
                "most": self.calls.most_workers(),
                "replaced": usage.replaced,
                "recycled": usage.recycled,
            },
            "sandbox": sandbox,
        })
        .to_string()
    }
}
