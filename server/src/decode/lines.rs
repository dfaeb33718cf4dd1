//! JSON lines: a row on each line. Empty lines are passed over.

use arrow_array::RecordBatch;
use serde::de::DeserializeSeed as _;

use super::row::Row;
use super::table::Table;
use super::{Casts, Decoder, Dialect, literals};
use crate::error::Refusal;

impl Decoder {
    /// Reads a body of `application/jsonlines`.
    pub(crate) fn lines(&self, body: &[u8], dialect: &Dialect) -> Result<RecordBatch, Refusal> {
        if dialect.lenient {
            literals::tolerant(body, |body| self.lines_once(body, dialect))
        } else {
            self.lines_once(body, dialect)
        }
    }

    /// Each line is a document of its own: a reader of the whole body would count all lines before a
    /// row to find out whether there is another one.
    fn lines_once(&self, body: &[u8], dialect: &Dialect) -> Result<RecordBatch, Refusal> {
        let (mut table, mut begin) = (Table::new(self, dialect.lenient), 0);
        // A line is like a row of a frame.
        table.cast(dialect.casts.map(|_| Casts::Frame));
        for (number, line) in body.split(|byte| *byte == b'\n').enumerate() {
            let offset = begin;
            begin += line.len() + 1;
            if line.trim_ascii().is_empty() {
                continue;
            }
            let mut json = serde_json::Deserializer::from_slice(line);
            let parsed = Row(&mut table).deserialize(&mut json);
            let parsed = parsed.and_then(|()| json.end());
            if parsed.is_err() {
                let finished = self.finish(line, table, parsed);
                return finished.map_err(|refusal| behind(refusal, number, offset));
            }
            table.row += 1;
        }
        self.finish(body, table, Ok(()))
    }
}

/// A refusal of what has lines and bytes before it.
fn behind(mut refusal: Refusal, lines: usize, bytes: usize) -> Refusal {
    if let Refusal::BadJson { line, offset, .. } = &mut refusal {
        *line += lines;
        *offset += bytes;
    }
    refusal
}
