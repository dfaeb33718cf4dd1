//! What a service says about itself.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{ErrorKind, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use server::Settings;
use support::{Answer, Service, becomes, digest, slow_components};

fn metrics(service: &Service, accept: &str) -> Answer {
    let mut stream = service.connect();
    let request = format!("GET /metrics HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\n\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    Answer::read(&mut stream).unwrap()
}

#[test]
fn metrics_are_written_as_the_caller_can_read_them() {
    let service = Service::start(Settings::default());
    let open = metrics(
        &service,
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    );
    assert!(
        open.header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text; version=1.0.0")
    );
    assert!(
        open.body.ends_with("# EOF\n") && open.body.contains("# TYPE envelope_requests counter\n")
    );
    let plain = metrics(&service, "*/*");
    assert_eq!(
        plain.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    assert!(
        !plain.body.contains("# EOF")
            && plain
                .body
                .contains("# TYPE envelope_requests_total counter\n")
    );
    let info = format!(
        "envelope_model_info{{name=\"doubler\",id=\"{}\"}} 1\n",
        digest(2.0)
    );
    assert!(
        open.body.contains(&info) && plain.body.contains(&info),
        "{}",
        plain.body
    );
}

#[test]
fn promtool_has_nothing_to_say_about_the_metrics() {
    let service = Service::start(Settings::default());
    service.ask(1.0);
    let text = service.get("/metrics").body;
    let started = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut promtool = match started {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!(
                "SKIPPED: there is no `promtool` here (Debian: `apt-get install prometheus`)"
            );
            return;
        }
        started => started.unwrap(),
    };
    promtool
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let done = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned();
    assert!(
        done.status.success() && said.trim().is_empty(),
        "{said}\n{text}"
    );
}

#[test]
fn the_number_of_series_does_not_depend_on_callers() {
    let service = Service::start(Settings::default());
    let count = || {
        service
            .get("/metrics")
            .body
            .lines()
            .filter(|line| !line.starts_with('#'))
            .count()
    };
    let before = count();
    for number in 0..20 {
        service.get(&format!("/predict/{number}"));
        service.get(&format!("/{number}?a={number}"));
        service.ask_with(
            f64::from(number),
            &format!("x-request-id: {number}\r\nuser-agent: {number}\r\n"),
        );
    }
    assert_eq!(count(), before);
}

#[test]
fn health_tells_what_is_served_and_by_whom() {
    let service = Service::start(Settings::default());
    let health: Value = serde_json::from_str(&service.get("/healthz").body).unwrap();
    assert_eq!(health["digest"], json!(digest(2.0)));
    assert_eq!(
        (&health["live"], &health["workers"]["most"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(health["sandbox"], Value::Null, "nobody is confined here");
}

#[test]
fn a_trace_goes_through_to_the_body_of_an_error() {
    let service = Service::start(Settings::default());
    let failed = service.ask_with(
        -1.0,
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
    );
    let problem: Value = serde_json::from_str(&failed.body).unwrap();
    assert_eq!(
        (failed.status, &problem["trace_id"]),
        (500, &json!("4bf92f3577b34da6a3ce929d0e0e4736"))
    );
    let begun =
        |headers| -> Value { serde_json::from_str(&service.ask_with(-1.0, headers).body).unwrap() };
    let ids =
        ["", "traceparent: 00-zz-00-00\r\n"].map(|headers| begun(headers)["trace_id"].clone());
    assert!(
        ids.iter().all(|id| id.as_str().unwrap().len() == 32) && ids[0] != ids[1],
        "{ids:?}"
    );
}

#[test]
fn an_answer_that_depends_on_who_else_asks_ends_gathering() {
    let (mut components, model) = slow_components(2.0, Duration::from_millis(20));
    components.manifest.functions[0].certificate.row_wise = true;
    let settings = Settings {
        sample_every: 1,
        ..Settings::default()
    };
    let service = Service::of(settings, components);
    let together = |x: f64| {
        std::thread::scope(|scope| {
            let clients: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| service.ask(x).status))
                .collect();
            assert!(
                clients
                    .into_iter()
                    .all(|client| client.join().unwrap() == 200)
            );
        });
    };
    together(1.0);
    let says = |line: &str| service.get("/metrics").body.contains(line);
    becomes(|| !says("envelope_sampled_total{function=\"double\",outcome=\"equal\"} 0\n"));
    assert!(says("envelope_gathering{function=\"double\"} 1\n"));
    together(-8.0);
    becomes(|| says("envelope_gathering{function=\"double\"} 0\n"));
    let before = model.called.load(std::sync::atomic::Ordering::SeqCst);
    together(-8.0);
    let after = model.called.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(after - before, 16, "each goes alone");
}
