//! What the service says about itself: metrics that Prometheus reads.
//!
//! Label values come from the manifest and from fixed lists, never from a caller. Counters go on when
//! another envelope is served.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use hyper::StatusCode;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

use crate::admit::Admission;
use crate::backlog::Backlog;
use crate::batcher::Course;
use crate::calls::Calls;
use crate::exposition::{Format, prometheus};
use crate::function::Function;
use crate::protocol::Protocol;
use crate::sampler::SamplerCounts;

/// All metrics of the service.
#[derive(Debug)]
pub(crate) struct Telemetry {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    seconds: Family<FunctionLabel, Histogram, Seconds>,
    queue_seconds: Family<FunctionLabel, Histogram, Seconds>,
    worker_seconds: Family<FunctionLabel, Histogram, Seconds>,
    rows: Family<FunctionLabel, Counter>,
    batch_rows: Family<FunctionLabel, Histogram, Rows>,
    sampled: Family<SampledLabels, Counter>,
    gathering: Family<FunctionLabel, Gauge>,
    swaps: Family<SwapLabel, Counter>,
    #[cfg(feature = "otlp")]
    spans: Family<SpanLabel, Counter>,
    served: Arc<RwLock<Option<Served>>>,
}

/// The envelope that is served now.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) name: String,
    pub(crate) digest: String,
    pub(crate) calls: Arc<dyn Calls>,
    pub(crate) backlog: Arc<Backlog>,
}

/// What became of an envelope that was to be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Swapped {
    /// It answered its samples and is served.
    New,
    /// It was served before and its workers were still there.
    Back,
    /// It did not start, or did not answer its samples.
    Refused,
}

/// The metrics of one function, found once.
#[derive(Debug)]
pub(crate) struct FunctionMetrics {
    /// By the number of the protocol.
    outcomes: [Outcomes; Protocol::ALL.len()],
    seconds: Histogram,
    queue_seconds: Histogram,
    worker_seconds: Histogram,
    rows: Counter,
    /// Rows of what was sent to a worker, after gathering.
    pub(crate) batch_rows: Histogram,
}

