//! What hostile clients send, byte by byte, and an honest one who is served meanwhile.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use server::Settings;
use support::{Answer, Honest, Service, becomes, call, eventually, is_closed, post};

const BRIEF: Duration = Duration::from_millis(300);

/// Attacks a service with `settings` while somebody honest uses it.
fn attacked(settings: Settings, attack: impl FnOnce(&Service)) {
    let service = Service::start(settings);
    let honest = Honest::begin(&service);
    attack(&service);
    assert!(honest.end() >= 20);
}

/// The bytes are answered with one of the `statuses`, or not at all, and the connection ends.
#[track_caller]
fn is_refused(service: &Service, what: &str, bytes: &[u8], statuses: &[u16]) {
    let mut stream = service.connect();
    // It may be closed before all is sent.
    _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{what}: {error}, {}", String::from_utf8_lossy(&answer)),
    }
    let answer = String::from_utf8_lossy(&answer);
    let heads: Vec<_> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answer[at + 9..at + 12])
        .collect();
    let expected = |status: &&str| statuses.contains(&status.parse().unwrap());
    assert!(
        heads.len() <= 1 && heads.iter().all(expected),
        "{what}: {answer}"
    );
}

fn with_headers(headers: &str) -> Vec<u8> {
    let body = "{\"data\":[]}";
    format!(
        "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n{body}"
    )
    .into_bytes()
}

#[test]
fn framing_that_could_be_read_in_two_ways_is_refused() {
    let cases = [
        (
            "two lengths that differ",
            "content-length: 11\r\ncontent-length: 12\r\n",
        ),
        ("a list of lengths", "content-length: 11, 12\r\n"),
        ("a negative length", "content-length: -11\r\n"),
        ("a length with a sign", "content-length: +11\r\n"),
        ("a length in hexadecimal", "content-length: 0xb\r\n"),
        (
            "a length beyond 64 bits",
            "content-length: 18446744073709551627\r\n",
        ),
        ("an unknown coding", "transfer-encoding: xchunked\r\n"),
        (
            "a coding after chunked",
            "transfer-encoding: chunked, identity\r\n",
        ),
        (
            "a vertical tab before chunked",
            "transfer-encoding: \x0bchunked\r\n",
        ),
        ("a space before the colon", "content-length : 11\r\n"),
        ("a folded header", "content-length: 11\r\nx-a: b\r\n c\r\n"),
        ("a header without a name", ": 1\r\ncontent-length: 11\r\n"),
        ("a nul in a value", "x-a: b\0c\r\ncontent-length: 11\r\n"),
        (
            "a line without a colon",
            "nonsense\r\ncontent-length: 11\r\n",
        ),
    ];
    attacked(Settings::default(), |service| {
        for (what, headers) in cases {
            is_refused(service, what, &with_headers(headers), &[400]);
        }
    });
}

#[test]
fn a_body_with_length_and_chunks_does_not_hide_a_request() {
    let smuggled = "GET /healthz HTTP/1.1\r\nhost: x\r\nx-request-id: smuggled\r\n\r\n";
    let headers = "content-length: 5\r\ntransfer-encoding: chunked\r\n";
    let request = [
        format!(
            "POST /predict HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{headers}\r\n"
        )
        .as_str(),
        "0\r\n\r\n",
        smuggled,
    ]
    .concat();
    attacked(Settings::default(), |service| {
        let mut stream = service.connect();
        stream.write_all(request.as_bytes()).unwrap();
        // Chunks count, as RFC 9112 says, and the connection ends after that request.
        assert_eq!(Answer::read(&mut stream).unwrap().status, 400);
        let mut rest = String::new();
        _ = stream.read_to_string(&mut rest);
        assert!(!rest.contains("smuggled"), "{rest}");
    });
}

