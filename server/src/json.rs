//! Rows from and to JSON by the rules of the service, for programs that run a function without one.

use std::fmt;

use arrow_array::RecordBatch;
use envelope_format::Rows;

use crate::decode::{Decoder, NATIVE};
use crate::encode::Encoder;
use crate::error::Refusal;

/// Why JSON is not rows of a function, or rows cannot be JSON.
#[derive(Debug)]
pub struct JsonError(Refusal);

impl JsonError {
    /// What the user may do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        self.0.hint()
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for JsonError {}

/// Reads `{"data": [row, …]}`, or the list alone, into the columns of `takes`. Nothing is coerced.
///
/// # Errors
/// What is wrong, in which row and column, or at which byte.
pub fn read(takes: &Rows, text: &[u8]) -> Result<RecordBatch, JsonError> {
    let decoder = Decoder::new(takes, usize::MAX);
    let is_list = text.trim_ascii_start().starts_with(b"[");
    let read = if is_list {
        decoder.list(text)
    } else {
        decoder.document(text, &NATIVE)
    };
    read.map_err(JsonError)
}

/// Writes `{"predictions":[row, …]}`. Floats that JSON cannot say become `null`.
///
/// # Errors
/// A cell that the service could not write either.
pub fn write(gives: &Rows, rows: &RecordBatch) -> Result<Vec<u8>, JsonError> {
    Encoder::new(gives).predictions(rows).map_err(JsonError)
}
