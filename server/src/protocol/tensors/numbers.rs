//! The types of tensors, and their values as bytes: little-endian, one after the other.

use std::fmt;
use std::sync::Arc;

use arrow_array::builder::BinaryBuilder;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{
    ArrowPrimitiveType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{Array, ArrayRef, BinaryArray, BooleanArray, PrimitiveArray, StringArray};
use arrow_buffer::ToByteSlice as _;
use arrow_schema::{ArrowError, DataType as ArrowType};
use envelope_format::DataType;
use serde::{Deserialize, Serialize};

use super::refuse;
use crate::encode;
use crate::error::Refusal;

/// The type of a tensor's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Datatype {
    Bool,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Int8,
    Int16,
    Int32,
    Int64,
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    Bytes,
}

impl fmt::Display for Datatype {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

impl Datatype {
    /// The type of a column that values of this one are read into.
    pub(super) fn column(self) -> DataType {
        match self {
            Self::Bool => DataType::Bool,
            Self::Uint8 => DataType::UInt8,
            Self::Uint16 => DataType::UInt16,
            Self::Uint32 => DataType::UInt32,
            Self::Uint64 => DataType::UInt64,
            Self::Int8 => DataType::Int8,
            Self::Int16 => DataType::Int16,
            Self::Int32 => DataType::Int32,
            Self::Int64 => DataType::Int64,
            Self::Fp16 => DataType::Float16,
            Self::Fp32 | Self::Bf16 => DataType::Float32,
            Self::Fp64 => DataType::Float64,
            Self::Bytes => DataType::Utf8,
        }
    }

    /// The type of the tensors that a column of a signature is: what has none is text.
    pub(crate) fn of(data_type: &DataType) -> Self {
        match data_type {
            DataType::Bool => Self::Bool,
            DataType::UInt8 => Self::Uint8,
            DataType::UInt16 => Self::Uint16,
            DataType::UInt32 => Self::Uint32,
            DataType::UInt64 => Self::Uint64,
            DataType::Int8 => Self::Int8,
            DataType::Int16 => Self::Int16,
            DataType::Int32 => Self::Int32,
            DataType::Int64 | DataType::Duration(_) => Self::Int64,
            DataType::Float16 => Self::Fp16,
            DataType::Float32 => Self::Fp32,
            DataType::Float64 => Self::Fp64,
            DataType::List(item) | DataType::FixedList(item, _) => Self::of(item),
            DataType::Null
            | DataType::Utf8
            | DataType::Binary
            | DataType::Date
            | DataType::Timestamp(..)
            | DataType::Time(_)
            | DataType::Decimal { .. }
            | DataType::Struct(_) => Self::Bytes,
        }
    }

    /// Reads so many values.
    pub(crate) fn read(self, bytes: &[u8], count: usize) -> Result<ArrayRef, Refusal> {
        match self {
            Self::Bool => booleans(bytes, count),
            Self::Uint8 => primitives::<UInt8Type, 1>(bytes, count, u8::from_le_bytes),
            Self::Uint16 => primitives::<UInt16Type, 2>(bytes, count, u16::from_le_bytes),
            Self::Uint32 => primitives::<UInt32Type, 4>(bytes, count, u32::from_le_bytes),
            Self::Uint64 => primitives::<UInt64Type, 8>(bytes, count, u64::from_le_bytes),
            Self::Int8 => primitives::<Int8Type, 1>(bytes, count, i8::from_le_bytes),
            Self::Int16 => primitives::<Int16Type, 2>(bytes, count, i16::from_le_bytes),
            Self::Int32 => primitives::<Int32Type, 4>(bytes, count, i32::from_le_bytes),
            Self::Int64 => primitives::<Int64Type, 8>(bytes, count, i64::from_le_bytes),
            Self::Fp16 => primitives::<Float16Type, 2>(
                bytes,
                count,
                <Float16Type as ArrowPrimitiveType>::Native::from_le_bytes,
            ),
            Self::Fp32 => primitives::<Float32Type, 4>(bytes, count, f32::from_le_bytes),
            Self::Fp64 => primitives::<Float64Type, 8>(bytes, count, f64::from_le_bytes),
            // The upper half of a float of 32 bits.
            Self::Bf16 => primitives::<Float32Type, 2>(bytes, count, |half| {
                f32::from_bits(u32::from(u16::from_le_bytes(half)) << 16)
            }),
            Self::Bytes => elements(bytes, count),
        }
    }

