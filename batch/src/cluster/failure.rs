//! What went wrong on an executor, in a form that survives the way to the driver.
//!
//! Ballista passes errors on as text, printed for developers and printed again. So what the driver
//! needs travels in the text, in an alphabet that printing does not change, between two marks.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use ballista_core::error::BallistaError;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datafusion::error::DataFusionError;
use runtime::PythonError;
use serde::{Deserialize, Serialize};

use crate::Error;

const BEGIN: &str = "<<envelope-failure:";
const END: &str = ">>";

/// An [`Error`] that travels.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Failure {
    Function {
        function: String,
        table: String,
        row: Option<String>,
        cause: Cause,
    },
    Group {
        function: String,
        table: String,
        group: String,
        cause: Cause,
    },
    GroupTooLarge {
        table: String,
        group: String,
        most_bytes: u64,
    },
    MissingValue {
        table: String,
        column: String,
        file: Option<PathBuf>,
    },
    /// Of a file that is damaged; where storage may be to blame, it is another one.
    Read {
        table: String,
        file: Option<PathBuf>,
        reason: String,
    },
    Value {
        column: String,
        reason: String,
    },
    Cancelled,
    Other {
        message: String,
        transient: bool,
    },
}

/// A [`runtime::Error`] that travels.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Cause {
    Raised {
        function: String,
        exception: PythonError,
    },
    RowsDoNotFit {
        function: String,
        reason: String,
    },
    Output {
        function: String,
        reason: String,
    },
    Crashed {
        reason: String,
        stderr: String,
    },
    Deadline {
        after: Duration,
    },
    Environment {
        reason: String,
        hint: String,
    },
    Start {
        reason: String,
        stderr: String,
    },
}

/// What Ballista is told about an error of a task. One of storage is retried, on this executor or
/// on another; all others end the job.
pub(super) fn sent(error: &DataFusionError) -> DataFusionError {
    if let Some(lost) = lost_rows(error) {
        return lost.into_datafusion();
    }
    let failure = Failure::of(error);
    let text = failure.to_text();
    // What an executor that stops has not done is done elsewhere.
    let again = matches!(
        failure,
        Failure::Cancelled
            | Failure::Other {
                transient: true,
                ..
            }
    );
    if again {
        DataFusionError::IoError(io::Error::other(text))
    } else {
        DataFusionError::Execution(text)
    }
}

/// What tells the scheduler to have rows made again that went with an executor, if this is what went wrong.
fn lost_rows(error: &DataFusionError) -> Option<BallistaError> {
    causes(error).find_map(|cause| {
        let BallistaError::FetchFailed(executor, stage, partition, why) = cause.downcast_ref()?
        else {
            return None;
        };
        let (executor, why) = (executor.clone(), why.clone());
        Some(BallistaError::FetchFailed(
            executor, *stage, *partition, why,
        ))
    })
}

/// The error that was sent in `text`; the text itself where none was.
pub(super) fn received(text: &str) -> Error {
    match Failure::find(text) {
        Some(failure) => failure.into_error(),
        None => Error::Executor {
            message: text.to_owned(),
            transient: false,
        },
    }
}

impl Failure {
    fn of(error: &DataFusionError) -> Self {
        match causes(error).find_map(|cause| cause.downcast_ref::<Error>()) {
            Some(ours) => Self::of_ours(ours),
            None => Self::other(error),
        }
    }

