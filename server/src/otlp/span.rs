//! A call as OpenTelemetry tells of it: a span, and within it one for its wait and one for the worker.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode as Code;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as Message, Status};

use super::{Collector, Served, Tracer};
use crate::batcher::Course;
use crate::protocol::Protocol;
use crate::trace::{Trace, random};

/// What is known of a call when its headers are there. Nothing that the caller sent is in it but ids.
#[derive(Debug)]
pub(crate) struct Span {
    pub(super) tracer: Tracer,
    pub(super) trace: Trace,
    pub(super) id: u64,
    pub(super) state: String,
    pub(super) protocol: Protocol,
    pub(super) request_id: String,
    pub(super) outcome: Option<Ended>,
}

/// What has become of a call.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) begun: Instant,
    pub(crate) function: String,
    pub(crate) rows: usize,
    pub(crate) course: Option<Course>,
    /// `None` when the caller has gone.
    pub(crate) status: Option<StatusCode>,
}

#[derive(Debug)]
pub(super) struct Ended {
    at: Instant,
    outcome: Outcome,
}

impl Span {
    /// The call has ended now.
    pub(crate) fn end(mut self, outcome: Outcome) {
        self.outcome = Some(Ended {
            at: Instant::now(),
            outcome,
        });
        let spans = Arc::clone(&self.tracer.spans);
        spans.add(self);
    }

    /// How many there are, with those within it.
    pub(super) fn count(&self) -> u64 {
        let course = self.outcome.as_ref().map(|ended| ended.outcome.course);
        course.map_or(0, |course| if course.is_some() { 3 } else { 1 })
    }

    /// The span, and those within it.
    fn messages(&self, clock: &Clock) -> Vec<Message> {
        let Some(Ended { at, outcome }) = &self.outcome else {
            return vec![];
        };
        let mut messages = vec![self.call(outcome, *at, clock)];
        if let Some(course) = &outcome.course {
            let [queued, begun, ended] =
                [course.queued, course.begun, course.ended].map(tokio::time::Instant::into_std);
            messages.push(self.part("queue", [queued, begun], clock));
            let mut worker = self.part("worker", [begun, ended], clock);
            worker.attributes = together(course).into();
            messages.push(worker);
        }
        messages
    }

    fn call(&self, outcome: &Outcome, ended: Instant, clock: &Clock) -> Message {
        let route = route(self.protocol);
        let status = outcome.status.map(|status| status.as_u16());
        let mut attributes = vec![
            text("http.request.method", "POST"),
            text("http.route", route),
            text("envelope.protocol", self.protocol.name()),
            text("envelope.function", outcome.function.as_str()),
            text("envelope.request_id", self.request_id.as_str()),
            number("envelope.rows", outcome.rows),
        ];
        attributes.extend(outcome.course.iter().flat_map(together));
        attributes.extend(status.map(|status| number("http.response.status_code", status.into())));
        let failure = match status {
            None => Some("gone".to_owned()),
            Some(status) => (status >= 500).then(|| status.to_string()),
        };
        let code = failure.as_ref().map_or(Code::Unset, |_| Code::Error);
        attributes.extend(failure.map(|kind| text("error.type", kind)));
        let parent = self.trace.parent.map(|parent| parent.span);
        Message {
            span_id: bytes(self.id),
            parent_span_id: parent.map(bytes).unwrap_or_default(),
            trace_state: self.state.clone(),
            flags: SAMPLED | PARENT_IS_KNOWN | parent.map_or(0, |_| PARENT_IS_REMOTE),
            name: format!("POST {route}"),
            kind: SpanKind::Server.into(),
            attributes,
            status: Some(Status {
                code: code.into(),
                message: String::new(),
            }),
            ..self.at([outcome.begun, ended], clock)
        }
    }

    fn part(&self, name: &str, times: [Instant; 2], clock: &Clock) -> Message {
        Message {
            span_id: bytes(random()),
            parent_span_id: bytes(self.id),
            trace_state: self.state.clone(),
            flags: SAMPLED | PARENT_IS_KNOWN,
            name: name.to_owned(),
            kind: SpanKind::Internal.into(),
            ..self.at(times, clock)
        }
    }