/// What became of the calls of a function in one protocol.
#[derive(Debug)]
struct Outcomes {
    good: Counter,
    refused: Counter,
    failed: Counter,
    gone: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FunctionLabel {
    function: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    function: String,
    protocol: &'static str,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SampledLabels {
    function: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SwapLabel {
    outcome: &'static str,
}

#[cfg(feature = "otlp")]
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SpanLabel {
    outcome: &'static str,
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
    pub(crate) fn new(admission: Arc<Admission>) -> Self {
        let served = Arc::default();
        let load = Load {
            served: Arc::clone(&served),
            admission,
        };
        let mut telemetry = Self {
            registry: Registry::with_prefix("envelope"),
            requests: Family::default(),
            seconds: Family::new_with_constructor(Seconds),
            queue_seconds: Family::new_with_constructor(Seconds),
            worker_seconds: Family::new_with_constructor(Seconds),
            rows: Family::default(),
            batch_rows: Family::new_with_constructor(Rows),
            sampled: Family::default(),
            gathering: Family::default(),
            swaps: Family::default(),
            #[cfg(feature = "otlp")]
            spans: Family::default(),
            served,
        };
        telemetry.register();
        telemetry.registry.register_collector(Box::new(load));
        for swapped in [Swapped::New, Swapped::Back, Swapped::Refused] {
            drop(telemetry.swaps.get_or_create(&swapped.label()));
        }
        telemetry
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "requests",
            "Calls that were answered, by protocol and class of status",
            self.requests.clone(),
        );
        registry.register(
            "request_seconds",
            "Time from the headers of a call to its answer",
            self.seconds.clone(),
        );
        registry.register(
            "queue_seconds",
            "Time that a call has waited for a worker",
            self.queue_seconds.clone(),
        );
        registry.register(
            "worker_seconds",
            "Time until a worker had answered a call, with those gathered with it",
            self.worker_seconds.clone(),
        );
        registry.register(
            "rows",
            "Rows of calls that were answered well",
            self.rows.clone(),
        );
        registry.register(
            "batch_rows",
            "Rows sent to a worker at once, gathered from calls",
            self.batch_rows.clone(),
        );
        registry.register(
            "sampled",
            "Gathered calls that were asked again alone, by what came of it",
            self.sampled.clone(),
        );
        registry.register(
            "gathering",
            "1 while calls are gathered, 0 once one was answered differently than alone",
            self.gathering.clone(),
        );
        registry.register(
            "swaps",
            "Envelopes that were to be served instead of the one before",
            self.swaps.clone(),
        );
        #[cfg(feature = "otlp")]
        registry.register(
            "spans",
            "Spans of calls, by what has become of them",
            self.spans.clone(),
        );
    }

    /// From now on this is served.
    pub(crate) fn serves(&self, served: Served) {
        let mut now = self.served.write().unwrap_or_else(PoisonError::into_inner);
        *now = Some(served);
    }

    pub(crate) fn swapped(&self, swapped: Swapped) {
        self.swaps.get_or_create(&swapped.label()).inc();
    }

    /// What is counted of spans.
    #[cfg(feature = "otlp")]
    pub(crate) fn spans(&self) -> crate::otlp::SpanCounts {
        let count = |outcome| self.spans.get_or_create_owned(&SpanLabel { outcome });
        crate::otlp::SpanCounts {
            exported: count("exported"),
            dropped: count("dropped"),
            failed: count("failed"),
        }
    }

    /// What is counted of the sampler of a function.
    pub(crate) fn sampler(&self, name: &str) -> SamplerCounts {
        let count = |outcome| {
            self.sampled.get_or_create_owned(&SampledLabels {
                function: name.to_owned(),
                outcome,
            })
        };
        SamplerCounts {
            equal: count("equal"),
            different: count("different"),
            failed: count("failed"),
            is_gathering: self.gathering.get_or_create_owned(&FunctionLabel {
                function: name.to_owned(),
            }),
        }
    }

    /// The metrics of a function; they exist from now on, with the value 0.
    pub(crate) fn function(&self, name: &str) -> FunctionMetrics {
        let label = FunctionLabel {
            function: name.to_owned(),
        };
        FunctionMetrics {
            outcomes: Protocol::ALL.map(|protocol| self.outcomes(name, protocol)),
            seconds: self.seconds.get_or_create_owned(&label),
            queue_seconds: self.queue_seconds.get_or_create_owned(&label),
            worker_seconds: self.worker_seconds.get_or_create_owned(&label),
            rows: self.rows.get_or_create_owned(&label),
            batch_rows: self.batch_rows.get_or_create_owned(&label),
        }
    }

    fn outcomes(&self, name: &str, protocol: Protocol) -> Outcomes {
        let requests = |code| {
            self.requests.get_or_create_owned(&RequestLabels {
                function: name.to_owned(),
                protocol: protocol.name(),
                code,
            })
        };
        Outcomes {
            good: requests("2xx"),
            refused: requests("4xx"),
            failed: requests("5xx"),
            gone: requests("gone"),
        }
    }

    pub(crate) fn text(&self, format: Format) -> String {
        let mut out = String::new();
        // Writing into memory does not fail.
        let _ = text::encode(&mut out, &self.registry);
        match format {
            Format::OpenMetrics => out,
            Format::Prometheus => prometheus(&out),
        }
    }
}

impl Swapped {
    fn label(self) -> SwapLabel {
        SwapLabel {
            outcome: match self {
                Self::New => "new",
                Self::Back => "back",
                Self::Refused => "refused",
            },
        }
    }
}

/// Times one call and counts it exactly once, however it ends.
#[derive(Debug)]
pub(crate) struct Timer {
    begun: Instant,
    protocol: Protocol,
    function: Option<Arc<Function>>,
    rows: usize,
    course: Option<Course>,
    #[cfg(feature = "otlp")]
    span: Option<crate::otlp::Span>,
    /// `None` until the answer is known: the caller has gone if that is all there is.
    status: Option<StatusCode>,
}

impl Timer {
    pub(crate) fn start(protocol: Protocol) -> Self {
        Self {
            begun: Instant::now(),
            protocol,
            function: None,
            rows: 0,
            course: None,
            #[cfg(feature = "otlp")]
            span: None,
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

    pub(crate) fn went(&mut self, course: Option<Course>) {
        self.course = course;
    }

    /// If the request is a call, the span ends with it.
    #[cfg(feature = "otlp")]
    pub(crate) fn has_span(&mut self, span: Option<crate::otlp::Span>) {
        self.span = span;
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
        let Some(function) = self.function.take() else {
            return;
        };
        let metrics = &function.metrics;
        metrics.seconds.observe(self.begun.elapsed().as_secs_f64());
        let outcomes = &metrics.outcomes[self.protocol as usize];
        if let Some(course) = &self.course {
            let (queue, worker) = (course.begun - course.queued, course.ended - course.begun);
            metrics.queue_seconds.observe(queue.as_secs_f64());
            metrics.worker_seconds.observe(worker.as_secs_f64());
        }
        #[cfg(feature = "otlp")]
        if let Some(span) = self.span.take() {
            span.end(crate::otlp::Outcome {
                begun: self.begun,
                function: function.name.clone(),
                rows: self.rows,
                course: self.course,
                status: self.status,
            });
        }
        let class = match self.status.map(|status| status.as_u16()) {
            Some(500..) => &outcomes.failed,
            Some(400..) => &outcomes.refused,
            Some(_) => {
                metrics.rows.inc_by(self.rows as u64);
                &outcomes.good
            }
            None => &outcomes.gone,
        };
        class.inc();
    }
}

/// How busy the service is, asked when the metrics are.
#[derive(Debug)]
struct Load {
    served: Arc<RwLock<Option<Served>>>,
    admission: Arc<Admission>,
}

impl Collector for Load {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let admission = &self.admission;
        let in_flight = [
            (
                "inflight",
                "Calls that are read, wait or run",
                admission.in_flight() as u64,
            ),
            (
                "inflight_bytes",
                "Bytes of the bodies of calls in flight",
                admission.bytes.held(),
            ),
        ];
        for (name, help, count) in in_flight {
            gauge(&mut encoder, name, help, count)?;
        }
        let served = self.served.read().unwrap_or_else(PoisonError::into_inner);
        served
            .as_ref()
            .map_or(Ok(()), |served| served.encode(&mut encoder))
    }
}

impl Served {
    fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let info = [("name", self.name.as_str()), ("id", self.digest.as_str())];
        ConstGauge::new(1_i64).encode(
            encoder
                .encode_descriptor(
                    "model_info",
                    "The envelope that is served",
                    None,
                    MetricType::Gauge,
                )?
                .encode_family(&info)?,
        )?;
        let usage = self.calls.usage();
        let mut workers =
            encoder.encode_descriptor("workers", "Worker processes", None, MetricType::Gauge)?;
        for (state, count) in [("live", usage.workers), ("busy", usage.busy)] {
            number(count as u64).encode(workers.encode_family(&[("state", state)])?)?;
        }
        let waiting = "Calls that the runtime holds until a worker is free";
        gauge(encoder, "waiting", waiting, usage.waiting as u64)?;
        let rows = "Rows of calls that wait for a worker or have one";
        gauge(encoder, "inflight_rows", rows, self.backlog.rows() as u64)?;
        let wait = ConstGauge::new(self.backlog.wait().as_secs_f64());
        wait.encode(encoder.encode_descriptor(
            "wait_seconds",
            "Expected time until a worker is free for a call that comes now",
            None,
            MetricType::Gauge,
        )?)?;
        // Of the workers of this envelope: it begins again with another.
        let counters = [
            (
                "worker_restarts",
                "Workers replaced after a crash or a missed deadline",
                usage.replaced,
            ),
            (
                "worker_recycles",
                "Workers replaced after enough calls or growth",
                usage.recycled,
            ),
        ];
        for (name, help, count) in counters {
            let descriptor = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(count).encode(descriptor)?;
        }
        Ok(())
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    count: u64,
) -> Result<(), std::fmt::Error> {
    number(count).encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)
}

fn number(count: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(count).unwrap_or(i64::MAX))
}
