//! A service executable, as `envelope build` makes it, with a real function in real workers.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use server::{Hints, Surroundings, build};
use tempfile::TempDir;

/// Builds an executable for an envelope of the acceptance tests, in a folder of its own.
fn build_service(envelope: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let hints = Hints::from(acceptance::environments());
    let stub = Path::new(env!("CARGO_BIN_EXE_envelope-service"));
    let built = folder.path().join("built");
    let path = acceptance::envelope_path(envelope);
    build(stub, &path, Surroundings::Machine(&hints), &built).unwrap();
    // It works wherever it is.
    let moved = folder.path().join("service");
    std::fs::rename(built, &moved).unwrap();
    (folder, moved)
}

/// A running executable, killed when the test ends before it does.
struct Service {
    process: Child,
    address: String,
    _folder: TempDir,
}

impl Service {
    fn start(envelope: &str, arguments: &[&str]) -> Self {
        let (folder, program) = build_service(envelope);
        Self::run(folder, &program, arguments)
    }

    fn run(folder: TempDir, program: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(program);
        command.args(["--port", "0"]).args(arguments).env_clear();
        Self::begin(folder, command)
    }

    fn begin(folder: TempDir, mut command: Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let address = lines.by_ref().find_map(|line| {
            line.split_once(" answers at http://")
                .map(|(_, at)| at.to_owned())
        });
        // Somebody must read its log, or it stops at a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            address: address.expect("the service becomes ready"),
            process,
            _folder: folder,
        }
    }

    fn post(&self, body: &Value) -> (u16, Value) {
        self.post_within(30.0, body)
    }

    fn post_within(&self, seconds: f64, body: &Value) -> (u16, Value) {
        let (status, body) = self.ask(&post(seconds, &body.to_string()));
        (status, serde_json::from_str(&body).unwrap())
    }

    fn get(&self, path: &str) -> (u16, String) {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        self.ask(request.as_bytes())
    }

    fn ask(&self, request: &[u8]) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        stream.write_all(request).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            body.to_owned(),
        )
    }

    fn signal(&self) {
        self.signal_with("-TERM");
    }

    fn signal_with(&self, signal: &str) {
        let id = self.process.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    }

    fn ended(mut self) -> ExitStatus {
        self.process.wait().unwrap()
    }
}

