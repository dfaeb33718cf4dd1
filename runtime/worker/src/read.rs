//! Arrow → Python, value by value.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Date32Type, Decimal128Type, Float16Type, Float32Type, Float64Type,
    Int8Type, Int16Type, Int32Type, Int64Type, Time32MillisecondType, Time32SecondType, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, StructArray};
use arrow_buffer::NullBuffer;
use arrow_schema::{DataType, TimeUnit};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyList, PyString};
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::is_fixed_width;

/// Sums that cancel out to nothing differ by so much: the last bits of what was summed.
const ROUNDING: f64 = 1e-12;

/// See `Batch.values`.
pub(crate) fn fixed_width<'py>(
    py: Python<'py>,
    column: &ArrayRef,
) -> PyResult<(Bound<'py, PyByteArray>, Option<Bound<'py, PyByteArray>>)> {
    let (items, nulls) = items(column)?;
    if !is_fixed_width(items.data_type()) {
        return Err(unreadable(items.data_type()));
    }
    Ok((value_bytes(py, &items)?, mask(py, nulls.as_ref())?))
}

/// The items of an array of several dimensions, one after the other, and which are missing: those
/// of a missing row are. A column that is no array is its own items.
fn items(column: &ArrayRef) -> PyResult<(ArrayRef, Option<NullBuffer>)> {
    let (mut items, mut nulls) = (ArrayRef::clone(column), column.nulls().cloned());
    while let Some(lists) = items.as_fixed_size_list_opt() {
        let length = usize::try_from(lists.value_length())
            .map_err(|_| PyTypeError::new_err("a length is negative"))?;
        let inner = ArrayRef::clone(lists.values());
        let outer = nulls.map(|nulls| nulls.expand(length));
        nulls = NullBuffer::union(outer.as_ref(), inner.nulls());
        items = inner;
    }
    Ok((items, nulls))
}

fn value_bytes<'py>(py: Python<'py>, column: &ArrayRef) -> PyResult<Bound<'py, PyByteArray>> {
    if let Some(booleans) = column.as_boolean_opt() {
        return PyByteArray::new_with(py, column.len(), |out| {
            for (byte, value) in out.iter_mut().zip(booleans.values()) {
                *byte = u8::from(value);
            }
            Ok(())
        });
    }
    let data = column.to_data();
    let width = column
        .data_type()
        .primitive_width()
        .ok_or_else(|| unreadable(column.data_type()))?;
    let start = data.offset() * width;
    let bytes = data.buffers()[0].as_slice();
    Ok(PyByteArray::new(
        py,
        &bytes[start..start + column.len() * width],
    ))
}

fn mask<'py>(
    py: Python<'py>,
    nulls: Option<&NullBuffer>,
) -> PyResult<Option<Bound<'py, PyByteArray>>> {
    let Some(nulls) = nulls.filter(|nulls| nulls.null_count() > 0) else {
        return Ok(None);
    };
    let mask = PyByteArray::new_with(py, nulls.len(), |out| {
        for (byte, valid) in out.iter_mut().zip(nulls.inner()) {
            *byte = u8::from(!valid);
        }
        Ok(())
    });
    mask.map(Some)
}

