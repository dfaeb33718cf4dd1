//! Columns of a signature as Arrow sees them.

use std::sync::Arc;

use arrow_schema as arrow;
use arrow_schema::SchemaRef;
use envelope_format::{DataType, Rows, TimeUnit};

/// The Arrow schema of the rows that a function takes or gives.
///
/// Text columns are `Utf8` (categorical ones too: the categories are in the signature), lists are
/// `List` or `FixedSizeList`, timestamps keep their unit and zone.
#[must_use]
pub fn arrow_schema(rows: &Rows) -> SchemaRef {
    let field = |field: &envelope_format::Field| {
        arrow::Field::new(&field.name, arrow_type(&field.data_type), field.nullable)
    };
    Arc::new(arrow::Schema::new(
        rows.fields.iter().map(field).collect::<Vec<_>>(),
    ))
}

/// The Arrow type of a column's values.
#[must_use]
pub fn arrow_type(data_type: &DataType) -> arrow::DataType {
    match data_type {
        DataType::Null => arrow::DataType::Null,
        DataType::Bool => arrow::DataType::Boolean,
        DataType::Int8 => arrow::DataType::Int8,
        DataType::Int16 => arrow::DataType::Int16,
        DataType::Int32 => arrow::DataType::Int32,
        DataType::Int64 => arrow::DataType::Int64,
        DataType::UInt8 => arrow::DataType::UInt8,
        DataType::UInt16 => arrow::DataType::UInt16,
        DataType::UInt32 => arrow::DataType::UInt32,
        DataType::UInt64 => arrow::DataType::UInt64,
        DataType::Float16 => arrow::DataType::Float16,
        DataType::Float32 => arrow::DataType::Float32,
        DataType::Float64 => arrow::DataType::Float64,
        DataType::Utf8 => arrow::DataType::Utf8,
        DataType::Binary => arrow::DataType::Binary,
        DataType::Date => arrow::DataType::Date32,
        DataType::Timestamp(unit, zone) => {
            arrow::DataType::Timestamp(time_unit(*unit), zone.as_deref().map(Arc::from))
        }
        DataType::Duration(unit) => arrow::DataType::Duration(time_unit(*unit)),
        DataType::Time(unit @ (TimeUnit::Second | TimeUnit::Millisecond)) => {
            arrow::DataType::Time32(time_unit(*unit))
        }
        DataType::Time(unit) => arrow::DataType::Time64(time_unit(*unit)),
        DataType::Decimal { precision, scale } => {
            // Both are at most 38.
            arrow::DataType::Decimal128(*precision, i8::try_from(*scale).unwrap_or(i8::MAX))
        }
        DataType::List(item) => arrow::DataType::List(list_item(item)),
        DataType::FixedList(item, length) => {
            // The format allows far fewer.
            let length = i32::try_from(*length).unwrap_or(i32::MAX);
            arrow::DataType::FixedSizeList(list_item(item), length)
        }
        DataType::Struct(fields) => arrow::DataType::Struct(
            fields
                .iter()
                .map(|(name, field)| arrow::Field::new(name, arrow_type(field), true))
                .collect(),
        ),
    }
}

/// What lists hold may be missing: signatures have no word against it.
fn list_item(item: &DataType) -> arrow::FieldRef {
    Arc::new(arrow::Field::new_list_field(arrow_type(item), true))
}

fn time_unit(unit: TimeUnit) -> arrow::TimeUnit {
    match unit {
        TimeUnit::Second => arrow::TimeUnit::Second,
        TimeUnit::Millisecond => arrow::TimeUnit::Millisecond,
        TimeUnit::Microsecond => arrow::TimeUnit::Microsecond,
        TimeUnit::Nanosecond => arrow::TimeUnit::Nanosecond,
    }
}

/// The type that a signature gives to an Arrow type, if it is one that signatures have.
#[must_use]
pub fn signature_type(arrow: &arrow::DataType) -> Option<DataType> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "Arrow has many types that no signature has"
    )]
    let found = match arrow {
        arrow::DataType::Null => DataType::Null,
        arrow::DataType::Boolean => DataType::Bool,
        arrow::DataType::Int8 => DataType::Int8,
        arrow::DataType::Int16 => DataType::Int16,
        arrow::DataType::Int32 => DataType::Int32,
        arrow::DataType::Int64 => DataType::Int64,
        arrow::DataType::UInt8 => DataType::UInt8,
        arrow::DataType::UInt16 => DataType::UInt16,
        arrow::DataType::UInt32 => DataType::UInt32,
        arrow::DataType::UInt64 => DataType::UInt64,
        arrow::DataType::Float16 => DataType::Float16,
        arrow::DataType::Float32 => DataType::Float32,
        arrow::DataType::Float64 => DataType::Float64,
        arrow::DataType::Utf8 => DataType::Utf8,
        arrow::DataType::Binary => DataType::Binary,
        arrow::DataType::Date32 => DataType::Date,
        arrow::DataType::Timestamp(unit, zone) => {
            DataType::Timestamp(signature_unit(*unit), zone.as_deref().map(str::to_owned))
        }
        arrow::DataType::Duration(unit) => DataType::Duration(signature_unit(*unit)),
        arrow::DataType::Time32(unit) | arrow::DataType::Time64(unit) => {
            DataType::Time(signature_unit(*unit))
        }
        arrow::DataType::Decimal128(precision, scale) => DataType::Decimal {
            precision: *precision,
            scale: u8::try_from(*scale).ok()?,
        },
        arrow::DataType::List(item) => DataType::List(Box::new(signature_type(item.data_type())?)),
        arrow::DataType::FixedSizeList(item, length) if *length > 0 => DataType::FixedList(
            Box::new(signature_type(item.data_type())?),
            u32::try_from(*length).ok()?,
        ),
        arrow::DataType::Struct(fields) if !fields.is_empty() => {
            let named = |field: &arrow::FieldRef| {
                Some((field.name().clone(), signature_type(field.data_type())?))
            };
            DataType::Struct(fields.iter().map(named).collect::<Option<_>>()?)
        }
        _ => return None,
    };
    Some(found)
}

fn signature_unit(unit: arrow::TimeUnit) -> TimeUnit {
    match unit {
        arrow::TimeUnit::Second => TimeUnit::Second,
        arrow::TimeUnit::Millisecond => TimeUnit::Millisecond,
        arrow::TimeUnit::Microsecond => TimeUnit::Microsecond,
        arrow::TimeUnit::Nanosecond => TimeUnit::Nanosecond,
    }
}
