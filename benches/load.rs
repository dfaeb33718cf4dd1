//! A closed-loop HTTP client: `load URL_HOST_PORT PATH BODY_FILE CONNECTIONS SECONDS`.
//!
//! Each connection sends the same request again as soon as it has the answer. Prints one line of
//! JSON: answers per second, median and 99th percentile in milliseconds, and answers other than 200.
#![expect(clippy::print_stdout, reason = "the bench reads it")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

type Failure = Box<dyn Error + Send + Sync>;

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
    let request: Arc<[u8]> = request(address, path, &std::fs::read(body)?).into();
    let time = Duration::from_secs_f64(seconds.parse()?);
    let began = Instant::now();
    let clients: Vec<_> = (0..connections.parse()?)
        .map(|_| tokio::spawn(client(address.clone(), Arc::clone(&request), began + time)))
        .collect();
    let mut all = Measured::default();
    for client in clients {
        let measured = client.await??;
        all.seconds.extend(measured.seconds);
        all.failed += measured.failed;
    }
    let elapsed = began.elapsed().as_secs_f64();
    all.seconds.sort_by(f64::total_cmp);
    let at = |share: f64| percentile(&all.seconds, share) * 1e3;
    println!(
        "{{\"per_second\": {:.1}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}, \"failed\": {}}}",
        all.seconds.len() as f64 / elapsed,
        at(0.5),
        at(0.99),
        all.failed
    );
    Ok(())
}

fn request(address: &str, path: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    );
    [head.as_bytes(), body].concat()
}

fn percentile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    sorted
        .get((last as f64 * share) as usize)
        .copied()
        .unwrap_or(f64::NAN)
}

async fn client(address: String, request: Arc<[u8]>, end: Instant) -> Result<Measured, Failure> {
    let mut stream = TcpStream::connect(&address).await?;
    stream.set_nodelay(true)?;
    let mut measured = Measured::default();
    let mut buffer = Vec::new();
    while Instant::now() < end {
        let began = Instant::now();
        stream.write_all(&request).await?;
        let status = answer(&mut stream, &mut buffer).await?;
        measured.seconds.push(began.elapsed().as_secs_f64());
        measured.failed += usize::from(status != 200);
    }
    Ok(measured)
}

/// Reads one answer with a content length; gives its status.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Result<u16, Failure> {
    buffer.clear();
    loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:"));
            let length: usize = length.ok_or("an answer without a length")?.trim().parse()?;
            if buffer.len() >= end + 4 + length {
                return Ok(head.get(9..12).unwrap_or("0").parse()?);
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err("the server closed the connection".into());
        }
    }
}
