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
    /// `numpy.ndarray` of three or more dimensions: one row for each index of the first.
    #[serde(rename = "numpy.ndarray")]
    NumpyArray,
    /// `torch.Tensor` of one dimension.
    #[serde(rename = "torch.vector")]
    TorchVector,
    /// `torch.Tensor` of two dimensions: one row for each index of the first.
    #[serde(rename = "torch.matrix")]
    TorchMatrix,
    /// `torch.Tensor` of three or more dimensions: one row for each index of the first.
    #[serde(rename = "torch.Tensor")]
    TorchTensor,
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
    /// Equally long columns, passed as positional arguments.
    #[serde(rename = "arguments")]
    Arguments,
    /// One row, passed as positional arguments.
    #[serde(rename = "positional")]
    Positional,
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
        matches!(
            self,
            Self::Positional | Self::Keywords | Self::Record | Self::Scalar
        )
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
                | Self::NumpyArray
                | Self::TorchVector
                | Self::TorchTensor
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

/// Type of the values of a column.
///
/// As text: `int64`, `timestamp[us, UTC]`, `decimal[10, 2]`,
/// `list<float64>`, `list<list<float32, 4>, 3>` (each value has 3 × 4 items),
/// `struct<"age": int64, "names": list<utf8>>`.
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
    /// 16-bit floating point.
    Float16,
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
    /// A time of day, counted from midnight.
    Time(TimeUnit),
    /// An exact number of so many digits, so many of them after the point.
    Decimal {
        /// Digits in all, 1 to 38.
        precision: u8,
        /// Digits after the point, 0 to `precision`.
        scale: u8,
    },
    /// A list of values of one type.
    List(Box<Self>),
    /// A list of values of one type, each as long as the others: arrays are lists of these.
    FixedList(Box<Self>, u32),
    /// Values of several types, by name, in order.
    Struct(Vec<(String, Self)>),
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

