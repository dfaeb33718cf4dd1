//! The service over real sockets, with something simple to call in place of Python.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Float64Type;
use arrow_array::{Float64Array, RecordBatch};
use async_trait::async_trait;
use envelope_format::{DataType, Digest, Field, Manifest, Rows, Shape};
use runtime::{Error, PythonError, Usage};
use serde_json::{Value, json};
use server::{Calls, Components, Settings, serve};
use tokio::sync::oneshot;

/// Doubles the first column. Below zero it misbehaves: -1 raises, -2 dies, -3 is slow, -4 panics,
/// -5 gives text of which nothing may leak.
#[derive(Debug, Default)]
struct Doubler {
    called: AtomicUsize,
}

#[async_trait]
impl Calls for Doubler {
    async fn call(
        &self,
        function: &str,
        rows: RecordBatch,
        _deadline: Duration,
    ) -> Result<RecordBatch, Error> {
        self.called.fetch_add(1, Ordering::SeqCst);
        let values = rows
            .column(0)
            .as_primitive::<Float64Type>()
            .values()
            .to_vec();
        let raised = |kind: &str, message: String| Error::Function {
            function: function.into(),
            exception: PythonError {
                kind: kind.into(),
                message,
                traceback: "File \"/secret/place.py\"".into(),
            },
        };
        match values[0] {
            -1.0 => Err(raised("ValueError", "no".into())),
            -2.0 => Err(Error::Crashed {
                reason: "signal 9".into(),
                stderr: "/secret".into(),
            }),
            -3.0 => {
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(batch(values))
            }
            -4.0 => panic!("a fault of ours"),
            -5.0 => Err(raised("KeyError", "x".repeat(10_000))),
            _ if function == "total" => Ok(batch([values.iter().sum()])),
            _ => Ok(batch(values.iter().map(|value| value * 2.0))),
        }
    }

    fn most_workers(&self) -> usize {
        2
    }

    fn usage(&self) -> Usage {
        Usage {
            workers: 2,
            busy: 1,
            waiting: 0,
            replaced: 7,
            ..Usage::default()
        }
    }

    async fn shutdown(&self, _grace: Duration) {}
}

fn batch(values: impl IntoIterator<Item = f64>) -> RecordBatch {
    RecordBatch::try_from_iter([("x", Arc::new(Float64Array::from_iter_values(values)) as _)])
        .unwrap()
}

/// A model with `double` (one number for a row) and `total` (one for all rows).
fn components() -> (Components, Arc<Doubler>) {
    let mut manifest = Manifest::example();
    let frame = Rows {
        shape: Shape::PandasDataFrame,
        fields: vec![
            Field::new("x", DataType::Float64, false),
            Field::new("region", DataType::Utf8, true),
        ],
    };
    manifest.functions[0].doc = "Doubles <x>.\n\nTwice.".into();
    manifest.functions[0].signature.input = frame;
    let mut total = manifest.functions[0].clone();
    total.name = "total".into();
    total.certificate.row_wise = false;
    total.signature.output.shape = Shape::Scalar;
    manifest.functions.push(total);
    let calls = Arc::new(Doubler::default());
    let regions = arrow_array::StringArray::from(vec![Some("US"), None]);
    let x = Float64Array::from(vec![1.5, 2.5]);
    let sample = RecordBatch::try_from_iter_with_nullable([
        ("x", Arc::new(x) as _, false),
        ("region", Arc::new(regions) as _, true),
    ]);
    let digest = Digest::of(b"an envelope");
    let samples = vec![Some(sample.unwrap()), None];
    (
        Components {
            manifest,
            digest,
            samples,
            calls: calls.clone(),
        },
        calls,
    )
}

/// A running service. It is told to stop when it is dropped.
struct Service {
    address: SocketAddr,
    calls: Arc<Doubler>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<Result<(), server::Error>>>,
}

impl Service {
    fn start(settings: Settings) -> Self {
        let (components, calls) = components();
        Self::of(settings, components, calls)
    }

