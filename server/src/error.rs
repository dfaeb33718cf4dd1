//! What can go wrong: [`Error`] ends the service, a [`Refusal`] ends one call.
//!
//! This is the only file that knows the status codes of HTTP and the exit codes of the program.

use std::borrow::Cow;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;

use crate::fault::{Fault, Faults};
use crate::tls::TlsError;

/// Why a service did not start, or an executable was not built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process listens on the port.
    #[error("port {} is in use", address.port())]
    AddrInUse {
        /// Where the service was to listen.
        address: SocketAddr,
    },
    /// The operating system does not let us listen there.
    #[error("cannot listen on `{address}`")]
    Listen {
        /// Where the service was to listen.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// A file of the certificate, or of those of clients, cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The environment cannot be realised, or the workers do not start.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// The sample in the envelope cannot be read.
    #[error("the sample of `{function}` is not an Arrow stream: {reason}")]
    Sample {
        /// The function.
        function: String,
        /// Why not.
        reason: String,
    },
    /// A function does not answer the sample it was saved with.
    #[error("`{function}` does not answer its own sample")]
    SelfTest {
        /// The function.
        function: String,
        /// What it did instead.
        source: Box<runtime::Error>,
    },
    /// A second signal came while calls were still being finished.
    #[error("stopped by a second signal, calls in flight were dropped")]
    Interrupted,
    /// The file that was to become the beginning of an executable is none, or carries an envelope already.
    #[error("`{path}` cannot be the service program: {reason}")]
    Stub {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: &'static str,
    },
    /// The program was started by itself: it serves the envelope it carries, and carries none.
    #[error("`{path}` carries no envelope")]
    NoPayload {
        /// The program.
        path: PathBuf,
    },
    /// The executable carries an envelope, but not where it says.
    #[error("the envelope in `{path}` was damaged: {reason}")]
    Payload {
        /// The executable.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// The executable would replace something that is not a program.
    #[error("`{path}` is there already, and not a program")]
    NotAProgram {
        /// What is in the way.
        path: PathBuf,
    },
    /// The operating system refused something.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: io::Error,
    },
}

impl Error {
    /// A stable name for the case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::AddrInUse { .. } => "port_in_use",
            Self::Listen { .. } => "cannot_listen",
            Self::Tls(error) => error.code(),
            Self::Runtime(error) => runtime_case(error).1,
            Self::Sample { .. } => "bad_sample",
            Self::SelfTest { .. } => "self_test_failed",
            Self::Interrupted => "interrupted",
            Self::Stub { .. } => "bad_service_program",
            Self::NoPayload { .. } => "no_envelope",
            Self::Payload { .. } => "damaged_executable",
            Self::NotAProgram { .. } => "not_a_program",
            Self::Io { .. } => "io",
        }
    }

    /// What the user may do about it.
    #[must_use]
    pub fn hint(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::AddrInUse { .. } => Some("choose another one, or any free one with `--port 0`".into()),
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("ports below 1024 are for the administrator; choose a higher one with `--port`".into())
            }
            Self::Tls(error) => Some(error.hint()),
            Self::Runtime(runtime::Error::Environment { hint, .. }) => Some(hint.into()),
            Self::Runtime(runtime::Error::Carried(error)) => Some(error.hint().into()),
            Self::SelfTest { .. } => {
                Some("the function worked when it was saved: look for files, services or hardware that it misses here".into())
            }
            Self::NotAProgram { .. } => Some("choose another path, or remove what is there".into()),
            Self::NoPayload { .. } => Some("make an executable of an envelope with `envelope build`".into()),
            Self::Payload { .. } => Some("copy or build the executable again".into()),
            Self::Listen { .. }
            | Self::Runtime(_)
            | Self::Sample { .. }
            | Self::Interrupted
            | Self::Stub { .. }
            | Self::Io { .. } => None,
        }
    }

    /// The exit code of a program that ends with this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => 4,
            Self::Runtime(runtime::Error::Carried(error)) if error.is_forbidden() => 4,
            Self::Tls(error) if error.is_forbidden() => 4,
            Self::AddrInUse { .. } | Self::NotAProgram { .. } => 5,
            Self::Interrupted => 130,
            Self::Listen { .. }
            | Self::Tls(_)
            | Self::Runtime(_)
            | Self::Sample { .. }
            | Self::SelfTest { .. }
            | Self::Stub { .. }
            | Self::NoPayload { .. }
            | Self::Payload { .. }
            | Self::Io { .. } => 1,
        }
    }
}