    fn at(&self, [begun, ended]: [Instant; 2], clock: &Clock) -> Message {
        Message {
            trace_id: self.trace.id.to_be_bytes().into(),
            start_time_unix_nano: clock.nanoseconds(begun),
            end_time_unix_nano: clock.nanoseconds(ended),
            ..Message::default()
        }
    }
}

/// The flags of a span: those of W3C, and whether it is known that its parent is elsewhere.
const SAMPLED: u32 = 0x01;
const PARENT_IS_KNOWN: u32 = 0x100;
const PARENT_IS_REMOTE: u32 = 0x200;

/// Where calls of a protocol are sent to.
fn route(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Native => "/predict/{function}",
        Protocol::Invocations => "/invocations",
        Protocol::Kserve => "/v1/models/{function}:predict",
        Protocol::Tensors => "/v2/models/{function}/infer",
        Protocol::Grpc => "/inference.GRPCInferenceService/ModelInfer",
    }
}

fn together(course: &Course) -> [KeyValue; 2] {
    [
        number("envelope.batch.rows", course.rows),
        number("envelope.batch.calls", course.calls),
    ]
}

fn bytes(id: u64) -> Vec<u8> {
    id.to_be_bytes().into()
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, Value::StringValue(value.into()))
}

fn number(key: &str, value: usize) -> KeyValue {
    attribute(
        key,
        Value::IntValue(i64::try_from(value).unwrap_or(i64::MAX)),
    )
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

/// What time it is, by the two clocks that there are: spans are measured by the one that never goes
/// back, and told of by the one that knows the date.
#[derive(Debug)]
pub(super) struct Clock {
    measured: Instant,
    date: SystemTime,
}

impl Clock {
    #[expect(
        clippy::disallowed_methods,
        reason = "a span is nothing to decide by, it says when something was"
    )]
    pub(super) fn now() -> Self {
        Self {
            measured: Instant::now(),
            date: SystemTime::now(),
        }
    }

    /// Since 1970, of what was before.
    fn nanoseconds(&self, then: Instant) -> u64 {
        let ago = self.measured.saturating_duration_since(then);
        let since = (self.date - ago).duration_since(SystemTime::UNIX_EPOCH);
        since.map_or(0, |time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// What is posted to the collector: spans in order, each run of them under the envelope that it is of.
pub(super) fn message(
    spans: &[Span],
    collector: &Collector,
    clock: &Clock,
) -> ExportTraceServiceRequest {
    let runs = spans.chunk_by(|one, next| Arc::ptr_eq(&one.tracer.served, &next.tracer.served));
    let resource_spans = runs.map(|run| ResourceSpans {
        resource: run
            .first()
            .map(|span| resource(&span.tracer.served, collector)),
        scope_spans: vec![ScopeSpans {
            scope: Some(InstrumentationScope {
                name: "model-envelope".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                ..InstrumentationScope::default()
            }),
            spans: run.iter().flat_map(|span| span.messages(clock)).collect(),
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    });
    ExportTraceServiceRequest {
        resource_spans: resource_spans.collect(),
    }
}

fn resource(served: &Served, collector: &Collector) -> Resource {
    let service = collector.service.as_ref().unwrap_or(&served.name);
    let own = [
        text("service.name", service.as_str()),
        text("service.version", served.digest.as_str()),
        text("envelope.name", served.name.as_str()),
        text("envelope.digest", served.digest.as_str()),
    ];
    // The operator's come before ours.
    let said = collector.attributes.iter();
    let is_said = |key: &str| said.clone().any(|(known, _)| known == key);
    let own = own.into_iter().filter(|own| !is_said(&own.key));
    let said = said.clone().map(|(key, value)| text(key, value.as_str()));
    Resource {
        attributes: said.chain(own).collect(),
        ..Resource::default()
    }
}
