//! Python → Arrow, value by value.

use std::sync::Arc;

use arrow_array::builder::{BinaryBuilder, BooleanBuilder, StringBuilder};
use arrow_array::types::{
    Decimal128Type, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    Array, ArrayRef, ArrowPrimitiveType, FixedSizeListArray, ListArray, NullArray, PrimitiveArray,
    StructArray, make_array,
};
use arrow_buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer};
use arrow_data::ArrayData;
use arrow_schema::{DataType, FieldRef, Fields};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList};

use crate::Batch;
use crate::batch::arrow_error;
use crate::schema::arrow_type;

/// A column of type `kind` (as a signature writes it) from bytes, from a list, or from a batch of it.
/// The bytes and the mask of an array of several dimensions are those of its items.
pub(crate) fn column(
    name: &str,
    kind: &str,
    values: &Bound<'_, PyAny>,
    mask: Option<&Bound<'_, PyAny>>,
) -> PyResult<ArrayRef> {
    let data_type = kind.parse().map(|parsed| arrow_type(&parsed)).map_err(
        |error: envelope_format::InvalidDataType| PyTypeError::new_err(error.to_string()),
    )?;
    let made = if let Ok(bytes) = values.cast::<PyBytes>() {
        from_bytes(&data_type, bytes.as_bytes(), mask)
    } else if let Ok(batch) = values.cast::<Batch>() {
        batch.get().column(0).cloned()
    } else {
        from_list(&data_type, values.cast::<PyList>()?)
    };
    made.map_err(|error| PyTypeError::new_err(format!("column `{name}`: {error}")))
}

pub(crate) fn from_bytes(
    data_type: &DataType,
    bytes: &[u8],
    mask: Option<&Bound<'_, PyAny>>,
) -> PyResult<ArrayRef> {
    if let DataType::FixedSizeList(item, length) = data_type {
        let items = from_bytes(item.data_type(), bytes, mask)?;
        return fixed_lists(item, *length, items, None);
    }
    let mask = mask.map(|mask| mask.cast::<PyBytes>()).transpose()?;
    let nulls = mask.map(|mask| {
        mask.as_bytes()
            .iter()
            .map(|byte| *byte == 0)
            .collect::<NullBuffer>()
    });
    if *data_type == DataType::Boolean {
        let values: BooleanBuffer = bytes.iter().map(|byte| *byte != 0).collect();
        return Ok(Arc::new(arrow_array::BooleanArray::new(values, nulls)));
    }
    let width = data_type
        .primitive_width()
        .ok_or_else(|| PyValueError::new_err("not a fixed-width type"))?;
    let data = ArrayData::builder(data_type.clone())
        .len(bytes.len() / width)
        .add_buffer(Buffer::from(bytes))
        .nulls(nulls)
        .build()
        .map_err(arrow_error)?;
    Ok(make_array(data))
}

pub(crate) fn from_list(data_type: &DataType, values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "Arrow has many types that no signature has"
    )]
    match data_type {
        DataType::Null => Ok(Arc::new(NullArray::new(values.len()))),
        DataType::Boolean => booleans(values),
        DataType::Int8 => numbers::<Int8Type>(values),
        DataType::Int16 => numbers::<Int16Type>(values),
        DataType::Int32 => numbers::<Int32Type>(values),
        DataType::Int64 => numbers::<Int64Type>(values),
        DataType::UInt8 => numbers::<UInt8Type>(values),
        DataType::UInt16 => numbers::<UInt16Type>(values),
        DataType::UInt32 => numbers::<UInt32Type>(values),
        DataType::UInt64 => numbers::<UInt64Type>(values),
        DataType::Float16 => halves(values),
        DataType::Float32 => numbers::<Float32Type>(values),
        DataType::Float64 => numbers::<Float64Type>(values),
        DataType::Decimal128(precision, scale) => decimals(*precision, *scale, values),
        DataType::Date32 | DataType::Time32(_) => {
            counted(&numbers::<Int32Type>(values)?, data_type)
        }
        DataType::Timestamp(..) | DataType::Duration(..) | DataType::Time64(_) => {
            counted(&numbers::<Int64Type>(values)?, data_type)
        }
        DataType::Utf8 => texts(values),
        DataType::Binary => binaries(values),
        DataType::List(item) => lists(item, values),
        DataType::FixedSizeList(item, length) => equal_lists(item, *length, values),
        DataType::Struct(fields) => structs(fields, values),
        other => Err(PyTypeError::new_err(format!(
            "{other} is not a type of a signature"
        ))),
    }
}

fn numbers<'py, T>(values: &Bound<'py, PyList>) -> PyResult<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: for<'a> FromPyObject<'a, 'py, Error = PyErr>,
{
    let numbers: Vec<Option<T::Native>> = values
        .iter()
        .map(|value| value.extract())
        .collect::<PyResult<_>>()?;
    Ok(Arc::new(PrimitiveArray::<T>::from_iter(numbers)))
}

