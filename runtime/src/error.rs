//! What can go wrong, sorted by whose fault it is.

use std::path::PathBuf;
use std::time::Duration;

use crate::SandboxLevel;

/// Why a call, or the start of a runtime, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file is not an envelope, or was damaged.
    #[error("`{path}` is not a good envelope")]
    Envelope {
        /// The file.
        path: PathBuf,
        /// Which rule it breaks.
        source: envelope_format::Error,
    },
    /// There is no such function in the envelope.
    #[error(transparent)]
    NoSuchFunction(envelope_format::Error),
    /// The envelope was made for another interpreter or platform than this machine has.
    #[error("the envelope needs {needs}, here is {found}")]
    WrongInterpreter {
        /// Interpreter or platform that the envelope was made for.
        needs: String,
        /// What was found.
        found: String,
    },
    /// The environment cannot be made real on this machine.
    #[error("the environment cannot be realised: {reason}")]
    Environment {
        /// Why.
        reason: String,
        /// What the user may do.
        hint: String,
    },
    /// The environment in an executable cannot be used here, or one cannot be carried.
    #[error(transparent)]
    Carried(#[from] crate::CarriedError),
    /// A worker did not come up.
    #[error("the worker did not start: {reason}")]
    Start {
        /// Why; a Python exception's text if there was one.
        reason: String,
        /// The last lines that the worker wrote to standard error.
        stderr: String,
    },
    /// This machine cannot confine workers as much as was asked for.
    #[error(
        "this machine does not give the sandbox level `{level}`: no {missing}; choose a lower level, \
         or allow to start with less (`allow_degraded`)"
    )]
    Sandbox {
        /// What was asked for.
        level: SandboxLevel,
        /// What it needs and the machine does not have.
        missing: String,
    },
    /// The rows are not what the function takes: the caller's fault.
    #[error("the rows do not fit the signature of `{function}`: {reason}")]
    RowsDoNotFit {
        /// The function.
        function: String,
        /// The column and what is wrong with it.
        reason: String,
    },
    /// The function raised an exception: its author's fault, or the data's.
    #[error("`{function}` raised {exception}")]
    Function {
        /// The function.
        function: String,
        /// What it raised.
        exception: PythonError,
    },
    /// The function gave something else than its signature says: its author's fault.
    #[error("`{function}` gave a wrong output: {reason}")]
    Output {
        /// The function.
        function: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The worker died during the call.
    #[error("the worker died during the call: {reason}")]
    Crashed {
        /// Signal or exit status.
        reason: String,
        /// The last lines that the worker wrote to standard error.
        stderr: String,
    },
    /// The call did not end in time; its worker was killed.
    #[error("the call did not end within {} ms", after.as_millis())]
    Deadline {
        /// The time it had.
        after: Duration,
    },
    /// What was asked of a runtime in this process takes worker processes.
    #[error("this takes worker processes: start the runtime with `Runtime::builder`")]
    NeedsProcesses,
    /// The runtime is shutting down.
    #[error("the runtime is shutting down")]
    Stopped,
    /// The operating system refused something.
    #[error("{doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// A Python exception, as text: the object must not outlive its interpreter.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PythonError {
    /// Class: `ValueError`.
    pub kind: String,
    /// What `str()` gives.
    pub message: String,
    /// The traceback from the query function inwards, without our own frames.
    pub traceback: String,
}

impl std::fmt::Display for PythonError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}: {}", self.kind, self.message)
    }
}

impl Error {
    /// Whether the same call may succeed when it is tried again.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Crashed { .. } | Self::Deadline { .. } | Self::Stopped | Self::Io { .. }
        )
    }
}
