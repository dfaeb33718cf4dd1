//! Body → rows, by schema: JSON is parsed once, straight into Arrow columns.
//!
//! Nothing is coerced, unless whoever runs the service asks for [`Casts`]. Faults are collected as long as the text is JSON, so that a caller sees
//! more than the first one. What a document looks like is the protocol's [`Dialect`]; other media are
//! in files of their own.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use envelope_format::{Field, Rows};
use serde::de::DeserializeSeed as _;

use document::{Document, List};
use table::Table;

use crate::error::Refusal;

mod arrow;
mod cell;
mod coerce;
mod columns;
mod csv;
mod document;
mod got;
mod lines;
pub(crate) mod literals;
mod pages;
mod row;
mod syntax;
mod table;
mod unpacked;

pub(crate) use cell::whole;
pub(crate) use coerce::Casts;
pub(crate) use syntax::bad_json;

/// How clients of a protocol lay rows out in JSON.
#[derive(Debug)]
pub(crate) struct Dialect {
    /// The keys that rows may be under; exactly one of them is there.
    pub(crate) keys: &'static [(&'static str, Layout)],
    /// Whether clients send more, and less, than the signature says: other keys and columns are
    /// passed over, a row may be a list, a column that may be null may be missing, floats may be `NaN`
    /// and infinite, and `1.0` is an integer.
    pub(crate) lenient: bool,
    /// Who changes values of other types, by the key that the rows are under; `None`: nobody.
    pub(crate) casts: Option<fn(&str) -> Casts>,
}

/// How rows lie under a key.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Layout {
    /// `[row, …]`.
    Rows,
    /// `{"columns": [name, …], "data": [[value, …], …]}`.
    Split,
    /// `{name: [value, …], …}`, or rows.
    Columns,
}

/// The dialect of this service.
pub(crate) const NATIVE: Dialect = Dialect {
    keys: &[("data", Layout::Rows)],
    lenient: false,
    casts: None,
};

/// What the function takes, prepared for reading.
#[derive(Debug)]
pub(crate) struct Decoder {
    schema: SchemaRef,
    fields: Vec<Field>,
    by_name: HashMap<String, usize>,
    /// A row may be one plain value.
    plain: bool,
    max_rows: usize,
}

impl Decoder {
    pub(crate) fn new(rows: &Rows, max_rows: usize) -> Self {
        let by_name = rows
            .fields
            .iter()
            .enumerate()
            .map(|(index, field)| (field.name.clone(), index))
            .collect();
        Self {
            schema: runtime::arrow_schema(rows),
            fields: rows.fields.clone(),
            by_name,
            plain: rows.shape.is_one_column(),
            max_rows,
        }
    }

    /// Reads an object that has rows under a key, such as `{"data": [row, ...]}`.
    pub(crate) fn document(&self, body: &[u8], dialect: &Dialect) -> Result<RecordBatch, Refusal> {
        if dialect.lenient {
            literals::tolerant(body, |body| self.document_once(body, dialect))
        } else {
            self.document_once(body, dialect)
        }
    }

    fn document_once(&self, body: &[u8], dialect: &Dialect) -> Result<RecordBatch, Refusal> {
        let mut table = Table::new(self, dialect.lenient);
        let mut json = serde_json::Deserializer::from_slice(body);
        let parsed = Document {
            table: &mut table,
            dialect,
        }
        .deserialize(&mut json);
        self.finish(body, table, parsed.and_then(|()| json.end()))
    }

    /// Reads `[row, ...]`.
    pub(crate) fn list(&self, body: &[u8]) -> Result<RecordBatch, Refusal> {
        let mut table = Table::new(self, false);
        let mut json = serde_json::Deserializer::from_slice(body);
        let parsed = List(&mut table).deserialize(&mut json);
        self.finish(body, table, parsed.and_then(|()| json.end()))
    }

    fn finish(
        &self,
        body: &[u8],
        table: Table<'_>,
        parsed: serde_json::Result<()>,
    ) -> Result<RecordBatch, Refusal> {
        match parsed {
            _ if table.too_long => Err(Refusal::TooManyRows {
                limit: self.max_rows,
            }),
            Err(error) if !table.faults.is_full() => Err(bad_json(&error, body)),
            _ if !table.faults.is_empty() => Err(Refusal::BadRows(table.faults)),
            _ => table.finish(),
        }
    }
}

#[cfg(test)]
mod tests;
