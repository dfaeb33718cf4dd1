//! Finds the file, and the place in it, of a row that a function failed on.
//!
//! Rows that go through a plan do not know where they come from: that would cost every job something. Only after
//! such an error is the table looked through for the first row with the values that the error tells.

use std::io::BufReader;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow_array::{ArrayRef, RecordBatch};
use arrow_cast::cast::cast;
use arrow_cast::display::array_value_to_string;
use arrow_ipc::reader::FileReader;
use arrow_schema::{ArrowError, DataType, SchemaRef};
use datafusion::arrow::{csv, json};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::Error;
use crate::formats::{Encoding, Failure};
use crate::location::Location;
use crate::map_exec::told;
use crate::source::{DataFile, Source};

/// An error that takes much longer to say would not be better.
const AT_MOST: Duration = Duration::from_secs(10);

/// The columns of a row as an error tells them: names, and the types that they were told in, where those are others
/// than the table's.
pub(crate) type Told = Vec<(String, Option<DataType>)>;

/// The same error with the file and the number of the row, if they are found soon.
pub(crate) async fn located(
    mut error: Error,
    (place, table): (&Location, &Arc<Source>),
    columns: Told,
) -> Error {
    let Error::Function { row: Some(row), .. } = &mut error else {
        return error;
    };
    let (place, table, text) = (place.clone(), Arc::clone(table), row.clone());
    let search = move || search(&place, &table, &columns, &text);
    if let Ok(Some((file, number))) = tokio::task::spawn_blocking(search).await {
        row.push_str(&format!(" (row {number} of `{file}`)"));
    }
    error
}

fn search(place: &Location, table: &Source, columns: &Told, text: &str) -> Option<(String, usize)> {
    let began = Instant::now();
    for file in &table.files {
        let mut before = 0;
        for rows in batches(place, table, file).ok()? {
            let rows = rows.ok()?;
            if let Some(found) = position(&with_partitions(&rows, table, file)?, columns, text) {
                let name = place.named(&file.path).display().to_string();
                return Some((name, before + found + 1));
            }
            before += rows.num_rows();
            if began.elapsed() > AT_MOST {
                return None;
            }
        }
    }
    None
}

/// The first of some rows that reads like `text`.
fn position(rows: &Columns, columns: &Told, text: &str) -> Option<usize> {
    let mut shown: Vec<(&str, ArrayRef)> = vec![];
    for (name, told_as) in columns {
        let (_, column) = rows.0.iter().find(|(column, _)| column == name)?;
        let column = match told_as {
            Some(data_type) => cast(column, data_type).ok()?,
            None => ArrayRef::clone(column),
        };
        shown.push((name, column));
    }
    let (name, first) = shown.first()?;
    (0..rows.1).find(|&row| {
        // All others are ruled out by the first column.
        let value = array_value_to_string(first, row).unwrap_or_default();
        let begins = text
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='));
        let may_be = begins.is_some_and(|rest| rest.starts_with(&value) || value.len() > 60);
        may_be && told(shown.iter().map(|(name, column)| (*name, column)), row) == text
    })
}

/// Columns by name, and how many rows they have.
struct Columns(Vec<(String, ArrayRef)>, usize);

fn with_partitions(rows: &RecordBatch, table: &Source, file: &DataFile) -> Option<Columns> {
    let count = rows.num_rows();
    let schema = rows.schema();
    let names = schema.fields().iter().map(|field| field.name().clone());
    let mut columns: Vec<_> = names.zip(rows.columns().iter().cloned()).collect();
    for (field, value) in table.partition_fields().iter().zip(&file.partition_values) {
        columns.push((field.name().clone(), value.to_array_of_size(count).ok()?));
    }
    Some(Columns(columns, count))
}

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>>>;

/// The rows of a file, in their order.
fn batches(place: &Location, table: &Source, file: &DataFile) -> Result<Batches, Failure> {
    let (opened, schema) = (place.open(&file.path)?, table.file_schema());
    Ok(match table.kind.encoding {
        Encoding::Parquet => {
            let builder = ParquetRecordBatchReaderBuilder::try_new(opened)?;
            let names = schema.fields().iter().map(|field| field.name().as_str());
            let mask = ProjectionMask::columns(builder.parquet_schema(), names);
            Box::new(builder.with_projection(mask).build()?)
        }
        Encoding::Arrow => Box::new(FileReader::try_new(BufReader::new(opened), None)?),
        Encoding::Csv => {
            let builder = csv::ReaderBuilder::new(SchemaRef::clone(&schema)).with_header(true);
            Box::new(builder.build(table.kind.compression.convert_read(opened)?)?)
        }
        Encoding::JsonLines => {
            let read = BufReader::new(table.kind.compression.convert_read(opened)?);
            Box::new(json::ReaderBuilder::new(schema).build(read)?)
        }
    })
}
