//! The protocol over JSON. Tensors may be bytes behind the document: the header
//! `inference-header-content-length` says where they begin.

use std::borrow::Cow;
use std::sync::Arc;

use arrow_array::cast::AsArray as _;
use arrow_array::{Array, ArrayRef, BinaryArray, RecordBatch};
use bytes::Bytes;
use envelope_format::Signature;
use http_body_util::Full;
use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeSeed as _;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::flat::Values;
use super::{Datatype, Tensor, count, model, numbers, refuse, rows_of, tensors_of};
use crate::column::column_of;
use crate::decode::{bad_json, literals};
use crate::encode;
use crate::error::Refusal;
use crate::function::Function;
use crate::media::{Media, text};
use crate::protocol::{Asked, Form, response};

/// How long the document is, in bytes, when tensors follow it.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The form of a body; clients of this protocol do not all say it.
pub(crate) fn media(headers: &HeaderMap) -> Media {
    if headers.contains_key(HEADER_LENGTH) {
        Media::Tensors
    } else {
        Media::Json
    }
}

// === in

#[derive(Deserialize)]
struct Document<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(borrow)]
    inputs: Vec<Input<'a>>,
    #[serde(default)]
    outputs: Option<Vec<Output>>,
}

#[derive(Deserialize)]
struct Input<'a> {
    name: String,
    shape: Vec<usize>,
    datatype: Datatype,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Output {
    name: String,
    #[serde(default)]
    parameters: Option<Parameters>,
}

/// What is not known here is passed over. Some clients write `null` for none.
#[derive(Debug, Default, Deserialize)]
struct Parameters {
    #[serde(default)]
    binary_data_size: Option<usize>,
    #[serde(default)]
    binary_data: Option<bool>,
    #[serde(default)]
    binary_data_output: Option<bool>,
}

/// Reads the body of a call.
pub(crate) fn read(
    function: &Function,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Asked, Refusal> {
    let (document, tensors) = split(headers, body)?;
    literals::tolerant(document, |document| parse(function, document, tensors))
}

/// The document, and the bytes of tensors behind it.
fn split<'b>(headers: &HeaderMap, body: &'b Bytes) -> Result<(&'b [u8], &'b [u8]), Refusal> {
    if !headers.contains_key(HEADER_LENGTH) {
        // Triton's asynchronous client says so of a document too.
        let is_bytes = text(headers, &CONTENT_TYPE).starts_with("application/octet-stream");
        if is_bytes && !body.starts_with(b"{") {
            return Err(refuse(format!(
                "tensors as bytes need the header `{HEADER_LENGTH}`"
            )));
        }
        return Ok((body, &[]));
    }
    let length = text(headers, &HEADER_LENGTH).parse().ok();
    length
        .and_then(|length| body.split_at_checked(length))
        .ok_or_else(|| {
            refuse(format!(
                "`{HEADER_LENGTH}` is not the length of a part of the body"
            ))
        })
}

fn parse(function: &Function, document: &[u8], mut bytes: &[u8]) -> Result<Asked, Refusal> {
    let document: Document<'_> =
        serde_json::from_slice(document).map_err(|error| bad_json(&error, document))?;
    let mut tensors = Vec::with_capacity(document.inputs.len());
    for input in document.inputs {
        tensors.push(tensor(input, &mut bytes)?);
    }
    if !bytes.is_empty() {
        return Err(refuse(format!(
            "{} bytes behind the tensors are no tensor's",
            bytes.len()
        )));
    }
    let rows = rows_of(function, tensors)?;
    let parameters = document.parameters.unwrap_or_default();
    let all_binary = parameters.binary_data_output.unwrap_or(false);
    let outputs = document.outputs.map(|outputs| {
        let outputs = outputs.into_iter().map(|output| {
            let parameters = output.parameters.unwrap_or_default();
            (output.name, parameters.binary_data.unwrap_or(all_binary))
        });
        outputs.collect::<Vec<_>>()
    });
    let names = outputs.iter().flatten().map(|(name, _)| name.as_str());
    model::check_outputs(&function.signature, names)?;
    let form = Form::Tensors(Wanted {
        id: document.id.map(Cow::into_owned),
        outputs,
        all_binary,
    });
    Ok(Asked { rows, form })
}

fn tensor(input: Input<'_>, bytes: &mut &[u8]) -> Result<Tensor, Refusal> {
    let Input {
        name,
        shape,
        datatype,
        parameters,
        data,
    } = input;
    let wrong = |reason: String| refuse(format!("`{name}`: {reason}"));
    let expected = count(&shape).ok_or_else(|| wrong("its shape is too large".into()))?;
    let values = match (data, parameters.unwrap_or_default().binary_data_size) {
        (Some(data), None) => from_json(datatype, data).map_err(wrong)?,
        (None, Some(size)) => {
            let (own, rest) = bytes
                .split_at_checked(size)
                .ok_or_else(|| wrong(format!("the body ends before its {size} bytes")))?;
            *bytes = rest;
            datatype.read(own, expected)?
        }
        (None, None) => return Err(wrong("it has no data".into())),
        (Some(_), Some(_)) => return Err(wrong("it has data twice, in JSON and as bytes".into())),
    };
    Tensor::new(name, datatype, shape, values)
}

