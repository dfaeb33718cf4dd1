//! What the service itself holds is bounded while it is attacked in many ways at once, and what is
//! left afterwards is little.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::net::TcpSocket;
use tokio::runtime::Builder;

use crate::amount;
use crate::chaos::sum;
use crate::load::Load;
use crate::served::Served;

/// One round of an attack, over a connection of its own; it ends when the service has enough of it.
type Attack = fn(&mut TcpStream) -> io::Result<()>;

/// How long those wait who hold something.
const HOLD: Duration = Duration::from_millis(300);

const ATTACKS: [(&str, Attack); 19] = [
    ("says nothing", |_| hold()),
    ("a head that does not end", |stream| {
        stream.write_all(b"POST /predict HTTP/1.1\r\n")?;
        repeat(stream, 4096, |number| {
            format!("x-{number}: {}\r\n", "x".repeat(1000))
        })
    }),
    ("a head of one line", |stream| {
        stream.write_all(b"POST /predict HTTP/1.1\r\nx-a: ")?;
        repeat(stream, 4096, |_| "x".repeat(1000))
    }),
    ("a head that stays incomplete", |stream| {
        stream.write_all(b"POST /predict HTTP/1.1\r\nhost: localhost\r\n")?;
        hold()
    }),
    ("a body that stalls", |stream| {
        stream.write_all(head("", 60 << 20).as_bytes())?;
        repeat(stream, 8, |_| "1,".repeat(1 << 19))?;
        hold()
    }),
    ("a body of the largest size", |stream| {
        stream.write_all(head("", 64 << 20).as_bytes())?;
        stream.write_all(b"{\"data\":[")?;
        repeat(stream, 64, |_| "1".repeat(1 << 20))
    }),
    ("a body beyond the largest size", |stream| {
        stream.write_all(chunked().as_bytes())?;
        repeat(stream, 100, |_| {
            format!("100000\r\n{}\r\n", " ".repeat(1 << 20))
        })
    }),
    ("chunks of one byte", |stream| {
        stream.write_all(chunked().as_bytes())?;
        repeat(stream, 1000, |_| "1\r\n[\r\n".repeat(1000))
    }),
    ("nested a million times", |stream| {
        whole(stream, "", "[".repeat(1 << 20).as_bytes())
    }),
    ("a name of 16 megabytes", |stream| {
        whole(
            stream,
            "",
            format!("{{\"data\":[{{\"{}\":1}}]}}", "x".repeat(16 << 20)).as_bytes(),
        )
    }),
    ("a million rows", |stream| {
        whole(stream, "", rows(1_000_000).as_bytes())
    }),
    ("a bomb", |stream| {
        let mut bomb = GzEncoder::new(vec![], Compression::best());
        bomb.write_all(&vec![b' '; 256 << 20])?;
        whole(stream, "content-encoding: gzip\r\n", &bomb.finish()?)
    }),
    ("large answers that nobody takes", |stream| {
        let body = rows(100_000);
        stream.write_all(head("", body.len()).as_bytes())?;
        stream.write_all(body.as_bytes())?;
        hold()
    }),
    ("pipelined without a look at the answers", |stream| {
        repeat(stream, 1000, |_| {
            format!("{}{{\"data\":[]}}", head("", 11)).repeat(10)
        })
    }),
    ("resets over HTTP/2", |stream| {
        speak(stream, |number| {
            [open(number), frame(3, 0, 2 * number + 1, &[0, 0, 0, 8])].concat()
        })
    }),
    ("pings over HTTP/2", |stream| {
        speak(stream, |_| frame(6, 0, 0, &[7; 8]))
    }),
    ("settings over HTTP/2", |stream| {
        speak(stream, |_| frame(4, 0, 0, &[]))
    }),
    ("continuations over HTTP/2", |stream| {
        speak(stream, |number| match number {
            0 => frame(1, 0, 1, GET),
            _ => frame(9, 0, 1, b"\x00\x03x-a\x0512345"),
        })
    }),
    ("streams over HTTP/2", |stream| speak(stream, open)),
];

fn rows(count: usize) -> String {
    let row = "{\"a\":1,\"b\":2}";
    format!(
        "{{\"data\":[{}{row}]}}",
        format!("{row},").repeat(count - 1)
    )
}

fn hold() -> io::Result<()> {
    std::thread::sleep(HOLD);
    Ok(())
}

fn head(headers: &str, length: usize) -> String {
    format!(
        "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n"
    )
}

fn chunked() -> String {
    head("transfer-encoding: chunked\r\n", 0).replace("content-length: 0\r\n", "")
}