    fn of(settings: Settings, components: Components, calls: Arc<Doubler>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, address) = std::sync::mpsc::channel();
        let settings = Settings {
            listen: "127.0.0.1:0".parse().unwrap(),
            allow_hosts: vec!["x".into()],
            ..settings
        };
        let thread = std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let shutdown = async { drop(stopped.await) };
            executor.block_on(serve(settings, components, shutdown, move |address| {
                ready.send(address).unwrap()
            }))
        });
        let address = address.recv().unwrap();
        Self {
            address,
            calls,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        stream
    }

    /// Sends the bytes on a connection of their own, gives the answer.
    fn send(&self, request: &[u8]) -> Answer {
        let mut stream = self.connect();
        stream.write_all(request).unwrap();
        Answer::read(&mut stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.send(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes())
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        self.post_with(path, "", body)
    }

    fn post_with(&self, path: &str, headers: &str, body: &str) -> Answer {
        self.send(post(path, headers, body).as_bytes())
    }

    fn stop(&mut self) -> Result<(), server::Error> {
        drop(self.stop.take());
        self.thread
            .take()
            .map_or(Ok(()), |thread| thread.join().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop().unwrap();
    }
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

/// An answer as it came over the wire.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads one answer; those of this service always state their length.
    fn read(stream: &mut TcpStream) -> Self {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap_or_else(|error| {
                panic!("{error} after {:?}", String::from_utf8_lossy(&head))
            });
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).unwrap();
        let mut lines = head.lines();
        let status = lines
            .next()
            .unwrap()
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        let pair = |line: &str| {
            line.split_once(": ")
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
        };
        let mut answer = Self {
            status,
            headers: lines.filter_map(pair).collect(),
            body: vec![],
        };
        if status >= 200 {
            answer.body = vec![0; answer.header("content-length").unwrap().parse().unwrap()];
            stream.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    #[track_caller]
    fn is_problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(
            self.status,
            status,
            "{}",
            String::from_utf8_lossy(&self.body)
        );
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json")
        );
        let problem = self.json();
        assert_eq!(
            (&problem["status"], &problem["code"]),
            (&json!(status), &json!(code)),
            "{problem}"
        );
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"));
        assert!(self.body.len() < 2048, "{} bytes", self.body.len());
        problem
    }
}

#[test]
fn rows_go_in_and_predictions_come_out() {
    let service = Service::start(Settings::default());
    let answer = service.post(
        "/predict",
        r#"{"data":[{"x":1.5,"region":null},{"region":"US","x":2}]}"#,
    );
    assert_eq!(
        (answer.status, answer.text()),
        (200, r#"{"predictions":[3.0,4.0]}"#)
    );
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        answer.header("x-envelope-digest"),
        Some(Digest::of(b"an envelope").to_string().as_str())
    );
    assert!(answer.header("x-request-id").is_some());
    let total = service.post(
        "/predict/total",
        r#"{"data":[{"x":1,"region":null},{"region":"US","x":2}]}"#,
    );
    assert_eq!(total.json(), json!({"predictions": [3.0]}));
}

