//! Rows → body: JSON written straight into a buffer, cell by cell.
//!
//! The output never contains `NaN` or an infinity: they become `null`. Integers of any width are
//! written in full; moments with a time zone in UTC.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, ArrowTimestampType, Date32Type, Decimal128Type, DurationMicrosecondType,
    DurationMillisecondType, DurationNanosecondType, DurationSecondType, Float16Type, Float32Type,
    Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType,
    Time32SecondType, Time64MicrosecondType, Time64NanosecondType, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType, UInt8Type, UInt16Type,
    UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::{DataType, TimeUnit};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use envelope_format::{Rows, Shape};
use serde::Serialize;

use crate::column::per_second;
use crate::decimal::format_decimal;
use crate::error::Refusal;
use crate::moment::{format_date, format_moment, format_time};

/// What the function gives, prepared for writing.
#[derive(Debug)]
pub(crate) struct Encoder {
    /// `"name":` for each column, escaped once.
    keys: Vec<Vec<u8>>,
    plain: bool,
}

/// Writes one cell of a column.
type WriteCell<'a> = Box<dyn Fn(&mut Vec<u8>, usize) -> Result<(), Refusal> + 'a>;

impl Encoder {
    pub(crate) fn new(rows: &Rows) -> Self {
        let keys = rows.fields.iter().map(|field| key(&field.name)).collect();
        Self {
            keys,
            plain: rows.shape.is_one_column(),
        }
    }

    /// As [`Encoder::new`], but the rows of a series are objects too, with the key that pandas gives to
    /// the only column of a table that has no names.
    pub(crate) fn records(rows: &Rows) -> Self {
        if matches!(rows.shape, Shape::PandasSeries | Shape::PolarsSeries) {
            return Self {
                keys: vec![key("0")],
                plain: false,
            };
        }
        Self::new(rows)
    }

    /// Writes `{"predictions":[row, ...]}`.
    pub(crate) fn predictions(&self, rows: &RecordBatch) -> Result<Vec<u8>, Refusal> {
        let cells = rows.num_rows().saturating_mul(rows.num_columns());
        let mut out = Vec::with_capacity(cells.saturating_mul(16).min(16 << 20) + 32);
        out.extend_from_slice(b"{\"predictions\":");
        self.rows(rows, &mut out)?;
        out.push(b'}');
        Ok(out)
    }

    /// Writes `[row, ...]`.
    pub(crate) fn rows(&self, rows: &RecordBatch, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if rows.num_columns() != self.keys.len() {
            let reason = format!(
                "it has {} columns instead of {}",
                rows.num_columns(),
                self.keys.len()
            );
            return Err(Refusal::Unwritable { reason });
        }
        let cells = cells_of(rows)?;
        list(out, 0..rows.num_rows(), |out, row| {
            self.row(&cells, out, row)
        })
    }

    /// Writes a row on each line.
    pub(crate) fn lines(&self, rows: &RecordBatch) -> Result<Vec<u8>, Refusal> {
        let (mut out, cells) = (vec![], cells_of(rows)?);
        for row in 0..rows.num_rows() {
            self.row(&cells, &mut out, row)?;
            out.push(b'\n');
        }
        Ok(out)
    }

    /// Writes comma-separated values; a missing value is an empty field.
    pub(crate) fn csv(&self, rows: &RecordBatch, has_names: bool) -> Result<Vec<u8>, Refusal> {
        let failed = |error: csv::Error| Refusal::Unwritable {
            reason: error.to_string(),
        };
        let mut out = csv::Writer::from_writer(vec![]);
        let columns = rows.columns().iter().map(texts);
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        if has_names {
            let schema = rows.schema();
            out.write_record(schema.fields().iter().map(|field| field.name()))
                .map_err(failed)?;
        }
        for row in 0..rows.num_rows() {
            let fields = columns.iter().map(|column| column[row].as_deref());
            out.write_record(fields.map(Option::unwrap_or_default))
                .map_err(failed)?;
        }
        out.into_inner().map_err(|_| Refusal::Internal)
    }

    fn row(&self, cells: &[WriteCell<'_>], out: &mut Vec<u8>, row: usize) -> Result<(), Refusal> {
        if let ([cell], true) = (cells, self.plain) {
            return cell(out, row);
        }
        object(&self.keys, cells, out, row)
    }
}

fn cells_of(rows: &RecordBatch) -> Result<Vec<WriteCell<'_>>, Refusal> {
    rows.columns().iter().map(|column| writer(column)).collect()
}

