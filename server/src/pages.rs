//! What is read with `GET`: health, metrics, the description of the API.

use std::sync::Arc;

use bytes::Bytes;
use envelope_format::{Digest, Manifest};
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue, VARY};
use hyper::{Response, StatusCode};
use serde_json::json;
use tokio::sync::watch;

use crate::exposition::Format;
use crate::front::Front;
use crate::function::Function;
use crate::health::Health;
use crate::models::Models;
use crate::protocol::{Protocol, tensors};
use crate::route::Page;
use crate::telemetry::Telemetry;

/// The pages; all but health and metrics are made once.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) front: Front,
    pub(crate) openapi: Bytes,
    pub(crate) envelope: Bytes,
    pub(crate) telemetry: Arc<Telemetry>,
    pub(crate) readiness: Arc<Readiness>,
    pub(crate) health: Health,
    pub(crate) models: Models,
}

/// Whether calls should be sent here.
#[derive(Debug)]
pub(crate) struct Readiness(watch::Sender<State>);

/// Where a service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Starting,
    Ready,
    Draining,
}

impl Default for Readiness {
    fn default() -> Self {
        Self(watch::Sender::new(State::Starting))
    }
}

impl Readiness {
    /// Every function has answered its sample.
    pub(crate) fn ready(&self) {
        self.0.send_if_modified(|state| {
            let is_new = *state == State::Starting;
            if is_new {
                *state = State::Ready;
            }
            is_new
        });
    }

    /// The service was told to stop. There is no way back.
    pub(crate) fn draining(&self) {
        self.0.send_replace(State::Draining);
    }

    pub(crate) fn is_ready(&self) -> bool {
        *self.0.borrow() == State::Ready
    }

    /// The state, and all that will come after it.
    pub(crate) fn watch(&self) -> watch::Receiver<State> {
        self.0.subscribe()
    }

    fn told(&self) -> (StatusCode, &'static [u8]) {
        match *self.0.borrow() {
            State::Starting => (
                StatusCode::SERVICE_UNAVAILABLE,
                br#"{"ready":false,"state":"starting"}"#,
            ),
            State::Ready => (StatusCode::OK, br#"{"ready":true,"state":"ready"}"#),
            State::Draining => (
                StatusCode::SERVICE_UNAVAILABLE,
                br#"{"ready":false,"state":"draining"}"#,
            ),
        }
    }
}

impl Pages {
    pub(crate) fn show(&self, page: Page, headers: &HeaderMap) -> Response<Full<Bytes>> {
        match page {
            Page::Front => self.front.show(),
            Page::OpenApi => shown("application/json", self.openapi.clone()),
            Page::Envelope => shown("application/json", self.envelope.clone()),
            Page::Metrics => self.metrics(Format::of(headers)),
            Page::Health => fresh("application/json", self.health.document().into()),
            Page::Ready => {
                let (status, body) = self.readiness.told();
                with_status(status, Bytes::from_static(body))
            }
            Page::Live(_) => fresh("application/json", Bytes::from_static(br#"{"live":true}"#)),
            Page::ReadyFor(protocol) => self.ready_for(protocol),
            Page::Models(_) => shown("application/json", self.models.list()),
            Page::Index => {
                let index = self.models.index(self.readiness.is_ready());
                shown("application/json", index)
            }
            Page::Server => shown("application/json", self.models.server()),
            Page::Version => shown("application/json", env!("CARGO_PKG_VERSION").into()),
            Page::ExecutionParameters => {
                shown("application/json", self.models.execution_parameters())
            }
        }
    }

    /// What is told of a model.
    pub(crate) fn model(&self, protocol: Protocol, function: &Function) -> Response<Full<Bytes>> {
        let (is_ready, name) = (self.readiness.is_ready(), &function.name);
        let mut told = json!({"name": name, "ready": is_ready});
        if protocol == Protocol::Tensors {
            told = tensors::metadata(name, &function.signature);
            told["ready"] = json!(is_ready);
        }
        let status = if is_ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        with_status(status, told.to_string().into())
    }

    /// Clients of some protocols look at the status alone, others at one of two keys.
    fn ready_for(&self, protocol: Protocol) -> Response<Full<Bytes>> {
        let (status, _) = self.readiness.told();
        let is_ready = self.readiness.is_ready();
        let body = match protocol {
            Protocol::Invocations => "\n".into(),
            Protocol::Native | Protocol::Kserve | Protocol::Tensors | Protocol::Grpc => {
                json!({"ready": is_ready, "live": is_ready}).to_string()
            }
        };
        with_status(status, body.into())
    }
}

fn with_status(status: StatusCode, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = fresh("application/json", body);
    *response.status_mut() = status;
    response
}

impl Pages {
    fn metrics(&self, format: Format) -> Response<Full<Bytes>> {
        let mut response = fresh(format.media_type(), self.telemetry.text(format).into());
        let headers = response.headers_mut();
        headers.insert(VARY, HeaderValue::from_static("accept"));
        response
    }
}

fn shown(media_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

fn fresh(media_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = shown(media_type, body);
    response
        .headers_mut()
        .insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// `GET /envelope`: what is served here.
pub(crate) fn envelope(manifest: &Manifest, digest: Digest) -> Bytes {
    let functions: Vec<_> = manifest
        .functions
        .iter()
        .map(|function| {
            json!({
                "name": function.name,
                "doc": function.doc,
                "signature": function.signature,
                "certificate": function.certificate,
            })
        })
        .collect();
    let envelope = json!({
        "name": manifest.name,
        "digest": digest,
        "description": manifest.description,
        "tags": manifest.tags,
        "functions": functions,
        "environment": {
            "python": manifest.environment.python,
            "platform": manifest.environment.platform,
        },
    });
    envelope.to_string().into()
}