#[test]
fn chunks_that_cannot_be_are_refused() {
    let chunked = |body: &str| {
        let head = "POST /predict HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\n";
        format!("{head}transfer-encoding: chunked\r\n\r\n{body}").into_bytes()
    };
    let extension = format!("5;{}\r\n", "x".repeat(1 << 20));
    let trailers = format!("0\r\nx-a: {}\r\n\r\n", "x".repeat(1 << 20));
    let cases = [
        ("a size beyond 64 bits", "10000000000000000\r\n".to_owned()),
        ("a negative size", "-1\r\n".to_owned()),
        ("a size that is none", "zz\r\n".to_owned()),
        ("an extension of a megabyte", extension),
        (
            "a size of a megabyte of zeros",
            format!("{}5\r\n", "0".repeat(1 << 20)),
        ),
        ("trailers of a megabyte", trailers),
    ];
    attacked(
        Settings {
            body_timeout: BRIEF,
            ..Settings::default()
        },
        |service| {
            for (what, body) in cases {
                is_refused(service, what, &chunked(&body), &[400, 408]);
            }
        },
    );
}

#[test]
fn heads_that_are_too_large_or_make_no_sense_are_refused() {
    let get = |target: &str, headers: &str| {
        format!("GET {target} HTTP/1.1\r\nhost: x\r\n{headers}\r\n").into_bytes()
    };
    let many: String = (0..200)
        .map(|number| format!("x-{number}: 1\r\n"))
        .collect();
    let cases = [
        ("two hundred headers", get("/healthz", &many)),
        (
            "a header of 100 KiB",
            get("/healthz", &format!("x-a: {}\r\n", "x".repeat(100 << 10))),
        ),
        (
            "a path of 100 KiB",
            get(&format!("/{}", "x".repeat(100 << 10)), ""),
        ),
        (
            "a version that is none",
            b"GET / HTTP/3.9\r\nhost: x\r\n\r\n".to_vec(),
        ),
        ("a request of 1991", b"GET /healthz\r\n\r\n".to_vec()),
        (
            "a method with a space",
            b"GE T / HTTP/1.1\r\nhost: x\r\n\r\n".to_vec(),
        ),
        (
            "a handshake of TLS",
            b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03\r\n\r\n".to_vec(),
        ),
        ("random bytes", (0..=255).cycle().take(4096).collect()),
    ];
    attacked(
        Settings {
            header_timeout: BRIEF,
            ..Settings::default()
        },
        |service| {
            for (what, bytes) in cases {
                is_refused(service, what, &bytes, &[400, 414, 431]);
            }
        },
    );
}

#[test]
fn strange_targets_are_not_found_and_open_nothing() {
    let targets = [
        "//",
        "/./healthz",
        "/../etc/passwd",
        "/%2e%2e/",
        "/%252e%252e",
        "/predict/%c0%ae",
        "/predict/%00",
        "/healthz;x=1",
        "/predict/..%2f..%2fetc%2fpasswd",
        "/\\",
        "/predict/\u{2215}",
    ];
    attacked(Settings::default(), |service| {
        for target in targets {
            let answer = service.get(target);
            assert!(
                [400, 404].contains(&answer.status),
                "{target}: {}",
                answer.status
            );
            assert!(!answer.body.contains("root:"));
        }
        assert_eq!(
            service
                .get(&format!("/healthz?{}", "a=1&".repeat(10_000)))
                .status,
            200
        );
        for method in ["FOO", "get", "TRACE", "CONNECT", "OPTIONS"] {
            let mut stream = service.connect();
            let request = format!("{method} /healthz HTTP/1.1\r\nhost: x\r\n\r\n");
            stream.write_all(request.as_bytes()).unwrap();
            let status = Answer::read(&mut stream).unwrap().status;
            assert!([400, 405].contains(&status), "{method}: {status}");
        }
    });
}

