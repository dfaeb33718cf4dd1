//! The Open Inference Protocol (`KServe` V2): a call is named tensors, and so is its answer.
//!
//! A tensor becomes a column of the signature, or all columns when the function takes a matrix. `rest`
//! is the protocol over JSON, with tensors as bytes behind it where the client likes; over gRPC it is
//! [`grpc`](super::grpc).

mod flat;
pub(crate) mod model;
mod numbers;
mod rest;

use std::collections::HashSet;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, RecordBatch};
use arrow_schema::{Field as ArrowField, Schema};
use envelope_format::{DataType, Field, Rows, Shape};

pub(crate) use numbers::{Datatype, filled};
pub(crate) use rest::{Wanted, media, metadata, read};

use crate::column::{Misfit, column};
use crate::error::Refusal;
use crate::function::Function;

/// What a matrix is called, whose columns have no names that a client knows.
const MATRIX: [&str; 2] = ["input", "output"];

/// A tensor: its values one after the other, the last dimension running fastest.
#[derive(Debug)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) datatype: Datatype,
    pub(crate) shape: Vec<usize>,
    /// As many as the product of `shape`.
    pub(crate) values: ArrayRef,
}

pub(crate) fn refuse(reason: String) -> Refusal {
    Refusal::BadTensors { reason }
}

/// How many values a tensor of this shape has.
pub(crate) fn count(shape: &[usize]) -> Option<usize> {
    shape
        .iter()
        .try_fold(1_usize, |count, length| count.checked_mul(*length))
}

impl Tensor {
    pub(crate) fn new(
        name: String,
        datatype: Datatype,
        shape: Vec<usize>,
        values: ArrayRef,
    ) -> Result<Self, Refusal> {
        let (found, expected) = (values.len(), count(&shape));
        if Some(found) == expected {
            return Ok(Self {
                name,
                datatype,
                shape,
                values,
            });
        }
        let expected = expected.map_or_else(|| "too many".into(), |count| count.to_string());
        Err(refuse(format!(
            "`{name}`: it has {found} values of {datatype}, its shape {shape:?} says {expected}"
        )))
    }
}

fn is_matrix(rows: &Rows) -> bool {
    matches!(rows.shape, Shape::NumpyMatrix | Shape::TorchMatrix)
}

// === in

/// The rows that tensors hold.
pub(crate) fn rows_of(function: &Function, tensors: Vec<Tensor>) -> Result<RecordBatch, Refusal> {
    let takes = &function.signature.input;
    let columns = match <[Tensor; 1]>::try_from(tensors) {
        Ok([only]) if is_matrix(takes) && only.shape.len() == 2 => columns_of_matrix(takes, &only)?,
        Ok([only]) => columns_by_name(takes, vec![only])?,
        Err(tensors) => columns_by_name(takes, tensors)?,
    };
    if columns.is_empty() {
        return function
            .decoder
            .table(&RecordBatch::new_empty(Schema::empty().into()));
    }
    let rows = RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, column)| (name, column, true)),
    );
    let rows = rows.map_err(|_| refuse("the tensors have different first dimensions".into()))?;
    function.decoder.table(&rows)
}

fn columns_by_name(takes: &Rows, tensors: Vec<Tensor>) -> Result<Vec<(String, ArrayRef)>, Refusal> {
    let mut named = HashSet::new();
    let columns = tensors.into_iter().map(|tensor| {
        let field = takes.fields.iter().find(|field| field.name == tensor.name);
        let field = field.ok_or_else(|| {
            let known: Vec<_> = takes
                .fields
                .iter()
                .map(|field| field.name.as_str())
                .collect();
            refuse(format!(
                "there is no input `{}`, there are `{}`",
                tensor.name,
                known.join("`, `")
            ))
        })?;
        if !named.insert(&field.name) {
            return Err(refuse(format!("the input `{}` is there twice", field.name)));
        }
        Ok((field.name.clone(), column_of(field, &tensor)?))
    });
    columns.collect()
}

/// `[rows, columns]`: value by value in the order of the signature.
fn columns_of_matrix(takes: &Rows, tensor: &Tensor) -> Result<Vec<(String, ArrayRef)>, Refusal> {
    let (rows, width) = (tensor.shape[0], tensor.shape[1]);
    if width != takes.fields.len() {
        return Err(refuse(format!(
            "`{}` has {width} columns, the function takes {}",
            tensor.name,
            takes.fields.len()
        )));
    }
    let columns = takes.fields.iter().enumerate().map(|(index, field)| {
        let places = (0..rows).map(|row| Some(u64::try_from(row * width + index).unwrap_or(0)));
        let places = arrow_array::UInt64Array::from_iter(places);
        let values = arrow_select::take::take(&tensor.values, &places, None);
        let values = values.map_err(|error| refuse(error.to_string()))?;
        Ok((field.name.clone(), with_nan(field, tensor.datatype, values)))
    });
    columns.collect()
}

fn column_of(field: &Field, tensor: &Tensor) -> Result<ArrayRef, Refusal> {
    let dimensions = match tensor.shape.as_slice() {
        [] => &[][..],
        [_, dimensions @ ..] => dimensions,
    };
    let is_nested = matches!(field.data_type, DataType::List(_) | DataType::FixedList(..));
    match (dimensions, is_nested) {
        ([] | [1], false) => {
            let values = with_nan(field, tensor.datatype, tensor.values.clone());
            parsed(field, tensor.datatype, values)
        }
        (dimensions, true) if !dimensions.is_empty() => {
            let innermost = Field::new(&field.name, innermost(&field.data_type).clone(), true);
            let values = parsed(&innermost, tensor.datatype, tensor.values.clone())?;
            nested(values, dimensions)
        }
        _ => Err(refuse(format!(
            "`{}` has the shape {:?}, which is not one of {} for each row",
            tensor.name, tensor.shape, field.data_type
        ))),
    }
}

