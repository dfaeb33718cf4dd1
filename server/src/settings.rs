//! What an operator may set.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::thread::available_parallelism;
use std::time::Duration;

use runtime::Sandbox;

/// How a service behaves. Plain values; [`Options`](crate::Options) reads them from a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Workers from the beginning, and the most under load; for [`run`](fn@crate::run), which starts them.
    pub workers: RangeInclusive<usize>,
    /// What the workers may do; for [`run`](fn@crate::run), which starts them.
    pub sandbox: Sandbox,
    /// Calls that are read, wait or run; further ones are answered with 503.
    pub max_calls_in_flight: usize,
    /// Open connections; further ones wait to be accepted.
    pub max_connections: usize,
    /// Longest body of a call, in bytes.
    pub max_body_bytes: u64,
    /// Most rows of a call.
    pub max_rows: usize,
    /// Most rows that are gathered from several calls into one.
    pub max_batch_rows: usize,
    /// How long a call may take once its rows are read, waiting for a worker included.
    pub call_deadline: Duration,
    /// How long a new connection may take to send its first request's headers.
    pub header_timeout: Duration,
    /// How long a connection may be silent between requests. Load balancers keep theirs for 60 s,
    /// and the side that opened a connection should be the one to close it.
    pub idle_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long calls in flight may take to end when the service is told to stop.
    pub drain_deadline: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            workers: cores..=cores,
            sandbox: Sandbox::default(),
            max_calls_in_flight: 1024,
            max_connections: 8192,
            max_body_bytes: 64 << 20,
            max_rows: 1_000_000,
            max_batch_rows: 4096,
            call_deadline: Duration::from_secs(30),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            drain_deadline: Duration::from_secs(30),
        }
    }
}
