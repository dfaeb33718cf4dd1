//! Which types the columns of the output have, and how values get them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampNanosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_cast::cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, Field, FieldRef, Fields, Schema, SchemaRef, TimeUnit};

use crate::schema::type_name;
use crate::{Error, Format};

/// The columns that are written for the columns `mapped`.
pub(crate) fn written(mapped: &SchemaRef, format: Format) -> Result<SchemaRef, Error> {
    match format {
        Format::Parquet => {
            let fields = mapped.fields().iter().map(|field| parquet_field(field));
            Ok(Arc::new(Schema::new(fields.collect::<Fields>())))
        }
        Format::Delta => {
            check_distinct_in_any_case(mapped)?;
            let fields = mapped.fields().iter().map(|field| delta_field(field));
            Ok(Arc::new(Schema::new(
                fields.collect::<Result<Vec<_>, _>>()?,
            )))
        }
    }
}

/// Parquet files have no moments in seconds, nor days in milliseconds: they would be plain numbers.
fn parquet_field(field: &Field) -> Field {
    let inner = |field: &FieldRef| Arc::new(parquet_field(field));
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "Parquet files have the other types"
    )]
    let data_type = match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
        }
        DataType::Date64 => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::List(item) => DataType::List(inner(item)),
        DataType::LargeList(item) => DataType::LargeList(inner(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(inner(item), *length),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(inner).collect()),
        other => other.clone(),
    };
    field.clone().with_data_type(data_type)
}

/// Delta tables do not tell `y` from `Y`.
fn check_distinct_in_any_case(schema: &Schema) -> Result<(), Error> {
    let mut seen = HashMap::new();
    for field in schema.fields() {
        if let Some(other) = seen.insert(field.name().to_lowercase(), field.name()) {
            let reason = format!("a Delta table does not tell it from `{other}`");
            return Err(Error::ColumnTwice {
                column: field.name().clone(),
                reason,
            });
        }
    }
    Ok(())
}

fn delta_field(field: &Field) -> Result<Field, Error> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other types are the same everywhere"
    )]
    let data_type = match field.data_type() {
        // Only at the top: there, each value is checked when it is written.
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => Some(microseconds(zone.is_some())),
        other => delta_type(other),
    };
    match data_type {
        // A column that happens to be full today must not bind the jobs of tomorrow.
        Some(data_type) => Ok(Field::new(field.name(), data_type, true)),
        None => Err(Error::NoDeltaType {
            column: field.name().clone(),
            found: type_name(field.data_type()),
        }),
    }
}

/// The narrowest type of a Delta table that holds every value of `from`.
fn delta_type(from: &DataType) -> Option<DataType> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "Delta tables have no other types"
    )]
    match from {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32 => Some(from.clone()),
        DataType::UInt8 => Some(DataType::Int16),
        DataType::UInt16 => Some(DataType::Int32),
        DataType::UInt32 => Some(DataType::Int64),
        DataType::Float16 => Some(DataType::Float32),
        DataType::Timestamp(TimeUnit::Nanosecond, _) => None,
        DataType::Timestamp(_, zone) => Some(microseconds(zone.is_some())),
        DataType::Decimal128(_, scale) if *scale >= 0 => Some(from.clone()),
        DataType::List(item) | DataType::FixedSizeList(item, _) => {
            Some(DataType::List(nested(item)?))
        }
        DataType::Struct(fields) => Some(DataType::Struct(
            fields.iter().map(nested).collect::<Option<Fields>>()?,
        )),
        DataType::Map(entries, sorted) => Some(DataType::Map(map_entries(entries)?, *sorted)),
        _ => None,
    }
}

fn microseconds(zoned: bool) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zoned.then(|| "UTC".into()))
}

fn nested(field: &FieldRef) -> Option<FieldRef> {
    let data_type = delta_type(field.data_type())?;
    Some(Arc::new(Field::new(
        field.name(),
        data_type,
        field.is_nullable(),
    )))
}

fn map_entries(entries: &FieldRef) -> Option<FieldRef> {
    let data_type = delta_type(entries.data_type())?;
    Some(Arc::new(Field::new(entries.name(), data_type, false)))
}

/// The same rows with the columns that are written.
pub(crate) fn convert(batch: &RecordBatch, written: &SchemaRef) -> Result<RecordBatch, Error> {
    let columns = batch.columns().iter().zip(written.fields());
    let columns = columns
        .map(|(column, field)| convert_column(column, field))
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new(Arc::clone(written), columns).map_err(|source| Error::Engine {
        source: source.into(),
    })
}

