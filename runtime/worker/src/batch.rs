//! An Arrow record batch as a Python object.

use arrow_array::{Array as _, ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema};
use envelope_format::InvalidDataType;
use pyo3::exceptions::{PyIndexError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyCapsule, PyDict, PyList};
use std::sync::Arc;

use crate::schema::arrow_type;
use crate::{assemble, capsule, exact, read};

/// Rows in Arrow's memory layout.
///
/// Other libraries take it over by the Arrow `PyCapsule` interface without copying.
#[pyclass(frozen, name = "Batch", module = "model_envelope")]
#[derive(Debug, Clone)]
pub struct Batch(RecordBatch);

impl Batch {
    /// Wraps a record batch.
    #[must_use]
    pub fn new(rows: RecordBatch) -> Self {
        Self(rows)
    }

    /// The record batch.
    #[must_use]
    pub fn rows(&self) -> &RecordBatch {
        &self.0
    }

    pub(crate) fn column(&self, index: usize) -> PyResult<&ArrayRef> {
        self.0
            .columns()
            .get(index)
            .ok_or_else(|| PyIndexError::new_err("no such column"))
    }
}

/// What assembles a column: name, type, whether values may be missing, values, mask.
type Parts<'py> = (
    String,
    String,
    bool,
    Bound<'py, PyAny>,
    Option<Bound<'py, PyAny>>,
);

#[pymethods]
impl Batch {
    /// Number of rows.
    #[getter]
    fn num_rows(&self) -> usize {
        self.0.num_rows()
    }

    /// Names of the columns.
    fn names(&self) -> Vec<String> {
        self.0
            .schema()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    /// Types of the columns, as a signature writes them.
    fn types(&self) -> PyResult<Vec<String>> {
        let schema = self.0.schema();
        schema
            .fields()
            .iter()
            .map(|field| capsule::type_name(field))
            .collect()
    }

    /// How many values of each column are missing.
    fn null_counts(&self) -> Vec<usize> {
        self.0
            .columns()
            .iter()
            .map(|column| column.null_count())
            .collect()
    }

    /// Whether values of a column are missing.
    fn has_nulls(&self, column: usize) -> PyResult<bool> {
        Ok(self.column(column)?.null_count() > 0)
    }

    /// Whether a value is missing.
    fn is_null(&self, column: usize, row: usize) -> PyResult<bool> {
        let column = self.column(column)?;
        Ok(row < column.len() && column.is_null(row))
    }

    /// The bytes of a column of numbers, or of arrays of numbers, and, if values are missing, one byte for each row that is
    /// 1 where they are. Booleans are one byte each.
    fn values<'py>(
        &self,
        py: Python<'py>,
        column: usize,
    ) -> PyResult<(Bound<'py, PyByteArray>, Option<Bound<'py, PyByteArray>>)> {
        read::fixed_width(py, self.column(column)?)
    }