/// Why a call was not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("the request does not tell one host that it is for")]
    BadHost,
    #[error("this service does not go by the host that the request is for")]
    UnknownHost,
    #[error("what the request expects is not done here")]
    Expectation,
    #[error("there is nothing at this path")]
    NoSuchPath,
    #[error("there is no function with this name, there are: {known}")]
    NoSuchFunction { known: String },
    #[error("this path answers {allow} only")]
    Method { allow: &'static str },
    #[error("{limit} calls are in flight, which is the most")]
    Full { limit: usize },
    #[error("the {what} of the calls in flight are as many as there may be")]
    TooMuchInFlight { what: &'static str },
    #[error("the workers are busy for {} ms, which is too long for this call", wait.as_millis())]
    Overloaded { wait: Duration },
    #[error("a body of one of these media types is expected: {known}")]
    MediaType { known: &'static str },
    #[error("the content encoding of the body is not one that is read: gzip, deflate, zstd")]
    ContentEncoding,
    #[error("the body is longer than {limit} bytes")]
    BodyTooLarge { limit: u64 },
    #[error("the body has more than {limit} rows")]
    TooManyRows { limit: usize },
    #[error("the body unpacks to more than {limit} bytes")]
    UnpacksTooLarge { limit: usize },
    #[error("the body did not arrive within {} s", seconds(*after))]
    SlowBody { after: Duration },
    #[error("the body ended before it was complete")]
    BrokenBody,
    #[error("the header `x-request-timeout` is not a number of seconds above 0")]
    Timeout,
    #[error("the body is not JSON: {reason} at line {line} column {column} (byte {offset})")]
    BadJson {
        reason: String,
        line: usize,
        column: usize,
        offset: usize,
        hint: Option<&'static str>,
    },
    #[error("the body is not {what}: {reason}")]
    BadTable { what: &'static str, reason: String },
    #[error("the body is not compressed as its header says: {reason}")]
    BadEncoding { reason: String },
    #[error("{reason}")]
    BadTensors { reason: String },
    #[error("the compression of the message is not one that is read: gzip, deflate")]
    MessageEncoding,
    #[error("the body is not one message of the method: {reason}")]
    BadMessage { reason: String },
    #[error("the message would take more than {limit} bytes of memory")]
    MessageTooLarge { limit: u64 },
    #[error("{0}")]
    BadRows(Faults),
    #[error("the call did not end within {} s", seconds(*after))]
    Deadline { after: Duration },
    #[error(transparent)]
    Call(Arc<runtime::Error>),
    #[error("the output cannot be written as JSON: {reason}")]
    Unwritable { reason: String },
    #[error("the service failed; the reason is in its log")]
    Internal,
}

impl Refusal {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::UnknownHost => StatusCode::MISDIRECTED_REQUEST,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::NoSuchPath | Self::NoSuchFunction { .. } => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::Full { .. } | Self::TooMuchInFlight { .. } | Self::Overloaded { .. } => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::MediaType { .. } | Self::ContentEncoding | Self::MessageEncoding => {
                StatusCode::UNSUPPORTED_MEDIA_TYPE
            }
            Self::BodyTooLarge { .. }
            | Self::UnpacksTooLarge { .. }
            | Self::MessageTooLarge { .. }
            | Self::TooManyRows { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::SlowBody { .. } => StatusCode::REQUEST_TIMEOUT,
            Self::BadHost
            | Self::BrokenBody
            | Self::Timeout
            | Self::BadJson { .. }
            | Self::BadTable { .. }
            | Self::BadEncoding { .. }
            | Self::BadMessage { .. }
            | Self::BadTensors { .. } => StatusCode::BAD_REQUEST,
            Self::BadRows(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Call(error) => runtime_case(error).0,
            Self::Unwritable { .. } | Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// A stable name for the case.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::BadHost => "bad_host",
            Self::UnknownHost => "unknown_host",
            Self::Expectation => "expectation_failed",
            Self::NoSuchPath => "not_found",
            Self::NoSuchFunction { .. } => "no_such_function",
            Self::Method { .. } => "method_not_allowed",
            Self::Full { .. } => "full",
            Self::TooMuchInFlight { .. } => "too_much_in_flight",
            Self::Overloaded { .. } => "overloaded",
            Self::MediaType { .. } => "unsupported_media_type",
            Self::ContentEncoding => "unsupported_encoding",
            Self::BodyTooLarge { .. } => "body_too_large",
            Self::UnpacksTooLarge { .. } => "unpacks_too_large",
            Self::TooManyRows { .. } => "too_many_rows",
            Self::SlowBody { .. } => "slow_body",
            Self::BrokenBody => "broken_body",
            Self::Timeout => "bad_timeout",
            Self::BadJson { .. } => "bad_json",
            Self::BadTable { .. } => "bad_table",
            Self::BadEncoding { .. } => "bad_encoding",
            Self::BadTensors { .. } => "bad_tensors",
            Self::MessageEncoding => "unsupported_encoding",
            Self::BadMessage { .. } => "bad_message",
            Self::MessageTooLarge { .. } => "message_too_large",
            Self::BadRows(faults) => faults.code(),
            Self::Deadline { .. } => "deadline",
            Self::Call(error) => runtime_case(error).1,
            Self::Unwritable { .. } => "bad_output",
            Self::Internal => "internal",
        }
    }

    /// What the caller may do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::BadHost => Some("send one header like `host: localhost:8080`"),
            Self::UnknownHost => Some("`--allow-host NAME` lets in requests for a name"),
            Self::Expectation => Some("send `expect: 100-continue`, or no such header"),
            Self::NoSuchPath => {
                Some("calls go to `POST /predict`; `GET /openapi.json` lists all paths")
            }
            Self::Full { .. } | Self::TooMuchInFlight { .. } | Self::Overloaded { .. } => {
                Some("try again after the time in the header `retry-after`")
            }
            Self::MediaType { .. } => Some("send a header like `content-type: application/json`"),
            Self::ContentEncoding => {
                Some("send the body as it is, or with `content-encoding: gzip`")
            }
            Self::BodyTooLarge { .. }
            | Self::UnpacksTooLarge { .. }
            | Self::MessageTooLarge { .. }
            | Self::TooManyRows { .. } => Some("send the rows in several calls"),
            Self::Timeout => Some("send a decimal number like `2.5`, or no such header"),
            Self::BadJson { hint, .. } => *hint,
            Self::BadTensors { .. } => {
                Some("`GET /v2/models/{name}` lists inputs and outputs with their types")
            }
            Self::MessageEncoding => {
                Some("send messages as they are, or with `grpc-encoding: gzip`")
            }
            Self::BadMessage { .. } => Some(
                "`server/proto/inference.proto` and the reflection service describe the messages",
            ),
            Self::BadTable { .. } | Self::BadEncoding { .. } => None,
            Self::BadRows(faults) => faults.hint(),
            Self::Call(error) if matches!(**error, runtime::Error::Function { .. }) => {
                Some("the traceback is in the log of the service under the request id")
            }
            Self::Call(_) => None,
            Self::NoSuchFunction { .. }
            | Self::Method { .. }
            | Self::SlowBody { .. }
            | Self::BrokenBody
            | Self::Deadline { .. }
            | Self::Unwritable { .. }
            | Self::Internal => None,
        }
    }

    /// How long the workers are busy with what came before, as far as it is known.
    pub(crate) fn wait(&self) -> Duration {
        if let Self::Overloaded { wait } = self {
            *wait
        } else {
            Duration::ZERO
        }
    }

    /// What the caller is told. Nothing of the machine: no paths, no output of the worker, no traceback.
    pub(crate) fn detail(&self) -> String {
        if let Self::Call(error) = self {
            failure(error)
        } else {
            self.to_string()
        }
    }

    /// What is wrong with the rows, one by one.
    pub(crate) fn faults(&self) -> &[Fault] {
        if let Self::BadRows(faults) = self {
            faults.list()
        } else {
            &[]
        }
    }

    /// Whether the rest of the body is still on the way: it would be taken for the next request.
    pub(crate) fn leaves_body(&self) -> bool {
        matches!(self, Self::BodyTooLarge { .. } | Self::SlowBody { .. })
    }
}

/// The status and code of a failure in a worker. What is not the caller's fault is ours.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "all else happens before a service is ready"
)]
fn runtime_case(error: &runtime::Error) -> (StatusCode, &'static str) {
    match error {
        runtime::Error::NoSuchFunction(_) => (StatusCode::NOT_FOUND, "no_such_function"),
        runtime::Error::RowsDoNotFit { .. } => {
            (StatusCode::UNPROCESSABLE_ENTITY, "rows_do_not_fit")
        }
        runtime::Error::Function { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "function_failed"),
        runtime::Error::Output { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "bad_output"),
        runtime::Error::Crashed { .. } => (StatusCode::SERVICE_UNAVAILABLE, "worker_crashed"),
        runtime::Error::Start { .. } => (StatusCode::SERVICE_UNAVAILABLE, "worker_did_not_start"),
        runtime::Error::Sandbox { .. } => (StatusCode::SERVICE_UNAVAILABLE, "sandbox_unavailable"),
        runtime::Error::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "stopped"),
        runtime::Error::Deadline { .. } => (StatusCode::GATEWAY_TIMEOUT, "deadline"),
        runtime::Error::Envelope { source, .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, source.code())
        }
        runtime::Error::WrongInterpreter { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "wrong_interpreter")
        }
        runtime::Error::Carried(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.code()),
        runtime::Error::Environment { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, "environment_failed")
        }
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
    }
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is not listed may hold paths of the machine"
)]
fn failure(error: &runtime::Error) -> String {
    match error {
        runtime::Error::Function {
            function,
            exception,
        } => {
            let (kind, message) = (cut(&exception.kind, 100), cut(&exception.message, 500));
            format!("`{function}` raised {kind}: {message}")
        }
        runtime::Error::RowsDoNotFit { .. } | runtime::Error::Output { .. } => {
            cut(&error.to_string(), 500).into_owned()
        }
        runtime::Error::Crashed { .. } => "the worker died during the call".into(),
        runtime::Error::Stopped => "the service is shutting down".into(),
        _ => "no worker can take the call; the reason is in the log of the service".into(),
    }
}

/// To the millisecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e3).round() / 1e3
}

/// At most `limit` bytes of `text`, not splitting a character.
pub(crate) fn cut(text: &str, limit: usize) -> Cow<'_, str> {
    if text.len() <= limit {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(limit);
    Cow::Owned(format!("{}…", &text[..end]))
}
