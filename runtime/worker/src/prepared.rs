//! Columns of known types, read from a batch and put together in one call each.
//!
//! Whatever is unusual gives `None`: the conversions that look at every value then decide, and have
//! the words for what is wrong.

use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_array::{Array, ArrayRef, RecordBatch, RecordBatchOptions, downcast_primitive_array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use pyo3::exceptions::PyIndexError;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyByteArray, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple,
};

use crate::{Batch, assemble, read};

/// What a missing moment is in numpy.
const NAT: i64 = i64::MIN;

/// Columns as a signature describes them.
#[pyclass(frozen, module = "model_envelope")]
#[derive(Debug)]
pub(crate) struct Columns {
    schema: SchemaRef,
    names: Vec<Py<PyString>>,
    blocks: Vec<Block>,
}

/// Columns of one type that are read together: by their places, and whether beside a mask of what
/// is missing.
type Block = (Vec<usize>, bool);

#[pymethods]
impl Columns {
    /// Of fields with `name` and `type`; `blocks` is what `read` is to give.
    #[new]
    #[pyo3(signature = (fields, blocks=vec![]))]
    fn new(py: Python<'_>, fields: Vec<Bound<'_, PyDict>>, blocks: Vec<Block>) -> PyResult<Self> {
        let fields = fields.iter().map(crate::batch::wanted_field);
        let fields = fields.collect::<PyResult<Vec<Field>>>()?;
        if blocks.iter().any(|(places, _)| {
            places.is_empty() || places.iter().any(|place| *place >= fields.len())
        }) {
            return Err(PyIndexError::new_err("no such column"));
        }
        let names = fields
            .iter()
            .map(|field| PyString::new(py, field.name()).unbind());
        Ok(Self {
            names: names.collect(),
            schema: Arc::new(Schema::new(fields)),
            blocks,
        })
    }

    /// The bytes of each block, its columns one after the other, booleans one byte each; NaN or `NaT`
    /// where a value is missing, or else a pair with the bytes of a mask.
    fn read<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, Batch>,
    ) -> PyResult<Option<Bound<'py, PyTuple>>> {
        let rows = batch.get().rows();
        if !self.fit(rows) {
            return Ok(None);
        }
        let mut read = Vec::with_capacity(self.blocks.len());
        for (places, masked) in &self.blocks {
            let columns: Vec<_> = places.iter().map(|place| rows.column(*place)).collect();
            if !masked && !columns.iter().all(|column| says_missing(column)) {
                return Ok(None);
            }
            let bytes = joined(py, &columns, rows.num_rows(), !masked)?;
            read.push(if *masked {
                (bytes, mask(py, &columns, rows.num_rows())?)
                    .into_pyobject(py)?
                    .into_any()
            } else {
                bytes.into_any()
            });
        }
        PyTuple::new(py, read).map(Some)
    }

    /// The only row as a `dict`.
    fn row<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, Batch>,
    ) -> PyResult<Option<Bound<'py, PyDict>>> {
        let rows = batch.get().rows();
        if rows.num_rows() != 1 || !self.fit(rows) {
            return Ok(None);
        }
        let dict = PyDict::new(py);
        for (name, column) in self.names.iter().zip(rows.columns()) {
            dict.set_item(name, first(py, column)?)?;
        }
        Ok(Some(dict))
    }

    /// All rows as `dict`s.
    fn records<'py>(
        &self,
        py: Python<'py>,
        batch: &Bound<'py, Batch>,
    ) -> PyResult<Option<Bound<'py, PyList>>> {
        let rows = batch.get().rows();
        if !self.fit(rows) {
            return Ok(None);
        }
        let columns = rows.columns().iter().map(|column| read::list(py, column));
        let columns = columns.collect::<PyResult<Vec<_>>>()?;
        let record = |row| {
            let dict = PyDict::new(py);
            for (name, column) in self.names.iter().zip(&columns) {
                dict.set_item(name, column.get_item(row)?)?;
            }
            Ok(dict)
        };
        let records = (0..rows.num_rows()).map(record);
        PyList::new(py, records.collect::<PyResult<Vec<_>>>()?).map(Some)
    }

    /// The batch of these columns: of each its bytes, or a list of plain values of just its type.
    /// One `bytes` for all of them holds one column after the other.
    fn batch(&self, num_rows: usize, values: Bound<'_, PyAny>) -> Option<Batch> {
        let columns: Option<Vec<_>> = if let Ok(bytes) = values.cast::<PyBytes>() {
            self.split(num_rows, bytes.as_bytes())
        } else {
            let values = values.cast::<PyList>().ok()?;
            if values.len() != self.names.len() {
                return None;
            }
            let pairs = self.schema.fields().iter().zip(values);
            let columns = pairs.map(|(field, value)| column(field.data_type(), num_rows, &value));
            columns.collect()
        };
        let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns?, &options)
            .ok()
            .map(Batch::new)
    }

    /// As `batch`, from `dict`s with just these keys.
    fn batch_of_records(&self, py: Python<'_>, records: Bound<'_, PyList>) -> Option<Batch> {
        let columns: Vec<_> = self.names.iter().map(|_| PyList::empty(py)).collect();
        for record in records.iter() {
            let record = record.cast_exact::<PyDict>().ok()?;
            if record.len() != self.names.len() {
                return None;
            }
            for (name, column) in self.names.iter().zip(&columns) {
                column.append(record.get_item(name).ok()??).ok()?;
            }
        }
        self.batch(records.len(), PyList::new(py, columns).ok()?.into_any())
    }
}