/// The type of what is in lists of lists.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others are no lists")]
fn innermost(data_type: &DataType) -> &DataType {
    match data_type {
        DataType::List(item) | DataType::FixedList(item, _) => innermost(item),
        _ => data_type,
    }
}

/// Lists of lists, as deep as there are dimensions.
fn nested(values: ArrayRef, dimensions: &[usize]) -> Result<ArrayRef, Refusal> {
    dimensions.iter().rev().try_fold(values, |values, length| {
        let item = ArrowField::new("item", values.data_type().clone(), true);
        let length =
            i32::try_from(*length).map_err(|_| refuse("a dimension is too long".into()))?;
        if length == 0 {
            return Err(refuse("only the first dimension may be 0".into()));
        }
        let list = FixedSizeListArray::try_new(item.into(), length, values, None);
        let list = list.map_err(|error| refuse(error.to_string()))?;
        Ok(Arc::new(list) as ArrayRef)
    })
}

/// A missing float is `NaN` where the column has no missing values.
fn with_nan(field: &Field, datatype: Datatype, values: ArrayRef) -> ArrayRef {
    if field.nullable {
        values
    } else {
        filled(datatype, &values)
    }
}

/// Tensors have no dates and no decimals: they come as text, and durations as integers, by the rules of
/// JSON.
fn parsed(field: &Field, datatype: Datatype, values: ArrayRef) -> Result<ArrayRef, Refusal> {
    let mut parsed = column(field);
    for row in 0..values.len() {
        let taken = match (datatype, &field.data_type) {
            _ if values.is_null(row) => {
                parsed.null();
                Ok(())
            }
            (Datatype::Int64, DataType::Duration(_)) => {
                let value = values.as_primitive::<Int64Type>().value(row);
                parsed.integer(value.into())
            }
            (Datatype::Bytes, data_type) if *data_type != DataType::Binary => {
                let text = std::str::from_utf8(values.as_binary::<i32>().value(row));
                text.map_or(Err(Misfit::Type), |text| parsed.text(text))
            }
            _ => return Ok(values),
        };
        taken.map_err(|_| not_parsed(field, datatype, row))?;
    }
    Ok(parsed.finish())
}

fn not_parsed(field: &Field, datatype: Datatype, row: usize) -> Refusal {
    let (name, data_type) = (&field.name, &field.data_type);
    refuse(match (datatype, data_type) {
        (Datatype::Bytes, DataType::Utf8) => {
            format!("row {row}, `{name}`: not UTF-8 text or a category, expected {data_type}")
        }
        _ => format!("row {row}, `{name}`: not a value of its type, expected {data_type}"),
    })
}

// === out

/// The tensors of an answer.
pub(crate) fn tensors_of(function: &Function, rows: &RecordBatch) -> Result<Vec<Tensor>, Refusal> {
    let gives = &function.signature.output;
    let tensors = gives.fields.iter().zip(rows.columns());
    let mut tensors = tensors
        .map(|(field, column)| tensor_of(&field.name, column))
        .collect::<Result<Vec<_>, _>>()?;
    let Some(first) = tensors.first().filter(|_| is_matrix(gives)) else {
        return Ok(tensors);
    };
    let (datatype, width) = (first.datatype, tensors.len());
    let parts: Vec<&dyn Array> = tensors.iter().map(|tensor| &*tensor.values).collect();
    let places: Vec<_> = (0..rows.num_rows())
        .flat_map(|row| (0..width).map(move |column| (column, row)))
        .collect();
    let values = arrow_select::interleave::interleave(&parts, &places);
    let matrix = Tensor {
        name: MATRIX[1].into(),
        datatype,
        shape: vec![rows.num_rows(), width],
        values: values.map_err(|error| Refusal::Unwritable {
            reason: error.to_string(),
        })?,
    };
    tensors.clear();
    tensors.push(matrix);
    Ok(tensors)
}

fn tensor_of(name: &str, column: &ArrayRef) -> Result<Tensor, Refusal> {
    let (mut shape, mut values) = (vec![column.len()], column.clone());
    while let Some((length, items)) = items(&values) {
        shape.push(length);
        values = items;
    }
    let (datatype, values) = numbers::given(name, &values)?;
    Ok(Tensor {
        name: name.to_owned(),
        datatype,
        shape,
        values,
    })
}

/// The length that all lists of a column have, and their items one after the other. Lists that are
/// missing or of different lengths are no dimension of a tensor.
fn items(column: &ArrayRef) -> Option<(usize, ArrayRef)> {
    if column.null_count() > 0 {
        return None;
    }
    if let Some(lists) = column.as_fixed_size_list_opt() {
        let length = usize::try_from(lists.value_length()).ok()?;
        return Some((length, lists.values().slice(0, lists.len() * length)));
    }
    let lists = column.as_list_opt::<i32>()?;
    let offsets = lists.value_offsets();
    let mut lengths = offsets.windows(2).map(|pair| pair[1] - pair[0]);
    let length = lengths.next().unwrap_or(0);
    if lengths.any(|other| other != length) {
        return None;
    }
    let (start, length) = (offsets[0], usize::try_from(length).ok()?);
    let items = { lists.values() }.slice(usize::try_from(start).ok()?, lists.len() * length);
    Some((length, items))
}

#[cfg(test)]
mod tests;
