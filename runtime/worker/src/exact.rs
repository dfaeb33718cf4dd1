//! The same values in another type, exactly or not at all.

use arrow_array::{Array as _, ArrayRef, RecordBatch};
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
    if !is_comparable(found, wanted) {
        let (found, wanted) = (shown(found), shown(wanted));
        return Err(format!("`{name}` is {found}, the signature says {wanted}"));
    }
    exactly(column, wanted).ok_or_else(|| {
        let (found, wanted) = (shown(found), shown(wanted));
        format!("`{name}` has {found} values that {wanted} does not hold exactly")
    })
}

/// The column as `wanted`, if the way there and back changes nothing.
fn exactly(column: &ArrayRef, wanted: &DataType) -> Option<ArrayRef> {
    let found = column.data_type();
    let there = cast_with_options(column, wanted, &STRICT).ok()?;
    if is_nothing(found) {
        return Some(there);
    }
    let back = cast_with_options(&there, found, &STRICT).ok()?;
    first_difference(column, &back, 0.0)
        .is_none()
        .then_some(there)
}

/// Whether a column of this type has no values, only missing ones and empty lists.
fn is_nothing(data_type: &DataType) -> bool {
    if let DataType::List(item) = data_type {
        return is_nothing(item.data_type());
    }
    *data_type == DataType::Null
}

/// Whether values of the two types can be equal: a number is a number, a moment a moment.
fn is_comparable(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::Null, _) => true,
        (DataType::List(one), DataType::List(other)) => {
            let (one, other) = (one.data_type(), other.data_type());
            one == other || is_comparable(one, other)
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
