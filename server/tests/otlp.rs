//! Spans of calls, as a collector gets them; and collectors that do not take them.

#![cfg(feature = "otlp")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use server::{Collector, Settings};
use support::{Service, becomes, call, components, digest, eventually, slow_components};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// What a collector does with the messages that it gets.
#[derive(Debug, Clone, Copy)]
enum Manner {
    Takes,
    /// All but so many spans of each message.
    Leaves(i64),
    /// The first so many messages: with this status.
    Refuses(usize, u16),
    /// Reads them and says nothing.
    Hangs,
}

/// A collector: what it was sent, heads and bodies, one for each message.
struct Sink {
    address: String,
    came: Arc<Mutex<Vec<(String, ExportTraceServiceRequest)>>>,
}

impl Sink {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/v1/traces", listener.local_addr().unwrap());
        let came = Arc::default();
        let sink = Self {
            address,
            came: Arc::clone(&came),
        };
        spawn(move || {
            for stream in listener.incoming() {
                let came = Arc::clone(&came);
                spawn(move || attend(&stream.unwrap(), manner, &came));
            }
        });
        sink
    }

    fn collector(&self) -> Collector {
        Collector {
            interval: Duration::from_millis(20),
            ..Collector::at(self.address.parse().unwrap())
        }
    }

    fn count(&self) -> usize {
        self.came.lock().unwrap().len()
    }

    fn spans(&self) -> Vec<Span> {
        let came = self.came.lock().unwrap();
        let scopes = came
            .iter()
            .flat_map(|(_, message)| &message.resource_spans)
            .flat_map(|of_resource| &of_resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The span of a call, once there is one.
    fn call(&self) -> Span {
        eventually(|| self.spans().into_iter().find(|span| span.kind == 2))
    }
}

fn attend(
    stream: &TcpStream,
    manner: Manner,
    came: &Mutex<Vec<(String, ExportTraceServiceRequest)>>,
) {
    let mut reader = BufReader::new(stream);
    while let Some((head, body)) = read(&mut reader) {
        let message = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        let mut came = came.lock().unwrap();
        came.push((head, message));
        let (status, left) = match manner {
            Manner::Hangs => {
                drop(came);
                sleep(Duration::from_secs(60));
                return;
            }
            Manner::Takes => (200, None),
            Manner::Leaves(count) => (200, Some(count)),
            Manner::Refuses(first, status) if came.len() <= first => (status, None),
            Manner::Refuses(..) => (200, None),
        };
        let answer = ExportTraceServiceResponse {
            partial_success: left.map(|rejected_spans| ExportTracePartialSuccess {
                rejected_spans,
                error_message: "too many".into(),
            }),
        };
        let answer = answer.encode_to_vec();
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        let mut stream = stream;
        stream
            .write_all(&[head.as_bytes(), &answer].concat())
            .unwrap();
    }
}

fn read(reader: &mut BufReader<&TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head).ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head.split("content-length: ").nth(1)?.lines().next()?;
    let mut body = vec![0; length.parse().unwrap()];
    reader.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn settings(collector: Collector) -> Settings {
    Settings {
        collector: Some(collector),
        ..Settings::default()
    }
}

fn told(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &AnyValue| {
        let value = value.value.as_ref().unwrap();
        if let Value::StringValue(text) = value {
            return text.clone();
        }
        let Value::IntValue(number) = value else {
            panic!("{value:?}")
        };
        number.to_string()
    };
    let pair = |pair: &KeyValue| (pair.key.clone(), text(pair.value.as_ref().unwrap()));
    attributes.iter().map(pair).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_there(flags: &str) -> String {
    format!("traceparent: 00-{TRACE}-{PARENT}-{flags}\r\ntracestate: a=b\r\n")
}

fn metric(service: &Service, line: &str) -> Option<u64> {
    let metrics = service.get("/metrics").body;
    let value = metrics.lines().find_map(|each| each.strip_prefix(line))?;
    Some(value.trim().parse().unwrap())
}

fn spans(service: &Service, outcome: &str) -> u64 {
    metric(
        service,
        &format!("envelope_spans_total{{outcome=\"{outcome}\"}}"),
    )
    .unwrap()
}

#[test]
fn a_call_is_a_span_of_the_trace_that_it_came_with() {
    let sink = Sink::start(Manner::Takes);
    let (components, _) = slow_components(2.0, Duration::from_millis(30));
    let service = Service::of(settings(sink.collector()), components);
    let headers = from_there("01") + "x-request-id: r-1\r\n";
    assert_eq!(service.ask_with(1.0, &headers).status, 200);
    let call = sink.call();
    assert_eq!(
        (hex(&call.trace_id), hex(&call.parent_span_id)),
        (TRACE.into(), PARENT.into())
    );
    assert_eq!(
        (call.name.as_str(), call.trace_state.as_str()),
        ("POST /predict/{function}", "a=b")
    );
    assert_eq!((call.flags, call.status.unwrap().code), (0x301, 0));
    let expected = [
        ("http.request.method", "POST"),
        ("http.route", "/predict/{function}"),
        ("http.response.status_code", "200"),
        ("envelope.protocol", "native"),
        ("envelope.function", "double"),
        ("envelope.request_id", "r-1"),
        ("envelope.rows", "1"),
        ("envelope.batch.rows", "1"),
        ("envelope.batch.calls", "1"),
    ];
    assert_eq!(
        told(&call.attributes),
        expected
            .map(|(key, value)| (key.into(), value.into()))
            .into()
    );
}

#[test]
fn within_a_call_are_its_wait_and_its_worker() {
    let sink = Sink::start(Manner::Takes);
    let (components, _) = slow_components(2.0, Duration::from_millis(30));
    let service = Service::of(settings(sink.collector()), components);
    service.ask(1.0);
    let call = sink.call();
    let parts = sink
        .spans()
        .into_iter()
        .filter(|span| span.parent_span_id == call.span_id);
    let parts: Vec<_> = parts.collect();
    let [queue, worker] = &parts[..] else {
        panic!("{parts:?}")
    };
    assert_eq!(
        (queue.name.as_str(), worker.name.as_str()),
        ("queue", "worker")
    );
    assert!(queue.trace_id == call.trace_id && worker.trace_id == call.trace_id);
    let times = [
        call.start_time_unix_nano,
        queue.start_time_unix_nano,
        queue.end_time_unix_nano,
        worker.start_time_unix_nano,
        worker.end_time_unix_nano,
        call.end_time_unix_nano,
    ];
    assert!(times.is_sorted(), "{times:?}");
    assert!(times[4] - times[3] >= 30_000_000, "the model has slept");
    let since = std::time::UNIX_EPOCH + Duration::from_nanos(call.end_time_unix_nano);
    assert!(since.elapsed().unwrap() < Duration::from_secs(60));
    assert_eq!(told(&worker.attributes)["envelope.batch.rows"], "1");
}

#[test]
fn a_trace_that_begins_here_has_no_parent() {
    let sink = Sink::start(Manner::Takes);
    let service = Service::start(settings(sink.collector()));
    service.ask_with(1.0, "tracestate: a=b\r\n");
    let call = sink.call();
    assert_eq!(
        (
            call.trace_id.len(),
            call.span_id.len(),
            call.parent_span_id.len()
        ),
        (16, 8, 0)
    );
    assert_eq!((call.trace_state.as_str(), call.flags), ("", 0x101));
}

#[test]
fn calls_that_fail_say_so_and_those_refused_do_not() {
    let sink = Sink::start(Manner::Takes);
    let service = Service::start(settings(sink.collector()));
    assert_eq!(service.ask(-1.0).status, 500);
    let failed = sink.call();
    let told_of = told(&failed.attributes);
    assert_eq!(
        (failed.status.unwrap().code, &*told_of["error.type"]),
        (2, "500")
    );
    assert_eq!(told_of["envelope.batch.calls"], "1", "a worker has had it");
    let sink = Sink::start(Manner::Takes);
    let service = Service::start(settings(sink.collector()));
    assert_eq!(
        service.ask_with(1.0, "x-request-timeout: no\r\n").status,
        400
    );
    let refused = sink.call();
    let told_of = told(&refused.attributes);
    assert_eq!(
        (
            refused.status.unwrap().code,
            &*told_of["http.response.status_code"]
        ),
        (0, "400")
    );
    assert!(!told_of.contains_key("error.type") && !told_of.contains_key("envelope.batch.rows"));
}

#[test]
fn a_caller_who_goes_away_leaves_a_span() {
    let sink = Sink::start(Manner::Takes);
    let service = Service::start(settings(sink.collector()));
    let mut stream = service.connect();
    stream.write_all(call(-3.0, "").as_bytes()).unwrap();
    becomes(|| metric(&service, "envelope_inflight") == Some(1));
    drop(stream);
    let gone = sink.call();
    let told_of = told(&gone.attributes);
    assert_eq!(
        (gone.status.unwrap().code, &*told_of["error.type"]),
        (2, "gone")
    );
    assert!(!told_of.contains_key("http.response.status_code"));
}

#[test]
fn the_name_of_a_span_is_the_route_of_its_protocol() {
    let routes = [
        ("/predict/double", "/predict/{function}", "native"),
        ("/endpoints/any/invocations", "/invocations", "invocations"),
        (
            "/v1/models/double:predict",
            "/v1/models/{function}:predict",
            "v1",
        ),
        (
            "/v2/models/doubler/infer",
            "/v2/models/{function}/infer",
            "v2",
        ),
    ];
    for (path, route, protocol) in routes {
        let sink = Sink::start(Manner::Takes);
        let service = Service::start(settings(sink.collector()));
        let mut stream = service.connect();
        let request =
            format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let span = sink.call();
        assert_eq!(span.name, format!("POST {route}"));
        let told = told(&span.attributes);
        assert_eq!(
            [&*told["http.route"], &*told["envelope.protocol"]],
            [route, protocol]
        );
    }
}

#[test]
fn what_is_no_call_and_what_nobody_records_has_no_span() {
    let sink = Sink::start(Manner::Takes);
    let service = Service::start(settings(sink.collector()));
    for path in ["/", "/healthz", "/metrics", "/predict/nothing", "/nothing"] {
        service.get(path);
    }
    service.ask_with(1.0, &from_there("00"));
    service.ask_with(2.0, &from_there("01"));
    assert_eq!(hex(&sink.call().trace_id), TRACE);
    assert_eq!(sink.spans().len(), 3);
    let mut collector = sink.collector();
    collector.sampling = "always_off".parse().unwrap();
    let silent = Service::start(settings(collector));
    silent.ask_with(2.0, &from_there("01"));
    drop(silent);
    assert_eq!(sink.spans().len(), 3);
}

#[test]
fn messages_say_who_sends_them() {
    let sink = Sink::start(Manner::Takes);
    let mut collector = sink.collector();
    collector
        .headers
        .insert("authorization", "Bearer abc".parse().unwrap());
    collector.attributes = vec![("zone".into(), "b".into())];
    let service = Service::start(settings(collector));
    service.ask(1.0);
    sink.call();
    let came = sink.came.lock().unwrap();
    let (head, message) = &came[0];
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(
        head.contains("content-type: application/x-protobuf\r\n"),
        "{head}"
    );
    assert!(head.contains("authorization: bearer abc\r\n"), "{head}");
    let resource = told(
        &message.resource_spans[0]
            .resource
            .as_ref()
            .unwrap()
            .attributes,
    );
    assert_eq!(
        [
            &resource["service.name"],
            &resource["service.version"],
            &resource["zone"]
        ],
        ["doubler", &digest(2.0).to_string(), "b"]
    );
}

#[test]
fn another_envelope_has_spans_of_its_own() {
    let sink = Sink::start(Manner::Takes);
    let mut collector = sink.collector();
    // Both within one message.
    collector.interval = Duration::from_secs(60);
    let mut service = Service::start(settings(collector));
    service.ask(1.0);
    let swap = service.swap.clone();
    service
        .executor
        .block_on(swap.to(components(3.0).0))
        .unwrap();
    service.ask(1.0);
    service.stop();
    let came = sink.came.lock().unwrap();
    let [(_, message)] = &came[..] else {
        panic!("{came:?}")
    };
    let versions: Vec<_> = message
        .resource_spans
        .iter()
        .map(|part| told(&part.resource.as_ref().unwrap().attributes)["service.version"].clone())
        .collect();
    assert_eq!(
        versions,
        [digest(2.0), digest(3.0)].map(|digest| digest.to_string())
    );
}

#[test]
fn the_last_spans_are_sent_before_a_service_ends() {
    let sink = Sink::start(Manner::Takes);
    let mut collector = sink.collector();
    (collector.interval, collector.max_batch) = (Duration::from_secs(60), 8);
    let mut service = Service::start(settings(collector));
    for _ in 0..20 {
        service.ask(1.0);
    }
    service.stop();
    let calls = sink.spans().iter().filter(|span| span.kind == 2).count();
    assert_eq!((calls, sink.count()), (20, 3));
}

#[test]
fn a_message_that_was_refused_for_now_is_sent_again() {
    let sink = Sink::start(Manner::Refuses(1, 503));
    let service = Service::start(settings(sink.collector()));
    service.ask(1.0);
    becomes(|| spans(&service, "exported") == 3);
    assert_eq!((sink.count(), spans(&service, "failed")), (2, 0));
}

#[test]
fn a_message_that_was_refused_for_good_is_not_sent_again() {
    let sink = Sink::start(Manner::Refuses(1, 400));
    let service = Service::start(settings(sink.collector()));
    service.ask(1.0);
    becomes(|| spans(&service, "failed") == 3);
    service.ask(1.0);
    becomes(|| spans(&service, "exported") == 3);
    assert_eq!(sink.count(), 2);
}

#[test]
fn what_the_collector_leaves_is_counted() {
    let sink = Sink::start(Manner::Leaves(1));
    let service = Service::start(settings(sink.collector()));
    service.ask(1.0);
    becomes(|| spans(&service, "failed") == 1);
    assert_eq!(
        (spans(&service, "exported"), spans(&service, "dropped")),
        (2, 0)
    );
}

/// What a hundred calls take.
fn time_of_calls(service: &Service) -> Duration {
    let begun = Instant::now();
    for _ in 0..100 {
        assert_eq!(service.ask(1.0).body, "{\"predictions\":[2.0]}");
    }
    begun.elapsed()
}

#[test]
fn calls_do_not_wait_for_a_collector() {
    let nobody = || {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/v1/traces", listener.local_addr().unwrap())
    };
    let hanging = Sink::start(Manner::Hangs);
    let refusing = Sink::start(Manner::Refuses(usize::MAX, 503));
    let without = time_of_calls(&Service::start(Settings::default()));
    for address in [nobody(), hanging.address.clone(), refusing.address.clone()] {
        let collector = Collector {
            interval: Duration::from_millis(1),
            max_waiting: 10,
            max_batch: 5,
            ..Collector::at(address.parse().unwrap())
        };
        let mut service = Service::start(settings(collector));
        let took = time_of_calls(&service);
        assert!(
            took < without * 3 + Duration::from_millis(200),
            "{took:?}, {without:?} without"
        );
        let dropped = spans(&service, "dropped");
        assert!((240..=285).contains(&dropped), "{dropped} at {address}");
        let begun = Instant::now();
        service.stop();
        assert!(begun.elapsed() < Duration::from_secs(4), "{address}");
    }
}