    /// The bytes of values without missing ones.
    pub(crate) fn write(self, values: &ArrayRef) -> Vec<u8> {
        match self {
            Self::Bool => values.as_boolean().values().iter().map(u8::from).collect(),
            Self::Uint8 => native::<UInt8Type>(values),
            Self::Uint16 => native::<UInt16Type>(values),
            Self::Uint32 => native::<UInt32Type>(values),
            Self::Uint64 => native::<UInt64Type>(values),
            Self::Int8 => native::<Int8Type>(values),
            Self::Int16 => native::<Int16Type>(values),
            Self::Int32 => native::<Int32Type>(values),
            Self::Int64 => native::<Int64Type>(values),
            Self::Fp16 => native::<Float16Type>(values),
            Self::Fp32 | Self::Bf16 => native::<Float32Type>(values),
            Self::Fp64 => native::<Float64Type>(values),
            Self::Bytes => with_lengths(values.as_binary::<i32>()),
        }
    }
}

fn expect_length(bytes: &[u8], count: usize, each: usize) -> Result<(), Refusal> {
    if count.checked_mul(each) == Some(bytes.len()) {
        return Ok(());
    }
    Err(refuse(format!(
        "a tensor of {count} values of {each} bytes has {} bytes",
        bytes.len()
    )))
}

fn primitives<T: ArrowPrimitiveType, const N: usize>(
    bytes: &[u8],
    count: usize,
    read: impl Fn([u8; N]) -> T::Native,
) -> Result<ArrayRef, Refusal> {
    expect_length(bytes, count, N)?;
    let (values, _) = bytes.as_chunks::<N>();
    let values = values.iter().map(|value| read(*value));
    Ok(Arc::new(PrimitiveArray::<T>::from_iter_values(values)))
}

fn booleans(bytes: &[u8], count: usize) -> Result<ArrayRef, Refusal> {
    expect_length(bytes, count, 1)?;
    if let Some(other) = bytes.iter().find(|byte| **byte > 1) {
        return Err(refuse(format!(
            "a value of a BOOL tensor is {other}, not 0 or 1"
        )));
    }
    let values: Vec<bool> = bytes.iter().map(|byte| *byte == 1).collect();
    Ok(Arc::new(BooleanArray::from(values)))
}

/// Each element is its length, in four bytes, and then itself.
fn elements(mut bytes: &[u8], count: usize) -> Result<ArrayRef, Refusal> {
    let mut elements = BinaryBuilder::new();
    while let Some((length, rest)) = bytes.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let (element, rest) = rest.split_at_checked(length).ok_or_else(|| {
            refuse("an element of a BYTES tensor is longer than the tensor".into())
        })?;
        elements.append_value(element);
        bytes = rest;
    }
    let elements = elements.finish();
    if !bytes.is_empty() || elements.len() != count {
        return Err(refuse(format!(
            "a BYTES tensor of {count} elements has {}",
            elements.len()
        )));
    }
    Ok(Arc::new(elements))
}

fn native<T: ArrowPrimitiveType>(values: &ArrayRef) -> Vec<u8> {
    let values = values.as_primitive::<T>().values();
    let mut bytes = Vec::with_capacity(size_of_val(&**values));
    for value in values.iter() {
        bytes.extend_from_slice(value.to_byte_slice());
    }
    bytes
}

