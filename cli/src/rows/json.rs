//! Rows from and to JSON, by the rules of the service: nothing is coerced, and the output has no `NaN`.
//!
//! `arrow-json` builds and writes the columns. It would also take `"1"` for a number and `1.5` for
//! an integer, so every value is checked against its column first.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array as _, ArrayRef, RecordBatch, StringArray};
use arrow_json::ReaderBuilder;
use arrow_json::writer::{JsonArray, WriterBuilder};
use arrow_schema::ArrowError;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use envelope_format::{DataType, Field, Rows};
use serde_json::{Map, Value};

/// Reads a list of rows, or an object with the list under `data`, into the columns of `takes`.
///
/// # Errors
/// What is wrong, in which row and column.
pub(crate) fn read(takes: &Rows, document: Value) -> Result<RecordBatch, String> {
    let rows = list(document).ok_or("expected a list of rows, or `{\"data\": [...]}`")?;
    let rows = rows.into_iter().enumerate();
    let rows = rows
        .map(|(index, value)| row(takes, value).map_err(|reason| format!("row {index}: {reason}")));
    build(takes, &rows.collect::<Result<Vec<_>, _>>()?).map_err(|error| error.to_string())
}

fn list(document: Value) -> Option<Vec<Value>> {
    let document = if let Value::Object(mut object) = document {
        object.remove("data").filter(|_| object.is_empty())?
    } else {
        document
    };
    if let Value::Array(rows) = document {
        Some(rows)
    } else {
        None
    }
}

/// Writes `{"predictions": [row, ...]}`.
pub(crate) fn write(gives: &Rows, rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let mut out = b"{\"predictions\":".to_vec();
    let written = write_rows(rows)?;
    if gives.shape.is_one_column() {
        let rows: Vec<Map<String, Value>> = serde_json::from_slice(&written).map_err(json_error)?;
        let values: Vec<_> = rows
            .into_iter()
            .flat_map(|row| row.into_iter().map(|(_, value)| value))
            .collect();
        serde_json::to_writer(&mut out, &values).map_err(json_error)?;
    } else {
        out.extend(written);
    }
    out.extend(b"}\n");
    Ok(out)
}

/// The value that a text of a command line means in a column.
pub(crate) fn value_of_text(field: &Field, text: &str) -> Value {
    let is_text = matches!(
        field.data_type,
        DataType::Utf8 | DataType::Binary | DataType::Date | DataType::Timestamp(..)
    );
    match serde_json::from_str(text) {
        Ok(value) if !is_text => value,
        _ if text.is_empty() && !is_text => Value::Null,
        _ => Value::String(text.to_owned()),
    }
}

/// A row as an object whose values fit their columns.
fn row(takes: &Rows, value: Value) -> Result<Map<String, Value>, String> {
    let mut given = match (value, takes.fields.as_slice()) {
        (Value::Object(object), _) => object,
        (value, [only]) if takes.shape.is_one_column() => {
            Map::from_iter([(only.name.clone(), value)])
        }
        (other, _) => {
            return Err(format!(
                "expected an object with a key for each column, got {}",
                shown(&other)
            ));
        }
    };
    let mut row = Map::new();
    for field in &takes.fields {
        let name = &field.name;
        let value = given
            .remove(name)
            .ok_or_else(|| format!("column `{name}` is missing"))?;
        let value = fitting(field, value).map_err(|reason| format!("column `{name}`: {reason}"))?;
        row.insert(name.clone(), value);
    }
    match given.keys().next() {
        Some(unknown) => Err(format!(
            "there is no column `{unknown}`; there is {}",
            names(takes)
        )),
        None => Ok(row),
    }
}

fn names(rows: &Rows) -> String {
    let names: Vec<_> = rows
        .fields
        .iter()
        .map(|field| format!("`{}`", field.name))
        .collect();
    names.join(", ")
}

/// The value as `arrow-json` wants it, if it is what the column holds.
fn fitting(field: &Field, value: Value) -> Result<Value, String> {
    if value.is_null() && !field.nullable && field.data_type != DataType::Null {
        return Err("a value is needed; in the sample all rows had one".to_owned());
    }
    if let (Some(categories), Value::String(text)) = (&field.categories, &value)
        && !categories.contains(text)
    {
        return Err(format!("{text:?} is not one of the column's categories"));
    }
    if !fits(&field.data_type, &value) {
        return Err(format!(
            "expected {}, got {}",
            field.data_type,
            shown(&value)
        ));
    }
    match (&field.data_type, value) {
        (DataType::Binary, Value::String(text)) => hex(&text).map(Value::String),
        (_, value) => Ok(value),
    }
}