/// Python has no floats of 16 bits: what is given came from one, or is refused later.
fn halves(values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let half = |value: f64| <Float16Type as ArrowPrimitiveType>::Native::from_f64(value);
    let numbers: Vec<Option<f64>> = values.extract()?;
    let halves = numbers.into_iter().map(|number| number.map(half));
    Ok(Arc::new(PrimitiveArray::<Float16Type>::from_iter(halves)))
}

/// Decimals from their digits as integers.
fn decimals(precision: u8, scale: i8, values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let digits: Vec<Option<i128>> = values.extract()?;
    let decimals = PrimitiveArray::<Decimal128Type>::from_iter(digits)
        .with_precision_and_scale(precision, scale)
        .map_err(arrow_error)?;
    decimals
        .validate_decimal_precision(precision)
        .map_err(arrow_error)?;
    Ok(Arc::new(decimals))
}

/// Integers that count days or moments.
fn counted(integers: &ArrayRef, data_type: &DataType) -> PyResult<ArrayRef> {
    let data = integers
        .to_data()
        .into_builder()
        .data_type(data_type.clone())
        .build();
    data.map(make_array).map_err(arrow_error)
}

fn booleans(values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let mut builder = BooleanBuilder::with_capacity(values.len());
    for value in values {
        builder.append_option(value.extract::<Option<bool>>()?);
    }
    Ok(Arc::new(builder.finish()))
}

fn texts(values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let mut builder = StringBuilder::with_capacity(values.len(), values.len() * 8);
    for value in values {
        if value.is_none() {
            builder.append_null();
        } else {
            builder.append_value(value.extract::<std::borrow::Cow<'_, str>>()?);
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn binaries(values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let mut builder = BinaryBuilder::with_capacity(values.len(), values.len() * 8);
    for value in values {
        if value.is_none() {
            builder.append_null();
        } else {
            builder.append_value(value.cast::<PyBytes>()?.as_bytes());
        }
    }
    Ok(Arc::new(builder.finish()))
}

fn lists(item: &FieldRef, values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let flat = PyList::empty(values.py());
    let mut lengths = Vec::with_capacity(values.len());
    let mut valid = Vec::with_capacity(values.len());
    for value in values {
        let inner = listed(value)?;
        valid.push(inner.is_some());
        lengths.push(inner.as_ref().map_or(0, |inner| inner.len()));
        for value in inner.iter().flatten() {
            flat.append(value)?;
        }
    }
    let items = from_list(item.data_type(), &flat)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    ListArray::try_new(Arc::clone(item), offsets, items, nulls(valid))
        .map(|list| Arc::new(list) as ArrayRef)
        .map_err(arrow_error)
}

/// Lists of one length.
fn equal_lists(item: &FieldRef, length: i32, values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let flat = PyList::empty(values.py());
    let mut valid = Vec::with_capacity(values.len());
    for value in values {
        let inner = listed(value)?;
        valid.push(inner.is_some());
        let Some(inner) = inner else {
            for _ in 0..length {
                flat.append(values.py().None())?;
            }
            continue;
        };
        if i32::try_from(inner.len()) != Ok(length) {
            let message = format!("a list has {} items instead of {length}", inner.len());
            return Err(PyValueError::new_err(message));
        }
        for value in inner {
            flat.append(value)?;
        }
    }
    fixed_lists(
        item,
        length,
        from_list(item.data_type(), &flat)?,
        nulls(valid),
    )
}

fn fixed_lists(
    item: &FieldRef,
    length: i32,
    items: ArrayRef,
    nulls: Option<NullBuffer>,
) -> PyResult<ArrayRef> {
    FixedSizeListArray::try_new(Arc::clone(item), length, items, nulls)
        .map(|list| Arc::new(list) as ArrayRef)
        .map_err(arrow_error)
}

/// Dicts that have exactly the keys of `fields`.
fn structs(fields: &Fields, values: &Bound<'_, PyList>) -> PyResult<ArrayRef> {
    let py = values.py();
    let columns: Vec<_> = fields.iter().map(|_| PyList::empty(py)).collect();
    let mut valid = Vec::with_capacity(values.len());
    for value in values {
        let dict = (!value.is_none()).then(|| value.cast_into::<PyDict>());
        let dict = dict.transpose()?;
        valid.push(dict.is_some());
        for (field, column) in fields.iter().zip(&columns) {
            let item = match &dict {
                Some(dict) => dict.as_any().get_item(field.name())?,
                None => py.None().into_bound(py),
            };
            column.append(item)?;
        }
    }
    let columns = fields
        .iter()
        .zip(&columns)
        .map(|(field, column)| from_list(field.data_type(), column))
        .collect::<PyResult<Vec<_>>>()?;
    StructArray::try_new_with_length(fields.clone(), columns, nulls(valid), values.len())
        .map(|made| Arc::new(made) as ArrayRef)
        .map_err(arrow_error)
}

fn listed(value: Bound<'_, PyAny>) -> PyResult<Option<Bound<'_, PyList>>> {
    if value.is_none() {
        return Ok(None);
    }
    Ok(Some(value.cast_into::<PyList>()?))
}

fn nulls(valid: Vec<bool>) -> Option<NullBuffer> {
    valid.contains(&false).then(|| NullBuffer::from(valid))
}