#[test]
fn headers_that_drip_in_are_given_up() {
    let settings = Settings {
        header_timeout: BRIEF,
        ..Settings::default()
    };
    attacked(settings, |service| {
        let mut streams: Vec<_> = (0..50).map(|_| service.connect()).collect();
        let begun = Instant::now();
        for byte in b"GET /healthz HTTP/1.1\r\nx-a: " {
            // Each byte is on time; all of them are not.
            streams
                .iter_mut()
                .for_each(|stream| _ = stream.write_all(&[*byte]));
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(streams.iter_mut().all(is_closed));
        assert!(begun.elapsed() < Duration::from_secs(20));
    });
}

#[test]
fn a_body_that_stalls_is_given_up() {
    let settings = Settings {
        body_timeout: BRIEF,
        ..Settings::default()
    };
    attacked(settings, |service| {
        let request = call(1.0, "");
        let mut streams: Vec<_> = (0..50).map(|_| service.connect()).collect();
        for stream in &mut streams {
            stream
                .write_all(&request.as_bytes()[..request.len() - 5])
                .unwrap();
        }
        for mut stream in streams {
            let answer = Answer::read(&mut stream).unwrap();
            assert_eq!((answer.status, answer.code().as_str()), (408, "slow_body"));
            assert!(is_closed(&mut stream));
        }
    });
}

#[test]
fn who_does_not_take_the_answer_is_given_up() {
    let settings = Settings {
        write_timeout: BRIEF,
        ..Settings::default()
    };
    attacked(settings, |service| {
        let mut streams: Vec<_> = (0..4).map(|_| service.connect()).collect();
        for stream in &mut streams {
            stream.write_all(call(-7.0, "").as_bytes()).unwrap();
        }
        // Answers of some megabytes begin to come, however long it took to make them.
        for stream in &streams {
            stream.peek(&mut [0]).unwrap();
        }
        std::thread::sleep(10 * BRIEF);
        for mut stream in streams {
            let answer = Answer::read(&mut stream);
            assert!(
                answer.is_err(),
                "all of the answer was kept for who did not take it"
            );
        }
    });
}

#[test]
fn silent_connections_leave_room_for_others_and_for_monitors() {
    let settings = Settings {
        max_connections: 90,
        extra_connections: 18,
        ..Settings::default()
    };
    attacked(settings, |service| {
        let held: Vec<_> = (0..300)
            .filter_map(|_| service.connect_from(2).ok())
            .collect();
        std::thread::sleep(Duration::from_millis(50));
        // From the attacker's own address: there are no calls for it, but its monitor gets through
        // once the places that are kept back are free again.
        let monitored = eventually(|| {
            let mut stream = service.connect_from(2).ok()?;
            stream
                .write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
                .ok()?;
            Answer::read(&mut stream).ok()
        });
        assert_eq!(monitored.status, 200);
        let refused = eventually(|| {
            let mut stream = service.connect_from(2).ok()?;
            stream.write_all(call(1.0, "").as_bytes()).ok()?;
            Answer::read(&mut stream).ok()
        });
        assert_eq!((refused.status, refused.code().as_str()), (503, "full"));
        assert_eq!(service.ask(5.0).body, "{\"predictions\":[10.0]}");
        drop(held);
    });
}

#[test]
fn one_client_with_a_hundred_times_the_calls_does_not_starve_others() {
    let settings = Settings {
        max_calls_in_flight: 18,
        ..Settings::default()
    };
    let service = Service::start(settings);
    // Their bodies never end: they hold whatever they get.
    let request = call(1.0, "");
    let greedy: Vec<_> = (0..200)
        .map(|_| {
            let mut stream = service.connect_from(2).unwrap();
            stream
                .write_all(&request.as_bytes()[..request.len() - 5])
                .unwrap();
            stream
        })
        .collect();
    eventually(|| {
        service
            .get("/metrics")
            .body
            .contains("envelope_inflight 16\n")
            .then_some(())
    });
    let honest = Honest::begin(&service);
    assert!(honest.end() >= 20);
    assert_eq!(service.get("/readyz").status, 200);
    drop(greedy);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    attacked(Settings::default(), |service| {
        let mut stream = service.connect();
        let requests: String = (0..1000).map(|x| call(f64::from(x), "")).collect();
        stream.write_all(requests.as_bytes()).unwrap();
        for x in 0..1000 {
            let answer = Answer::read(&mut stream).unwrap();
            assert_eq!(
                answer.body,
                format!("{{\"predictions\":[{:?}]}}", f64::from(x) * 2.0)
            );
        }
    });
}

#[test]
fn what_follows_a_refused_body_is_not_taken_for_a_request() {
    let settings = Settings {
        max_body_bytes: 100,
        ..Settings::default()
    };
    attacked(settings, |service| {
        let long = post("", &" ".repeat(200));
        let mut stream = service.connect();
        stream
            .write_all(format!("{long}{}", call(1.0, "")).as_bytes())
            .unwrap();
        assert_eq!(Answer::read(&mut stream).unwrap().status, 413);
        let mut rest = vec![];
        _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    });
}

#[test]
fn bodies_together_have_a_limit_too() {
    let settings = Settings {
        max_bytes_in_flight: 100_000,
        ..Settings::default()
    };
    attacked(settings, |service| {
        let request = post("", &" ".repeat(90_000));
        let mut first = service.connect();
        first
            .write_all(&request.as_bytes()[..request.len() - 1])
            .unwrap();
        eventually(|| {
            let metrics = service.get("/metrics").body;
            let line = metrics
                .lines()
                .find(|line| line.starts_with("envelope_inflight_bytes "))?;
            (line.split(' ').nth(1)?.parse::<u64>().ok()? > 80_000).then_some(())
        });
        let mut second = service.connect();
        second
            .write_all(post("", &" ".repeat(50_000)).as_bytes())
            .unwrap();
        let answer = Answer::read(&mut second).unwrap();
        assert_eq!(
            (answer.status, answer.code().as_str()),
            (503, "too_much_in_flight")
        );
        first.write_all(b" ").unwrap();
        assert_eq!(
            Answer::read(&mut first).unwrap().status,
            400,
            "it is no JSON"
        );
    });
}

#[test]
fn who_goes_away_leaves_nothing_behind() {
    attacked(Settings::default(), |service| {
        for _ in 0..50 {
            let mut stream = service.connect();
            stream.write_all(call(-3.0, "").as_bytes()).unwrap();
            stream.shutdown(Shutdown::Both).unwrap();
        }
    });
    let service = Service::start(Settings::default());
    let mut stream = service.connect();
    stream.write_all(call(-3.0, "").as_bytes()).unwrap();
    let metrics = || service.get("/metrics").body;
    becomes(|| metrics().contains("envelope_inflight 1\n"));
    drop(stream);
    eventually(|| {
        let metrics = metrics();
        let counted =
            "envelope_requests_total{function=\"double\",protocol=\"native\",code=\"gone\"} 1\n";
        (metrics.contains("envelope_inflight 0\n") && metrics.contains(counted)).then_some(())
    });
}

#[test]
fn upgrades_are_not_made() {
    attacked(Settings::default(), |service| {
        for upgrade in ["h2c", "websocket"] {
            let mut stream = service.connect();
            let head = format!(
                "GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: upgrade, http2-settings\r\nupgrade: {upgrade}\r\n\
                 http2-settings: AAMAAABkAAQAAP__\r\n\r\n"
            );
            stream.write_all(head.as_bytes()).unwrap();
            assert_eq!(Answer::read(&mut stream).unwrap().status, 200);
        }
    });
}

/// The beginning of a connection of HTTP/2, with these settings.
fn preface(settings: &[u8]) -> Vec<u8> {
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &frame(SETTINGS, 0, 0, settings),
    ]
    .concat()
}

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// `GET /healthz` in HPACK, nothing of it to be remembered.
fn get_healthz() -> Vec<u8> {
    [b"\x82\x86\x04\x08/healthz\x01\x01x".as_slice()].concat()
}