impl Columns {
    /// Whether the batch has these columns, by type.
    fn fit(&self, rows: &RecordBatch) -> bool {
        let fields = self.schema.fields();
        rows.num_columns() == fields.len()
            && fields
                .iter()
                .zip(rows.columns())
                .all(|(field, column)| field.data_type() == column.data_type())
    }

    fn split(&self, num_rows: usize, mut bytes: &[u8]) -> Option<Vec<ArrayRef>> {
        let mut columns = Vec::with_capacity(self.names.len());
        for field in self.schema.fields() {
            let length = width(field.data_type())?.checked_mul(num_rows)?;
            let (own, rest) = bytes.split_at_checked(length)?;
            columns.push(assemble::from_bytes(field.data_type(), own, None).ok()?);
            bytes = rest;
        }
        bytes.is_empty().then_some(columns)
    }
}

// === Arrow → bytes

/// Whether the column can say what is missing without a mask.
fn says_missing(column: &ArrayRef) -> bool {
    column.null_count() == 0
        || column.data_type().is_floating()
        || matches!(
            column.data_type(),
            DataType::Timestamp(..) | DataType::Duration(_)
        )
}

fn joined<'py>(
    py: Python<'py>,
    columns: &[&ArrayRef],
    num_rows: usize,
    mark: bool,
) -> PyResult<Bound<'py, PyByteArray>> {
    if let [column] = columns
        && (!mark || column.null_count() == 0)
        && let Some(bytes) = bytes_of(column)
    {
        return Ok(PyByteArray::new(py, bytes));
    }
    let first = columns.first().and_then(|column| width(column.data_type()));
    let width = first.ok_or_else(|| read::unreadable(columns[0].data_type()))?;
    PyByteArray::new_with(py, columns.len() * num_rows * width, |out| {
        if num_rows == 0 {
            return Ok(());
        }
        for (column, out) in columns.iter().zip(out.chunks_exact_mut(num_rows * width)) {
            copy(column, out);
            if mark && column.null_count() > 0 {
                mark_missing(column, width, out);
            }
        }
        Ok(())
    })
}

fn copy(column: &ArrayRef, out: &mut [u8]) {
    if let Some(booleans) = column.as_boolean_opt() {
        for (byte, value) in out.iter_mut().zip(booleans.values()) {
            *byte = u8::from(value);
        }
    } else if let Some(bytes) = bytes_of(column) {
        out.copy_from_slice(bytes);
    }
}

