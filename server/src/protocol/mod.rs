//! What clients speak: how their bodies are read, what answers look like, how they are told of errors.
//!
//! The core knows rows as Arrow; everything that differs between protocols is here. The path of a
//! request says which one it is in.

pub(crate) mod grpc;
mod invocations;
mod kserve;
mod native;
pub(crate) mod tensors;

use arrow_array::RecordBatch;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{HeaderMap, Request, Response, StatusCode};

use crate::error::Refusal;
use crate::function::Function;
use crate::media::Media;

/// A protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// This service's own: `/predict`.
    Native,
    /// `MLflow`'s and `SageMaker`'s: `/invocations`.
    Invocations,
    /// `KServe`'s first, Vertex AI's and TensorFlow Serving's: `/v1/models/…:predict`.
    Kserve,
    /// The Open Inference Protocol, `KServe`'s second: `/v2/models/…/infer`.
    Tensors,
    /// The same in messages: [`grpc::answer`].
    Grpc,
}

/// What a call asks for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) rows: RecordBatch,
    pub(crate) form: Form,
}

/// How an answer is written.
#[derive(Debug)]
pub(crate) enum Form {
    /// As rows.
    Rows(Protocol, Media),
    /// As tensors.
    Tensors(tensors::Wanted),
}

impl Protocol {
    /// Every one of them, in the order of their numbers.
    pub(crate) const ALL: [Self; 5] = [
        Self::Native,
        Self::Invocations,
        Self::Kserve,
        Self::Tensors,
        Self::Grpc,
    ];

    /// What metrics call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Invocations => "invocations",
            Self::Kserve => "v1",
            Self::Tensors => "v2",
            Self::Grpc => "grpc",
        }
    }

    /// The protocol of a request.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        if grpc::is_spoken(request) {
            Self::Grpc
        } else {
            Self::at(request.uri().path())
        }
    }

    /// The protocol that a path belongs to.
    pub(crate) fn at(path: &str) -> Self {
        let first = path.split('/').nth(1).unwrap_or_default();
        match first {
            "v2" => Self::Tensors,
            "v1" => Self::Kserve,
            "invocations" | "endpoints" => Self::Invocations,
            _ => Self::Native,
        }
    }

    /// The form of the body that will come: known before anything of it is read.
    pub(crate) fn media(self, headers: &HeaderMap) -> Result<Media, Refusal> {
        let said = Media::said(headers);
        match self {
            Self::Native => native::media(&said),
            Self::Invocations => invocations::media(&said),
            Self::Kserve => kserve::media(&said),
            Self::Tensors | Self::Grpc => Ok(tensors::media(headers)),
        }
    }

    /// Reads the body of a call.
    pub(crate) fn read(
        self,
        function: &Function,
        headers: &HeaderMap,
        media: Media,
        body: &Bytes,
    ) -> Result<Asked, Refusal> {
        let decoder = &function.decoder;
        let dialect = match self {
            Self::Native => &crate::decode::NATIVE,
            Self::Invocations => invocations::dialect(function.coercion),
            Self::Kserve => &kserve::DIALECT,
            Self::Tensors | Self::Grpc => return tensors::read(function, headers, body),
        };
        let rows = match media {
            Media::Json | Media::Tensors => decoder.document(body, dialect),
            Media::Lines => decoder.lines(body, dialect),
            Media::Csv => decoder.csv(body, dialect),
            Media::Arrow => decoder.arrow_stream(body),
            Media::Parquet => decoder.parquet(body),
        }?;
        let form = Form::Rows(self, answered_in(media, headers));
        Ok(Asked { rows, form })
    }

    /// The status of a refusal. What rows are wrong has a status of its own only in our protocol.
    pub(crate) fn status(self, refusal: &Refusal) -> StatusCode {
        match refusal.status() {
            StatusCode::UNPROCESSABLE_ENTITY if self != Self::Native => StatusCode::BAD_REQUEST,
            status => status,
        }
    }

    /// The media type and body of a refusal, except in our protocol, which has more to say.
    pub(crate) fn problem(self, refusal: &Refusal) -> Option<(&'static str, String)> {
        let document = match self {
            Self::Native => return None,
            // As `MLflow` tells of a body that it does not read at all.
            Self::Invocations if refusal.status() == StatusCode::UNSUPPORTED_MEDIA_TYPE => {
                return Some(("text/plain; charset=utf-8", told(refusal)));
            }
            Self::Invocations => invocations::problem(refusal),
            Self::Kserve | Self::Tensors | Self::Grpc => {
                serde_json::json!({"error": told(refusal)})
            }
        };
        Some(("application/json", document.to_string()))
    }
}

/// What is wrong, and what to do about it, in one text.
fn told(refusal: &Refusal) -> String {
    match refusal.hint() {
        Some(hint) => format!("{} ({hint})", refusal.detail()),
        None => refusal.detail(),
    }
}

/// Who says nothing is answered in JSON, or, if the request was rows alone, in what it was.
fn answered_in(media: Media, headers: &HeaderMap) -> Media {
    let accepted = Media::accepted(headers).filter(|media| *media != Media::Tensors);
    accepted.unwrap_or(match media {
        Media::Lines | Media::Arrow => media,
        Media::Json | Media::Csv | Media::Parquet | Media::Tensors => Media::Json,
    })
}

impl Form {
    /// Writes an answer.
    pub(crate) fn write(
        &self,
        function: &Function,
        rows: &RecordBatch,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let (protocol, media) = match self {
            Self::Tensors(wanted) => return wanted.write(function, rows),
            Self::Rows(protocol, media) => (*protocol, *media),
        };
        let encoder = match protocol {
            Protocol::Invocations => &function.records,
            Protocol::Native | Protocol::Kserve | Protocol::Tensors | Protocol::Grpc => {
                &function.encoder
            }
        };
        let body = match media {
            Media::Json | Media::Tensors => encoder.predictions(rows),
            Media::Lines => encoder.lines(rows),
            Media::Csv => encoder.csv(rows, protocol != Protocol::Invocations),
            Media::Arrow => native::arrow_stream(rows),
            Media::Parquet => native::parquet(rows),
        };
        Ok(response(media.name(), body?))
    }
}

/// A good answer.
pub(crate) fn response(media: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    let media = HeaderValue::from_static(media);
    response.headers_mut().insert(CONTENT_TYPE, media);
    response
}