fn convert_column(column: &ArrayRef, field: &Field) -> Result<ArrayRef, Error> {
    if column.data_type() == field.data_type() {
        return Ok(Arc::clone(column));
    }
    let unfit = |reason: String| Error::Value {
        column: field.name().clone(),
        reason,
    };
    if let Some(value) = finer_than_a_microsecond(column) {
        return Err(unfit(format!(
            "a moment {value} ns after 1970-01-01 is finer than a microsecond"
        )));
    }
    let exact = CastOptions {
        safe: false,
        ..CastOptions::default()
    };
    cast_with_options(column, field.data_type(), &exact).map_err(|source| unfit(source.to_string()))
}

fn finer_than_a_microsecond(column: &ArrayRef) -> Option<i64> {
    let moments = column.as_primitive_opt::<TimestampNanosecondType>()?;
    moments.iter().flatten().find(|moment| moment % 1000 != 0)
}

#[cfg(test)]
mod tests {
    use arrow_array::TimestampNanosecondArray;

    use super::*;
    use crate::fake::schema_of;

    #[test]
    fn delta_columns_hold_every_value() {
        let nanoseconds =
            |zone: Option<&str>| DataType::Timestamp(TimeUnit::Nanosecond, zone.map(Into::into));
        let cases = [
            (DataType::UInt8, DataType::Int16),
            (DataType::UInt32, DataType::Int64),
            (DataType::Float16, DataType::Float32),
            (nanoseconds(None), microseconds(false)),
            (nanoseconds(Some("Europe/London")), microseconds(true)),
            (
                DataType::new_list(DataType::UInt16, true),
                DataType::new_list(DataType::Int32, true),
            ),
            (
                DataType::new_fixed_size_list(DataType::Float16, 3, true),
                DataType::new_list(DataType::Float32, true),
            ),
            (DataType::Decimal128(10, 2), DataType::Decimal128(10, 2)),
        ];
        for (from, to) in cases {
            let schema = written(&schema_of(&[("x", from.clone(), false)]), Format::Delta).unwrap();
            assert_eq!(schema.field(0).data_type(), &to, "{from}");
        }
    }

    #[test]
    fn moments_stay_moments_in_parquet() {
        let seconds = DataType::Timestamp(TimeUnit::Second, Some("UTC".into()));
        let milliseconds = DataType::Timestamp(TimeUnit::Millisecond, Some("UTC".into()));
        for (from, to) in [
            (seconds.clone(), milliseconds.clone()),
            (
                DataType::Date64,
                DataType::Timestamp(TimeUnit::Millisecond, None),
            ),
            (
                DataType::new_list(seconds, true),
                DataType::new_list(milliseconds, true),
            ),
        ] {
            let schema = written(&schema_of(&[("x", from, false)]), Format::Parquet).unwrap();
            assert_eq!(schema.field(0).data_type(), &to);
        }
    }

    #[test]
    fn types_that_delta_lacks_are_refused() {
        let nested = DataType::new_list(DataType::Timestamp(TimeUnit::Nanosecond, None), true);
        for from in [
            DataType::UInt64,
            DataType::Null,
            DataType::Duration(TimeUnit::Second),
            DataType::Time64(TimeUnit::Microsecond),
            nested,
        ] {
            let error =
                written(&schema_of(&[("x", from.clone(), false)]), Format::Delta).unwrap_err();
            assert!(
                matches!(error, Error::NoDeltaType { .. }),
                "{from}: {error}"
            );
            assert_eq!(
                error.hint().as_deref(),
                Some("write Parquet (`--format parquet`)")
            );
            assert!(written(&schema_of(&[("x", from, false)]), Format::Parquet).is_ok());
        }
    }

    #[test]
    fn delta_columns_differ_in_more_than_case() {
        let schema = schema_of(&[("y", DataType::Int8, false), ("Y", DataType::Int8, false)]);
        let error = written(&schema, Format::Delta).unwrap_err();
        assert!(
            matches!(&error, Error::ColumnTwice { column, .. } if column == "Y"),
            "{error}"
        );
        assert!(written(&schema, Format::Parquet).is_ok());
    }

    #[test]
    fn a_moment_that_would_lose_digits_is_refused() {
        let mapped = schema_of(&[("at", DataType::Timestamp(TimeUnit::Nanosecond, None), false)]);
        let to = written(&mapped, Format::Delta).unwrap();
        let rows = |moments: Vec<i64>| {
            RecordBatch::try_new(
                Arc::clone(&mapped),
                vec![Arc::new(TimestampNanosecondArray::from(moments))],
            )
            .unwrap()
        };
        assert!(convert(&rows(vec![1_000, -2_000]), &to).is_ok());
        let error = convert(&rows(vec![1_000, 1_001]), &to).unwrap_err();
        assert!(
            matches!(&error, Error::Value { column, .. } if column == "at"),
            "{error}"
        );
    }
}