#[test]
fn no_rows_are_no_call() {
    let service = Service::start(Settings::default());
    let before = service.calls.called.load(Ordering::SeqCst);
    assert_eq!(
        service.post("/predict", r#"{"data":[]}"#).json(),
        json!({"predictions": []})
    );
    assert_eq!(service.calls.called.load(Ordering::SeqCst), before);
}

#[test]
fn one_connection_carries_many_calls() {
    let service = Service::start(Settings::default());
    let mut stream = service.connect();
    let requests: String = (0..50)
        .map(|x| {
            post(
                "/predict",
                "",
                &format!("{{\"data\":[{{\"x\":{x},\"region\":null}}]}}"),
            )
        })
        .collect();
    stream.write_all(requests.as_bytes()).unwrap();
    for x in 0..50 {
        assert_eq!(
            Answer::read(&mut stream).json(),
            json!({"predictions": [f64::from(x) * 2.0]})
        );
    }
}

#[test]
fn faults_in_rows_are_told_with_row_and_column() {
    let service = Service::start(Settings::default());
    let answer = service.post(
        "/predict",
        r#"{"data":[{"x":1.5,"region":"US"},{"x":"1"}]}"#,
    );
    let problem = answer.is_problem(422, "wrong_type");
    assert_eq!(
        problem["errors"],
        json!([
            {"code": "wrong_type", "row": 1, "column": "x", "expected": "float64", "got": "\"1\""},
            {"code": "missing_column", "row": 1, "column": "region", "expected": "utf8"},
        ])
    );
    let many = vec![
        r#"{"x":"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"}"#;
        20
    ]
    .join(",");
    service
        .post("/predict", &format!("{{\"data\":[{many}]}}"))
        .is_problem(422, "wrong_type");
    let problem = service
        .post("/predict", r#"{"data":[{"x":NaN}]}"#)
        .is_problem(400, "bad_json");
    assert_eq!(problem["hint"], "JSON has no NaN: send null");
}

#[test]
fn failures_of_the_function_have_a_code_and_no_secrets() {
    let service = Service::start(Settings::default());
    let ask = |x: i32| {
        service.post(
            "/predict/total",
            &format!("{{\"data\":[{{\"x\":{x},\"region\":null}}]}}"),
        )
    };
    let raised = ask(-1);
    assert_eq!(
        raised.is_problem(500, "function_failed")["detail"],
        "`total` raised ValueError: no"
    );
    let crashed = ask(-2);
    crashed.is_problem(503, "worker_crashed");
    assert!(crashed.header("retry-after").is_some());
    let panicked = ask(-4);
    panicked.is_problem(500, "internal");
    let long = ask(-5);
    long.is_problem(500, "function_failed");
    for answer in [raised, crashed, panicked, long] {
        assert!(!answer.text().contains("secret"), "{}", answer.text());
    }
    assert_eq!(ask(1).status, 200);
}

#[test]
fn a_call_ends_at_the_deadline_of_its_caller() {
    let service = Service::start(Settings::default());
    let slow = r#"{"data":[{"x":-3,"region":null}]}"#;
    service
        .post_with("/predict", "x-request-timeout: 0.05\r\n", slow)
        .is_problem(504, "deadline");
    assert_eq!(
        service
            .post_with("/predict", "x-request-timeout: 20\r\n", slow)
            .status,
        200
    );
    for bad in ["0", "-1", "soon", "1e3"] {
        service
            .post_with("/predict", &format!("x-request-timeout: {bad}\r\n"), slow)
            .is_problem(400, "bad_timeout");
    }
}

#[test]
fn too_many_calls_in_flight_are_refused_and_health_is_not() {
    let service = Service::start(Settings {
        max_calls_in_flight: 1,
        ..Settings::default()
    });
    let mut first = service.connect();
    // It holds its permit while its body is on the way.
    let request = post("/predict", "", r#"{"data":[{"x":1,"region":null}]}"#);
    let (begin, end) = request.split_at(request.len() - 5);
    first.write_all(begin.as_bytes()).unwrap();
    while !service
        .get("/metrics")
        .text()
        .contains("envelope_inflight 1")
    {}
    let refused = service.post("/predict", r#"{"data":[]}"#);
    refused.is_problem(503, "full");
    let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3).contains(&seconds));
    for page in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(service.get(page).status, 200);
    }
    first.write_all(end.as_bytes()).unwrap();
    assert_eq!(Answer::read(&mut first).status, 200);
    assert_eq!(service.post("/predict", r#"{"data":[]}"#).status, 200);
}

#[test]
fn a_body_that_states_too_much_is_refused_before_it_is_sent() {
    let service = Service::start(Settings {
        max_body_bytes: 100,
        ..Settings::default()
    });
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 1073741824\r\n\r\n";
    let answer = service.send(head.as_bytes());
    answer.is_problem(413, "body_too_large");
    assert_eq!(answer.header("connection"), Some("close"));
}

#[test]
fn a_caller_that_sends_everything_before_it_listens_is_told_too() {
    let service = Service::start(Settings {
        max_body_bytes: 100,
        ..Settings::default()
    });
    let body = vec![b' '; 64 << 20];
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";
    let stated = format!("{head}content-length: {}\r\n\r\n", body.len());
    let chunked = format!(
        "{head}transfer-encoding: chunked\r\n\r\n{:x}\r\n",
        body.len()
    );
    for (head, end) in [(stated, ""), (chunked, "\r\n0\r\n\r\n")] {
        let request = [head.as_bytes(), &body, end.as_bytes()].concat();
        service.send(&request).is_problem(413, "body_too_large");
    }
}

#[test]
fn a_body_in_chunks_is_read_up_to_the_limit() {
    let service = Service::start(Settings {
        max_body_bytes: 100,
        ..Settings::default()
    });
    let head = "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    let good = format!("{head}8\r\n{{\"data\":\r\n3\r\n[]}}\r\n0\r\n\r\n");
    assert_eq!(service.send(good.as_bytes()).status, 200);
    let long = format!("{head}64\r\n{}\r\n64\r\n", " ".repeat(100));
    let answer = service.send(format!("{long}{}", " ".repeat(100)).as_bytes());
    answer.is_problem(413, "body_too_large");
}

#[test]
fn a_caller_that_is_asked_to_go_on_sends_its_body() {
    let service = Service::start(Settings::default());
    let mut stream = service.connect();
    stream
        .write_all(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: 11\r\n\r\n")
        .unwrap();
    assert_eq!(Answer::read(&mut stream).status, 100);
    stream.write_all(b"{\"data\":[]}").unwrap();
    assert_eq!(Answer::read(&mut stream).status, 200);
}

#[test]
fn slow_callers_are_given_up() {
    let brief = Duration::from_millis(100);
    let settings = Settings {
        header_timeout: brief,
        body_timeout: brief,
        idle_timeout: brief,
        ..Settings::default()
    };
    let service = Service::start(settings);
    // Nothing; a letter that both versions of HTTP begin with; a part of the headers.
    for begin in ["", "P", "GET /healthz HTTP/1.1\r\nhost:"] {
        let mut stream = service.connect();
        stream.write_all(begin.as_bytes()).unwrap();
        let mut rest = Vec::new();
        let closed = stream.read_to_end(&mut rest);
        assert!(
            closed.is_ok()
                || closed.is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionReset)
        );
    }
    let request = post("/predict", "", r#"{"data":[]}"#);
    let answer = service.send(&request.as_bytes()[..request.len() - 1]);
    answer.is_problem(408, "slow_body");
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    let service = Service::start(Settings::default());
    for length in ["-1", "+5", "5, 6", "18446744073709551616", "five"] {
        let request =
            format!("POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{{}}");
        let mut stream = service.connect();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(
            answer.starts_with(b"HTTP/1.1 400 "),
            "{length}: {}",
            String::from_utf8_lossy(&answer)
        );
    }
}

#[test]
fn paths_and_methods_have_their_statuses() {
    let service = Service::start(Settings::default());
    for path in [
        "/nothing",
        "/predict/",
        "/predict/double/",
        "/predictions",
        "//",
        "/predict/%ff",
        "/healthz/",
    ] {
        assert_eq!(service.get(path).status, 404, "{path}");
    }
    service
        .post("/predict/nothing", "{}")
        .is_problem(404, "no_such_function");
    assert_eq!(
        service.post("/predict/d%6fuble", r#"{"data":[]}"#).status,
        200
    );
    assert_eq!(service.post("/predict?x=1", r#"{"data":[]}"#).status, 200);
    let answer = service.get("/predict");
    answer.is_problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("POST"));
    let answer = service.post("/healthz", "");
    answer.is_problem(405, "method_not_allowed");
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    let untyped = service.send(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}");
    untyped.is_problem(415, "unsupported_media_type");
}

#[test]
fn head_is_get_without_a_body() {
    let service = Service::start(Settings::default());
    for page in ["/", "/healthz", "/openapi.json", "/envelope"] {
        let length = service
            .get(page)
            .header("content-length")
            .unwrap()
            .to_owned();
        let mut stream = service.connect();
        let head = format!("HEAD {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        assert!(text.ends_with("\r\n\r\n"), "{text}");
        assert!(
            text.contains(&format!("content-length: {length}\r\n")),
            "{text}"
        );
    }
}

#[test]
fn a_request_id_is_kept_when_it_is_harmless() {
    let service = Service::start(Settings::default());
    let with = |id: &str| {
        let answer = service.post_with(
            "/predict",
            &format!("x-request-id: {id}\r\n"),
            r#"{"data":[]}"#,
        );
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(with("abc-123"), "abc-123");
    for bad in ["a b", "<script>", &"x".repeat(129)] {
        assert_ne!(with(bad), bad);
    }
    assert_ne!(with(""), with(""));
}

#[test]
fn pages_say_what_is_served() {
    let service = Service::start(Settings::default());
    let front = service.get("/");
    assert!(
        front.text().contains("<h1>doubler</h1>") && front.text().contains("Doubles &lt;x&gt;.")
    );
    assert!(front.text().contains(
        "&#123;&quot;data&quot;: [\n  &#123;&quot;x&quot;:1.5,&quot;region&quot;:&quot;US&quot;}"
    ));
    assert!(!front.text().contains("{{"), "{}", front.text());
    let envelope = service.get("/envelope").json();
    assert_eq!(envelope["digest"], json!(Digest::of(b"an envelope")));
    assert_eq!(
        envelope["functions"][0]["signature"]["input"]["fields"][0]["type"],
        "float64"
    );
    let openapi = service.get("/openapi.json").json();
    let call = &openapi["paths"]["/predict/double"]["post"];
    assert_eq!(call["summary"], "Doubles <x>.");
    let body = &call["requestBody"]["content"]["application/json"];
    assert_eq!(
        body["example"],
        json!({"data": [{"x": 1.5, "region": "US"}, {"x": 2.5, "region": null}]})
    );
    let row = &body["schema"]["properties"]["data"]["items"];
    assert_eq!(
        row["properties"]["region"],
        json!({"type": ["string", "null"]})
    );
    assert_eq!(row["required"], json!(["x", "region"]));
}

#[test]
fn metrics_count_each_call_once() {
    let service = Service::start(Settings::default());
    service.post(
        "/predict",
        r#"{"data":[{"x":1,"region":null},{"x":2,"region":null}]}"#,
    );
    service.post("/predict", "{");
    service.post("/predict", r#"{"data":[{"x":-1,"region":null}]}"#);
    let metrics = service.get("/metrics");
    assert_eq!(
        metrics.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    for line in [
        r#"envelope_requests_total{function="double",protocol="native",code="2xx"} 1"#,
        r#"envelope_requests_total{function="double",protocol="native",code="4xx"} 1"#,
        r#"envelope_requests_total{function="double",protocol="native",code="5xx"} 1"#,
        r#"envelope_requests_total{function="total",protocol="native",code="2xx"} 0"#,
        r#"envelope_request_seconds_count{function="double"} 3"#,
        r#"envelope_rows_total{function="double"} 2"#,
        r#"envelope_workers{state="live"} 2"#,
        r#"envelope_workers{state="busy"} 1"#,
        "envelope_worker_restarts_total 7",
    ] {
        assert!(
            metrics.text().lines().any(|found| found == line),
            "{line} is not in\n{}",
            metrics.text()
        );
    }
}

#[test]
fn calls_in_flight_are_finished_before_the_service_ends() {
    let mut service = Service::start(Settings::default());
    let mut stream = service.connect();
    stream
        .write_all(post("/predict", "", r#"{"data":[{"x":-3,"region":null}]}"#).as_bytes())
        .unwrap();
    while !service
        .get("/metrics")
        .text()
        .contains("envelope_inflight 1")
    {}
    service.stop().unwrap();
    assert_eq!(Answer::read(&mut stream).status, 200);
    assert!(
        TcpStream::connect(service.address).is_err(),
        "nobody listens any more"
    );
}

#[test]
fn calls_that_outlast_the_drain_are_cut_off() {
    let mut service = Service::start(Settings {
        drain_deadline: Duration::from_millis(20),
        ..Settings::default()
    });
    let mut stream = service.connect();
    let request = post("/predict", "", r#"{"data":[]}"#);
    stream
        .write_all(&request.as_bytes()[..request.len() - 1])
        .unwrap();
    while !service
        .get("/metrics")
        .text()
        .contains("envelope_inflight 1")
    {}
    service.stop().unwrap();
    assert_eq!(stream.read(&mut [0; 16]).unwrap_or(0), 0);
}

#[test]
fn a_port_in_use_is_an_error_of_its_own() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let executor = tokio::runtime::Runtime::new().unwrap();
    let settings = Settings {
        listen: address,
        ..Settings::default()
    };
    let served = executor.block_on(serve(
        settings,
        components().0,
        std::future::pending(),
        |_| {},
    ));
    let error = served.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("port {} is in use", address.port())
    );
    assert_eq!((error.code(), error.exit_code()), ("port_in_use", 5));
    assert!(error.hint().unwrap().contains("--port 0"));
}

#[test]
fn a_function_that_fails_on_its_sample_is_not_served() {
    let (mut components, _) = components();
    components.samples[1] = Some(batch([-1.0]));
    let executor = tokio::runtime::Runtime::new().unwrap();
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        ..Settings::default()
    };
    let served = executor.block_on(serve(settings, components, std::future::pending(), |_| {
        panic!("it is not ready")
    }));
    let error = served.unwrap_err();
    assert_eq!(error.to_string(), "`total` does not answer its own sample");
}

#[test]
fn http_2_is_spoken_on_the_same_port() {
    let service = Service::start(Settings::default());
    let mut stream = service.connect();
    // The preface and empty settings, by hand.
    stream
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .unwrap();
    let mut head = [0; 9];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(head[3], 4, "the answer begins with settings");
}
