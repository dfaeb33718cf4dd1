//! The same values in another type, exactly or not at all.

use arrow_array::{Array, ArrayRef, RecordBatch, new_null_array};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::DataType;

use crate::read::first_difference;
use crate::schema::signature_type;

/// An error instead of a missing value where a value does not fit.
const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow_cast::display::FormatOptions::new(),
};

/// The column `name` of `rows` as `wanted`, or why it cannot be that.
pub(crate) fn column(
    rows: &RecordBatch,
    name: &str,
    wanted: &DataType,
) -> Result<ArrayRef, String> {
    let column = rows
        .column_by_name(name)
        .ok_or_else(|| format!("there is no column `{name}`"))?;
    let found = column.data_type();
    if found == wanted {
        return Ok(ArrayRef::clone(column));
    }
    if *found == DataType::Null {
        return Ok(new_null_array(wanted, column.len()));
    }
    if !is_comparable(found, wanted) {
        return Err(format!(
            "`{name}` is {}, the signature says {}",
            shown(found),
            shown(wanted)
        ));
    }
    let there = cast_with_options(column, wanted, &STRICT);
    let back = there.and_then(|there| Ok((cast_with_options(&there, found, &STRICT)?, there)));
    match back {
        Ok((back, there)) if first_difference(column, &back, 0.0).is_none() => Ok(there),
        _ => Err(format!(
            "`{name}` holds a {} that is no {} exactly",
            shown(found),
            shown(wanted)
        )),
    }
}

/// Whether values of the two types can be equal: a number is a number, a moment a moment.
fn is_comparable(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::List(one), DataType::List(other)) => {
            let (one, other) = (one.data_type(), other.data_type());
            one == other || *one == DataType::Null || is_comparable(one, other)
        }
        (DataType::Timestamp(_, one), DataType::Timestamp(_, other)) => {
            one.is_some() == other.is_some()
        }
        (DataType::Duration(_), DataType::Duration(_)) => true,
        _ => (one.is_integer() || one.is_floating() && other.is_floating()) && other.is_numeric(),
    }
}

fn shown(data_type: &DataType) -> String {
    signature_type(data_type).map_or_else(|| data_type.to_string(), |known| known.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{Float64Array, Int64Array, TimestampMicrosecondArray};
    use arrow_schema::TimeUnit;

    use super::*;

    #[track_caller]
    fn casts(column: impl Array + 'static, wanted: &DataType) -> bool {
        let rows = RecordBatch::try_from_iter([("x", Arc::new(column) as ArrayRef)]).unwrap();
        super::column(&rows, "x", wanted).is_ok()
    }

    #[test]
    fn integers_are_floats_while_that_is_exact() {
        assert!(casts(
            Int64Array::from(vec![Some(1 << 53), None]),
            &DataType::Float64
        ));
        assert!(!casts(
            Int64Array::from(vec![(1 << 53) + 1]),
            &DataType::Float64
        ));
        assert!(!casts(Int64Array::from(vec![i64::MAX]), &DataType::Float64));
    }

    #[test]
    fn integers_fit_or_are_refused() {
        assert!(casts(Int64Array::from(vec![127]), &DataType::Int8));
        assert!(!casts(Int64Array::from(vec![128]), &DataType::Int8));
        assert!(!casts(Int64Array::from(vec![-1]), &DataType::UInt64));
    }

    #[test]
    fn floats_lose_nothing() {
        assert!(casts(
            Float64Array::from(vec![0.5, f64::NAN]),
            &DataType::Float32
        ));
        assert!(!casts(Float64Array::from(vec![0.1]), &DataType::Float32));
        assert!(!casts(Float64Array::from(vec![1.0]), &DataType::Int64));
    }

    #[test]
    fn moments_keep_every_digit() {
        let moments = || TimestampMicrosecondArray::from(vec![1_500_000]);
        assert!(casts(
            moments(),
            &DataType::Timestamp(TimeUnit::Nanosecond, None)
        ));
        assert!(casts(
            moments(),
            &DataType::Timestamp(TimeUnit::Millisecond, None)
        ));
        assert!(!casts(
            moments(),
            &DataType::Timestamp(TimeUnit::Second, None)
        ));
        assert!(!casts(
            moments(),
            &DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
        ));
    }

    #[test]
    fn text_is_no_number() {
        assert!(!casts(
            arrow_array::StringArray::from(vec!["1"]),
            &DataType::Int64
        ));
        assert!(!casts(Int64Array::from(vec![1]), &DataType::Utf8));
    }
}
