//! The same values in another type, exactly or not at all.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{
    Array, ArrayRef, FixedSizeListArray, ListArray, RecordBatch, StructArray, new_null_array,
};
use arrow_cast::{CastOptions, cast_with_options};
use arrow_schema::{DataType, FieldRef, Fields};

use crate::read::first_difference;
use crate::schema::signature_type;

/// An error instead of a missing value where a value does not fit.
pub(crate) const STRICT: CastOptions<'static> = CastOptions {
    safe: false,
    format_options: arrow_cast::display::FormatOptions::new(),
};

/// Why a column cannot be of another type.
enum Misfit {
    /// Its values are of another kind.
    Kind,
    /// They are of the right kind, but one is not such a value exactly.
    Value,
}

/// The column `name` of `rows` as `wanted`, or why it cannot be that.
pub(crate) fn column(
    rows: &RecordBatch,
    name: &str,
    wanted: &DataType,
) -> Result<ArrayRef, String> {
    let column = rows
        .column_by_name(name)
        .ok_or_else(|| format!("there is no column `{name}`"))?;
    let (found, said) = (shown(column.data_type()), shown(wanted));
    converted(column, wanted).map_err(|misfit| match misfit {
        Misfit::Kind => format!("`{name}` is {found}, the signature says {said}"),
        Misfit::Value => format!("`{name}` has {found} values that {said} does not hold exactly"),
    })
}

fn converted(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, Misfit> {
    let found = column.data_type();
    if found == wanted {
        return Ok(ArrayRef::clone(column));
    }
    match (found, wanted) {
        (DataType::Null, _) => Ok(new_null_array(wanted, column.len())),
        (DataType::Struct(_), DataType::Struct(fields)) => structs(column.as_struct(), fields),
        (DataType::List(_), DataType::List(item)) => lists(column.as_list(), item),
        (DataType::List(_), DataType::FixedSizeList(item, _)) => {
            cast(&lists(column.as_list(), item)?, wanted)
        }
        (DataType::FixedSizeList(_, one), DataType::FixedSizeList(item, other)) if one == other => {
            fixed_lists(column.as_fixed_size_list(), item)
        }
        (DataType::FixedSizeList(..), DataType::List(item)) => {
            cast(&fixed_lists(column.as_fixed_size_list(), item)?, wanted)
        }
        _ if is_comparable(found, wanted) => there_and_back(column, wanted),
        _ => Err(Misfit::Kind),
    }
}

fn cast(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, Misfit> {
    cast_with_options(column, wanted, &STRICT).map_err(|_| Misfit::Value)
}

/// The column as `wanted`, if the way there and back changes nothing.
fn there_and_back(column: &ArrayRef, wanted: &DataType) -> Result<ArrayRef, Misfit> {
    let there = cast(column, wanted)?;
    let back = cast(&there, column.data_type())?;
    match first_difference(column, &back, 0.0) {
        None => Ok(there),
        Some(_) => Err(Misfit::Value),
    }
}

/// By name: a `dict` is the same in any order.
fn structs(column: &StructArray, fields: &Fields) -> Result<ArrayRef, Misfit> {
    if column.num_columns() != fields.len() {
        return Err(Misfit::Kind);
    }
    let columns = fields.iter().map(|field| {
        let found = column.column_by_name(field.name()).ok_or(Misfit::Kind)?;
        converted(found, field.data_type())
    });
    let columns = columns.collect::<Result<Vec<_>, _>>()?;
    made(StructArray::try_new_with_length(
        fields.clone(),
        columns,
        column.nulls().cloned(),
        column.len(),
    ))
}

fn lists(column: &ListArray, item: &FieldRef) -> Result<ArrayRef, Misfit> {
    let items = converted(column.values(), item.data_type())?;
    made(ListArray::try_new(
        Arc::clone(item),
        column.offsets().clone(),
        items,
        column.nulls().cloned(),
    ))
}

fn fixed_lists(column: &FixedSizeListArray, item: &FieldRef) -> Result<ArrayRef, Misfit> {
    let items = converted(column.values(), item.data_type())?;
    made(FixedSizeListArray::try_new(
        Arc::clone(item),
        column.value_length(),
        items,
        column.nulls().cloned(),
    ))
}

fn made(array: Result<impl Array + 'static, arrow_schema::ArrowError>) -> Result<ArrayRef, Misfit> {
    array
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|_| Misfit::Value)
}

/// Whether values of the two types can be equal: a number is a number, a moment a moment.
fn is_comparable(one: &DataType, other: &DataType) -> bool {
    match (one, other) {
        (DataType::Timestamp(_, one), DataType::Timestamp(_, other)) => {
            one.is_some() == other.is_some()
        }
        (DataType::Duration(_), DataType::Duration(_))
        | (DataType::Time32(_) | DataType::Time64(_), DataType::Time32(_) | DataType::Time64(_))
        | (DataType::Decimal128(..), DataType::Decimal128(..)) => true,
        _ => (one.is_integer() || one.is_floating() && other.is_floating()) && other.is_numeric(),
    }
}

fn shown(data_type: &DataType) -> String {
    signature_type(data_type).map_or_else(|| data_type.to_string(), |known| known.to_string())
}