    fn of_ours(error: &Error) -> Self {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others do not come from tasks, or are told well enough by their text"
        )]
        match error {
            Error::Function {
                function,
                table,
                row,
                source,
            } => match Cause::of(source) {
                Some(cause) => Self::Function {
                    function: function.clone(),
                    table: table.clone(),
                    row: row.clone(),
                    cause,
                },
                None => Self::other(source),
            },
            Error::Group {
                function,
                table,
                group,
                source,
            } => match Cause::of(source) {
                Some(cause) => Self::Group {
                    function: function.clone(),
                    table: table.clone(),
                    group: group.clone(),
                    cause,
                },
                None => Self::other(source),
            },
            Error::GroupTooLarge {
                table,
                group,
                most_bytes,
            } => Self::GroupTooLarge {
                table: table.clone(),
                group: group.clone(),
                most_bytes: *most_bytes,
            },
            Error::MissingValue {
                table,
                column,
                file,
            } => Self::MissingValue {
                table: table.clone(),
                column: column.clone(),
                file: file.clone(),
            },
            Error::Read {
                table,
                file,
                source,
            } if !is_of_storage(error) => Self::Read {
                table: table.clone(),
                file: file.clone(),
                reason: whole_text(source.as_ref()),
            },
            Error::Value { column, reason } => Self::Value {
                column: column.clone(),
                reason: reason.clone(),
            },
            Error::Cancelled => Self::Cancelled,
            other => Self::other(other),
        }
    }

    fn other(error: &(dyn StdError + 'static)) -> Self {
        Self::Other {
            message: whole_text(error),
            transient: is_of_storage(error),
        }
    }

    fn to_text(&self) -> String {
        // Plain values: there is nothing that JSON cannot hold.
        let json = serde_json::to_vec(self).unwrap_or_default();
        format!("{BEGIN}{}{END}", URL_SAFE_NO_PAD.encode(json))
    }

    fn find(text: &str) -> Option<Self> {
        let (_, after) = text.split_once(BEGIN)?;
        let (encoded, _) = after.split_once(END)?;
        let json = URL_SAFE_NO_PAD.decode(encoded).ok()?;
        serde_json::from_slice(&json).ok()
    }

    fn into_error(self) -> Error {
        match self {
            Self::Function {
                function,
                table,
                row,
                cause,
            } => Error::Function {
                function,
                table,
                row,
                source: cause.into_error(),
            },
            Self::Group {
                function,
                table,
                group,
                cause,
            } => Error::Group {
                function,
                table,
                group,
                source: cause.into_error(),
            },
            Self::GroupTooLarge {
                table,
                group,
                most_bytes,
            } => Error::GroupTooLarge {
                table,
                group,
                most_bytes,
            },
            Self::MissingValue {
                table,
                column,
                file,
            } => Error::MissingValue {
                table,
                column,
                file,
            },
            Self::Read {
                table,
                file,
                reason,
            } => Error::Read {
                table,
                file,
                source: reason.into(),
            },
            Self::Value { column, reason } => Error::Value { column, reason },
            Self::Cancelled => Error::Cancelled,
            Self::Other { message, transient } => Error::Executor { message, transient },
        }
    }
}

impl Cause {
    fn of(error: &runtime::Error) -> Option<Self> {
        use runtime::Error;
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "the others are not about the function"
        )]
        Some(match error {
            Error::Function {
                function,
                exception,
            } => Self::Raised {
                function: function.clone(),
                exception: exception.clone(),
            },
            Error::RowsDoNotFit { function, reason } => Self::RowsDoNotFit {
                function: function.clone(),
                reason: reason.clone(),
            },
            Error::Output { function, reason } => Self::Output {
                function: function.clone(),
                reason: reason.clone(),
            },
            Error::Crashed { reason, stderr } => Self::Crashed {
                reason: reason.clone(),
                stderr: stderr.clone(),
            },
            Error::Deadline { after } => Self::Deadline { after: *after },
            Error::Environment { reason, hint } => Self::Environment {
                reason: reason.clone(),
                hint: hint.clone(),
            },
            Error::Start { reason, stderr } => Self::Start {
                reason: reason.clone(),
                stderr: stderr.clone(),
            },
            _ => return None,
        })
    }

    fn into_error(self) -> runtime::Error {
        use runtime::Error;
        match self {
            Self::Raised {
                function,
                exception,
            } => Error::Function {
                function,
                exception,
            },
            Self::RowsDoNotFit { function, reason } => Error::RowsDoNotFit { function, reason },
            Self::Output { function, reason } => Error::Output { function, reason },
            Self::Crashed { reason, stderr } => Error::Crashed { reason, stderr },
            Self::Deadline { after } => Error::Deadline { after },
            Self::Environment { reason, hint } => Error::Environment { reason, hint },
            Self::Start { reason, stderr } => Error::Start { reason, stderr },
        }
    }
}

/// An error and what it came of.
fn causes<'e>(
    error: &'e (dyn StdError + 'static),
) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |error| cause_of(*error))
}

/// Errors of Ballista have causes and do not say so.
fn cause_of<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e (dyn StdError + 'static)> {
    match error.downcast_ref::<BallistaError>() {
        Some(BallistaError::DataFusionError(cause)) => Some(cause.as_ref()),
        Some(BallistaError::ArrowError(cause)) => Some(cause.as_ref()),
        Some(BallistaError::IoError(cause)) => Some(cause),
        Some(_) | None => error.source(),
    }
}

/// Whether the network or a disk may be to blame. A file that is not there, or not allowed, stays so.
fn is_of_storage(error: &(dyn StdError + 'static)) -> bool {
    causes(error).any(|cause| {
        let store = cause.downcast_ref::<object_store::Error>();
        let io = cause.downcast_ref::<io::Error>();
        store.is_some_and(|store| matches!(store, object_store::Error::Generic { .. }))
            || io.is_some_and(|io| is_passing(io.kind()))
    })
}

fn is_passing(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, Interrupted,
        NetworkDown, NetworkUnreachable, ResourceBusy, StaleNetworkFileHandle, StorageFull,
        TimedOut,
    };
    matches!(
        kind,
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | Interrupted
            | NetworkDown
            | NetworkUnreachable
            | ResourceBusy
            | StaleNetworkFileHandle
            | StorageFull
            | TimedOut
    )
}

