//! A call's message as tensors, and tensors as its answer's.

use std::sync::Arc;

use arrow_array::types::{Int8Type, Int16Type, Int32Type, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{
    Array as _, ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, Float32Array,
    Float64Array, Int64Array, PrimitiveArray, RecordBatch, UInt64Array,
};
use bytes::Bytes;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as NoDatatype;

use super::generated::model_infer_request::InferInputTensor;
use super::generated::model_infer_response::InferOutputTensor;
use super::generated::{InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::error::Refusal;
use crate::function::Function;
use crate::protocol::tensors::{
    Datatype, Tensor, count, filled, model, refuse, rows_of, tensors_of,
};

/// What the client wants of an answer.
#[derive(Debug)]
pub(super) struct Wanted {
    id: String,
    /// All when there are none.
    outputs: Vec<String>,
}

/// The rows of a call.
pub(super) fn read(
    function: &Function,
    message: ModelInferRequest,
) -> Result<(RecordBatch, Wanted), Refusal> {
    let ModelInferRequest {
        id,
        inputs,
        outputs,
        raw_input_contents: raw,
        ..
    } = message;
    if !raw.is_empty() && raw.len() != inputs.len() {
        return Err(refuse(format!(
            "there are {} inputs, and `raw_input_contents` of {}",
            inputs.len(),
            raw.len()
        )));
    }
    let outputs: Vec<_> = outputs.into_iter().map(|output| output.name).collect();
    model::check_outputs(&function.signature, outputs.iter().map(String::as_str))?;
    let mut raw = raw.into_iter();
    let tensors = inputs.into_iter().map(|input| tensor(input, raw.next()));
    let rows = rows_of(function, tensors.collect::<Result<_, _>>()?)?;
    Ok((rows, Wanted { id, outputs }))
}

fn tensor(input: InferInputTensor, raw: Option<Bytes>) -> Result<Tensor, Refusal> {
    let InferInputTensor {
        name,
        datatype,
        shape,
        contents,
        ..
    } = input;
    let wrong = |reason: String| refuse(format!("`{name}`: {reason}"));
    let datatype = read_datatype(&datatype)
        .ok_or_else(|| wrong(format!("there is no datatype `{datatype}`")))?;
    let shape: Option<Vec<usize>> = shape
        .iter()
        .map(|length| usize::try_from(*length).ok())
        .collect();
    let shape = shape.ok_or_else(|| wrong("its shape has a negative dimension".into()))?;
    let expected = count(&shape).ok_or_else(|| wrong("its shape is too large".into()))?;
    let values = match (raw, contents) {
        (Some(_), Some(_)) => {
            return Err(wrong("it has contents twice, of its own and raw".into()));
        }
        (Some(raw), None) => datatype.read(&raw, expected)?,
        (None, contents) => typed(datatype, contents.unwrap_or_default()).map_err(wrong)?,
    };
    Tensor::new(name, datatype, shape, values)
}

fn read_datatype(name: &str) -> Option<Datatype> {
    let name = name.into_deserializer();
    Datatype::deserialize(name).map_err(|_: NoDatatype| ()).ok()
}

/// The values that are in the list for their type.
fn typed(datatype: Datatype, contents: InferTensorContents) -> Result<ArrayRef, String> {
    Ok(match datatype {
        Datatype::Bool => Arc::new(BooleanArray::from(contents.bool_contents)),
        Datatype::Int8 => narrow::<Int8Type, _>(datatype, contents.int_contents)?,
        Datatype::Int16 => narrow::<Int16Type, _>(datatype, contents.int_contents)?,
        Datatype::Int32 => narrow::<Int32Type, _>(datatype, contents.int_contents)?,
        Datatype::Int64 => Arc::new(Int64Array::from(contents.int64_contents)),
        Datatype::Uint8 => narrow::<UInt8Type, _>(datatype, contents.uint_contents)?,
        Datatype::Uint16 => narrow::<UInt16Type, _>(datatype, contents.uint_contents)?,
        Datatype::Uint32 => narrow::<UInt32Type, _>(datatype, contents.uint_contents)?,
        Datatype::Uint64 => Arc::new(UInt64Array::from(contents.uint64_contents)),
        Datatype::Fp32 => Arc::new(Float32Array::from(contents.fp32_contents)),
        Datatype::Fp64 => Arc::new(Float64Array::from(contents.fp64_contents)),
        Datatype::Bytes => Arc::new(BinaryArray::from_iter_values(contents.bytes_contents)),
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(format!(
                "{datatype} has no contents of its own, only raw ones"
            ));
        }
    })
}

fn narrow<T, V>(datatype: Datatype, values: Vec<V>) -> Result<ArrayRef, String>
where
    T: ArrowPrimitiveType<Native: TryFrom<V>>,
    V: Copy + std::fmt::Display,
{
    let narrowed = values.into_iter().map(|value| {
        let narrowed = T::Native::try_from(value);
        narrowed.map_err(|_| format!("{value} is not one of {datatype}"))
    });
    let narrowed = narrowed.collect::<Result<Vec<_>, _>>()?;
    Ok(Arc::new(PrimitiveArray::<T>::from_iter_values(narrowed)))
}

impl Wanted {
    /// The outputs that the client wants, in its order. Their values are raw: not all clients read
    /// others.
    pub(super) fn message(
        self,
        function: &Function,
        rows: &RecordBatch,
    ) -> Result<ModelInferResponse, Refusal> {
        let tensors = tensors_of(function, rows)?;
        let named = |name: &String| tensors.iter().find(|tensor| tensor.name == *name);
        let chosen: Vec<&Tensor> = if self.outputs.is_empty() {
            tensors.iter().collect()
        } else {
            self.outputs.iter().filter_map(named).collect()
        };
        let mut message = ModelInferResponse {
            model_name: function.name.clone(),
            model_version: model::VERSION.into(),
            id: self.id,
            ..ModelInferResponse::default()
        };
        for tensor in chosen {
            message.raw_output_contents.push(raw(tensor)?);
            message.outputs.push(described(tensor));
        }
        Ok(message)
    }
}

fn raw(tensor: &Tensor) -> Result<Bytes, Refusal> {
    let values = filled(tensor.datatype, &tensor.values);
    if values.null_count() > 0 {
        return Err(Refusal::Unwritable {
            reason: format!(
                "`{}` has a missing value, and raw tensors have none",
                tensor.name
            ),
        });
    }
    Ok(tensor.datatype.write(&values).into())
}

fn described(tensor: &Tensor) -> InferOutputTensor {
    let shape = tensor.shape.iter();
    InferOutputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.to_string(),
        shape: shape
            .map(|length| i64::try_from(*length).unwrap_or(i64::MAX))
            .collect(),
        ..InferOutputTensor::default()
    }
}