fn fits(data_type: &DataType, value: &Value) -> bool {
    let in_range =
        |from: i128, to: i128| integer(value).is_some_and(|number| (from..=to).contains(&number));
    match data_type {
        _ if value.is_null() => true,
        DataType::Null => false,
        DataType::Bool => value.is_boolean(),
        DataType::Int8 => in_range(i8::MIN.into(), i8::MAX.into()),
        DataType::Int16 => in_range(i16::MIN.into(), i16::MAX.into()),
        DataType::Int32 => in_range(i32::MIN.into(), i32::MAX.into()),
        DataType::Int64 | DataType::Duration(_) => in_range(i64::MIN.into(), i64::MAX.into()),
        DataType::UInt8 => in_range(0, u8::MAX.into()),
        DataType::UInt16 => in_range(0, u16::MAX.into()),
        DataType::UInt32 => in_range(0, u32::MAX.into()),
        DataType::UInt64 => in_range(0, u64::MAX.into()),
        DataType::Float32 => is_float(value, f32::MANTISSA_DIGITS, f32::MAX.into()),
        DataType::Float64 => is_float(value, f64::MANTISSA_DIGITS, f64::MAX),
        DataType::Utf8 | DataType::Binary | DataType::Date | DataType::Timestamp(..) => {
            value.is_string()
        }
        DataType::List(item) => value
            .as_array()
            .is_some_and(|items| items.iter().all(|value| fits(item, value))),
    }
}

fn integer(value: &Value) -> Option<i128> {
    value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from))
}

/// A float, or an integer that a float with so many digits does not have to round.
fn is_float(value: &Value, mantissa_digits: u32, largest: f64) -> bool {
    match integer(value) {
        Some(number) => {
            let magnitude = number.unsigned_abs();
            let digits =
                u128::BITS - magnitude.leading_zeros() - magnitude.trailing_zeros().min(127);
            magnitude == 0 || digits <= mantissa_digits
        }
        None => value.as_f64().is_some_and(|float| float.abs() <= largest),
    }
}

/// Values that are shown to people are short.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() > 64 {
        text.chars().take(64).chain(['…']).collect()
    } else {
        text
    }
}

/// JSON has bytes as base64, `arrow-json` as hex digits.
fn hex(base64: &str) -> Result<String, String> {
    let bytes = BASE64_STANDARD
        .decode(base64)
        .map_err(|error| format!("not base64: {error}"))?;
    Ok(bytes.iter().fold(String::new(), |mut hex, byte| {
        _ = write!(hex, "{byte:02x}");
        hex
    }))
}

fn build(takes: &Rows, rows: &[Map<String, Value>]) -> Result<RecordBatch, ArrowError> {
    let schema = runtime::arrow_schema(takes);
    let mut decoder = ReaderBuilder::new(Arc::clone(&schema)).build_decoder()?;
    decoder.serialize(rows)?;
    Ok(decoder
        .flush()?
        .unwrap_or_else(|| RecordBatch::new_empty(schema)))
}

/// Writes `[row, ...]`.
fn write_rows(rows: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
    let schema = rows.schema();
    let columns = schema.fields().iter().zip(rows.columns());
    let columns = columns.map(|(field, column)| Ok((field.name(), writable(column)?, true)));
    let columns = columns.collect::<Result<Vec<_>, ArrowError>>()?;
    let rows = RecordBatch::try_from_iter_with_nullable(columns)?;
    let mut written = vec![];
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, JsonArray>(&mut written);
    writer.write(&rows)?;
    writer.finish()?;
    drop(writer);
    // Without any rows not even the brackets are written.
    Ok(if written.is_empty() {
        b"[]".to_vec()
    } else {
        written
    })
}

/// Bytes as base64 and durations as numbers, as the service writes them.
fn writable(column: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the others are written alike"
    )]
    match column.data_type() {
        arrow_schema::DataType::Binary => {
            let texts = column
                .as_binary::<i32>()
                .iter()
                .map(|bytes| bytes.map(|bytes| BASE64_STANDARD.encode(bytes)));
            Ok(Arc::new(texts.collect::<StringArray>()))
        }
        arrow_schema::DataType::Duration(_) => {
            arrow_cast::cast(column, &arrow_schema::DataType::Int64)
        }
        _ => Ok(ArrayRef::clone(column)),
    }
}

fn json_error(error: serde_json::Error) -> ArrowError {
    ArrowError::ExternalError(Box::new(error))
}

#[cfg(test)]
mod tests;
