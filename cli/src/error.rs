//! What can go wrong, what it is called, and which exit code it has.

use std::io;
use std::path::{Path, PathBuf};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    #[error(transparent)]
    Server(Box<server::Error>),
    #[error(transparent)]
    Batch(Box<batch::Error>),
    #[error("`{url}` is not a folder: stores on a server come later")]
    RemoteStore { url: String },
    #[error("this user has no home folder")]
    NoHome { variable: &'static str },
    #[error("`{change}` does not change a tag")]
    NoTagChange { change: String },
    #[error("`{}` exists", path.display())]
    Exists { path: PathBuf },
    #[error("{reason}")]
    Usage { reason: String, hint: &'static str },
    #[error("{reason}")]
    Input {
        reason: String,
        hint: Option<String>,
    },
    #[error("the {part} of `{function}` in the envelope cannot be read: {reason}")]
    Stored {
        part: &'static str,
        function: String,
        reason: String,
    },
    #[error("`{}` is not vouched for by a trusted key", path.display())]
    Untrusted {
        path: PathBuf,
        source: envelope_format::Error,
    },
    #[error("`{}` holds no key", path.display())]
    Key {
        path: PathBuf,
        source: envelope_format::InvalidKey,
    },
    #[error("the envelopes differ")]
    Different,
    #[error("it is not as it was saved: {}", differences.join("; "))]
    NotReproduced { differences: Vec<String> },
    #[error("`{}`, the program that built services begin with, is not there", path.display())]
    NoStub { path: PathBuf },
    #[error("cannot {doing} `{}`", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error("interrupted")]
    Interrupted { signal: u8 },
}

/// What a caller can rely on about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Stable name of the case.
    pub(crate) code: &'static str,
    pub(crate) exit: u8,
}

/// The operation failed.
const FAILED: u8 = 1;
/// Wrong usage or settings.
const USAGE: u8 = 2;
const NOT_FOUND: u8 = 3;
const NOT_ALLOWED: u8 = 4;
/// In conflict with what is there.
const CONFLICT: u8 = 5;
const UNREACHABLE: u8 = 6;
const TIMED_OUT: u8 = 7;

const fn kind(code: &'static str, exit: u8) -> Kind {
    Kind { code, exit }
}

impl Error {
    pub(crate) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Registry(error) => of_registry(error),
            Self::Runtime(error) => of_runtime(error),
            Self::Server(error) => kind(error.code(), error.exit_code()),
            Self::Batch(error) => of_batch(error),
            Self::RemoteStore { .. } => kind("remote_store", USAGE),
            Self::NoHome { .. } => kind("no_home", USAGE),
            Self::NoTagChange { .. } => kind("invalid_tag", USAGE),
            Self::Usage { .. } => kind("usage", USAGE),
            Self::Exists { .. } => kind("exists", CONFLICT),
            Self::Input { .. } => kind("bad_input", FAILED),
            Self::Stored { .. } => kind("bad_envelope", FAILED),
            Self::NotReproduced { .. } => kind("not_reproduced", FAILED),
            Self::Untrusted { source, .. } => kind(source.code(), NOT_ALLOWED),
            Self::Key { .. } => kind("invalid_key", USAGE),
            Self::Different => kind("different", FAILED),
            Self::NoStub { .. } => kind("no_service_program", FAILED),
            Self::Io { source, .. } => of_io(source),
            Self::Interrupted { signal } => kind("interrupted", 128 + signal),
        }
    }

    /// The rule of the format that an envelope breaks.
    pub(crate) fn broken_rule(&self) -> Option<&envelope_format::Error> {
        if let Self::Registry(registry::Error::Envelope { source, .. })
        | Self::Untrusted { source, .. } = self
        {
            return Some(source);
        }
        if let Some(runtime::Error::Envelope { source, .. }) = self.worker() {
            return Some(source);
        }
        None
    }

    /// What the user may do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Registry(error) => error.hint(),
            Self::Runtime(error) => runtime_hint(error),
            Self::Server(error) => error.hint().map(Into::into),
            Self::Batch(error) => error
                .hint()
                .or_else(|| of_query(error).and_then(Self::hint))
                .or_else(|| self.worker().and_then(runtime_hint)),
            Self::RemoteStore { .. } => Some("set `ENVELOPE_URL` or `--url` to a folder".into()),
            Self::NoHome { variable } => Some(format!("set `{variable}` to a folder")),
            Self::NoTagChange { .. } => {
                Some("write `key=value` to set a tag, `key-` to remove it".into())
            }
            Self::Exists { .. } => Some("choose another file, or remove that one".into()),
            Self::Usage { hint, .. } => Some((*hint).to_owned()),
            Self::Input { hint, .. } => hint.clone(),
            Self::NoStub { .. } => {
                Some("build it: `cargo build --release --bin envelope-service`".into())
            }
            Self::Untrusted { .. } => Some(
                "`envelope sign REF --key FILE` vouches for it; `--trust` and `ENVELOPE_TRUST` say whose word counts"
                    .into(),
            ),
            Self::Key { .. } => Some("`envelope keygen FILE` makes a pair of keys".into()),
            Self::NotReproduced { .. } => Some(
                "another processor or library may round differently; save it again on a machine like this one"
                    .into(),
            ),
            Self::Different
            | Self::Stored { .. }
            | Self::Io { .. }
            | Self::Interrupted { .. } => None,
        }
    }

    /// What only those want to see who look for the reason: a traceback, the last words of a worker.
    pub(crate) fn details(&self) -> Option<&str> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others say all in their message"
        )]
        let details = match self.worker()? {
            runtime::Error::Function { exception, .. } => &exception.traceback,
            runtime::Error::Start { stderr, .. } | runtime::Error::Crashed { stderr, .. } => stderr,
            _ => return None,
        };
        (!details.trim().is_empty()).then_some(details)
    }

    /// The error of the workers behind this one.
    fn worker(&self) -> Option<&runtime::Error> {
        if let Self::Runtime(source) = self {
            return Some(source);
        }
        if let Self::Server(error) = self
            && let server::Error::SelfTest { source, .. } = &**error
        {
            return Some(source);
        }
        if let Self::Batch(error) = self
            && let batch::Error::Function { source, .. } | batch::Error::Group { source, .. } =
                error.root()
        {
            return Some(source);
        }
        None
    }
}

