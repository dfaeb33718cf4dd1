//! Arrow → Python, value by value.

use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    Date32Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
};
use arrow_array::types::{UInt8Type, UInt16Type, UInt32Type, UInt64Type};
use arrow_array::{Array, ArrayRef, RecordBatch};
use arrow_schema::DataType;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyString};

use crate::batch::is_fixed_width;

/// Sums that cancel out to nothing differ by so much: the last bits of what was summed.
const ROUNDING: f64 = 1e-12;

/// See `Batch.values`.
pub(crate) fn fixed_width<'py>(
    py: Python<'py>,
    column: &ArrayRef,
) -> PyResult<(Bound<'py, PyByteArray>, Option<Bound<'py, PyByteArray>>)> {
    if !is_fixed_width(column.data_type()) {
        return Err(unreadable(column.data_type()));
    }
    Ok((value_bytes(py, column)?, mask(py, column)?))
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

fn mask<'py>(py: Python<'py>, column: &ArrayRef) -> PyResult<Option<Bound<'py, PyByteArray>>> {
    let Some(nulls) = column.nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(None);
    };
    let mask = PyByteArray::new_with(py, column.len(), |out| {
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
        DataType::Float32 => numbers!(Float32Type, column),
        DataType::Float64 => numbers!(Float64Type, column),
        DataType::Date32 => numbers!(Date32Type, column),
        DataType::Timestamp(..) | DataType::Duration(..) => integers(py, column),
        DataType::Utf8 => PyList::new(
            py,
            column
                .as_string::<i32>()
                .iter()
                .map(|text| text.map(|text| PyString::new(py, text)))
                .collect::<Vec<_>>(),
        ),
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
        other => Err(unreadable(other)),
    }
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

fn unreadable(data_type: &DataType) -> PyErr {
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
    if let (Some(one), Some(other)) = (
        one.as_primitive_opt::<Float64Type>(),
        other.as_primitive_opt::<Float64Type>(),
    ) {
        return one
            .iter()
            .zip(other)
            .position(|(a, b)| !same_float(a, b, tolerance));
    }
    if let (Some(one), Some(other)) = (
        one.as_primitive_opt::<Float32Type>(),
        other.as_primitive_opt::<Float32Type>(),
    ) {
        let wide = |value: Option<f32>| value.map(f64::from);
        return one
            .iter()
            .zip(other)
            .position(|(a, b)| !same_float(wide(a), wide(b), tolerance));
    }
    if let (Some(one_list), Some(other_list)) =
        (one.as_list_opt::<i32>(), other.as_list_opt::<i32>())
    {
        return (0..one.len()).find(|row| {
            match (one_list.is_null(*row), other_list.is_null(*row)) {
                (false, false) => {
                    let (a, b) = (one_list.value(*row), other_list.value(*row));
                    a.len() != b.len() || first_difference(&a, &b, tolerance).is_some()
                }
                (a, b) => a != b,
            }
        });
    }
    (0..one.len()).find(|row| one.slice(*row, 1).to_data() != other.slice(*row, 1).to_data())
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
