//! Whom spans are sent to, and how many at once.

use std::time::Duration;

use hyper::{HeaderMap, Uri};

use super::sampling::Sampling;

/// A collector of OpenTelemetry that takes OTLP over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// Where spans are posted to, path and all.
    pub address: Uri,
    /// What is sent along, for example who we are.
    pub headers: HeaderMap,
    /// The name of the service; `None`: that of the envelope.
    pub service: Option<String>,
    /// What else is told of the service.
    pub attributes: Vec<(String, String)>,
    /// Which traces are recorded.
    pub sampling: Sampling,
    /// Most calls whose spans may wait; those beyond are dropped.
    pub max_waiting: usize,
    /// Most calls of one message.
    pub max_batch: usize,
    /// Longest time that a span waits for others to be sent with.
    pub interval: Duration,
    /// Longest time that the collector may take for one message.
    pub timeout: Duration,
}

impl Collector {
    /// A collector at this address, with the defaults of OpenTelemetry.
    #[must_use]
    pub fn at(address: Uri) -> Self {
        Self {
            address,
            headers: HeaderMap::new(),
            service: None,
            attributes: vec![],
            sampling: Sampling::default(),
            max_waiting: 2048,
            max_batch: 512,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(10),
        }
    }
}
