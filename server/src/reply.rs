//! What every answer has: a request id, the digest of the envelope, and a problem when it failed.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use envelope_format::Digest;
use hyper::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Version};
use serde::Serialize;

use crate::delivery::Content;
use crate::error::Refusal;
use crate::fault::Fault;
use crate::protocol::{Protocol, grpc};
use crate::trace::Trace;

const REQUEST_ID: &str = "x-request-id";
const DIGEST: &str = "x-envelope-digest";

/// Makes the replies of one service.
#[derive(Debug)]
pub(crate) struct Replies {
    digest: HeaderValue,
    /// Differs between processes, so that ids of several services can be kept in one log.
    process: u64,
    count: AtomicU64,
}

/// The reply to one request.
#[derive(Debug)]
pub(crate) struct Reply<'r> {
    replies: &'r Replies,
    id: HeaderValue,
    trace: Trace,
    method: Method,
    version: Version,
    protocol: Protocol,
}

impl Replies {
    pub(crate) fn new(digest: Digest) -> Self {
        let digest = HeaderValue::from_str(&digest.to_string());
        Self {
            digest: digest.unwrap_or_else(|_| unreachable!("a digest is hex digits")),
            process: RandomState::new().build_hasher().finish(),
            count: AtomicU64::new(0),
        }
    }

    pub(crate) fn begin<B>(&self, request: &Request<B>) -> Reply<'_> {
        let id = request
            .headers()
            .get(REQUEST_ID)
            .filter(|id| is_clean(id))
            .cloned();
        Reply {
            replies: self,
            id: id.unwrap_or_else(|| self.next_id()),
            trace: Trace::of(request.headers()),
            method: request.method().clone(),
            version: request.version(),
            protocol: Protocol::of(request),
        }
    }

    fn next_id(&self) -> HeaderValue {
        let count = self.count.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:016x}-{count:08x}", self.process);
        HeaderValue::from_str(&id).unwrap_or_else(|_| unreachable!("hex digits"))
    }
}

/// What a caller may choose as an id: it is written to logs.
fn is_clean(id: &HeaderValue) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(byte);
    (1..=128).contains(&id.len()) && id.as_bytes().iter().all(plain)
}

impl Reply<'_> {
    pub(crate) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// The span of the request, where spans are sent to somebody.
    #[cfg(feature = "otlp")]
    pub(crate) fn span(
        &self,
        tracer: Option<&crate::otlp::Tracer>,
        headers: &hyper::HeaderMap,
    ) -> Option<crate::otlp::Span> {
        let id = self.id.to_str().unwrap_or_default();
        tracer?.begin(self.trace, self.protocol, id, headers)
    }

    /// The status of an answer, as metrics count it: gRPC's own is behind the answer.
    pub(crate) fn status<B>(&self, answered: &Result<Response<B>, Refusal>) -> StatusCode {
        match answered {
            Ok(response) => response.status(),
            Err(refusal) => self.protocol.status(refusal),
        }
    }

    /// The response to `answered`, the outcome of a call of `function` if it was one.
    pub(crate) fn finish(
        self,
        answered: Result<Response<Content>, Refusal>,
        function: Option<&str>,
    ) -> Response<Content> {
        let mut response = answered.unwrap_or_else(|refusal| {
            self.log(&refusal, function);
            self.problem(&refusal)
        });
        if self.method == Method::HEAD
            && let Content::Whole(bytes, _) = response.body_mut()
        {
            let length = std::mem::take(bytes).len();
            response.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        let headers = response.headers_mut();
        headers.insert(DIGEST, self.replies.digest.clone());
        headers.insert(REQUEST_ID, self.id);
        response
    }

    fn problem(&self, refusal: &Refusal) -> Response<Content> {
        if self.protocol == Protocol::Grpc {
            return grpc::refused(refusal);
        }
        let status = self.protocol.status(refusal);
        let problem = Problem {
            r#type: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            detail: refusal.detail(),
            code: refusal.code(),
            hint: refusal.hint(),
            request_id: self.id.to_str().unwrap_or_default(),
            trace_id: self.trace.to_string(),
            errors: refusal.faults(),
        };
        // Texts and numbers always make JSON.
        let own = || serde_json::to_vec(&problem).unwrap_or_default();
        let (media, body) = match self.protocol.problem(refusal) {
            None => ("application/problem+json", own()),
            Some((media, told)) => (media, told.into_bytes()),
        };
        let mut response = Response::new(Content::Whole(body.into(), None));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
        if let Refusal::Method { allow } = refusal {
            headers.insert(ALLOW, HeaderValue::from_static(allow));
        }
        if refusal.leaves_body() && self.version < Version::HTTP_2 {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, retry_after(refusal.wait()).into());
        }
        response
    }

    /// One line for each call that failed. Nothing that the caller sent is in it.
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others have no more to say"
    )]
    fn log(&self, refusal: &Refusal, function: Option<&str>) {
        let id = self.id.to_str().unwrap_or_default();
        let trace = &self.trace;
        let (code, function) = (refusal.code(), function.unwrap_or_default());
        let Refusal::Call(error) = refusal else {
            if refusal.status().is_server_error() {
                tracing::warn!(request_id = id, trace_id = %trace, function, code, error = %refusal, "a call failed");
            } else {
                tracing::info!(request_id = id, trace_id = %trace, function, code, "a call was refused");
            }
            return;
        };
        let detail = match &**error {
            runtime::Error::Function { exception, .. } => exception.traceback.as_str(),
            runtime::Error::Crashed { stderr, .. } | runtime::Error::Start { stderr, .. } => stderr,
            _ => "",
        };
        tracing::warn!(request_id = id, trace_id = %trace, function, code, %error, detail, "a call failed");
    }
}

/// So many seconds until there will be room, and some more by chance: those who were refused together
/// should not come back together.
pub(crate) fn retry_after(wait: Duration) -> u64 {
    let least = wait.as_secs() + 1;
    fastrand::u64(least..=2 * least + 1)
}

/// The body of a failed call, as RFC 9457 says.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: String,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'static str>,
    request_id: &'a str,
    trace_id: String,
    #[serde(skip_serializing_if = "<[Fault]>::is_empty")]
    errors: &'a [Fault],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_are_refused_together_do_not_come_back_together() {
        let times = |wait| (0..1000).map(move |_| retry_after(Duration::from_millis(wait)));
        for (wait, expected) in [(0, 1..=3), (999, 1..=3), (4500, 5..=11)] {
            let mut found: Vec<_> = times(wait).collect();
            found.sort_unstable();
            found.dedup();
            assert_eq!(found, expected.collect::<Vec<_>>(), "{wait} ms");
        }
    }
}
