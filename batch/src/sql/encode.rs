//! Rows as text for other programs.

use arrow_array::RecordBatch;
use datafusion::arrow::csv::WriterBuilder;
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::error::DataFusionError;

use crate::Error;

/// How rows are written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// One JSON object for each row and line. What is missing, and what is no number, is not there.
    JsonLines,
    /// CSV, with the names of the columns in the first line if it is the first of the batches.
    Csv {
        /// Whether it is.
        first: bool,
    },
}

/// Rows as text.
///
/// # Errors
/// [`Error::Engine`] for columns that the encoding has no form for, lists in CSV for example.
pub fn encode(rows: &RecordBatch, encoding: Encoding) -> Result<Vec<u8>, Error> {
    let mut text = vec![];
    let written = match encoding {
        Encoding::JsonLines => {
            let mut writer = LineDelimitedWriter::new(&mut text);
            writer.write(rows).and_then(|()| writer.finish())
        }
        Encoding::Csv { first } => {
            let mut writer = WriterBuilder::new().with_header(first).build(&mut text);
            writer.write(rows)
        }
    };
    written.map_err(|source| Error::Engine {
        source: DataFusionError::from(source),
    })?;
    Ok(text)
}