const PLAIN: [(&str, DataType); 16] = [
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
    ("float16", DataType::Float16),
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

/// Types within types deeper than this are refused, so that parsing cannot exhaust the stack.
const MAX_DEPTH: usize = 8;

/// The most digits that 128 bits hold.
const MAX_DIGITS: u8 = 38;

/// The longest list whose length is part of its type, and the most items that a value of such lists
/// within lists has: a type of a few bytes must not ask for all the memory there is.
const MAX_ITEMS: u64 = 1 << 24;

/// The most names in one `struct`.
const MAX_NAMES: usize = 1_000;

impl FromStr for DataType {
    type Err = InvalidDataType;

    fn from_str(text: &str) -> Result<Self, InvalidDataType> {
        let whole = |(data_type, rest): (Self, &str)| {
            (rest.is_empty() && data_type.items() <= MAX_ITEMS).then_some(data_type)
        };
        parse(text, 0)
            .and_then(whole)
            // One spelling only: a signature is compared as text, too.
            .filter(|data_type| data_type.to_string() == text)
            .ok_or_else(|| InvalidDataType(text.chars().take(64).collect()))
    }
}

impl DataType {
    /// The most items that one value has because its type says so; 1 for a plain type.
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are plain")]
    pub fn items(&self) -> u64 {
        match self {
            Self::FixedList(item, length) => item.items().saturating_mul(u64::from(*length)),
            Self::List(item) => item.items(),
            Self::Struct(fields) => fields
                .iter()
                .fold(0, |sum, (_, field)| field.items().saturating_add(sum)),
            _ => 1,
        }
    }
}

/// The type at the beginning of `text`, and what follows it.
fn parse(text: &str, depth: usize) -> Option<(DataType, &str)> {
    let length = text
        .find(|c: char| !c.is_ascii_alphanumeric())
        .unwrap_or(text.len());
    let (word, rest) = text.split_at(length);
    match word {
        "list" | "struct" if depth >= MAX_DEPTH => None,
        "list" => parse_list(rest.strip_prefix('<')?, depth + 1),
        "struct" => parse_struct(rest.strip_prefix('<')?, depth + 1),
        "duration" | "time" | "timestamp" | "decimal" => {
            let (inside, rest) = rest.strip_prefix('[')?.split_once(']')?;
            Some((parse_measure(word, inside)?, rest))
        }
        _ => PLAIN
            .iter()
            .find(|(name, _)| *name == word)
            .map(|(_, plain)| (plain.clone(), rest)),
    }
}

/// `X>` or `X, 3>`.
fn parse_list(text: &str, depth: usize) -> Option<(DataType, &str)> {
    let (item, rest) = parse(text, depth)?;
    let item = Box::new(item);
    if let Some(rest) = rest.strip_prefix('>') {
        return Some((DataType::List(item), rest));
    }
    let (length, rest) = rest.strip_prefix(", ")?.split_once('>')?;
    let length = number(length).filter(|length| *length > 0)?;
    Some((DataType::FixedList(item, length), rest))
}

/// `"name": X, "name": X>`; names are written as in JSON.
fn parse_struct(mut text: &str, depth: usize) -> Option<(DataType, &str)> {
    let mut fields: Vec<(String, DataType)> = vec![];
    let mut seen = BTreeSet::new();
    loop {
        let mut names = serde_json::Deserializer::from_str(text).into_iter::<String>();
        let name = names.next()?.ok()?;
        let (_, rest) = text.split_at_checked(names.byte_offset())?;
        let (field, rest) = parse(rest.strip_prefix(": ")?, depth)?;
        if !seen.insert(name.clone()) || fields.len() >= MAX_NAMES {
            return None;
        }
        fields.push((name, field));
        if let Some(rest) = rest.strip_prefix('>') {
            return Some((DataType::Struct(fields), rest));
        }
        text = rest.strip_prefix(", ")?;
    }
}

/// What is in the brackets of a type that counts something.
fn parse_measure(word: &str, inside: &str) -> Option<DataType> {
    match (word, inside.split_once(", ")) {
        ("duration", None) => time_unit(inside).map(DataType::Duration),
        ("time", None) => time_unit(inside).map(DataType::Time),
        ("timestamp", None) => Some(DataType::Timestamp(time_unit(inside)?, None)),
        ("timestamp", Some((unit, zone))) if is_zone(zone) => {
            Some(DataType::Timestamp(time_unit(unit)?, Some(zone.to_owned())))
        }
        ("decimal", Some((precision, scale))) => {
            let (precision, scale) = (number(precision)?, number(scale)?);
            let holds = (1..=MAX_DIGITS).contains(&precision) && scale <= precision;
            holds.then_some(DataType::Decimal { precision, scale })
        }
        _ => None,
    }
}

/// Digits only: no sign, no space. (Leading zeros are another spelling, which is refused above.)
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())?
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
            Self::FixedList(item, length) => write!(formatter, "list<{item}, {length}>"),
            Self::Struct(fields) => write_struct(fields, formatter),
            Self::Duration(unit) => write!(formatter, "duration[{unit}]"),
            Self::Time(unit) => write!(formatter, "time[{unit}]"),
            Self::Decimal { precision, scale } => {
                write!(formatter, "decimal[{precision}, {scale}]")
            }
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
            | Self::Float16
            | Self::Float32
            | Self::Float64
            | Self::Utf8
            | Self::Binary
            | Self::Date => Ok(()), // found in PLAIN
        }
    }
}

fn write_struct(fields: &[(String, DataType)], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    formatter.write_str("struct<")?;
    for (index, (name, field)) in fields.iter().enumerate() {
        let comma = if index > 0 { ", " } else { "" };
        let name = serde_json::to_string(name).map_err(|_| fmt::Error)?;
        write!(formatter, "{comma}{name}: {field}")?;
    }
    formatter.write_str(">")
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
            "time[ns]",
            "decimal[38, 38]",
            "list<list<float32, 4>, 3>",
            r#"struct<"a": int64, "b, \"c\">": list<struct<"": utf8>>>"#,
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
        let many = (0..=MAX_NAMES).map(|name| format!("\"{name}\": int8"));
        let wide = format!("struct<{}>", many.collect::<Vec<_>>().join(", "));
        for text in [
            "",
            "int65",
            "list<>",
            "list<int8",
            "timestamp[]",
            "timestamp[us, ]",
            "duration[h]",
            "time[us, UTC]",
            "decimal[39, 0]",
            "decimal[0, 0]",
            "decimal[3, 4]",
            "decimal[3, -1]",
            "decimal[03, 1]",
            "decimal[3,1]",
            "list<int8, 0>",
            "list<int8, +1>",
            "list<int8, 4294967296>",
            "list<list<int8, 65536>, 65536>",
            "struct<>",
            "struct<a: int8>",
            r#"struct<"a":int8>"#,
            r#"struct<"\u0061": int8>"#,
            r#"struct<"a": int8, "a": int8>"#,
            r#"struct<"a": int8,>"#,
            "int8>",
            &deep,
            &wide,
        ] {
            assert!(text.parse::<DataType>().is_err(), "{text:.40} was accepted");
        }
    }
}