    /// A column as plain Python values; times are integers, missing values are `None`.
    fn pylist<'py>(&self, py: Python<'py>, column: usize) -> PyResult<Bound<'py, PyList>> {
        read::list(py, self.column(column)?)
    }

    /// A column of text as a pyarrow array of `kind`, which is `large_string`, made by `take`: pyarrow's
    /// `Array._import_from_c`. The text itself is shared.
    fn large_text<'py>(
        &self,
        column: usize,
        take: &Bound<'py, PyAny>,
        kind: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        capsule::hand_text(self.column(column)?, take, kind)
    }

    /// Puts columns together.
    #[staticmethod]
    fn from_columns(num_rows: usize, columns: Vec<Parts<'_>>) -> PyResult<Self> {
        let mut fields = Vec::with_capacity(columns.len());
        let mut arrays = Vec::with_capacity(columns.len());
        for (name, kind, nullable, values, mask) in columns {
            let array = assemble::column(&name, &kind, &values, mask.as_ref())?;
            fields.push(Field::new(name, array.data_type().clone(), nullable));
            arrays.push(array);
        }
        Self::assembled(Schema::new(fields), arrays, num_rows)
    }

    /// Takes over the rows of any object with the Arrow `PyCapsule` interface. Views, large and
    /// dictionary-encoded columns become plain ones.
    #[staticmethod]
    fn from_arrow(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        capsule::import(object).map(Self)
    }

    /// The same columns with other names and nullability: `fields` has `name` and `nullable`.
    fn renamed(&self, fields: Vec<Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut renamed = Vec::with_capacity(fields.len());
        for (field, column) in fields.iter().zip(self.0.columns()) {
            let name: String = get(field, "name")?.extract()?;
            renamed.push(Field::new(
                name,
                column.data_type().clone(),
                get(field, "nullable")?.extract()?,
            ));
        }
        Self::assembled(
            Schema::new(renamed),
            self.0.columns().to_vec(),
            self.0.num_rows(),
        )
    }

    /// The columns that `fields` name, in that order, with the same values in the types that they
    /// say. A `TypeError` tells which column cannot be that exactly.
    fn fitted(&self, fields: Vec<Bound<'_, PyDict>>) -> PyResult<Self> {
        let mut fitted = Vec::with_capacity(fields.len());
        let mut columns = Vec::with_capacity(fields.len());
        for field in &fields {
            let field = wanted_field(field)?;
            let column = exact::column(&self.0, field.name(), field.data_type());
            columns.push(column.map_err(PyTypeError::new_err)?);
            fitted.push(field);
        }
        Self::assembled(Schema::new(fitted), columns, self.0.num_rows())
    }

    /// `length` rows from `offset` on.
    fn slice(&self, offset: usize, length: usize) -> PyResult<Self> {
        if offset
            .checked_add(length)
            .is_none_or(|end| end > self.0.num_rows())
        {
            return Err(PyIndexError::new_err("the slice reaches beyond the rows"));
        }
        Ok(Self(self.0.slice(offset, length)))
    }

    /// The rows at `indices`, in that order.
    fn take(&self, indices: Vec<u64>) -> PyResult<Self> {
        let indices = arrow_array::UInt64Array::from(indices);
        let columns: Result<Vec<_>, _> = self
            .0
            .columns()
            .iter()
            .map(|column| arrow_select::take::take(column, &indices, None))
            .collect();
        Self::assembled(
            self.0.schema().as_ref().clone(),
            columns.map_err(arrow_error)?,
            indices.len(),
        )
    }

    /// The rows of `batches`, one after the other.
    #[staticmethod]
    fn concat(batches: Vec<PyRef<'_, Self>>) -> PyResult<Self> {
        let first = batches
            .first()
            .ok_or_else(|| PyValueError::new_err("no batches"))?;
        let schema = first.0.schema();
        let rows =
            arrow_select::concat::concat_batches(&schema, batches.iter().map(|batch| &batch.0));
        rows.map(Self).map_err(arrow_error)
    }

    /// Why the two differ, or `None`: values are compared bit for bit, or floats within the
    /// relative `tolerance`; missing values and NaN equal themselves.
    #[pyo3(signature = (other, tolerance=0.0))]
    fn difference(&self, other: PyRef<'_, Self>, tolerance: f64) -> Option<String> {
        read::difference(&self.0, &other.0, tolerance)
    }

    /// The rows as an Arrow IPC stream.
    fn to_bytes<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, pyo3::types::PyBytes>> {
        let mut bytes = Vec::new();
        crate::protocol::write_rows(&self.0, &mut bytes).map_err(arrow_error)?;
        Ok(pyo3::types::PyBytes::new(py, &bytes))
    }

    /// Reads an Arrow IPC stream of one batch.
    #[staticmethod]
    fn from_bytes(bytes: &[u8]) -> PyResult<Self> {
        crate::protocol::read_rows(bytes)
            .map(Self)
            .map_err(arrow_error)
    }

    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let _ = requested_schema; // there is one representation; the interface allows to ignore the wish
        capsule::export(py, &self.0)
    }

    fn __len__(&self) -> usize {
        self.0.num_rows()
    }

    fn __repr__(&self) -> String {
        format!(
            "<Batch of {} rows, {} columns>",
            self.0.num_rows(),
            self.0.num_columns()
        )
    }
}

impl Batch {
    fn assembled(schema: Schema, columns: Vec<ArrayRef>, num_rows: usize) -> PyResult<Self> {
        let options = RecordBatchOptions::new().with_row_count(Some(num_rows));
        let rows = RecordBatch::try_new_with_options(Arc::new(schema), columns, &options);
        rows.map(Self).map_err(arrow_error)
    }
}

/// A column as `name` and `type` describe it; values may be missing, which whoever takes the batch
/// decides about.
pub(crate) fn wanted_field(field: &Bound<'_, PyDict>) -> PyResult<Field> {
    let name: String = get(field, "name")?.extract()?;
    let kind: String = get(field, "type")?.extract()?;
    let kind: envelope_format::DataType = kind
        .parse()
        .map_err(|error: InvalidDataType| PyTypeError::new_err(error.to_string()))?;
    Ok(Field::new(name, arrow_type(&kind), true))
}

/// An entry of a field's description.
fn get<'py>(field: &Bound<'py, PyDict>, key: &str) -> PyResult<Bound<'py, PyAny>> {
    field
        .get_item(key)?
        .ok_or_else(|| PyValueError::new_err(format!("a field has no `{key}`")))
}

/// An Arrow error as a Python one.
pub(crate) fn arrow_error(error: arrow_schema::ArrowError) -> PyErr {
    PyValueError::new_err(error.to_string())
}

/// Whether every buffer of a type has values of one width.
pub(crate) fn is_fixed_width(data_type: &DataType) -> bool {
    data_type.is_primitive() || matches!(data_type, DataType::Boolean)
}