fn from_json(datatype: Datatype, data: &RawValue) -> Result<ArrayRef, String> {
    let mut column = column_of(&datatype.column());
    let values = Values {
        datatype,
        column: &mut *column,
    };
    let mut json = serde_json::Deserializer::from_str(data.get());
    values.deserialize(&mut json).map_err(|error| {
        let text = error.to_string();
        text.rsplit_once(" at line ")
            .map_or(text.clone(), |(reason, _)| reason.to_owned())
    })?;
    let values = column.finish();
    Ok(match values.as_string_opt::<i32>() {
        Some(texts) => Arc::new(BinaryArray::from(texts.clone())),
        None => values,
    })
}

// === out

/// What the client wants of an answer.
#[derive(Debug)]
pub(crate) struct Wanted {
    id: Option<String>,
    /// Names, and whether as bytes; all when nothing is said.
    outputs: Option<Vec<(String, bool)>>,
    all_binary: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    model_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    outputs: Vec<Given<'a>>,
}

#[derive(Serialize)]
struct Given<'a> {
    name: &'a str,
    datatype: Datatype,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
}

impl Wanted {
    /// Writes the outputs that the client wants, in its order.
    pub(crate) fn write(
        &self,
        function: &Function,
        rows: &RecordBatch,
    ) -> Result<Response<Full<Bytes>>, Refusal> {
        let tensors = tensors_of(function, rows)?;
        let named = |name: &str| tensors.iter().find(|tensor| tensor.name == name);
        let chosen: Vec<(&Tensor, bool)> = match &self.outputs {
            Some(outputs) => outputs
                .iter()
                .filter_map(|(name, is_binary)| Some((named(name)?, *is_binary)))
                .collect(),
            None => tensors
                .iter()
                .map(|tensor| (tensor, self.all_binary))
                .collect(),
        };
        let (mut outputs, mut bytes) = (vec![], vec![]);
        for (tensor, is_binary) in chosen {
            outputs.push(given(tensor, is_binary, &mut bytes)?);
        }
        let has_bytes = outputs.iter().any(|given| given.parameters.is_some());
        let answer = Answer {
            model_name: &function.name,
            id: self.id.as_deref(),
            outputs,
        };
        let mut body = serde_json::to_vec(&answer).map_err(|_| Refusal::Internal)?;
        if !has_bytes {
            return Ok(response("application/json", body));
        }
        let length = HeaderValue::from(body.len());
        body.append(&mut bytes);
        let mut response = response("application/octet-stream", body);
        response.headers_mut().insert(HEADER_LENGTH, length);
        Ok(response)
    }
}

fn given<'t>(
    tensor: &'t Tensor,
    is_binary: bool,
    bytes: &mut Vec<u8>,
) -> Result<Given<'t>, Refusal> {
    let Tensor {
        name,
        datatype,
        shape,
        values,
    } = tensor;
    let mut given = Given {
        name,
        datatype: *datatype,
        shape,
        data: None,
        parameters: None,
    };
    let filled = numbers::filled(*datatype, values);
    // Bytes cannot say that something is missing; JSON can, and clients read both.
    if is_binary && filled.null_count() == 0 {
        let own = datatype.write(&filled);
        given.parameters = Some(json!({"binary_data_size": own.len()}));
        bytes.extend(own);
        return Ok(given);
    }
    let data = match values.as_binary_opt::<i32>() {
        Some(elements) => texts(name, elements)?,
        None => encode::cells(values)?,
    };
    let data = String::from_utf8(data).map_err(|_| Refusal::Internal)?;
    given.data = Some(RawValue::from_string(data).map_err(|_| Refusal::Internal)?);
    Ok(given)
}

fn texts(name: &str, elements: &BinaryArray) -> Result<Vec<u8>, Refusal> {
    let texts = elements
        .iter()
        .map(|element| element.map(std::str::from_utf8).transpose());
    let texts = texts
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| Refusal::Unwritable {
            reason: format!("`{name}` is not UTF-8: ask for it as bytes, with `binary_data`"),
        })?;
    serde_json::to_vec(&texts).map_err(|_| Refusal::Internal)
}

/// What a model says about itself.
pub(crate) fn metadata(name: &str, signature: &Signature) -> Value {
    json!({
        "name": name,
        "versions": [model::VERSION],
        "platform": model::PLATFORM,
        "inputs": model::inputs(signature),
        "outputs": model::outputs(signature),
    })
}
