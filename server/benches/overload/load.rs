//! An open-loop load: what is sent when is decided before, and a slow answer delays nothing.
//!
//! Latency counts from when a request was due, so that a service that stalls cannot hide it by
//! keeping its clients from asking. The generator records how late it was itself: where that is
//! much, its figures say nothing about the service.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

/// What became of one request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Outcome {
    /// Since the begin of the load.
    pub(crate) due: Duration,
    /// From due to answered.
    pub(crate) latency: Duration,
    /// From due to sent.
    pub(crate) late: Duration,
    /// `None`: there was no answer.
    pub(crate) status: Option<u16>,
}

/// Whom the load is for.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) request: Arc<[u8]>,
    idle: Arc<Mutex<Vec<TcpStream>>>,
}

/// Nobody waits longer than this for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// When requests are due: `rate` in a second on the average, at random as from many independent clients.
pub(crate) fn schedule(rate: f64, length: Duration, seed: u64) -> Vec<Duration> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut now = 0.0;
    let gaps = std::iter::from_fn(|| {
        now += -(1.0 - random.f64()).ln() / rate;
        Some(Duration::from_secs_f64(now))
    });
    gaps.take_while(|due| *due < length).collect()
}

/// Sends a request whenever one is due; ends when all have ended.
///
/// A thread waits for the times, because the timer of the executor ticks in milliseconds.
pub(crate) fn offer(executor: &Handle, target: &Target, schedule: Vec<Duration>) -> Vec<Outcome> {
    let (outcomes, mut all) = mpsc::unbounded_channel();
    let begun = Instant::now() + Duration::from_millis(20);
    for due in schedule {
        let at = begun + due;
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        let (target, outcomes) = (target.clone(), outcomes.clone());
        executor.spawn(async move {
            let late = at.elapsed();
            let status = timeout(PATIENCE, target.ask()).await.ok().flatten();
            let outcome = Outcome {
                due,
                latency: at.elapsed(),
                late,
                status,
            };
            _ = outcomes.send(outcome);
        });
    }
    drop(outcomes);
    executor.block_on(async {
        let mut found = vec![];
        while let Some(outcome) = all.recv().await {
            found.push(outcome);
        }
        found
    })
}

impl Target {
    pub(crate) fn new(address: SocketAddr, body: &str, deadline: Duration) -> Self {
        let (length, seconds) = (body.len(), deadline.as_secs_f64());
        let request = format!(
            "POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             x-request-timeout: {seconds}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        Self {
            address,
            request: request.into_bytes().into(),
            idle: Arc::default(),
        }
    }

    /// Over a connection that is there, or a new one. `None`: it broke.
    pub(crate) async fn ask(&self) -> Option<u16> {
        let idle = self.idle.lock().ok()?.pop();
        let mut stream = match idle {
            Some(stream) => stream,
            None => TcpStream::connect(self.address).await.ok()?,
        };
        _ = stream.set_nodelay(true);
        stream.write_all(&self.request).await.ok()?;
        let status = answered(&mut stream).await?;
        self.idle.lock().ok()?.push(stream);
        Some(status)
    }
}

/// The status of an answer that states its length, read whole.
async fn answered(stream: &mut TcpStream) -> Option<u16> {
    let mut bytes = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))?;
        if bytes.len() >= end + 4 + length.parse::<usize>().ok()? {
            return head.get(9..12)?.parse().ok();
        }
    }
}