/// `POST /predict` in HPACK.
fn post_predict() -> Vec<u8> {
    let media = b"\x0f\x10\x10application/json";
    [b"\x83\x86\x04\x08/predict\x01\x01x".as_slice(), media].concat()
}

/// Sends as much as the service takes.
fn flood(stream: &mut TcpStream, piece: impl Fn(u32) -> Vec<u8>, count: u32) {
    let mut taken = stream.try_clone().unwrap();
    // Somebody has to take what it answers.
    let reader = std::thread::spawn(move || std::io::copy(&mut taken, &mut std::io::sink()));
    for group in 0..count / 100 {
        let bytes: Vec<u8> = (0..100)
            .flat_map(|number| piece(group * 100 + number))
            .collect();
        if stream.write_all(&bytes).is_err() {
            break;
        }
    }
    _ = stream.shutdown(Shutdown::Both);
    _ = reader.join();
}

/// The kinds of all frames until the connection ends, or until one of kind `last`.
fn frames(stream: &mut TcpStream, last: u8) -> Vec<u8> {
    let mut kinds = vec![];
    let mut head = [0; 9];
    while !kinds.contains(&last) && stream.read_exact(&mut head).is_ok() {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        if stream.read_exact(&mut vec![0; length]).is_err() {
            break;
        }
        kinds.push(head[3]);
    }
    kinds
}

