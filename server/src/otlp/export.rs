//! Takes spans from the queue and posts them, many at once.

use std::error::Error as _;
use std::iter::successors;
use std::time::Duration;

use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Collector;
use super::post::{Failure, Post};
use super::span::{Clock, Span, message};

/// How long to wait before a message is sent again, and again. Meanwhile the queue fills.
const WAITS: [Duration; 3] = [
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
];

/// What has become of spans.
#[derive(Debug, Clone, Default)]
pub(crate) struct SpanCounts {
    /// The collector has them.
    pub(crate) exported: Counter,
    /// The queue was full.
    pub(crate) dropped: Counter,
    /// The collector did not take them.
    pub(crate) failed: Counter,
}

/// Takes what is in the queue to the collector.
pub(super) struct Exporter {
    collector: Collector,
    post: Post,
    counts: SpanCounts,
    closing: CancellationToken,
    /// The last message was not taken: that is said once.
    is_failing: bool,
}

impl Exporter {
    pub(super) fn new(
        collector: &Collector,
        post: Post,
        counts: SpanCounts,
        closing: CancellationToken,
    ) -> Self {
        Self {
            collector: collector.clone(),
            post,
            counts,
            closing,
            is_failing: false,
        }
    }

    /// Ends when it is told to and the queue is empty.
    pub(super) async fn run(mut self, mut queue: mpsc::Receiver<Span>) {
        let mut batch = vec![];
        loop {
            self.gather(&mut queue, &mut batch).await;
            if batch.is_empty() {
                return;
            }
            self.deliver(&batch).await;
            batch.clear();
        }
    }

    /// Waits for a span and for some time more; nothing is the end.
    async fn gather(&self, queue: &mut mpsc::Receiver<Span>, batch: &mut Vec<Span>) {
        let most = self.collector.max_batch.max(1);
        tokio::select! {
            _ = queue.recv_many(batch, most) => {}
            () = self.closing.cancelled() => {}
        }
        let deadline = Instant::now() + self.collector.interval;
        while batch.len() < most && !self.closing.is_cancelled() {
            let more = queue.recv_many(batch, most - batch.len());
            let came = tokio::select! {
                came = timeout_at(deadline, more) => came.unwrap_or(0),
                () = self.closing.cancelled() => 0,
            };
            if came == 0 {
                break;
            }
        }
        while batch.len() < most
            && let Ok(span) = queue.try_recv()
        {
            batch.push(span);
        }
    }

    async fn deliver(&mut self, batch: &[Span]) {
        let message = message(batch, &self.collector, &Clock::now());
        let count: u64 = batch.iter().map(Span::count).sum();
        match self.send(message.encode_to_vec().into()).await {
            Ok(rejected) => {
                let failed = rejected.min(count);
                self.counts.exported.inc_by(count - failed);
                self.counts.failed.inc_by(failed);
                self.is_failing = false;
            }
            Err(error) => {
                self.counts.failed.inc_by(count);
                self.complain(&error);
            }
        }
    }

    async fn send(&self, message: Bytes) -> Result<u64, Failure> {
        for wait in WAITS {
            match self.post.send(message.clone()).await {
                Err(error) if error.is_transient() && !self.closing.is_cancelled() => {}
                done => return done,
            }
            tokio::select! {
                () = sleep(wait) => {}
                () = self.closing.cancelled() => {}
            }
        }
        self.post.send(message).await
    }

    fn complain(&mut self, error: &Failure) {
        if !std::mem::replace(&mut self.is_failing, true) {
            let causes = successors(error.source(), |cause| (**cause).source());
            let causes: Vec<_> = causes.map(ToString::to_string).collect();
            let cause = causes.join(": ");
            tracing::warn!(collector = %self.collector.address, %error, cause, "the collector does not take spans; calls go on without");
        }
    }
}