impl From<server::Error> for Error {
    fn from(error: server::Error) -> Self {
        if let server::Error::Runtime(error) = error {
            return Self::Runtime(error);
        }
        Self::Server(Box::new(error))
    }
}

impl From<batch::Error> for Error {
    /// Workers that did not even start did not fail on rows of a table.
    fn from(error: batch::Error) -> Self {
        use runtime::Error::{Envelope, Environment, Start, WrongInterpreter};
        if let batch::Error::Function {
            source:
                source @ (Envelope { .. } | Environment { .. } | Start { .. } | WrongInterpreter { .. }),
            ..
        }
        | batch::Error::Group {
            source:
                source @ (Envelope { .. } | Environment { .. } | Start { .. } | WrongInterpreter { .. }),
            ..
        } = error
        {
            return Self::Runtime(source);
        }
        Self::Batch(Box::new(error))
    }
}

fn of_io(error: &io::Error) -> Kind {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "there is no more to be said about the others"
    )]
    match error.kind() {
        io::ErrorKind::NotFound => kind("not_found", NOT_FOUND),
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            kind("not_allowed", NOT_ALLOWED)
        }
        io::ErrorKind::AlreadyExists => kind("exists", CONFLICT),
        _ => kind("io", FAILED),
    }
}

fn of_registry(error: &registry::Error) -> Kind {
    use registry::Error;
    match error {
        Error::Envelope {
            source: envelope_format::Error::Io { source },
            ..
        }
        | Error::Io { source, .. } => of_io(source),
        Error::Envelope { source, .. } => kind(source.code(), FAILED),
        Error::Changed { .. } => kind("file_changed", FAILED),
        Error::Tag(_) => kind("invalid_tag", USAGE),
        Error::Reference(_) => kind("invalid_reference", USAGE),
        Error::TagQuery(_) => kind("invalid_query", USAGE),
        Error::Path { .. } => kind("invalid_store", USAGE),
        Error::NotFound { .. } => kind("not_found", NOT_FOUND),
        Error::Ambiguous { .. } => kind("ambiguous", CONFLICT),
        Error::NewerStore { .. } => kind("newer_store", CONFLICT),
        Error::BytesMissing { .. } => kind("bytes_missing", FAILED),
        Error::Database { .. } if error.is_forbidden() => kind("not_allowed", NOT_ALLOWED),
        Error::OldSqlite { .. } | Error::Database { .. } | Error::Store { .. } => {
            kind("store_failed", FAILED)
        }
        _ => kind("internal", FAILED),
    }
}

