//! Rust errors as the package's exceptions: the one table from error to exception.

use std::error::Error as StdError;

use envelope_format::statistics::InvalidStatistics;
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// What an exception of the package is made from.
#[derive(Debug, Default)]
pub(crate) struct Fault {
    code: &'static str,
    message: String,
    hint: String,
    details: String,
    /// The code of a broken rule of the format; `code` is the one of the exception's class.
    exactly: &'static str,
}

impl Fault {
    pub(crate) fn new(code: &'static str, message: String) -> Self {
        Self {
            code,
            message,
            ..Self::default()
        }
    }

    fn exactly(mut self, error: &envelope_format::Error) -> Self {
        self.exactly = error.code();
        self
    }

    fn hint(mut self, hint: &str) -> Self {
        hint.clone_into(&mut self.hint);
        self
    }

    fn details(mut self, details: &str) -> Self {
        details.clone_into(&mut self.details);
        self
    }
}

/// The exception for `fault`, made by the package's own table of codes.
pub(crate) fn raise(py: Python<'_>, fault: &Fault) -> PyErr {
    let made = || -> PyResult<Bound<'_, PyAny>> {
        let options = PyDict::new(py);
        options.set_item("hint", &fault.hint)?;
        options.set_item("details", &fault.details)?;
        options.set_item("exactly", fault.exactly)?;
        let make = py.import("model_envelope._errors")?.getattr("from_code")?;
        make.call((fault.code, &fault.message), Some(&options))
    };
    made().map_or_else(|error| error, PyErr::from_value)
}

pub(crate) fn format(py: Python<'_>, error: &envelope_format::Error) -> PyErr {
    raise(py, &Fault::new("bad_envelope", chain(error)).exactly(error))
}

pub(crate) fn statistics(py: Python<'_>, error: &InvalidStatistics) -> PyErr {
    let message = format!(
        "the statistics in the envelope cannot be used: {}",
        chain(error)
    );
    let hint = "save it again with this version of the package";
    raise(py, &Fault::new("bad_envelope", message).hint(hint))
}

pub(crate) fn invalid_input(py: Python<'_>, message: String) -> PyErr {
    raise(py, &Fault::new("invalid_input", message))
}

pub(crate) fn runtime(py: Python<'_>, error: &runtime::Error) -> PyErr {
    use runtime::Error;

    let message = chain(error);
    let fault = |code| Fault::new(code, message.clone());
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the rest is not the caller's to mend"
    )]
    let fault = match error {
        Error::Envelope { source, .. } => fault("bad_envelope").exactly(source),
        Error::NoSuchFunction(_) => fault("not_found"),
        Error::WrongInterpreter { .. } => fault("environment_mismatch")
            .hint("install that interpreter, for example with `uv python install`"),
        Error::Environment { hint, .. } => fault("environment_mismatch").hint(hint),
        Error::Start { stderr, .. } => fault("not_servable").details(stderr),
        Error::Sandbox { .. } => fault("not_servable"),
        Error::RowsDoNotFit { .. } => fault("invalid_input"),
        Error::Function { exception, .. } => {
            fault("prediction_failed").details(&exception.traceback)
        }
        Error::Output { .. } => fault("prediction_failed"),
        Error::Crashed { stderr, .. } => fault("prediction_failed").details(stderr),
        Error::Deadline { .. } => {
            fault("prediction_failed").hint("give it more time with `timeout=`")
        }
        _ => fault("failed"),
    };
    raise(py, &fault)
}

pub(crate) fn registry(py: Python<'_>, error: &registry::Error) -> PyErr {
    use registry::Error;

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the rest is not the caller's to mend"
    )]
    let code = match error {
        Error::Envelope { .. } | Error::Changed { .. } => "bad_envelope",
        Error::Tag(_) | Error::Reference(_) | Error::TagQuery(_) | Error::Ambiguous { .. } => {
            "invalid_input"
        }
        Error::NotFound { .. } => "not_found",
        _ => "failed",
    };
    let hint = error.hint().unwrap_or_default();
    let fault = Fault::new(code, chain(error)).hint(&hint);
    if let Error::Envelope { source, .. } = error {
        return raise(py, &fault.exactly(source));
    }
    raise(py, &fault)
}

/// The message of an error and of its causes.
fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
