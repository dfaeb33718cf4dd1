//! What is wrong with the rows of a call: row, column, what was expected, what came.

use std::fmt;

use serde::Serialize;

use crate::error::cut;

/// How many are reported: enough to see a pattern, few enough for a short answer.
const MOST: usize = 10;

/// So many of them fit into one message.
const TOLD: usize = 3;

/// How much is repeated of what a caller sent, in bytes.
const ECHO_BYTES: usize = 64;

/// One value that is not what the signature says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Fault {
    pub(crate) code: &'static str,
    /// From 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) row: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) column: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expected: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) got: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

impl Fault {
    pub(crate) fn new(code: &'static str) -> Self {
        Self {
            code,
            row: None,
            column: None,
            expected: None,
            got: None,
            reason: None,
        }
    }

    pub(crate) fn row(self, row: usize) -> Self {
        Self {
            row: Some(row),
            ..self
        }
    }

    pub(crate) fn column(self, name: &str) -> Self {
        Self {
            column: Some(cut(name, ECHO_BYTES).into_owned()),
            ..self
        }
    }

    pub(crate) fn expected(self, expected: impl fmt::Display) -> Self {
        Self {
            expected: Some(expected.to_string()),
            ..self
        }
    }

    pub(crate) fn got(self, got: &str) -> Self {
        Self {
            got: Some(cut(got, ECHO_BYTES).into_owned()),
            ..self
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(row) = self.row {
            write!(formatter, "row {row}, ")?;
        }
        if let Some(column) = &self.column {
            write!(formatter, "column `{column}`: ")?;
        }
        formatter.write_str(&self.code.replace('_', " "))?;
        if let Some(expected) = &self.expected {
            write!(formatter, ", expected {expected}")?;
        }
        if let Some(got) = &self.got {
            write!(formatter, ", got {got}")?;
        }
        match self.reason {
            Some(reason) => write!(formatter, " ({reason})"),
            None => Ok(()),
        }
    }
}

/// The first faults that were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Faults(Vec<Fault>);

impl Faults {
    pub(crate) fn push(&mut self, fault: Fault) {
        if !self.is_full() {
            self.0.push(fault);
        }
    }

    /// Whether it makes no sense to look for more.
    pub(crate) fn is_full(&self) -> bool {
        self.0.len() >= MOST
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn list(&self) -> &[Fault] {
        &self.0
    }

    /// The code of the first one.
    pub(crate) fn code(&self) -> &'static str {
        self.0.first().map_or("wrong_type", |fault| fault.code)
    }

    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self.code() {
            "missing_column" => {
                Some("send every column in every row; `null` where a value may be missing")
            }
            "not_nullable" => Some(
                "send a value; the function takes none that is missing there, because none was missing \
                 in the sample that it was saved with",
            ),
            "unknown_column" | "wrong_type" => {
                Some("`GET /openapi.json` shows what the function takes")
            }
            _ => None,
        }
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return formatter.write_str("the rows do not fit");
        }
        for (position, fault) in self.0.iter().take(TOLD).enumerate() {
            let separator = if position == 0 { "" } else { "; " };
            write!(formatter, "{separator}{fault}")?;
        }
        match self.0.len().saturating_sub(TOLD) {
            0 => Ok(()),
            more => write!(formatter, "; and {more} more"),
        }
    }
}
