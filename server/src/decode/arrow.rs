//! Rows that are columns already: Arrow streams and Parquet files. Whatever a client sends is checked;
//! what is of another type is changed only where nothing can be lost.

use std::panic::{AssertUnwindSafe, catch_unwind};

use arrow_array::cast::AsArray as _;
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, RecordBatchReader as _};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{ArrowError, DataType as ArrowType};
use arrow_select::concat::concat_batches;
use bytes::Bytes;
use envelope_format::{DataType, Field};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use runtime::{lossless, read_arrow_stream};

use super::Decoder;
use super::pages::{rows_at_once, too_much};
use super::unpacked::unpacked_bytes;
use crate::error::Refusal;
use crate::fault::{Fault, Faults};

/// What the columns of a body may unpack to: in a few bytes they say a long text a million times.
const MOST_BYTES: usize = 512 << 20;

impl Decoder {
    /// Reads a stream of Arrow's interprocess format.
    pub(crate) fn arrow_stream(&self, body: &Bytes) -> Result<RecordBatch, Refusal> {
        let rows = read_arrow_stream(body.clone(), self.max_rows);
        self.table(&rows.map_err(|error| bad("an Arrow stream", &error))?)
    }

    /// Reads a Parquet file.
    pub(crate) fn parquet(&self, body: &Bytes) -> Result<RecordBatch, Refusal> {
        self.table(&unharmed("a Parquet file", || {
            let builder = ParquetRecordBatchReaderBuilder::try_new(body.clone())?;
            let fields = builder.schema().fields().iter().enumerate();
            let known = fields.filter(|(_, field)| self.by_name.contains_key(field.name()));
            let known = known.map(|(index, _)| index);
            let known = ProjectionMask::roots(builder.parquet_schema(), known);
            let at_once = rows_at_once(body, builder.metadata(), &known, MOST_BYTES)?;
            let reader = builder.with_projection(known).with_batch_size(at_once);
            let reader = reader.build()?;
            let schema = reader.schema();
            concat_batches(&schema, &self.up_to_limit(reader)?)
        })?)
    }

    /// Reads on until there are too many rows, which is found out later.
    fn up_to_limit(
        &self,
        reader: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    ) -> Result<Vec<RecordBatch>, ArrowError> {
        let (mut batches, mut rows, mut bytes) = (vec![], 0, 0);
        for batch in reader {
            let batch = batch?;
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            if bytes > MOST_BYTES {
                return Err(too_much(MOST_BYTES));
            }
            batches.push(batch);
            if rows > self.max_rows {
                break;
            }
        }
        Ok(batches)
    }

    /// Picks the columns that the function takes; others are passed over.
    pub(crate) fn table(&self, rows: &RecordBatch) -> Result<RecordBatch, Refusal> {
        if rows.num_rows() > self.max_rows {
            return Err(Refusal::TooManyRows {
                limit: self.max_rows,
            });
        }
        let fields = self.fields.iter();
        let taken = fields.filter_map(|field| rows.column_by_name(&field.name));
        let bytes = taken.map(|column| unpacked_bytes(column));
        if bytes.fold(0, usize::saturating_add) > MOST_BYTES {
            return Err(Refusal::UnpacksTooLarge { limit: MOST_BYTES });
        }
        let mut faults = Faults::default();
        let mut columns = vec![];
        for (field, wanted) in self.fields.iter().zip(self.schema.fields()) {
            let found = rows.column_by_name(&field.name).map(AsRef::as_ref);
            match column(field, wanted.data_type(), found) {
                Ok(column) => columns.push(column),
                Err(fault) => faults.push(fault.column(&field.name)),
            }
        }
        if !faults.is_empty() {
            return Err(Refusal::BadRows(faults));
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|_| Refusal::Internal)
    }
}

/// What a reader gives that panics at some of what no writer makes.
fn unharmed(
    what: &'static str,
    read: impl FnOnce() -> Result<RecordBatch, ArrowError>,
) -> Result<RecordBatch, Refusal> {
    let read = catch_unwind(AssertUnwindSafe(read));
    let read = read.unwrap_or_else(|_| Err(ArrowError::ParseError("it is damaged".into())));
    read.map_err(|error| bad(what, &error))
}

fn bad(what: &'static str, error: &ArrowError) -> Refusal {
    if let ArrowError::MemoryError(_) = error {
        return Refusal::UnpacksTooLarge { limit: MOST_BYTES };
    }
    Refusal::BadTable {
        what,
        reason: error.to_string(),
    }
}

fn column(field: &Field, wanted: &ArrowType, found: Option<&dyn Array>) -> Result<ArrayRef, Fault> {
    let expected = |code| Fault::new(code).expected(&field.data_type);
    let found = found.ok_or_else(|| expected("missing_column"))?;
    let is_missing = |row: &usize| found.is_null(*row);
    if !field.nullable
        && found.logical_null_count() > 0
        && let Some(row) = (0..found.len()).find(is_missing)
    {
        return Err(expected("not_nullable").row(row).got("null"));
    }
    if !lossless(found.data_type(), wanted) {
        return Err(expected("wrong_type").got(&found.data_type().to_string()));
    }
    let exact = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    let column = cast_with_options(found, wanted, &exact);
    let is_fixed = matches!(field.data_type, DataType::FixedList(..));
    let code = if is_fixed {
        "wrong_length"
    } else {
        "out_of_range"
    };
    let column = column.map_err(|_| expected(code).got(&found.data_type().to_string()))?;
    unknown_category(field, &column).map_or(Ok(column), Err)
}

fn unknown_category(field: &Field, column: &ArrayRef) -> Option<Fault> {
    let categories = field.categories.as_ref()?;
    if field.data_type != DataType::Utf8 {
        return None;
    }
    let texts = column.as_string::<i32>().iter().enumerate();
    let unknown = |(_, text): &(usize, Option<&str>)| {
        text.is_some_and(|text| !categories.iter().any(|known| known == text))
    };
    let (row, text) = { texts }.find(unknown)?;
    let fault = Fault::new("unknown_category").row(row);
    Some(
        fault
            .expected(&field.data_type)
            .got(text.unwrap_or_default()),
    )
}