/// See `Batch.pylist`.
pub(crate) fn list<'py>(py: Python<'py>, column: &dyn Array) -> PyResult<Bound<'py, PyList>> {
    macro_rules! numbers {
        ($kind:ty, $array:expr) => {
            PyList::new(
                py,
                $array.as_primitive::<$kind>().iter().collect::<Vec<_>>(),
            )
        };
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "Arrow has many types that no signature has"
    )]
    match column.data_type() {
        DataType::Null => PyList::new(py, vec![None::<bool>; column.len()]),
        DataType::Boolean => PyList::new(py, column.as_boolean().iter().collect::<Vec<_>>()),
        DataType::Int8 => numbers!(Int8Type, column),
        DataType::Int16 => numbers!(Int16Type, column),
        DataType::Int32 => numbers!(Int32Type, column),
        DataType::Int64 => numbers!(Int64Type, column),
        DataType::UInt8 => numbers!(UInt8Type, column),
        DataType::UInt16 => numbers!(UInt16Type, column),
        DataType::UInt32 => numbers!(UInt32Type, column),
        DataType::UInt64 => numbers!(UInt64Type, column),
        DataType::Float16 => {
            let halves = column.as_primitive::<Float16Type>().iter();
            PyList::new(
                py,
                halves.map(|half| half.map(f64::from)).collect::<Vec<_>>(),
            )
        }
        DataType::Float32 => numbers!(Float32Type, column),
        DataType::Float64 => numbers!(Float64Type, column),
        DataType::Decimal128(..) => numbers!(Decimal128Type, column),
        DataType::Date32 => numbers!(Date32Type, column),
        DataType::Time32(TimeUnit::Second) => numbers!(Time32SecondType, column),
        DataType::Time32(_) => numbers!(Time32MillisecondType, column),
        DataType::Timestamp(..) | DataType::Duration(..) | DataType::Time64(_) => {
            integers(py, column)
        }
        DataType::Utf8 => texts(py, column.as_string()),
        DataType::Binary => PyList::new(
            py,
            column
                .as_binary::<i32>()
                .iter()
                .map(|bytes| bytes.map(|bytes| PyBytes::new(py, bytes)))
                .collect::<Vec<_>>(),
        ),
        DataType::List(_) => {
            let items: PyResult<Vec<_>> = column
                .as_list::<i32>()
                .iter()
                .map(|item| item.map(|item| list(py, &item)).transpose())
                .collect();
            PyList::new(py, items?)
        }
        DataType::FixedSizeList(..) => {
            let items: PyResult<Vec<_>> = column
                .as_fixed_size_list()
                .iter()
                .map(|item| item.map(|item| list(py, &item)).transpose())
                .collect();
            PyList::new(py, items?)
        }
        DataType::Struct(_) => dicts(py, column.as_struct()),
        other => Err(unreadable(other)),
    }
}

/// So many texts are remembered, for equal ones to be one object.
const REMEMBERED_TEXTS: u64 = 256;

/// Longer ones seldom repeat.
const LONGEST_REMEMBERED: usize = 64;

/// Texts that repeat are one object: making it, and its hash where it is looked up, costs many times
/// as much as finding it.
fn texts<'py, 'c>(py: Python<'py>, column: &'c StringArray) -> PyResult<Bound<'py, PyList>> {
    let mut known: Vec<Option<(&'c str, Bound<'py, PyString>)>> = vec![];
    known.resize_with(REMEMBERED_TEXTS as usize, || None);
    let mut object = |text: &'c str| {
        if text.len() > LONGEST_REMEMBERED {
            return PyString::new(py, text);
        }
        let place = xxh3_64(text.as_bytes()) % REMEMBERED_TEXTS;
        match &mut known[place as usize] {
            Some((same, object)) if *same == text => object.clone(),
            other => {
                let made = PyString::new(py, text);
                *other = Some((text, made.clone()));
                made
            }
        }
    };
    let objects = column.iter().map(|text| text.map(&mut object));
    PyList::new(py, objects)
}

fn dicts<'py>(py: Python<'py>, column: &StructArray) -> PyResult<Bound<'py, PyList>> {
    let names: Vec<_> = column
        .column_names()
        .iter()
        .map(|name| PyString::new(py, name))
        .collect();
    let values = column
        .columns()
        .iter()
        .map(|column| list(py, column))
        .collect::<PyResult<Vec<_>>>()?;
    let dict = |row| {
        if column.is_null(row) {
            return Ok(None);
        }
        let dict = PyDict::new(py);
        for (name, values) in names.iter().zip(&values) {
            dict.set_item(name, values.get_item(row)?)?;
        }
        Ok(Some(dict))
    };
    let dicts: PyResult<Vec<_>> = (0..column.len()).map(dict).collect();
    PyList::new(py, dicts?)
}

/// Times as what they count.
fn integers<'py>(py: Python<'py>, column: &dyn Array) -> PyResult<Bound<'py, PyList>> {
    let data = column
        .to_data()
        .into_builder()
        .data_type(DataType::Int64)
        .build();
    let data = data.map_err(crate::batch::arrow_error)?;
    list(py, &arrow_array::Int64Array::from(data))
}

pub(crate) fn unreadable(data_type: &DataType) -> PyErr {
    PyTypeError::new_err(format!("{data_type} is not a type of a signature"))
}

