//! Finds the place in a file of text that a failed job could not read.
//!
//! The engine reads files in parts and in any order, so its errors name no file. Only after such an
//! error are the files looked at again, one by one.

use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use arrow_array::{Array as _, RecordBatch};
use arrow_cast::cast::cast;
use arrow_schema::{ArrowError, Schema, SchemaRef};
use datafusion::arrow::{csv, json};

use crate::Error;
use crate::formats::{Encoding, JSON_WHOLE};
use crate::location::Location;
use crate::schema::type_name;
use crate::source::Source;

/// The same error with file, line and column, where it is one of reading text in the columns
/// `scanned` of `table`.
pub(crate) async fn located(
    error: Error,
    (place, table): (&Location, &Arc<Source>),
    scanned: &[usize],
) -> Error {
    let is_text = matches!(table.kind.encoding, Encoding::Csv | Encoding::JsonLines);
    if !is_text || !matches!(error, Error::Read { file: None, .. }) {
        return error;
    }
    let (place, table, scanned) = (place.clone(), Arc::clone(table), scanned.to_vec());
    let search = move || search(&place, &table, &scanned);
    tokio::task::spawn_blocking(search)
        .await
        .ok()
        .flatten()
        .unwrap_or(error)
}

fn search(place: &Location, table: &Source, scanned: &[usize]) -> Option<Error> {
    let schema = table.file_schema();
    let in_files = |column: &&usize| **column < schema.fields().len();
    let columns: Vec<usize> = scanned.iter().filter(in_files).copied().collect();
    table.files.iter().find_map(|file| {
        let reason = fault((place, table), &schema, &columns, &file.path)?;
        Some(Error::Read {
            table: table.name.clone(),
            file: Some(place.named(&file.path)),
            source: reason.into(),
        })
    })
}

/// What is wrong with a file: its lines, else the first column that is.
fn fault(
    (place, table): (&Location, &Source),
    schema: &SchemaRef,
    columns: &[usize],
    file: &Path,
) -> Option<String> {
    let read = |columns: Vec<usize>| {
        let opened = table
            .kind
            .compression
            .convert_read(place.open(file).ok()?)
            .ok()?;
        match table.kind.encoding {
            Encoding::JsonLines => {
                let promised = table.schema.project(&columns).ok()?;
                first_json_fault(opened, &schema.project(&columns).ok()?, &promised)
            }
            Encoding::Csv => first_csv_fault(opened, schema, columns),
            Encoding::Parquet | Encoding::Arrow => None,
        }
    };
    if let Some(fault) = read(vec![]) {
        return Some(fault);
    }
    columns.iter().find_map(|&column| {
        let name = schema.field(column).name();
        read(vec![column]).map(|fault| format!("column `{name}`: {fault}"))
    })
}

fn first_csv_fault(file: impl Read, schema: &SchemaRef, columns: Vec<usize>) -> Option<String> {
    let builder = csv::ReaderBuilder::new(Arc::clone(schema));
    let builder = builder.with_header(true).with_projection(columns);
    first_fault(builder.with_batch_size(1).build(file).ok()?)
}

fn first_json_fault(file: impl Read, schema: &Schema, promised: &Schema) -> Option<String> {
    let builder = json::ReaderBuilder::new(Arc::new(schema.clone())).with_batch_size(1);
    let rows = builder.build(BufReader::new(file)).ok()?;
    first_fault(rows.map(|row| row.and_then(|row| check_whole(&row, promised).map(|()| row))))
}

/// Refuses numbers that are not whole, or too large, where whole ones are promised.
fn check_whole(row: &RecordBatch, promised: &Schema) -> Result<(), ArrowError> {
    let refuse = |reason: &str| Err(ArrowError::JsonError(reason.to_owned()));
    for (found, field) in row.columns().iter().zip(promised.fields()) {
        let to = field.data_type();
        if *found.data_type() != JSON_WHOLE || !to.is_integer() {
            continue;
        }
        let made = cast(found, to)?;
        if made.null_count() > found.null_count() {
            return refuse(&format!("a number that {} does not hold", type_name(to)));
        }
        if cast(&made, found.data_type())?.to_data() != found.to_data() {
            return refuse("a number that is not whole");
        }
    }
    Ok(())
}

/// Reads one row at a time, to count them.
fn first_fault(rows: impl Iterator<Item = Result<RecordBatch, ArrowError>>) -> Option<String> {
    (1..)
        .zip(rows)
        .find_map(|(row, read): (u64, _)| Some(format!("row {row}: {}", told(&read.err()?))))
}

/// The text of an error without its kind and without the reader's own idea of the place.
fn told(error: &ArrowError) -> String {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "readers of text give no others"
    )]
    let text = match error {
        ArrowError::ParseError(text) | ArrowError::CsvError(text) | ArrowError::JsonError(text) => {
            text.clone()
        }
        other => other.to_string(),
    };
    let cut = text.split(" for column ").next().unwrap_or_default();
    cut.split(" for line ")
        .next()
        .unwrap_or_default()
        .to_owned()
}
