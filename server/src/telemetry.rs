//! What the service says about itself: metrics in the `OpenMetrics` format.
//!
//! Label values come from the manifest and from fixed lists, never from a caller.

use std::sync::Arc;
use std::time::Instant;

use hyper::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::admit::Admission;
use crate::calls::Calls;
use crate::function::Function;

/// Type of the text that [`Telemetry::text`] gives.
pub(crate) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All metrics of the service.
#[derive(Debug)]
pub(crate) struct Telemetry {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<FunctionLabel, Histogram, Seconds>,
    rows: Family<FunctionLabel, Counter>,
    batch_rows: Family<FunctionLabel, Histogram, Rows>,
}

/// The metrics of one function, found once.
#[derive(Debug)]
pub(crate) struct FunctionMetrics {
    good: Counter,
    refused: Counter,
    failed: Counter,
    gone: Counter,
    seconds: Histogram,
    rows: Counter,
    /// Rows of what was sent to a worker, after gathering.
    pub(crate) batch_rows: Histogram,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabel {
    function: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    function: String,
    code: &'static str,
}

#[derive(Debug, Clone)]
struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    /// 0.5 ms to 16 s.
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(0.0005, 2.0, 16))
    }
}

#[derive(Debug, Clone)]
struct Rows;

impl MetricConstructor<Histogram> for Rows {
    fn new_metric(&self) -> Histogram {
        Histogram::new(exponential_buckets(1.0, 4.0, 10))
    }
}

impl Telemetry {
    pub(crate) fn new(
        name: &str,
        digest: &str,
        calls: Arc<dyn Calls>,
        admission: Arc<Admission>,
    ) -> Self {
        let mut registry = Registry::with_prefix("envelope");
        let requests = Family::default();
        let seconds = Family::new_with_constructor(Seconds);
        let rows = Family::default();
        let batch_rows = Family::new_with_constructor(Rows);
        let model = Info::new(vec![
            ("name", name.to_owned()),
            ("digest", digest.to_owned()),
        ]);
        registry.register("model", "The envelope that is served", model);
        registry.register(
            "requests",
            "Calls that were answered, by class of status",
            requests.clone(),
        );
        registry.register(
            "request_seconds",
            "Time from the headers of a call to its answer",
            seconds.clone(),
        );
        registry.register(
            "rows",
            "Rows of calls that were answered well",
            rows.clone(),
        );
        registry.register(
            "batch_rows",
            "Rows sent to a worker at once, gathered from calls",
            batch_rows.clone(),
        );
        registry.register_collector(Box::new(Load { calls, admission }));
        Self {
            registry,
            requests,
            seconds,
            rows,
            batch_rows,
        }
    }

    /// The metrics of a function; they exist from now on, with the value 0.
    pub(crate) fn function(&self, name: &str) -> FunctionMetrics {
        let label = FunctionLabel {
            function: name.to_owned(),
        };
        let requests = |code| {
            self.requests.get_or_create_owned(&RequestLabels {
                function: name.to_owned(),
                code,
            })
        };
        FunctionMetrics {
            good: requests("2xx"),
            refused: requests("4xx"),
            failed: requests("5xx"),
            gone: requests("gone"),
            seconds: self.seconds.get_or_create_owned(&label),
            rows: self.rows.get_or_create_owned(&label),
            batch_rows: self.batch_rows.get_or_create_owned(&label),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        // Writing into memory does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }
}

/// Times one call and counts it exactly once, however it ends.
#[derive(Debug)]
pub(crate) struct Timer {
    begun: Instant,
    function: Option<Arc<Function>>,
    rows: usize,
    /// `None` until the answer is known: the caller has gone if that is all there is.
    status: Option<StatusCode>,
}

impl Timer {
    pub(crate) fn start() -> Self {
        Self {
            begun: Instant::now(),
            function: None,
            rows: 0,
            status: None,
        }
    }

    /// The request is a call of `function`.
    pub(crate) fn is_for(&mut self, function: &Arc<Function>) {
        self.function = Some(function.clone());
    }

    pub(crate) fn has_rows(&mut self, rows: usize) {
        self.rows = rows;
    }

    pub(crate) fn function(&self) -> Option<&str> {
        self.function
            .as_ref()
            .map(|function| function.name.as_str())
    }

    pub(crate) fn finish(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(metrics) = self.function.as_ref().map(|function| &function.metrics) else {
            return;
        };
        metrics.seconds.observe(self.begun.elapsed().as_secs_f64());
        let class = match self.status.map(|status| status.as_u16()) {
            Some(500..) => &metrics.failed,
            Some(400..) => &metrics.refused,
            Some(_) => {
                metrics.rows.inc_by(self.rows as u64);
                &metrics.good
            }
            None => &metrics.gone,
        };
        class.inc();
    }
}

/// How busy the service is, asked when the metrics are.
#[derive(Debug)]
struct Load {
    calls: Arc<dyn Calls>,
    admission: Arc<Admission>,
}

impl Collector for Load {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let usage = self.calls.usage();
        let number = |count: usize| ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX));
        let in_flight = number(self.admission.in_flight());
        in_flight.encode(encoder.encode_descriptor(
            "inflight",
            "Calls that are read, wait or run",
            None,
            MetricType::Gauge,
        )?)?;
        let mut workers =
            encoder.encode_descriptor("workers", "Worker processes", None, MetricType::Gauge)?;
        for (state, count) in [("live", usage.workers), ("busy", usage.busy)] {
            number(count).encode(workers.encode_family(&[("state", state)])?)?;
        }
        let waiting = number(usage.waiting);
        waiting.encode(encoder.encode_descriptor(
            "waiting",
            "Calls that the runtime holds until a worker is free",
            None,
            MetricType::Gauge,
        )?)?;
        let replaced = ConstCounter::new(usage.replaced);
        replaced.encode(encoder.encode_descriptor(
            "worker_restarts",
            "Workers replaced after a crash or a missed deadline",
            None,
            MetricType::Counter,
        )?)
    }
}