fn with_lengths(elements: &BinaryArray) -> Vec<u8> {
    let mut bytes = vec![];
    for element in elements.iter().flatten() {
        // Offsets of a column have 31 bits.
        let length = u32::try_from(element.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(element);
    }
    bytes
}

/// The values of a column as those of a tensor. Missing floats are `NaN`; other missing values are none
/// that clients understand: some read a missing truth value as false.
pub(super) fn given(name: &str, values: &ArrayRef) -> Result<(Datatype, ArrayRef), Refusal> {
    let datatype = datatype_of(values.data_type());
    let Some(datatype) = datatype else {
        let texts = encode::texts(values)?;
        let bytes = texts.iter().map(|text| text.as_deref().map(str::as_bytes));
        return Ok((Datatype::Bytes, Arc::new(BinaryArray::from_iter(bytes))));
    };
    let values = if matches!(values.data_type(), ArrowType::Duration(_)) {
        let integers = arrow_cast::cast(values, &ArrowType::Int64);
        integers.map_err(|error| unwritable(&error))?
    } else {
        let texts = values.as_string_opt::<i32>().map(bytes_of);
        texts.unwrap_or_else(|| values.clone())
    };
    let is_float = matches!(datatype, Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64);
    if values.null_count() > 0 && !is_float && datatype != Datatype::Bytes {
        return Err(Refusal::Unwritable {
            reason: format!("`{name}` has a missing value, and {datatype} tensors have none"),
        });
    }
    Ok((datatype, values))
}

fn unwritable(error: &ArrowError) -> Refusal {
    Refusal::Unwritable {
        reason: error.to_string(),
    }
}

fn bytes_of(texts: &StringArray) -> ArrayRef {
    Arc::new(BinaryArray::from(texts.clone()))
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the others are text in a tensor"
)]
fn datatype_of(data_type: &ArrowType) -> Option<Datatype> {
    Some(match data_type {
        ArrowType::Boolean => Datatype::Bool,
        ArrowType::UInt8 => Datatype::Uint8,
        ArrowType::UInt16 => Datatype::Uint16,
        ArrowType::UInt32 => Datatype::Uint32,
        ArrowType::UInt64 => Datatype::Uint64,
        ArrowType::Int8 => Datatype::Int8,
        ArrowType::Int16 => Datatype::Int16,
        ArrowType::Int32 => Datatype::Int32,
        ArrowType::Int64 | ArrowType::Duration(_) => Datatype::Int64,
        ArrowType::Float16 => Datatype::Fp16,
        ArrowType::Float32 => Datatype::Fp32,
        ArrowType::Float64 => Datatype::Fp64,
        ArrowType::Utf8 | ArrowType::Binary => Datatype::Bytes,
        _ => return None,
    })
}

/// Missing floats as `NaN`, for forms that have no word for what is missing. What else is missing stays
/// so.
pub(crate) fn filled(datatype: Datatype, values: &ArrayRef) -> ArrayRef {
    if values.null_count() == 0 {
        return values.clone();
    }
    match datatype {
        Datatype::Fp64 => fill::<Float64Type>(values, f64::NAN),
        Datatype::Fp32 | Datatype::Bf16 => fill::<Float32Type>(values, f32::NAN),
        Datatype::Fp16 => fill::<Float16Type>(
            values,
            <Float16Type as ArrowPrimitiveType>::Native::from_f32(f32::NAN),
        ),
        Datatype::Bool
        | Datatype::Uint8
        | Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64
        | Datatype::Int8
        | Datatype::Int16
        | Datatype::Int32
        | Datatype::Int64
        | Datatype::Bytes => values.clone(),
    }
}

fn fill<T: ArrowPrimitiveType>(values: &ArrayRef, missing: T::Native) -> ArrayRef {
    let values = values.as_primitive::<T>().iter();
    Arc::new(PrimitiveArray::<T>::from_iter_values(
        values.map(|value| value.unwrap_or(missing)),
    ))
}