/// See `Batch.difference`.
pub(crate) fn difference(one: &RecordBatch, other: &RecordBatch, tolerance: f64) -> Option<String> {
    if one.num_rows() != other.num_rows() {
        return Some(format!(
            "{} rows instead of {}",
            other.num_rows(),
            one.num_rows()
        ));
    }
    if one.num_columns() != other.num_columns() {
        return Some(format!(
            "{} columns instead of {}",
            other.num_columns(),
            one.num_columns()
        ));
    }
    let schema = one.schema();
    let pairs = one.columns().iter().zip(other.columns());
    pairs
        .zip(schema.fields())
        .find_map(|((one, other), field)| {
            first_difference(one, other, tolerance)
                .map(|row| format!("column `{}` differs in row {row}", field.name()))
        })
}

/// The first row in which the two differ.
pub(crate) fn first_difference(one: &ArrayRef, other: &ArrayRef, tolerance: f64) -> Option<usize> {
    if one.data_type() != other.data_type() {
        return Some(0);
    }
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "values of the other types have one spelling in bits"
    )]
    match one.data_type() {
        DataType::Float16 => different_float::<Float16Type>(one, other, tolerance),
        DataType::Float32 => different_float::<Float32Type>(one, other, tolerance),
        DataType::Float64 => different_float::<Float64Type>(one, other, tolerance),
        DataType::List(_) => {
            let (one, other) = (one.as_list::<i32>(), other.as_list::<i32>());
            different_list(one.iter().zip(other.iter()), tolerance)
        }
        DataType::FixedSizeList(..) => {
            let (one, other) = (one.as_fixed_size_list(), other.as_fixed_size_list());
            let length = usize::try_from(one.value_length()).unwrap_or(usize::MAX);
            if one.nulls().is_none() && other.nulls().is_none() && one.len() == other.len() {
                let item = first_difference(one.values(), other.values(), tolerance);
                return item.map(|item| item / length);
            }
            different_list(one.iter().zip(other.iter()), tolerance)
        }
        DataType::Struct(_) => different_struct(one.as_struct(), other.as_struct(), tolerance),
        _ => (0..one.len())
            .find(|row| one.slice(*row, 1).to_data() != other.slice(*row, 1).to_data()),
    }
}

fn different_float<T: ArrowPrimitiveType>(
    one: &ArrayRef,
    other: &ArrayRef,
    tolerance: f64,
) -> Option<usize>
where
    T::Native: Into<f64>,
{
    let wide = |value: Option<T::Native>| value.map(Into::into);
    let pairs = one
        .as_primitive::<T>()
        .iter()
        .zip(other.as_primitive::<T>());
    pairs
        .into_iter()
        .position(|(one, other)| !same_float(wide(one), wide(other), tolerance))
}

fn different_list(
    mut pairs: impl Iterator<Item = (Option<ArrayRef>, Option<ArrayRef>)>,
    tolerance: f64,
) -> Option<usize> {
    pairs.position(|pair| match pair {
        (Some(one), Some(other)) => {
            one.len() != other.len() || first_difference(&one, &other, tolerance).is_some()
        }
        (one, other) => one.is_some() != other.is_some(),
    })
}

fn different_struct(one: &StructArray, other: &StructArray, tolerance: f64) -> Option<usize> {
    if one.nulls().is_none() && other.nulls().is_none() {
        let pairs = one.columns().iter().zip(other.columns());
        return pairs
            .filter_map(|(one, other)| first_difference(one, other, tolerance))
            .min();
    }
    (0..one.len()).find(|row| match (one.is_null(*row), other.is_null(*row)) {
        (false, false) => {
            let (one, other) = (one.slice(*row, 1), other.slice(*row, 1));
            let pairs = one.columns().iter().zip(other.columns());
            pairs
                .into_iter()
                .any(|(one, other)| first_difference(one, other, tolerance).is_some())
        }
        (one, other) => one != other,
    })
}

fn same_float(one: Option<f64>, other: Option<f64>, tolerance: f64) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => {
            let scale = one.abs().max(other.abs());
            let near = (one - other).abs() <= (tolerance * scale).max(ROUNDING);
            one.to_bits() == other.to_bits()
                || (one.is_nan() && other.is_nan())
                || (tolerance > 0.0 && near)
        }
        _ => false,
    }
}
