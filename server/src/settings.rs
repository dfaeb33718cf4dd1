//! What an operator may set.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::thread::available_parallelism;
use std::time::Duration;

use clap::ValueEnum;
use runtime::Sandbox;

use crate::tls::TlsFiles;

/// Whose changes of values a service makes, as a service that takes the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Coercion {
    /// Those of `MLflow`'s scoring server, in its protocol.
    Mlflow,
}

/// How a service behaves. Plain values; [`Options`](crate::Options) reads them from a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where to listen. Port 0 takes any free one.
    pub listen: SocketAddr,
    /// Where to answer health and metrics to monitors, by plain HTTP; metrics are then answered nowhere
    /// else. `None`: where calls are answered.
    pub listen_for_monitors: Option<SocketAddr>,
    /// Names by which clients may call the service, besides those of this machine. A service that only
    /// this machine can reach answers under no others; one that others can, under any if none is said.
    pub allow_hosts: Vec<String>,
    /// A path where the platform asks whether calls may be sent.
    pub health_path: Option<String>,
    /// A path where the platform calls the first function, as Vertex AI does.
    pub predict_path: Option<String>,
    /// The files of the certificate that is shown to clients; `None`: they are spoken to by plain HTTP.
    pub tls: Option<TlsFiles>,
    /// Workers from the beginning, and the most under load; for [`run`](fn@crate::run), which starts them.
    pub workers: RangeInclusive<usize>,
    /// What the workers may do; for [`run`](fn@crate::run), which starts them.
    pub sandbox: Sandbox,
    /// Calls after which a worker is replaced, about; `None`: never. For [`run`](fn@crate::run).
    pub recycle_calls: Option<u64>,
    /// Memory that a worker may get before it is replaced, in bytes; `None`: what the runtime says.
    /// For [`run`](fn@crate::run).
    pub recycle_growth_bytes: Option<u64>,
    /// Calls that are read, wait or run; further ones are answered with 503. One client alone may have
    /// eight ninths of them.
    pub max_calls_in_flight: usize,
    /// Rows of all calls that wait or run.
    pub max_rows_in_flight: usize,
    /// Bytes that the bodies of all calls in flight may have.
    pub max_bytes_in_flight: u64,
    /// Longest time that a call may be expected to wait for a worker; it is answered with 503
    /// rather than wait longer, and rather than wait so long that it would miss its deadline.
    pub max_wait: Duration,
    /// Open connections; those beyond are closed at once. One client may have eight ninths of them.
    pub max_connections: usize,
    /// Connections beyond these, which answer health and metrics only, and not for long.
    pub extra_connections: usize,
    /// Requests at once over one HTTP/2 connection.
    pub max_streams: u32,
    /// Streams that a client may reset before they are looked at, until its connection is ended.
    pub max_reset_streams: usize,
    /// Streams that a client may make us reset, until its connection is ended.
    pub max_error_streams: usize,
    /// Headers of a request.
    pub max_headers: usize,
    /// Bytes of the headers of a request, its path included.
    pub max_header_bytes: u32,
    /// Longest body of a call, in bytes.
    pub max_body_bytes: u64,
    /// Most rows of a call.
    pub max_rows: usize,
    /// Most rows that are gathered from several calls into one.
    pub max_batch_rows: usize,
    /// Most bytes of rows that are gathered from several calls into one.
    pub max_batch_bytes: usize,
    /// Of so many gathered calls one is asked again alone, and compared. 0: none.
    pub sample_every: u64,
    /// How long a call may take once its rows are read, waiting for a worker included.
    pub call_deadline: Duration,
    /// How long a worker may go on with a call that nobody waits for any more, counted from its begin,
    /// before it is taken to hang and is replaced.
    pub worker_grace: Duration,
    /// How long a new connection may take to send its first request's headers, a handshake of TLS
    /// included.
    pub header_timeout: Duration,
    /// How long a connection may be silent between requests. Load balancers keep theirs for 60 s,
    /// and the side that opened a connection should be the one to close it.
    pub idle_timeout: Duration,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may take none of an answer that waits for it.
    pub write_timeout: Duration,
    /// How long calls in flight may take to end when the service is told to stop.
    pub drain_deadline: Duration,
    /// How long the workers of an envelope are kept after another has taken its place, so that
    /// going back takes no time.
    pub keep_previous: Duration,
    /// Whose changes are made of values that are of other types than the signature's; `None`: no change.
    pub coercion: Option<Coercion>,
    /// How often [`run`](fn@crate::run) asks whether there is another envelope to serve; `None`: only on `SIGHUP`.
    pub watch: Option<Duration>,
    /// Whom spans of calls are sent to; `None`: nobody.
    #[cfg(feature = "otlp")]
    pub collector: Option<crate::Collector>,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = available_parallelism().map_or(1, usize::from);
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)),
            listen_for_monitors: None,
            allow_hosts: vec![],
            health_path: None,
            predict_path: None,
            tls: None,
            workers: cores..=cores,
            sandbox: Sandbox::default(),
            recycle_calls: None,
            recycle_growth_bytes: None,
            max_calls_in_flight: 1024,
            max_rows_in_flight: 4_000_000,
            max_bytes_in_flight: 512 << 20,
            max_wait: Duration::from_secs(10),
            max_connections: 8192,
            extra_connections: 64,
            max_streams: 256,
            max_reset_streams: 20,
            max_error_streams: 64,
            max_headers: 100,
            max_header_bytes: 64 << 10,
            max_body_bytes: 64 << 20,
            max_rows: 1_000_000,
            max_batch_rows: 4096,
            max_batch_bytes: 32 << 20,
            sample_every: 1000,
            call_deadline: Duration::from_secs(30),
            worker_grace: Duration::from_secs(2),
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            write_timeout: Duration::from_secs(30),
            drain_deadline: Duration::from_secs(30),
            keep_previous: Duration::from_secs(300),
            coercion: None,
            watch: None,
            #[cfg(feature = "otlp")]
            collector: None,
        }
    }
}

impl Settings {
    /// How clients write the address of a service that listens there.
    #[must_use]
    pub fn url(&self, address: SocketAddr) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://{address}")
    }
}
