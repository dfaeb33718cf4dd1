//! A closed-loop HTTP client: `load HOST:PORT PATH BODY_FILE CONNECTIONS SECONDS`.
//!
//! Each connection sends the same request again as soon as it has the answer. Prints one line of
//! JSON: answers with status 200 per second, their median and 99th percentile in milliseconds, and
//! how many requests had another end. It has one thread, so that it leaves the rest of the machine
//! to the server; `make bench` prints what it costs.
#![expect(clippy::print_stdout, reason = "the bench reads it")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

type Failure = Box<dyn Error + Send + Sync>;

/// An answer that takes longer has failed: a server that hangs must not stop the bench.
const LONGEST_ANSWER: Duration = Duration::from_secs(10);

/// Between a refused or broken connection and the next, so that a dead server is not a busy loop.
const BEFORE_RECONNECTING: Duration = Duration::from_millis(10);

/// What is sent, and until when.
struct Task {
    address: String,
    request: Vec<u8>,
    end: Instant,
}

#[derive(Default)]
struct Measured {
    seconds: Vec<f64>,
    failed: usize,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, path, body, connections, seconds] = arguments.as_slice() else {
        return Err("usage: load HOST:PORT PATH BODY_FILE CONNECTIONS SECONDS".into());
    };
    let began = Instant::now();
    let task = Arc::new(Task {
        address: address.clone(),
        request: request(address, path, &std::fs::read(body)?),
        end: began + Duration::from_secs_f64(seconds.parse()?),
    });
    let clients: Vec<_> = (0..connections.parse()?)
        .map(|_| tokio::spawn(client(Arc::clone(&task))))
        .collect();
    let mut all = Measured::default();
    for client in clients {
        let measured = client.await?;
        all.seconds.extend(measured.seconds);
        all.failed += measured.failed;
    }
    print(all, began.elapsed());
    Ok(())
}

fn request(address: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn print(mut all: Measured, elapsed: Duration) {
    all.seconds.sort_by(f64::total_cmp);
    let rate = all.seconds.len() as f64 / elapsed.as_secs_f64();
    let [p50, p99] = [0.5, 0.99].map(|share| percentile(&all.seconds, share) * 1e3);
    let failed = all.failed;
    println!(
        r#"{{"per_second": {rate:.1}, "p50_ms": {p50:.3}, "p99_ms": {p99:.3}, "failed": {failed}}}"#
    );
}

/// Not a number where nothing was answered: `NaN`, which the bench reads.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share) as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

/// One connection after the other, each for as long as it is answered.
async fn client(task: Arc<Task>) -> Measured {
    let mut measured = Measured::default();
    while Instant::now() < task.end {
        if converse(&task, &mut measured).await.is_err() {
            measured.failed += 1;
            tokio::time::sleep(BEFORE_RECONNECTING).await;
        }
    }
    measured
}

async fn converse(task: &Task, measured: &mut Measured) -> Result<(), Failure> {
    let mut stream = TcpStream::connect(&task.address).await?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::new();
    while Instant::now() < task.end {
        let began = Instant::now();
        stream.write_all(&task.request).await?;
        match timeout(LONGEST_ANSWER, answer(&mut stream, &mut buffer)).await?? {
            200 => measured.seconds.push(began.elapsed().as_secs_f64()),
            _ => measured.failed += 1,
        }
    }
    Ok(())
}

/// Reads one answer with a content length; gives its status.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<u16, Failure> {
    buffer.clear();
    loop {
        if stream.read_buf(buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
        let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            continue;
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.ok_or("an answer without a length")?.trim().parse()?;
        if buffer.len() >= end + 4 + length {
            return Ok(head.get(9..12).unwrap_or("0").parse()?);
        }
    }
}
