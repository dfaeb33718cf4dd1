//! Refusals as gRPC tells of them: a code, a text, and details for programs.

use std::time::Duration;

use hyper::http::StatusCode;
use hyper::{HeaderMap, Response};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::delivery::Content;
use crate::error::Refusal;
use crate::fault::Fault;
use crate::protocol::told;
use crate::reply::retry_after;

/// The answer to a call that failed: headers alone.
pub(crate) fn refused(refusal: &Refusal) -> Response<Content> {
    let mut headers = HeaderMap::new();
    if matches!(refusal, Refusal::MessageEncoding) {
        let known = "identity,gzip,deflate".parse();
        headers.extend(known.ok().map(|known| (ACCEPTED, known)));
    }
    let status = Status::with_error_details_and_metadata(
        code(refusal),
        told(refusal),
        details(refusal),
        MetadataMap::from_headers(headers),
    );
    status
        .into_http::<tonic::body::Body>()
        .map(|_| Content::Whole(Default::default(), None))
}

fn code(refusal: &Refusal) -> Code {
    if matches!(refusal, Refusal::NoSuchPath | Refusal::MessageEncoding) {
        return Code::Unimplemented;
    }
    // Clients of gRPC repeat a call that is unavailable, and what ended one worker ends the next.
    if refusal.code() == "worker_crashed" {
        return Code::Internal;
    }
    match refusal.status() {
        StatusCode::NOT_FOUND => Code::NotFound,
        StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
        status if status.is_client_error() => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

fn details(refusal: &Refusal) -> ErrorDetails {
    let mut details = ErrorDetails::new();
    let violations: Vec<_> = refusal.faults().iter().map(violation).collect();
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    if code(refusal) == Code::Unavailable {
        let seconds = retry_after(refusal.wait());
        details.set_retry_info(Some(Duration::from_secs(seconds)));
    }
    details
}

fn violation(fault: &Fault) -> FieldViolation {
    let column = fault.column.as_deref().unwrap_or_default();
    let field = match fault.row {
        Some(row) => format!("{column}[{row}]"),
        None => column.to_owned(),
    };
    FieldViolation::new(field, fault.to_string())
}

const ACCEPTED: hyper::header::HeaderName =
    hyper::header::HeaderName::from_static("grpc-accept-encoding");