/// A call whose caller waits for so long.
fn post(seconds: f64, body: &str) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST /predict HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
         x-request-timeout: {seconds}\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body.as_bytes()].concat()
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn an_executable_answers_and_ends_when_it_is_told_to() {
    let service = Service::start("cheap", &["--workers", "1"]);
    assert_eq!(service.get("/readyz").0, 200);
    let (status, answer) =
        service.post(&json!({"data": [{"a": 1.5, "b": 0.25}, {"b": 1, "a": -2}]}));
    assert_eq!(
        (status, answer),
        (200, json!({"predictions": [3.25, -3.0]}))
    );
    let (status, problem) = service.post(&json!({"data": [{"a": "1.5"}]}));
    assert_eq!(
        (status, &problem["errors"][1]["code"]),
        (422, &json!("missing_column"))
    );
    let openapi: Value = serde_json::from_str(&service.get("/openapi.json").1).unwrap();
    let body = &openapi["paths"]["/predict"]["post"]["requestBody"]["content"]["application/json"];
    let example = &body["example"];
    assert_eq!(service.post(example).0, 200, "{example}");
    service.signal();
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn a_second_signal_drops_the_calls_in_flight() {
    let service = Service::start("naughty", &["--workers", "1"]);
    let body = json!({"data": [{"action": "hang", "x": 0.0}]}).to_string();
    let mut call = TcpStream::connect(&service.address).unwrap();
    call.write_all(&post(30.0, &body)).unwrap();
    while !service
        .get("/metrics")
        .1
        .contains("envelope_workers{state=\"busy\"} 1")
    {}
    service.signal();
    // The first one was noticed when nobody listens any more.
    while TcpStream::connect(&service.address).is_ok() {}
    service.signal();
    assert_eq!(service.ended().code(), Some(130));
}

/// Puts an envelope of the acceptance tests, or something else, in place of `file` in one step.
fn put(file: &Path, bytes: &[u8]) {
    let beside = file.with_extension("new");
    std::fs::write(&beside, bytes).unwrap();
    std::fs::rename(beside, file).unwrap();
}

#[test]
fn a_hangup_makes_it_read_its_file_again() {
    let bytes = |name: &str| std::fs::read(acceptance::envelope_path(name)).unwrap();
    let (cheap, plain) = (bytes("cheap"), bytes("plain"));
    let (folder, program) = build_service("cheap");
    let file = folder.path().join("served.envelope");
    put(&file, &cheap);
    let path = file.to_str().unwrap().to_owned();
    let service = Service::run(folder, &program, &["--workers", "1", "--envelope", &path]);
    let cheaply = || service.post(&json!({"data": [{"a": 1.5, "b": 0.25}]}));
    let plainly = || service.post(&json!({"data": [{"a": 1, "s": "xyz"}]}));
    let becomes = |what: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !what() {
            assert!(Instant::now() < deadline, "it did not happen");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let counted = |outcome: &str, count: u32| {
        let line = format!("envelope_swaps_total{{outcome=\"{outcome}\"}} {count}\n");
        service.get("/metrics").1.contains(&line)
    };
    assert_eq!(cheaply(), (200, json!({"predictions": [3.25]})));
    put(&file, &plain);
    service.signal_with("-HUP");
    becomes(&|| plainly() == (200, json!({"predictions": [4]})));
    // Its workers were kept.
    put(&file, &cheap);
    let begun = Instant::now();
    service.signal_with("-HUP");
    becomes(&|| cheaply().0 == 200);
    println!("back in {} ms", begun.elapsed().as_millis());
    assert!(counted("new", 1) && counted("back", 1));
    put(&file, b"no envelope");
    service.signal_with("-HUP");
    becomes(&|| counted("refused", 1));
    assert_eq!(cheaply(), (200, json!({"predictions": [3.25]})));
    service.signal();
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn health_tells_how_the_workers_are_confined() {
    let service = Service::start(
        "cheap",
        &["--workers", "1", "--sandbox", "basic", "--memory", "8GiB"],
    );
    let health: Value = serde_json::from_str(&service.get("/healthz").1).unwrap();
    assert_eq!(health["sandbox"]["asked"], "basic");
    assert_eq!(health["sandbox"]["achieved"], "basic");
    assert_eq!(health["workers"]["live"], 1);
    assert!(health["digest"].as_str().unwrap().starts_with("sha256:"));
}

#[test]
fn workers_are_replaced_after_so_many_calls_and_none_fails() {
    let service = Service::start("cheap", &["--workers", "1", "--recycle-calls", "5"]);
    for _ in 0..40 {
        assert_eq!(
            service.post(&json!({"data": [{"a": 1.5, "b": 0.25}]})).0,
            200
        );
    }
    let health: Value = serde_json::from_str(&service.get("/healthz").1).unwrap();
    assert!(
        health["workers"]["recycled"].as_u64().unwrap() >= 5,
        "{health}"
    );
}

#[test]
fn logs_are_json_and_hold_no_payload() {
    let (folder, program) = build_service("naughty");
    let log = folder.path().join("log");
    let arguments = ["--workers", "1", "--port", "0", "--log-format", "json"];
    let mut process = Command::new(program)
        .args(arguments)
        .env_clear()
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let read = || std::fs::read_to_string(&log).unwrap();
    let address = loop {
        let text = read();
        let found = text
            .lines()
            .find_map(|line| line.split_once(" answers at http://"));
        if let Some((_, address)) = found {
            break address.to_owned();
        }
        std::thread::sleep(Duration::from_millis(10));
    };
    let body = json!({"data": [{"action": "secret action", "x": "secret"}]}).to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&post(30.0, &body)).unwrap();
    stream.read_to_string(&mut String::new()).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    let text = read();
    let line = text
        .lines()
        .find(|line| line.contains("a call was refused"))
        .unwrap();
    let event: Value = serde_json::from_str(line).unwrap();
    assert!(
        event["fields"]["request_id"].is_string() && event["fields"]["trace_id"].is_string(),
        "{line}"
    );
    assert!(!text.contains("secret"), "{text}");
}

#[test]
fn what_a_function_does_is_told_by_its_status() {
    let service = Service::start("naughty", &["--workers", "1"]);
    let act = |action: &str| {
        let seconds = if action == "hang" { 0.3 } else { 30.0 };
        service.post_within(seconds, &json!({"data": [{"action": action, "x": 7.0}]}))
    };
    let (status, problem) = act("raise");
    assert_eq!((status, &problem["code"]), (500, &json!("function_failed")));
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains("ValueError: bad row 7.0")
    );
    assert!(!problem.to_string().contains("Traceback"));
    for (action, status, code) in [
        ("segfault", 503, "worker_crashed"),
        ("exit", 503, "worker_crashed"),
        ("hang", 504, "deadline"),
    ] {
        let (found, problem) = act(action);
        assert_eq!(
            (found, &problem["code"]),
            (status, &json!(code)),
            "{action}"
        );
        let (status, answer) = act("none");
        assert_eq!(
            (status, answer),
            (200, json!({"predictions": [7.0]})),
            "after `{action}`"
        );
    }
}

#[test]
fn gathered_calls_get_the_same_bits_as_calls_alone() {
    let service = Service::start("sklearn_pipeline", &["--workers", "1..2"]);
    let row = |index: u32| json!({"a": f64::from(index) / 3.0, "b": f64::from(index % 5), "colour": "red"});
    let all: Vec<_> = (0..64).map(row).collect();
    let (_, expected) = service.post(&json!({"data": all}));
    std::thread::scope(|scope| {
        for first in 0..8 {
            let (service, expected) = (&service, &expected);
            scope.spawn(move || {
                for index in (first..64).step_by(8) {
                    let (status, answer) = service.post(&json!({"data": [row(index)]}));
                    assert_eq!(status, 200);
                    assert_eq!(
                        answer["predictions"][0], expected["predictions"][index as usize],
                        "row {index}"
                    );
                }
            });
        }
    });
}

#[test]
fn one_value_for_all_rows_is_one_prediction() {
    let service = Service::start("reducer", &["--workers", "1"]);
    assert_eq!(
        service.post(&json!({"data": [{"a": 1.0}, {"a": 2.5}]})).1,
        json!({"predictions": [3.5]})
    );
    assert_eq!(
        service.post(&json!({"data": []})).1,
        json!({"predictions": []})
    );
}

#[test]
fn missing_values_and_several_columns_are_carried() {
    let service = Service::start("nullable", &["--workers", "1"]);
    let (_, answer) =
        service.post(&json!({"data": [{"a": null, "colour": "red"}, {"a": 2, "colour": "blue"}]}));
    assert_eq!(
        answer,
        json!({"predictions": [{"score": -10.0, "label": "RED"}, {"score": 20.0, "label": "BLUE"}]})
    );
}

#[test]
fn a_port_in_use_is_told_at_once() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (_folder, program) = build_service("cheap");
    let output = Command::new(program)
        .env_clear()
        .env("PORT", &port)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5));
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        told,
        format!(
            "error[port_in_use]: port {port} is in use\n  hint: choose another one, or any free one with `--port 0`\n"
        )
    );
}

#[test]
fn what_platforms_say_in_variables_is_done() {
    let (folder, program) = build_service("cheap");
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port().to_string();
    drop(free);
    let mut command = Command::new(program);
    command
        .args(["serve", "--workers", "1"])
        .env_clear()
        .env("AIP_HTTP_PORT", &port)
        .env("AIP_HEALTH_ROUTE", "/here/health")
        .env("AIP_PREDICT_ROUTE", "/here:predict");
    let service = Service::begin(folder, command);
    assert_eq!(service.address, format!("127.0.0.1:{port}"));
    assert_eq!(service.get("/here/health").0, 200);
    let body = r#"{"instances":[{"a":1.0,"b":2.0}]}"#;
    let request = String::from_utf8(post(30.0, body)).unwrap();
    let (status, answer) = service.ask(request.replace("/predict", "/here:predict").as_bytes());
    assert_eq!(status, 200, "{answer}");
    assert!(answer.starts_with("{\"predictions\":["), "{answer}");
}

#[test]
fn a_program_without_an_envelope_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_envelope-service"))
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(
        told.contains("carries no envelope") && told.contains("envelope build"),
        "{told}"
    );
}
