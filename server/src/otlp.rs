//! Spans of calls, for a collector of OpenTelemetry.
//!
//! A call leaves its span in a queue and goes on: what it costs does not depend on the collector. What
//! finds the queue full is dropped and counted, and so is what the collector does not take.

mod collector;
mod export;
mod options;
mod post;
mod sampling;
mod span;

use std::sync::Arc;
use std::time::Duration;

use hyper::HeaderMap;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::components::Components;
use crate::protocol::Protocol;
use crate::trace::{Trace, random};
use export::Exporter;
use post::Post;

pub use collector::Collector;
pub(crate) use export::SpanCounts;
pub use options::OtlpOptions;
pub use sampling::Sampling;
pub(crate) use span::{Outcome, Span};

/// How long a service that ends waits for a collector to take the last spans.
const LAST: Duration = Duration::from_secs(2);

/// Where the spans of a service go.
#[derive(Debug)]
pub(crate) struct Spans {
    queue: mpsc::Sender<Span>,
    counts: SpanCounts,
    sampling: Sampling,
    exporter: TaskTracker,
    closing: CancellationToken,
}

/// What the spans of one envelope have in common.
#[derive(Debug)]
struct Served {
    name: String,
    digest: String,
}

/// Begins the spans of one envelope's calls.
#[derive(Debug, Clone)]
pub(crate) struct Tracer {
    spans: Arc<Spans>,
    served: Arc<Served>,
}

impl Spans {
    /// `None` when there is nobody to send them to. Must be called within a Tokio runtime.
    pub(crate) fn start(collector: Option<&Collector>, counts: SpanCounts) -> Option<Self> {
        let collector = collector?;
        let post = match Post::new(collector) {
            Ok(post) => post,
            Err(error) => {
                tracing::error!(%error, "no spans are sent: there are no certificates to know the collector by");
                return None;
            }
        };
        let (queue, waiting) = mpsc::channel(collector.max_waiting.max(1));
        let exporter = TaskTracker::new();
        let closing = CancellationToken::new();
        let work = Exporter::new(collector, post, counts.clone(), closing.clone());
        exporter.spawn(work.run(waiting));
        exporter.close();
        Some(Self {
            queue,
            counts,
            sampling: collector.sampling,
            exporter,
            closing,
        })
    }

    /// Sends what there is. Calls must have ended.
    pub(crate) async fn shutdown(&self) {
        self.closing.cancel();
        if timeout(LAST, self.exporter.wait()).await.is_err() {
            tracing::warn!("the collector has not taken the last spans in time");
        }
    }

    fn add(&self, span: Span) {
        let count = span.count();
        if self.queue.try_send(span).is_err() {
            self.counts.dropped.inc_by(count);
        }
    }
}

impl Tracer {
    pub(crate) fn new(spans: Arc<Spans>, components: &Components) -> Self {
        let served = Served {
            name: components.manifest.name.clone(),
            digest: components.digest.to_string(),
        };
        Self {
            spans,
            served: Arc::new(served),
        }
    }

    /// The span of a request, unless nobody wants to see it.
    pub(crate) fn begin(
        &self,
        trace: Trace,
        protocol: Protocol,
        request_id: &str,
        headers: &HeaderMap,
    ) -> Option<Span> {
        self.spans.sampling.takes(&trace).then(|| Span {
            tracer: self.clone(),
            trace,
            id: random(),
            state: state(&trace, headers),
            protocol,
            request_id: request_id.to_owned(),
            outcome: None,
        })
    }
}

/// So much of it is passed on at least, says the specification; and more need not be.
const STATE_BYTES: usize = 512;

/// What other systems have noted of the trace. It belongs to a parent.
fn state(trace: &Trace, headers: &HeaderMap) -> String {
    let Some(_) = trace.parent else {
        return String::new();
    };
    let notes = headers.get_all("tracestate").iter();
    let notes: Vec<_> = notes.filter_map(|note| note.to_str().ok()).collect();
    let notes = notes.join(",");
    if notes.len() > STATE_BYTES {
        return String::new();
    }
    notes
}
