//! What every request has to pass, whatever it asks for, and the paths and ports that others choose.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};

use server::Settings;
use support::{Answer, Service, becomes};

/// Sends it over a connection of its own.
fn send(address: SocketAddr, request: &str) -> Answer {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    Answer::read(&mut stream).unwrap()
}

fn get(address: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    send(address, &request)
}

fn post(path: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\n{headers}content-length: {length}\r\n\r\n{body}")
}

const BODY: &str = "{\"data\":[{\"x\":1}]}";

#[test]
fn a_page_that_calls_itself_by_its_own_name_learns_nothing() {
    let service = Service::start(Settings::default());
    for host in ["evil.test", "evil.test:8080", "0.0.0.0", "192.168.1.1"] {
        for path in ["/", "/metrics", "/healthz", "/envelope", "/nothing"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n");
            let answer = send(service.address, &request);
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (421, "unknown_host")
            );
            assert!(!answer.body.contains("evil"), "{}", answer.body);
        }
        let headers = format!("host: {host}\r\ncontent-type: application/json\r\n");
        let answer = send(service.address, &post("/predict", &headers, BODY));
        assert_eq!(answer.status, 421);
    }
    for host in ["localhost", "127.0.0.1:8080", "[::1]:8080", "x"] {
        let request = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\n\r\n");
        assert_eq!(send(service.address, &request).status, 200, "{host}");
    }
}

#[test]
fn a_request_is_for_one_host() {
    let service = Service::start(Settings::default());
    let heads = [
        "GET /healthz HTTP/1.1\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\n",
        "GET /healthz HTTP/1.1\r\nhost: \r\n",
        "GET http://evil.test/healthz HTTP/1.1\r\nhost: localhost\r\n",
        "GET http://localhost/healthz HTTP/1.1\r\nhost: evil.test\r\n",
        "GET /healthz HTTP/1.1\r\nhost: localhost@evil.test\r\n",
    ];
    for head in heads {
        let answer = send(service.address, &format!("{head}\r\n"));
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (400, "bad_host"),
            "{head}"
        );
    }
    let old = send(service.address, "GET /healthz HTTP/1.0\r\n\r\n");
    assert_eq!(old.status, 200);
}

#[test]
fn what_nobody_meets_is_not_expected_in_vain() {
    let service = Service::start(Settings::default());
    let with = |expected: &str| {
        let headers =
            format!("host: localhost\r\ncontent-type: application/json\r\nexpect: {expected}\r\n");
        send(service.address, &post("/predict", &headers, BODY))
    };
    assert_eq!(with("100-continue").status, 100);
    let refused = with("a-coffee");
    assert_eq!(
        (refused.status, refused.code().as_str()),
        (417, "expectation_failed")
    );
}

#[test]
fn a_port_of_monitors_answers_them_and_nobody_else() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let monitors = free.local_addr().unwrap();
    drop(free);
    let service = Service::start(Settings {
        listen_for_monitors: Some(monitors),
        ..Settings::default()
    });
    becomes(|| TcpStream::connect(monitors).is_ok());
    for path in [
        "/metrics",
        "/healthz",
        "/livez",
        "/readyz",
        "/ping",
        "/v2/health/ready",
    ] {
        assert_eq!(get(monitors, path).status, 200, "{path}");
    }
    for path in [
        "/",
        "/envelope",
        "/openapi.json",
        "/predict",
        "/v1/models",
        "/v2",
    ] {
        assert_eq!(get(monitors, path).status, 404, "{path}");
    }
    let headers = "host: localhost\r\ncontent-type: application/json\r\n";
    assert_eq!(send(monitors, &post("/predict", headers, BODY)).status, 404);
    let request = "GET /metrics HTTP/1.1\r\nhost: evil.test\r\n\r\n";
    assert_eq!(send(monitors, request).status, 421);

    assert_eq!(service.get("/metrics").status, 404);
    assert_eq!(service.get("/readyz").status, 200);
    assert_eq!(service.ask(1.0).status, 200);
}

#[test]
fn vertex_calls_where_it_said_it_would() {
    let service = Service::start(Settings {
        health_path: Some("/v1/endpoints/1/deployedModels/2".to_owned()),
        predict_path: Some("/predict".to_owned()),
        ..Settings::default()
    });
    let health = get(service.address, "/v1/endpoints/1/deployedModels/2");
    assert_eq!(
        (health.status, health.body.as_str()),
        (200, r#"{"ready":true,"state":"ready"}"#)
    );
    // Vertex AI is not told what the path means elsewhere.
    let headers = "host: localhost\r\ncontent-type: application/json\r\n";
    let body = r#"{"instances":[{"x":3}],"parameters":{"a":1}}"#;
    let answer = send(service.address, &post("/predict", headers, body));
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "{\"predictions\":[6.0]}")
    );
    let wrong = send(service.address, &post("/predict", headers, "{}"));
    assert_eq!(wrong.status, 400);
    assert!(wrong.body.starts_with("{\"error\":"), "{}", wrong.body);
    let metrics = service.get("/metrics").body;
    let counted = "envelope_requests_total{function=\"double\",protocol=\"v1\",code=\"2xx\"} 1\n";
    assert!(metrics.contains(counted), "{metrics}");
}