fn of_runtime(error: &runtime::Error) -> Kind {
    use runtime::Error;
    match error {
        Error::Envelope {
            source: envelope_format::Error::Io { source },
            ..
        }
        | Error::Io { source, .. } => of_io(source),
        Error::Envelope { source, .. } => kind(source.code(), FAILED),
        Error::NoSuchFunction(_) => kind("no_such_function", NOT_FOUND),
        Error::WrongInterpreter { .. } => kind("wrong_interpreter", CONFLICT),
        Error::Environment { .. } => kind("environment_failed", FAILED),
        Error::Start { .. } => kind("worker_did_not_start", FAILED),
        Error::Sandbox { .. } => kind("sandbox_unavailable", FAILED),
        Error::RowsDoNotFit { .. } => kind("rows_do_not_fit", FAILED),
        Error::Function { .. } => kind("function_failed", FAILED),
        Error::Output { .. } => kind("bad_output", FAILED),
        Error::Crashed { .. } => kind("worker_crashed", FAILED),
        Error::Deadline { .. } => kind("deadline", TIMED_OUT),
        Error::Stopped => kind("stopped", FAILED),
        Error::NeedsProcesses | _ => kind("internal", FAILED),
    }
}

/// Why an envelope that a query names cannot be used.
fn of_query(error: &batch::Error) -> Option<&Error> {
    let batch::Error::NoEnvelope { source, .. } = error else {
        return None;
    };
    source.downcast_ref()
}

fn of_batch(error: &batch::Error) -> Kind {
    use batch::Error;
    if let Some(cause) = of_query(error) {
        return cause.kind();
    }
    match error.root() {
        Error::Function { source, .. } | Error::Group { source, .. } => of_runtime(source),
        Error::GroupTooLarge { .. } => kind("group_too_large", FAILED),
        Error::GroupBy { .. } | Error::KeptOfGroup { .. } | Error::GroupsOfSeveral { .. } => {
            kind("bad_groups", FAILED)
        }
        Error::Sql { .. } => kind("bad_sql", USAGE),
        Error::NoSuchFunction(_) => kind("no_such_function", NOT_FOUND),
        Error::NotRowWise { .. } => kind("not_row_wise", CONFLICT),
        Error::Location { .. } => kind("invalid_location", USAGE),
        Error::JobIdentity { .. } => kind("invalid_job", USAGE),
        Error::OtherJob { .. } => kind("other_job", CONFLICT),
        Error::Filter { .. } => kind("bad_filter", USAGE),
        Error::TableNotFound { .. } => kind("table_not_found", NOT_FOUND),
        Error::NoSnapshot { .. } | Error::NoSnapshots { .. } => kind("no_such_snapshot", NOT_FOUND),
        Error::Read { .. } => kind("bad_table", FAILED),
        Error::Unsupported { .. } => kind("unsupported_table", FAILED),
        Error::NoColumn { .. } => kind("no_such_column", FAILED),
        Error::ColumnType { .. } | Error::FilesDiffer { .. } => kind("wrong_type", FAILED),
        Error::LayoutsDiffer { .. } => kind("layouts_differ", FAILED),
        Error::MissingValue { .. } => kind("missing_value", FAILED),
        Error::ColumnTwice { .. } => kind("column_twice", FAILED),
        Error::NoDeltaType { .. } | Error::Value { .. } => kind("unwritable", FAILED),
        Error::TableExists { .. } => kind("table_exists", CONFLICT),
        Error::PartitionBy { .. } | Error::NotPartitioned { .. } => {
            kind("bad_partition_columns", FAILED)
        }
        Error::OtherPartitions { .. } => kind("other_partitions", CONFLICT),
        Error::MergeOn { .. } => kind("bad_merge_columns", FAILED),
        Error::KeyTwice { .. } => kind("key_twice", FAILED),
        Error::NotThatTable { .. } => kind("not_that_table", CONFLICT),
        Error::SchemaMismatch { .. } => kind("schema_mismatch", CONFLICT),
        Error::Conflict { .. } => kind("conflict", CONFLICT),
        Error::Write { .. } | Error::Commit { .. } => kind("cannot_write", FAILED),
        Error::Cancelled => kind("interrupted", 130),
        Error::Cluster { .. } => kind("cluster_unreachable", UNREACHABLE),
        Error::Executor { .. } | Error::Incomplete { .. } => kind("cluster_failed", FAILED),
        Error::NoClusters => kind("no_clusters", USAGE),
        Error::Exposed { .. } => kind("exposed", USAGE),
        Error::Credentials { .. } => kind("bad_credentials", USAGE),
        // An envelope that only a caller of ours looked for.
        Error::NoEnvelope { .. } => kind("not_found", NOT_FOUND),
        Error::NoModel | Error::Panicked { .. } | Error::Engine { .. } | Error::Shared(_) => {
            kind("internal", FAILED)
        }
        _ => kind("internal", FAILED),
    }
}

fn runtime_hint(error: &runtime::Error) -> Option<String> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others say all in their message"
    )]
    match error {
        runtime::Error::Environment { hint, .. } => Some(hint.clone()),
        runtime::Error::WrongInterpreter { needs, .. } => Some(format!("put {needs} on the PATH")),
        _ => None,
    }
}