/// The cells of a column as a list of JSON.
pub(crate) fn cells(column: &dyn Array) -> Result<Vec<u8>, Refusal> {
    let (mut out, write) = (vec![], writer(column)?);
    list(&mut out, 0..column.len(), write)?;
    Ok(out)
}

/// The cells of a column as text, as JSON has them but without quotation marks; none where they are
/// missing.
pub(crate) fn texts(column: &ArrayRef) -> Result<Vec<Option<String>>, Refusal> {
    let write = writer(column)?;
    let text = |row| {
        let mut out = vec![];
        write(&mut out, row)?;
        Ok(match out.first() {
            Some(b'n') => None,
            Some(b'"') => serde_json::from_slice(&out).map_err(|_| Refusal::Internal)?,
            _ => String::from_utf8(out).ok(),
        })
    };
    (0..column.len()).map(text).collect()
}

/// `"name":`, escaped.
fn key(name: &str) -> Vec<u8> {
    let mut key = Vec::new();
    put(&mut key, name);
    key.push(b':');
    key
}

fn object(
    keys: &[Vec<u8>],
    cells: &[WriteCell<'_>],
    out: &mut Vec<u8>,
    row: usize,
) -> Result<(), Refusal> {
    out.push(b'{');
    for (index, (key, cell)) in keys.iter().zip(cells).enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(key);
        cell(out, row)?;
    }
    out.push(b'}');
    Ok(())
}

fn list(
    out: &mut Vec<u8>,
    indices: std::ops::Range<usize>,
    item: impl Fn(&mut Vec<u8>, usize) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    out.push(b'[');
    let first = indices.start;
    for index in indices {
        if index > first {
            out.push(b',');
        }
        item(out, index)?;
    }
    out.push(b']');
    Ok(())
}

/// Numbers and text cannot fail to be written into memory; floats that JSON cannot say become `null`.
fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    if serde_json::to_writer(&mut *out, value).is_err() {
        unreachable!("plain values are written into memory");
    }
}

/// How the cells of `column` are written, missing ones included.
fn writer(column: &dyn Array) -> Result<WriteCell<'_>, Refusal> {
    let write = writer_of_present(column)?;
    let Some(nulls) = column.logical_nulls() else {
        return Ok(write);
    };
    Ok(Box::new(move |out, row| {
        if nulls.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        write(out, row)
    }))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "signatures have these types and no others"
)]
fn writer_of_present(column: &dyn Array) -> Result<WriteCell<'_>, Refusal> {
    Ok(match column.data_type() {
        DataType::Null => Box::new(|out, _| {
            out.extend_from_slice(b"null");
            Ok(())
        }),
        DataType::Boolean => {
            let values = column.as_boolean();
            plain(move |out, row| put(out, &values.value(row)))
        }
        DataType::Int8 => numbers::<Int8Type>(column),
        DataType::Int16 => numbers::<Int16Type>(column),
        DataType::Int32 => numbers::<Int32Type>(column),
        DataType::Int64 => numbers::<Int64Type>(column),
        DataType::UInt8 => numbers::<UInt8Type>(column),
        DataType::UInt16 => numbers::<UInt16Type>(column),
        DataType::UInt32 => numbers::<UInt32Type>(column),
        DataType::UInt64 => numbers::<UInt64Type>(column),
        DataType::Float16 => {
            let values = column.as_primitive::<Float16Type>().values();
            plain(move |out, row| put(out, &f32::from(values[row])))
        }
        DataType::Float32 => numbers::<Float32Type>(column),
        DataType::Float64 => numbers::<Float64Type>(column),
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            plain(move |out, row| put(out, values.value(row)))
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            plain(move |out, row| put(out, &BASE64_STANDARD.encode(values.value(row))))
        }
        DataType::Date32 => {
            let values = column.as_primitive::<Date32Type>().values();
            Box::new(move |out, row| text(out, format_date(i64::from(values[row]))))
        }
        DataType::Timestamp(TimeUnit::Second, zone) => {
            moments::<TimestampSecondType>(column, zone.is_some())
        }
        DataType::Timestamp(TimeUnit::Millisecond, zone) => {
            moments::<TimestampMillisecondType>(column, zone.is_some())
        }
        DataType::Timestamp(TimeUnit::Microsecond, zone) => {
            moments::<TimestampMicrosecondType>(column, zone.is_some())
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            moments::<TimestampNanosecondType>(column, zone.is_some())
        }
        DataType::Duration(TimeUnit::Second) => numbers::<DurationSecondType>(column),
        DataType::Duration(TimeUnit::Millisecond) => numbers::<DurationMillisecondType>(column),
        DataType::Duration(TimeUnit::Microsecond) => numbers::<DurationMicrosecondType>(column),
        DataType::Duration(TimeUnit::Nanosecond) => numbers::<DurationNanosecondType>(column),
        DataType::Time32(TimeUnit::Second) => times::<Time32SecondType>(column, 1),
        DataType::Time32(_) => times::<Time32MillisecondType>(column, 1_000),
        DataType::Time64(TimeUnit::Nanosecond) => {
            times::<Time64NanosecondType>(column, 1_000_000_000)
        }
        DataType::Time64(_) => times::<Time64MicrosecondType>(column, 1_000_000),
        DataType::Decimal128(_, scale) => {
            let values = column.as_primitive::<Decimal128Type>().values();
            let scale = u8::try_from(*scale).unwrap_or(0); // signatures have none below 0
            plain(move |out, row| put(out, &format_decimal(values[row], scale)))
        }
        DataType::List(_) => lists(column)?,
        DataType::FixedSizeList(..) => fixed_lists(column)?,
        DataType::Struct(_) => objects(column)?,
        other => {
            let reason = format!("it has a column of the type {other}, which no signature has");
            return Err(Refusal::Unwritable { reason });
        }
    })
}

