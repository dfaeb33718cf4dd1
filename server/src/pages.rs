//! What is read with `GET`: health, metrics, the description of the API.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use envelope_format::{Digest, Manifest};
use http_body_util::Full;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde_json::json;

use crate::front::Front;
use crate::route::Page;
use crate::telemetry::{MEDIA_TYPE, Telemetry};

/// The pages; all but health and metrics are made once.
#[derive(Debug)]
pub(crate) struct Pages {
    pub(crate) front: Front,
    pub(crate) openapi: Bytes,
    pub(crate) envelope: Bytes,
    pub(crate) telemetry: Telemetry,
    pub(crate) readiness: Arc<Readiness>,
}

/// Whether calls should be sent here.
#[derive(Debug, Default)]
pub(crate) struct Readiness(AtomicU8);

const STARTING: u8 = 0;
const READY: u8 = 1;
const DRAINING: u8 = 2;

impl Readiness {
    /// Every function has answered its sample.
    pub(crate) fn ready(&self) {
        let _ = self
            .0
            .compare_exchange(STARTING, READY, Ordering::AcqRel, Ordering::Acquire);
    }

    /// The service was told to stop. There is no way back.
    pub(crate) fn draining(&self) {
        self.0.store(DRAINING, Ordering::Release);
    }

    fn state(&self) -> (StatusCode, &'static [u8]) {
        match self.0.load(Ordering::Acquire) {
            STARTING => (
                StatusCode::SERVICE_UNAVAILABLE,
                br#"{"ready":false,"state":"starting"}"#,
            ),
            READY => (StatusCode::OK, br#"{"ready":true,"state":"ready"}"#),
            _ => (
                StatusCode::SERVICE_UNAVAILABLE,
                br#"{"ready":false,"state":"draining"}"#,
            ),
        }
    }
}

impl Pages {
    pub(crate) fn show(&self, page: Page) -> Response<Full<Bytes>> {
        match page {
            Page::Front => self.front.show(),
            Page::OpenApi => shown("application/json", self.openapi.clone()),
            Page::Envelope => shown("application/json", self.envelope.clone()),
            Page::Metrics => fresh(MEDIA_TYPE, self.telemetry.text().into()),
            Page::Health => fresh("application/json", Bytes::from_static(br#"{"live":true}"#)),
            Page::Ready => {
                let (status, body) = self.readiness.state();
                let mut response = fresh("application/json", Bytes::from_static(body));
                *response.status_mut() = status;
                response
            }
        }
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
