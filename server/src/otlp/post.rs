//! One message to the collector, and what it says.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Method, Request, StatusCode, Uri};
use hyper_rustls::{ConfigBuilderExt as _, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message as _;
use tokio::time::timeout;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::Collector;

/// More than a collector has to say.
const ANSWER_BYTES: usize = 64 << 10;

/// Posts to one collector.
#[derive(Debug)]
pub(super) struct Post {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    address: Uri,
    headers: HeaderMap,
    patience: Duration,
}

/// Why the collector has not taken a message.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it cannot be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("it has not answered within {after:?}")]
    Deadline { after: Duration },
    #[error("it answers {status}")]
    Refused { status: StatusCode },
}

impl Failure {
    /// Whether it may take the same message later. The statuses are those of the specification.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Deadline { .. } => true,
            Self::Refused { status } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

impl Post {
    pub(super) fn new(collector: &Collector) -> io::Result<Self> {
        let mut headers = collector.headers.clone();
        let media = HeaderValue::from_static("application/x-protobuf");
        headers.insert(CONTENT_TYPE, media);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(&collector.address)?)
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
            address: collector.address.clone(),
            headers,
            patience: collector.timeout,
        })
    }

    /// How many spans of the message the collector has not taken.
    pub(super) async fn send(&self, message: Bytes) -> Result<u64, Failure> {
        let after = self.patience;
        let sent = timeout(after, self.exchange(message)).await;
        sent.map_err(|_| Failure::Deadline { after })?
    }

    async fn exchange(&self, message: Bytes) -> Result<u64, Failure> {
        let mut request = Request::new(Full::new(message));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.address.clone();
        *request.headers_mut() = self.headers.clone();
        let answer = self.client.request(request).await;
        let answer = answer.map_err(Failure::Unreachable)?;
        let status = answer.status();
        // To its end: the connection is used again.
        let body = Limited::new(answer.into_body(), ANSWER_BYTES)
            .collect()
            .await;
        if !status.is_success() {
            return Err(Failure::Refused { status });
        }
        Ok(body.map_or(0, |body| rejected(body.to_bytes())))
    }
}

/// How many spans an answer says were not taken.
fn rejected(body: Bytes) -> u64 {
    let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
    let rejected = answer.partial_success.map(|told| told.rejected_spans);
    rejected.map_or(0, |count| u64::try_from(count).unwrap_or(0))
}

/// Certificates are looked for only where they are needed.
fn tls(address: &Uri) -> io::Result<ClientConfig> {
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?;
    let config = if address.scheme_str() == Some("https") {
        config.with_native_roots()?
    } else {
        config.with_root_certificates(RootCertStore::empty())
    };
    Ok(config.with_no_client_auth())
}
