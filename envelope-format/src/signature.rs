//! What a query function takes and gives, as columns.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Error;
use crate::limits::MAX_FIELDS;

/// Input and output of a query function.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// What the function takes.
    pub input: Rows,
    /// What the function gives.
    pub output: Rows,
}

/// Columns, and the Python object that holds them on the function's side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// The Python object.
    pub shape: Shape,
    /// The columns, in order.
    pub fields: Vec<Field>,
}

/// The Python object that holds rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Shape {
    /// `pandas.DataFrame`.
    #[serde(rename = "pandas.DataFrame")]
    PandasDataFrame,
    /// `pandas.Series`.
    #[serde(rename = "pandas.Series")]
    PandasSeries,
    /// `polars.DataFrame`.
    #[serde(rename = "polars.DataFrame")]
    PolarsDataFrame,
    /// `polars.Series`.
    #[serde(rename = "polars.Series")]
    PolarsSeries,
    /// `pyarrow.Table`.
    #[serde(rename = "pyarrow.Table")]
    PyarrowTable,
    /// `pyarrow.RecordBatch`.
    #[serde(rename = "pyarrow.RecordBatch")]
    PyarrowRecordBatch,
    /// `pyarrow.Array` or `pyarrow.ChunkedArray`.
    #[serde(rename = "pyarrow.Array")]
    PyarrowArray,
    /// `numpy.ndarray` of one dimension.
    #[serde(rename = "numpy.vector")]
    NumpyVector,
    /// `numpy.ndarray` of two dimensions: one row for each index of the first.
    #[serde(rename = "numpy.matrix")]
    NumpyMatrix,
    /// `dict` of equally long columns.
    #[serde(rename = "columns")]
    Columns,
    /// `list` of `dict`, one for each row.
    #[serde(rename = "records")]
    Records,
    /// `list` of values, one for each row.
    #[serde(rename = "list")]
    List,
    /// `tuple` of equally long columns.
    #[serde(rename = "tuple")]
    Tuple,
    /// One row, passed as keyword arguments.
    #[serde(rename = "keywords")]
    Keywords,
    /// One row, given as a `dict` of values.
    #[serde(rename = "record")]
    Record,
    /// One value for all the rows of a call.
    #[serde(rename = "scalar")]
    Scalar,
}

impl Shape {
    /// Whether the object holds exactly one row whatever the function is asked.
    #[must_use]
    pub fn is_one_row(self) -> bool {
        matches!(self, Self::Keywords | Self::Record | Self::Scalar)
    }

    /// Whether a row is one plain value and not a set of named ones.
    #[must_use]
    pub fn is_one_column(self) -> bool {
        matches!(
            self,
            Self::PandasSeries
                | Self::PolarsSeries
                | Self::PyarrowArray
                | Self::NumpyVector
                | Self::List
                | Self::Scalar
        )
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(formatter)
    }
}

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Name of the column.
    pub name: String,
    /// Type of its values.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// Whether a value may be missing. Derived: true when one was missing in the sample.
    pub nullable: bool,
    /// How the Python object itself names the type (`Int64`, `object`, `category`, `<U7`…), where
    /// one Arrow type has several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dtype: Option<String>,
    /// The categories of a categorical column, in order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub categories: Option<Vec<String>>,
    /// Whether the order of the categories has a meaning.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ordered: bool,
}

impl Field {
    /// A column with neither `dtype` nor categories.
    #[must_use]
    pub fn new(name: impl Into<String>, data_type: DataType, nullable: bool) -> Self {
        Self {
            name: name.into(),
            data_type,
            nullable,
            dtype: None,
            categories: None,
            ordered: false,
        }
    }
}

impl Rows {
    /// Rule 6.2: columns have distinct, non-empty names, and there are not too many.
    pub(crate) fn check(&self, function: &str) -> Result<(), Error> {
        let refuse = |reason: String| {
            Err(Error::Signature {
                function: function.to_owned(),
                reason,
            })
        };
        if self.fields.len() > MAX_FIELDS {
            return refuse(format!(
                "has {} columns, the most is {MAX_FIELDS}",
                self.fields.len()
            ));
        }
        let mut seen = BTreeSet::new();
        for field in &self.fields {
            if field.name.is_empty() || !seen.insert(&field.name) {
                return refuse(format!(
                    "has the column name {:?} twice or empty",
                    field.name
                ));
            }
        }
        if self.shape.is_one_column() && self.fields.len() != 1 {
            return refuse(format!(
                "is a {} with {} columns",
                self.shape,
                self.fields.len()
            ));
        }
        Ok(())
    }
}