/// As numpy says it.
fn mark_missing(column: &ArrayRef, width: usize, out: &mut [u8]) {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other types that get here are times"
    )]
    let missing: &[u8] = match column.data_type() {
        DataType::Float16 => &0x7e00_u16.to_ne_bytes(),
        DataType::Float32 => &f32::NAN.to_ne_bytes(),
        DataType::Float64 => &f64::NAN.to_ne_bytes(),
        _ => &NAT.to_ne_bytes(),
    };
    for (row, value) in out.chunks_exact_mut(width).enumerate() {
        if column.is_null(row) {
            value.copy_from_slice(missing);
        }
    }
}

fn mask<'py>(
    py: Python<'py>,
    columns: &[&ArrayRef],
    num_rows: usize,
) -> PyResult<Bound<'py, PyByteArray>> {
    PyByteArray::new_with(py, columns.len() * num_rows, |out| {
        let missing = columns
            .iter()
            .flat_map(|column| (0..num_rows).map(move |row| u8::from(column.is_null(row))));
        for (byte, missing) in out.iter_mut().zip(missing) {
            *byte = missing;
        }
        Ok(())
    })
}

/// The bytes of a column of numbers or times.
fn bytes_of(column: &ArrayRef) -> Option<&[u8]> {
    downcast_primitive_array!(
        column => Some(column.values().inner().as_slice()),
        _ => None,
    )
}

/// Bytes of one value.
fn width(data_type: &DataType) -> Option<usize> {
    if *data_type == DataType::Boolean {
        return Some(1);
    }
    data_type.primitive_width()
}

/// The first value as a plain one.
fn first<'py>(py: Python<'py>, column: &ArrayRef) -> PyResult<Bound<'py, PyAny>> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "what is met most, without a list in between"
    )]
    match column.data_type() {
        DataType::Float64 if column.is_valid(0) => {
            let value = column.as_primitive::<Float64Type>().value(0);
            Ok(PyFloat::new(py, value).into_any())
        }
        DataType::Int64 if column.is_valid(0) => {
            let value = column.as_primitive::<Int64Type>().value(0);
            Ok(value.into_pyobject(py)?.into_any())
        }
        DataType::Utf8 if column.is_valid(0) => {
            Ok(PyString::new(py, column.as_string::<i32>().value(0)).into_any())
        }
        _ => read::list(py, column)?.get_item(0),
    }
}

// === plain values → Arrow

fn column(data_type: &DataType, num_rows: usize, values: &Bound<'_, PyAny>) -> Option<ArrayRef> {
    if let Ok(bytes) = values.cast::<PyBytes>() {
        let bytes = bytes.as_bytes();
        let expected = width(data_type)?.checked_mul(num_rows)?;
        return (bytes.len() == expected)
            .then(|| assemble::from_bytes(data_type, bytes, None).ok())
            .flatten();
    }
    let values = values.cast::<PyList>().ok()?;
    let plain = values.len() == num_rows && are_just(data_type, values);
    plain
        .then(|| assemble::from_list(data_type, values).ok())
        .flatten()
}

/// Whether all values are missing or of the one Python type that is this Arrow type whatever the
/// value is.
fn are_just(data_type: &DataType, values: &Bound<'_, PyList>) -> bool {
    let all = |is: fn(&Bound<'_, PyAny>) -> bool| {
        values.iter().all(|value| value.is_none() || is(&value))
    };
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "values of the others are converted first"
    )]
    match data_type {
        DataType::Float64 => all(|value| value.is_exact_instance_of::<PyFloat>()),
        DataType::Int64 => all(|value| value.is_exact_instance_of::<PyInt>()),
        DataType::Utf8 => all(|value| value.is_exact_instance_of::<PyString>()),
        DataType::Boolean => all(|value| value.is_exact_instance_of::<PyBool>()),
        _ => false,
    }
}