#[test]
fn floods_of_http_2_cost_the_flooder_alone() {
    type Piece = fn(u32) -> Vec<u8>;
    let floods: [(&str, Piece); 8] = [
        ("rapid reset", |number| {
            let stream = 2 * number + 1;
            let begun = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_healthz());
            [begun, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        }),
        ("resets made by us", |number| {
            let stream = 2 * number + 1;
            let begun = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get_healthz());
            [begun, frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes())].concat()
        }),
        ("pings", |_| frame(PING, 0, 0, &[7; 8])),
        ("settings", |_| frame(SETTINGS, 0, 0, &[])),
        ("priorities", |number| {
            frame(PRIORITY, 0, 2 * number + 1, &[0, 0, 0, 0, 1])
        }),
        ("empty data", |number| match number {
            0 => frame(HEADERS, END_HEADERS, 1, &post_predict()),
            _ => frame(DATA, 0, 1, &[]),
        }),
        ("continuations", |number| match number {
            0 => frame(HEADERS, 0, 1, &get_healthz()),
            _ => frame(CONTINUATION, 0, 1, b"\x00\x03x-a\x0512345"),
        }),
        ("more streams than there may be", |number| {
            frame(HEADERS, END_HEADERS, 2 * number + 1, &post_predict())
        }),
    ];
    attacked(Settings::default(), |service| {
        for (_, piece) in floods {
            let mut stream = service.connect();
            stream.write_all(&preface(&[])).unwrap();
            flood(&mut stream, piece, 20_000);
        }
    });
}

#[test]
fn resets_in_a_row_end_the_connection() {
    let reset = |kind: u8, payload: u32| {
        let mut bytes = preface(&[]);
        for number in 0..2000 {
            let stream = 2 * number + 1;
            bytes.extend(frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                stream,
                &get_healthz(),
            ));
            bytes.extend(frame(kind, 0, stream, &payload.to_be_bytes()));
        }
        bytes
    };
    attacked(Settings::default(), |service| {
        for (kind, payload) in [(RST_STREAM, 8), (WINDOW_UPDATE, 0)] {
            let mut stream = service.connect();
            _ = stream.write_all(&reset(kind, payload));
            assert!(frames(&mut stream, GOAWAY).contains(&GOAWAY) || is_closed(&mut stream));
        }
    });
}

#[test]
fn a_window_that_stays_shut_does_not_hold_an_answer_for_ever() {
    let settings = Settings {
        write_timeout: BRIEF,
        ..Settings::default()
    };
    attacked(settings, |service| {
        let mut stream = service.connect();
        // The initial window of streams: nothing; and then one byte.
        let mut bytes = preface(&[0, 4, 0, 0, 0, 0]);
        let body = b"{\"data\":[{\"x\":-7}]}";
        bytes.extend(frame(HEADERS, END_HEADERS, 1, &post_predict()));
        bytes.extend(frame(DATA, END_STREAM, 1, body));
        bytes.extend(frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()));
        stream.write_all(&bytes).unwrap();
        assert!(
            frames(&mut stream, 255).contains(&HEADERS),
            "it was answered"
        );
        assert!(is_closed(&mut stream));
    });
}

#[test]
fn a_connection_of_http_2_may_be_silent_for_some_time_only() {
    let settings = Settings {
        idle_timeout: BRIEF,
        header_timeout: BRIEF,
        ..Settings::default()
    };
    attacked(settings, |service| {
        let mut stream = service.connect();
        let request = frame(HEADERS, END_HEADERS | END_STREAM, 1, &get_healthz());
        stream.write_all(&[preface(&[]), request].concat()).unwrap();
        let kinds = frames(&mut stream, 255);
        assert!(
            kinds.contains(&HEADERS) && kinds.contains(&GOAWAY),
            "{kinds:?}"
        );
    });
}