/// Type of the values of a column, written as Arrow writes it: `int64`, `timestamp[us, UTC]`,
/// `list<float64>`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum DataType {
    /// Nothing but missing values.
    Null,
    /// `true` or `false`.
    Bool,
    /// Signed 8-bit integer.
    Int8,
    /// Signed 16-bit integer.
    Int16,
    /// Signed 32-bit integer.
    Int32,
    /// Signed 64-bit integer.
    Int64,
    /// Unsigned 8-bit integer.
    UInt8,
    /// Unsigned 16-bit integer.
    UInt16,
    /// Unsigned 32-bit integer.
    UInt32,
    /// Unsigned 64-bit integer.
    UInt64,
    /// 32-bit floating point.
    Float32,
    /// 64-bit floating point.
    Float64,
    /// Unicode text.
    Utf8,
    /// Bytes.
    Binary,
    /// Days since 1970-01-01.
    Date,
    /// A moment, counted from 1970-01-01, with the time zone it is shown in, if any.
    Timestamp(TimeUnit, Option<String>),
    /// A length of time.
    Duration(TimeUnit),
    /// A list of values of one type.
    List(Box<Self>),
}

/// What a timestamp or a duration counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TimeUnit {
    /// Seconds.
    Second,
    /// Thousandths of a second.
    Millisecond,
    /// Millionths of a second.
    Microsecond,
    /// Billionths of a second.
    Nanosecond,
}

const PLAIN: [(&str, DataType); 15] = [
    ("null", DataType::Null),
    ("bool", DataType::Bool),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("utf8", DataType::Utf8),
    ("binary", DataType::Binary),
    ("date", DataType::Date),
];

const UNITS: [(&str, TimeUnit); 4] = [
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
];

/// A text that names no type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a type of a column")]
pub struct InvalidDataType(String);

/// Lists in lists deeper than this are refused, so that parsing cannot exhaust the stack.
const MAX_LIST_DEPTH: usize = 8;

impl FromStr for DataType {
    type Err = InvalidDataType;

    fn from_str(text: &str) -> Result<Self, InvalidDataType> {
        parse(text, 0).ok_or_else(|| InvalidDataType(text.chars().take(64).collect()))
    }
}

fn parse(text: &str, depth: usize) -> Option<DataType> {
    if let Some((_, plain)) = PLAIN.iter().find(|(name, _)| *name == text) {
        return Some(plain.clone());
    }
    if let Some(item) = text
        .strip_prefix("list<")
        .and_then(|rest| rest.strip_suffix('>'))
    {
        return (depth < MAX_LIST_DEPTH)
            .then(|| parse(item, depth + 1))?
            .map(|item| DataType::List(Box::new(item)));
    }
    if let Some(unit) = bracketed(text, "duration[") {
        return time_unit(unit).map(DataType::Duration);
    }
    let inside = bracketed(text, "timestamp[")?;
    match inside.split_once(", ") {
        None => Some(DataType::Timestamp(time_unit(inside)?, None)),
        Some((unit, zone)) if is_zone(zone) => {
            Some(DataType::Timestamp(time_unit(unit)?, Some(zone.to_owned())))
        }
        Some(_) => None,
    }
}

fn bracketed<'t>(text: &'t str, prefix: &str) -> Option<&'t str> {
    text.strip_prefix(prefix)?.strip_suffix(']')
}

fn time_unit(text: &str) -> Option<TimeUnit> {
    UNITS
        .iter()
        .find(|(name, _)| *name == text)
        .map(|(_, unit)| *unit)
}

fn is_zone(zone: &str) -> bool {
    let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '_' | '+' | '-' | ':');
    !zone.is_empty() && zone.len() <= 64 && zone.chars().all(known)
}

impl fmt::Display for TimeUnit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = UNITS
            .iter()
            .find(|(_, unit)| unit == self)
            .map_or("", |(name, _)| name);
        formatter.write_str(name)
    }
}

impl fmt::Display for DataType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((name, _)) = PLAIN.iter().find(|(_, plain)| plain == self) {
            return formatter.write_str(name);
        }
        match self {
            Self::List(item) => write!(formatter, "list<{item}>"),
            Self::Duration(unit) => write!(formatter, "duration[{unit}]"),
            Self::Timestamp(unit, None) => write!(formatter, "timestamp[{unit}]"),
            Self::Timestamp(unit, Some(zone)) => write!(formatter, "timestamp[{unit}, {zone}]"),
            Self::Null
            | Self::Bool
            | Self::Int8
            | Self::Int16
            | Self::Int32
            | Self::Int64
            | Self::UInt8
            | Self::UInt16
            | Self::UInt32
            | Self::UInt64
            | Self::Float32
            | Self::Float64
            | Self::Utf8
            | Self::Binary
            | Self::Date => Ok(()), // found in PLAIN
        }
    }
}

impl Serialize for DataType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for DataType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_what_they_are_written_as() {
        let composed = [
            "timestamp[us]",
            "timestamp[ns, Europe/London]",
            "duration[ms]",
            "list<list<utf8>>",
        ];
        for text in PLAIN.iter().map(|(name, _)| *name).chain(composed) {
            assert_eq!(
                text.parse::<DataType>().map(|parsed| parsed.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn unknown_types_are_refused() {
        let deep = format!("{}int8{}", "list<".repeat(100_000), ">".repeat(100_000));
        for text in [
            "",
            "int65",
            "list<>",
            "list<int8",
            "timestamp[]",
            "timestamp[us, ]",
            "duration[h]",
            &deep,
        ] {
            assert!(text.parse::<DataType>().is_err(), "{text:.40} was accepted");
        }
    }
}