fn plain<'a>(write: impl Fn(&mut Vec<u8>, usize) + 'a) -> WriteCell<'a> {
    Box::new(move |out, row| {
        write(out, row);
        Ok(())
    })
}

fn numbers<T: ArrowPrimitiveType>(column: &dyn Array) -> WriteCell<'_>
where
    T::Native: Serialize,
{
    let values = column.as_primitive::<T>().values();
    plain(move |out, row| put(out, &values[row]))
}

fn moments<T: ArrowTimestampType>(column: &dyn Array, zoned: bool) -> WriteCell<'_> {
    let values = column.as_primitive::<T>().values();
    Box::new(move |out, row| text(out, format_moment(values[row], per_second(&T::UNIT), zoned)))
}

fn times<T: ArrowPrimitiveType>(column: &dyn Array, per_second: i64) -> WriteCell<'_>
where
    T::Native: Into<i64>,
{
    let values = column.as_primitive::<T>().values();
    Box::new(move |out, row| text(out, format_time(values[row].into(), per_second)))
}

fn text(out: &mut Vec<u8>, text: Option<String>) -> Result<(), Refusal> {
    let text = text.ok_or_else(|| Refusal::Unwritable {
        reason: "a date is not in the years 1 to 9999, or a time not within a day".into(),
    })?;
    put(out, &text);
    Ok(())
}

fn lists(column: &dyn Array) -> Result<WriteCell<'_>, Refusal> {
    let lists = column.as_list::<i32>();
    let item = writer(lists.values())?;
    let offsets = lists.value_offsets();
    let at = |row: usize| usize::try_from(offsets[row]).unwrap_or(0);
    Ok(Box::new(move |out, row| {
        list(out, at(row)..at(row + 1), &item)
    }))
}

fn fixed_lists(column: &dyn Array) -> Result<WriteCell<'_>, Refusal> {
    let lists = column.as_fixed_size_list();
    let item = writer(lists.values())?;
    let length = usize::try_from(lists.value_length()).unwrap_or(0); // never negative
    Ok(Box::new(move |out, row| {
        list(out, row * length..(row + 1) * length, &item)
    }))
}

fn objects(column: &dyn Array) -> Result<WriteCell<'_>, Refusal> {
    let column = column.as_struct();
    let keys: Vec<_> = column.column_names().into_iter().map(key).collect();
    let cells = column.columns().iter().map(|column| writer(column));
    let cells = cells.collect::<Result<Vec<_>, _>>()?;
    Ok(Box::new(move |out, row| object(&keys, &cells, out, row)))
}

#[cfg(test)]
mod tests;
