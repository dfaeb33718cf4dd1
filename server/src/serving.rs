//! One envelope that is served: everything that a request of it passes through.

use std::time::Duration;

use envelope_format::Digest;
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::components::Components;
use crate::error::Error;
#[cfg(feature = "otlp")]
use crate::otlp::Tracer;
use crate::reply::Replies;
use crate::stages::{Lasting, Stages};

/// A request holds the one that answers it for as long as it takes, whatever is served meanwhile.
#[derive(Debug)]
pub(crate) struct Serving {
    pub(crate) stages: Stages,
    pub(crate) replies: Replies,
    #[cfg(feature = "otlp")]
    pub(crate) tracer: Option<Tracer>,
    components: Components,
    /// Cancelled when the last request lets go.
    done: CancellationToken,
    #[expect(dead_code, reason = "held for its drop")]
    guard: DropGuard,
}

/// The end of a [`Serving`]: waits for the requests that it answers, then ends its workers.
#[derive(Debug)]
#[must_use = "its workers go on until they are told to end"]
pub(crate) struct Ending {
    components: Components,
    done: CancellationToken,
}

impl Serving {
    /// Must be called within a Tokio runtime: the queues of the functions are tasks.
    pub(crate) fn new(lasting: &Lasting, components: Components) -> Self {
        let done = CancellationToken::new();
        Self {
            stages: Stages::new(lasting, &components),
            replies: Replies::new(components.digest),
            #[cfg(feature = "otlp")]
            tracer: lasting
                .spans
                .clone()
                .map(|spans| Tracer::new(spans, &components)),
            components,
            guard: done.clone().drop_guard(),
            done,
        }
    }

    pub(crate) fn digest(&self) -> Digest {
        self.components.digest
    }

    /// Asks every function for its own sample: what answers here answers in production.
    pub(crate) async fn prove(&self) -> Result<(), Error> {
        let deadline = self.stages.settings.call_deadline;
        let functions = self.stages.routes.functions.iter();
        for (function, sample) in functions.zip(&self.components.samples) {
            let Some(rows) = sample else { continue };
            let answered = function.batcher.try_out(rows.clone(), deadline).await;
            answered.map_err(|source| Error::SelfTest {
                function: function.name.clone(),
                source: Box::new(source),
            })?;
        }
        Ok(())
    }

    /// Metrics tell of this one from now on.
    pub(crate) fn announce(&self, lasting: &Lasting) {
        lasting
            .telemetry
            .serves(self.stages.served(&self.components));
    }

    pub(crate) fn ending(&self) -> Ending {
        Ending {
            components: self.components.clone(),
            done: self.done.clone(),
        }
    }
}

impl Ending {
    /// To be called by who has let go of the [`Serving`]. Requests have `grace` to end, and the
    /// workers as much again for calls whose callers have gone.
    pub(crate) async fn complete(self, grace: Duration) {
        if timeout(grace, self.done.cancelled()).await.is_err() {
            tracing::warn!(digest = %self.components.digest, "calls of an envelope that is not served any more are dropped");
        }
        self.shutdown(grace).await;
    }

    /// Ends the workers.
    pub(crate) async fn shutdown(self, grace: Duration) {
        self.components.calls.shutdown(grace).await;
    }
}