/// Sends a piece over and over.
fn repeat(stream: &mut TcpStream, times: u32, piece: impl Fn(u32) -> String) -> io::Result<()> {
    (0..times).try_for_each(|number| stream.write_all(piece(number).as_bytes()))
}

/// Sends a request and waits for the answer.
fn whole(stream: &mut TcpStream, headers: &str, body: &[u8]) -> io::Result<()> {
    stream.write_all(head(headers, body.len()).as_bytes())?;
    stream.write_all(body)?;
    stream.read(&mut [0; 4096]).map(drop)
}

/// `GET /healthz` in HPACK.
const GET: &[u8] = b"\x82\x86\x04\x08/healthz\x01\x01x";

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A stream that is to carry a body.
fn open(number: u32) -> Vec<u8> {
    frame(1, 4, 2 * number + 1, GET)
}

fn speak(stream: &mut TcpStream, piece: impl Fn(u32) -> Vec<u8>) -> io::Result<()> {
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
    stream.write_all(&frame(4, 0, 0, &[]))?;
    let mut taken = stream.try_clone()?;
    // Somebody has to take what it answers.
    let reader = std::thread::spawn(move || io::copy(&mut taken, &mut io::sink()));
    let sent = (0..50_000).try_for_each(|number| stream.write_all(&piece(number)));
    _ = stream.shutdown(Shutdown::Both);
    _ = reader.join();
    sent
}

/// From an address that honest clients do not have.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let executor = Builder::new_current_thread().enable_all().build()?;
    let stream = executor.block_on(async {
        let socket = TcpSocket::new_v4()?;
        socket.bind((IpAddr::from([127, 0, 0, 2]), 0).into())?;
        socket.connect(address).await?.into_std()
    })?;
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.set_write_timeout(Some(Duration::from_secs(2)))?;
    Ok(stream)
}

/// Bytes that the service may get by attacks: bodies in flight, and what becomes of them.
const BOUND: u64 = 1 << 30;

#[test]
fn what_the_service_holds_is_bounded_while_it_is_attacked() {
    let served = Served::start("cheap", &["--workers", "2", "--log", "error"]);
    let load = Load::new(sum);
    let rounds = ATTACKS.map(|_| AtomicU64::new(0));
    let is_over = AtomicBool::new(false);
    let attack = |number: usize| {
        while !is_over.load(Ordering::Relaxed) {
            // It may be refused at any point.
            _ = connect(served.address).and_then(|mut stream| ATTACKS[number].1(&mut stream));
            rounds[number].fetch_add(1, Ordering::Relaxed);
        }
    };
    load.during(served.address, [2, 1], || {
        std::thread::sleep(Duration::from_secs(1))
    });
    let calm = served.memory("VmRSS:");
    let load = Load::new(sum);
    load.during(served.address, [2, 1], || {
        std::thread::scope(|scope| {
            (0..ATTACKS.len()).for_each(|number| _ = scope.spawn(move || attack(number)));
            std::thread::sleep(Duration::from_secs(amount("ATTACK_SECONDS", 5)));
            is_over.store(true, Ordering::Relaxed);
        });
    });
    let (most, counts) = (served.memory("VmHWM:"), load.tally.counts());
    for ((name, _), rounds) in ATTACKS.iter().zip(&rounds) {
        println!("{:>6} times: {name}", rounds.load(Ordering::Relaxed));
    }
    let (left, after) = settled(&served, calm);
    println!("honest clients: {counts}");
    println!(
        "memory of the service: {} MB calm, {} MB at most, {} MB after {} s",
        calm >> 20,
        most >> 20,
        left >> 20,
        after.as_secs()
    );
    assert!(
        rounds
            .iter()
            .all(|rounds| rounds.load(Ordering::Relaxed) > 0)
    );
    assert_eq!((counts.wrong, counts.broken), (0, 0));
    assert!(most <= calm + BOUND);
    assert!(left <= calm + LEFT);
    assert_eq!(
        (
            served.metric("envelope_inflight"),
            served.metric("envelope_inflight_bytes")
        ),
        (0.0, 0.0)
    );
}

/// What may be left of it: free places between what stays, and code that ran for the first time.
const LEFT: u64 = 16 << 20;

/// What it holds as soon as it is within a tenth of what it was, or some seconds later.
fn settled(served: &Served, calm: u64) -> (u64, Duration) {
    let begun = Instant::now();
    loop {
        let (left, after) = (served.memory("VmRSS:"), begun.elapsed());
        if left <= calm + calm / 10 || after > Duration::from_secs(10) {
            return (left, after);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}
