//! What comes from outside as a raw pointer or number: Arrow's `PyCapsule` interface (rows from and
//! to other libraries, without copying), and the descriptor of the socket.
//!
//! All `unsafe` code of the worker core is here.
#![expect(
    unsafe_code,
    reason = "the C data interface passes ownership through raw pointers"
)]

use std::os::fd::{FromRawFd as _, OwnedFd};
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::ffi::FFI_ArrowArray;
use arrow_array::ffi_stream::{ArrowArrayStreamReader, FFI_ArrowArrayStream};
use arrow_array::{
    Array as _, ArrayRef, LargeBinaryArray, RecordBatch, RecordBatchIterator, RecordBatchOptions,
    RecordBatchReader as _,
};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{ArrowError, DECIMAL128_MAX_PRECISION, DataType, Field, FieldRef, Schema};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;

use crate::batch::arrow_error;
use crate::exact::STRICT;
use crate::read::unreadable;
use crate::schema::{arrow_type, signature_type};

const STREAM: &std::ffi::CStr = c"arrow_array_stream";

/// Takes over the rows of `object`, as columns of types that signatures have.
pub(crate) fn import(object: &Bound<'_, PyAny>) -> PyResult<RecordBatch> {
    let capsule = object
        .call_method0("__arrow_c_stream__")?
        .cast_into::<PyCapsule>()?;
    let pointer = capsule
        .pointer_checked(Some(STREAM))?
        .cast::<FFI_ArrowArrayStream>();
    // SAFETY: a capsule of this name holds a valid `ArrowArrayStream` (Arrow PyCapsule interface);
    // we hold a reference to the capsule for as long as we read the pointer, and `from_raw` moves
    // the structure out, leaving a released one, so that the capsule's destructor does nothing.
    let stream = unsafe { FFI_ArrowArrayStream::from_raw(pointer.as_ptr()) };
    let reader = ArrowArrayStreamReader::try_new(stream).map_err(arrow_error)?;
    let schema = reader.schema();
    let batches = reader.collect::<Result<Vec<_>, _>>().map_err(arrow_error)?;
    let rows = arrow_select::concat::concat_batches(&schema, &batches).map_err(arrow_error)?;
    plain(&rows)
}

/// Offers the rows to another library.
pub(crate) fn export<'py>(py: Python<'py>, rows: &RecordBatch) -> PyResult<Bound<'py, PyCapsule>> {
    let batches = std::iter::once(Ok::<_, ArrowError>(rows.clone()));
    let stream =
        FFI_ArrowArrayStream::new(Box::new(RecordBatchIterator::new(batches, rows.schema())));
    PyCapsule::new_with_value(py, stream, STREAM)
}

/// Hands a column of text to pyarrow, in the layout that pandas keeps it in: `take` is pyarrow's
/// `Array._import_from_c`, which moves the array out of the structure whose address it is given.
pub(crate) fn hand_text<'py>(
    column: &ArrayRef,
    take: &Bound<'py, PyAny>,
    kind: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let text = column
        .as_string_opt::<i32>()
        .ok_or_else(|| unreadable(column.data_type()))?;
    let offsets: Vec<i64> = text.offsets().iter().map(|at| i64::from(*at)).collect();
    let offsets = OffsetBuffer::new(offsets.into());
    // As bytes, for that it is text has been checked; the structure does not say of what type it is.
    let large = LargeBinaryArray::try_new(offsets, text.values().clone(), text.nulls().cloned());
    let large = large.map_err(arrow_error)?;
    let mut given = FFI_ArrowArray::new(&large.to_data());
    let address = (&raw mut given).expose_provenance();
    take.call1((address, kind))
}

/// The type of a column as a signature writes it.
pub(crate) fn type_name(field: &Field) -> PyResult<String> {
    signature_type(field.data_type())
        .map(|found| found.to_string())
        .ok_or_else(|| {
            PyTypeError::new_err(format!(
                "column `{}` has the type {}, which is not carried; cast it first",
                field.name(),
                field.data_type()
            ))
        })
}

/// Views, large and dictionary-encoded columns as the plain types that mean the same.
fn plain(rows: &RecordBatch) -> PyResult<RecordBatch> {
    let mut fields = Vec::with_capacity(rows.num_columns());
    let mut columns = Vec::with_capacity(rows.num_columns());
    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
        let wanted = plain_type(field.data_type());
        let cast = arrow_cast::cast_with_options(column, &wanted, &STRICT);
        columns.push(cast.map_err(arrow_error)?);
        fields.push(Field::new(field.name(), wanted, field.is_nullable()));
    }
    let options = RecordBatchOptions::new().with_row_count(Some(rows.num_rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(arrow_error)
}

fn plain_type(data_type: &DataType) -> DataType {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "every other type stays as it is"
    )]
    match data_type {
        DataType::Utf8View | DataType::LargeUtf8 => DataType::Utf8,
        DataType::BinaryView | DataType::LargeBinary | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal256(precision, scale)
            if *precision <= DECIMAL128_MAX_PRECISION =>
        {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(plain_item(item)),
        DataType::FixedSizeList(item, length) => DataType::FixedSizeList(plain_item(item), *length),
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .map(|field| Field::new(field.name(), plain_type(field.data_type()), true))
                .collect(),
        ),
        other => signature_type(other).map_or_else(|| other.clone(), |known| arrow_type(&known)),
    }
}

fn plain_item(item: &Field) -> FieldRef {
    Arc::new(Field::new_list_field(plain_type(item.data_type()), true))
}

/// Takes the socket that the launcher left open under the number `descriptor`. Programs that the
/// function starts must not inherit it: they would hide our end from the host.
pub(crate) fn own_descriptor(py: Python<'_>, descriptor: i32) -> PyResult<OwnedFd> {
    py.import("os")?
        .getattr("set_inheritable")?
        .call1((descriptor, false))?;
    // SAFETY: `set_inheritable` has just succeeded, so it is open; the launcher made it for the
    // worker core alone, whose `main` runs once and calls this once.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}