/// An error with its causes, each once: some say in their text what caused them.
fn whole_text(error: &(dyn StdError + 'static)) -> String {
    let mut whole = String::new();
    for cause in causes(error).map(ToString::to_string) {
        if whole.is_empty() {
            whole = cause;
        } else if !whole.contains(&cause) {
            whole = format!("{whole}: {cause}");
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The way of an error through Ballista: printed, wrapped, printed again.
    fn on_its_way(error: Error) -> (DataFusionError, Error) {
        let wrapped = DataFusionError::Shared(std::sync::Arc::new(
            error.into_engine().context("in the shuffle writer"),
        ));
        let sent = sent(&BallistaError::from(wrapped).into_datafusion());
        let printed = format!("Job failed: {:?}", format!("Task failed: {sent:?}"));
        let received = received(&printed);
        (sent, received)
    }

    #[test]
    fn an_exception_arrives_with_its_row_and_its_traceback() {
        let exception = PythonError {
            kind: "ValueError".into(),
            message: "bad \"row\"\n>> \u{1F600}".into(),
            traceback: "Traceback:\n  File \"x.py\", line 1".into(),
        };
        let (sent, received) = on_its_way(Error::Function {
            function: "f".into(),
            table: "t".into(),
            row: Some("id=7".into()),
            source: runtime::Error::Function {
                function: "f".into(),
                exception: exception.clone(),
            },
        });
        assert!(matches!(sent, DataFusionError::Execution(_)), "not retried");
        let Error::Function {
            row,
            source: runtime::Error::Function {
                exception: arrived, ..
            },
            ..
        } = received
        else {
            panic!("{received:?}");
        };
        assert_eq!((row.as_deref(), arrived), (Some("id=7"), exception));
    }

    #[test]
    fn a_group_that_fails_arrives_with_its_name() {
        let (sent, received) = on_its_way(Error::Group {
            function: "f".into(),
            table: "t".into(),
            group: "region=UK".into(),
            source: runtime::Error::Deadline {
                after: Duration::from_secs(3),
            },
        });
        assert!(matches!(sent, DataFusionError::Execution(_)), "not retried");
        assert!(
            received
                .to_string()
                .contains("the group region=UK of the table `t`")
        );
        let (_, received) = on_its_way(Error::GroupTooLarge {
            table: "t".into(),
            group: "region=UK".into(),
            most_bytes: 7,
        });
        assert!(matches!(
            received,
            Error::GroupTooLarge { most_bytes: 7, .. }
        ));
    }

    #[test]
    fn rows_that_went_with_an_executor_are_made_again() {
        let lost = BallistaError::FetchFailed("executor".into(), 1, 2, "refused".into());
        let (sent, _) = on_its_way(Error::Read {
            table: "t".into(),
            file: None,
            source: Box::new(lost.into_datafusion()),
        });
        let sent = BallistaError::from(sent);
        assert!(
            matches!(sent, BallistaError::FetchFailed(executor, 1, 2, _) if executor == "executor")
        );
    }

    #[test]
    fn errors_of_storage_are_retried_and_those_of_users_are_not() {
        let write = |source: Box<dyn StdError + Send + Sync>| Error::Write {
            path: "/t/part".into(),
            source,
        };
        let generic = object_store::Error::Generic {
            store: "S3",
            source: "503 Slow Down".into(),
        };
        let (sent, received) = on_its_way(write(Box::new(generic)));
        assert!(matches!(sent, DataFusionError::IoError(_)), "{sent:?}");
        assert!(received.is_transient() && received.to_string().contains("503 Slow Down"));

        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert!(matches!(
            on_its_way(write(Box::new(full))).0,
            DataFusionError::IoError(_)
        ));

        let forbidden = io::Error::from(io::ErrorKind::PermissionDenied);
        let (sent, received) = on_its_way(write(Box::new(forbidden)));
        assert!(matches!(sent, DataFusionError::Execution(_)), "{sent:?}");
        assert!(!received.is_transient());
    }

    #[test]
    fn what_nobody_marked_is_passed_on_as_it_is() {
        let received = received("Job failed: all executors were lost");
        assert_eq!(
            received.to_string(),
            "an executor of the cluster failed: Job failed: all executors were lost"
        );
    }
}
