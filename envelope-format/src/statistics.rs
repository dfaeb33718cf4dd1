//! Statistics of what a query function takes and gives: what live rows are compared with later.
//!
//! Read in this order: [`Statistics`] is the document that an envelope holds; a [`ColumnSummary`]
//! learns the values of one column, chunk by chunk, and becomes a [`ColumnStatistics`]; two of
//! these can be merged, because every sketch is stored with them.
//!
//! The same values in the same chunks give the same bytes: no sketch here draws random numbers.

mod check;
mod counters;
mod distinct;
mod distribution;
mod moments;
mod numbers;
mod quantiles;
mod summary;
mod texts;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::{DataType, Signature};

pub use distinct::Distinct;
pub use distribution::{Histogram, Quantiles};
pub use numbers::NumberStatistics;
pub use summary::{Chunk, ColumnSummary};
pub use texts::TextStatistics;

/// The only version of the document there is.
pub const STATISTICS_VERSION: u32 = 1;

/// Values are given to a [`ColumnSummary`] in chunks of so many. Statistics depend on the chunks
/// in their last bits, so everybody cuts rows in the same places.
pub const CHUNK_ROWS: usize = 1 << 15;

/// Statistics of the input and the output of a query function.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Version of this document.
    pub version: u32,
    /// Of the rows that the function was saved with.
    pub input: TableStatistics,
    /// Of what it gives for the sample.
    pub output: TableStatistics,
}

/// Statistics of rows, by column.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableStatistics {
    /// Number of rows.
    pub rows: u64,
    /// The columns, in the order of the signature.
    pub columns: Vec<ColumnStatistics>,
}

/// Statistics of one column. Which parts there are depends on its type.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColumnStatistics {
    /// Name of the column.
    pub name: String,
    /// Type of its values.
    #[serde(rename = "type")]
    pub data_type: DataType,
    /// Number of rows, with those that have no value.
    pub count: u64,
    /// Rows without a value. NaN is a value.
    pub nulls: u64,
    /// Of numbers; of dates, timestamps and durations as what they count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub numbers: Option<NumberStatistics>,
    /// Of truth values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub booleans: Option<BooleanStatistics>,
    /// Of texts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub texts: Option<TextStatistics>,
    /// Of the lengths of texts (characters), bytes (bytes) and lists (items).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lengths: Option<NumberStatistics>,
    /// How many distinct values there are, where they can be compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub distinct: Option<Distinct>,
}

/// How often each truth value occurs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BooleanStatistics {
    /// Times false.
    #[serde(rename = "false")]
    pub falses: u64,
    /// Times true.
    #[serde(rename = "true")]
    pub trues: u64,
}

/// A value of a column, as JSON says it: times are what they count.
#[derive(Debug, Clone, PartialEq, PartialOrd, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Value {
    /// A whole number.
    Integer(i64),
    /// A whole number that `Integer` cannot hold.
    Unsigned(u64),
    /// A finite number.
    Float(f64),
    /// A text.
    Text(String),
}

/// The values that occur most often, with their counts, by the method of Misra and Gries.
///
/// A count is at most `error` too low, never too high, and a value that is not listed occurs at
/// most `error` times. With an error of 0 these are all values, with their exact counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frequent {
    /// Most values that are kept.
    pub counters: u32,
    /// How much a count may be too low.
    pub error: u64,
    /// The most frequent first; equally frequent ones in their own order.
    pub values: Vec<(Value, u64)>,
}

/// A sketch as bytes, with what is needed to understand them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sketch {
    /// `kll` or `hyperloglog`; the latter in the format of Apache `DataSketches`.
    pub algorithm: String,
    /// Version of the format.
    pub version: u32,
    /// Its size: `k` of a KLL sketch, `lg_k` of a `HyperLogLog`.
    pub size: u32,
    /// The bytes, in base64.
    pub data: String,
}

/// Why bytes are not the statistics of a signature, or why two statistics cannot be merged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidStatistics {
    /// Not the JSON of a [`Statistics`].
    #[error("they are not what version {STATISTICS_VERSION} of statistics looks like")]
    Syntax {
        /// Where and why.
        source: serde_json::Error,
    },
    /// Written by another version of this program.
    #[error("they have version {found}, this program knows version {STATISTICS_VERSION}")]
    Version {
        /// What is written there.
        found: String,
    },
    /// They are not of the columns that the signature has.
    #[error("the {part} has the columns {found} in the statistics and {expected} in the signature")]
    Columns {
        /// `input` or `output`.
        part: &'static str,
        /// In the statistics.
        found: String,
        /// In the signature.
        expected: String,
    },
    /// A column contradicts itself or its field in the signature.
    #[error("column `{column}` of the {part}: {reason}")]
    Column {
        /// `input` or `output`.
        part: &'static str,
        /// Its name.
        column: String,
        /// The contradiction.
        reason: String,
    },
    /// Two columns cannot become one.
    #[error("column `{column}` cannot be merged: {reason}")]
    Merge {
        /// Its name.
        column: String,
        /// Why.
        reason: String,
    },
}

impl Statistics {
    /// Statistics of this version.
    #[must_use]
    pub fn new(input: TableStatistics, output: TableStatistics) -> Self {
        Self {
            version: STATISTICS_VERSION,
            input,
            output,
        }
    }

    /// The document: JSON with two spaces of indentation and a final newline.
    ///
    /// # Errors
    /// [`InvalidStatistics::Syntax`] for numbers that JSON cannot say.
    pub fn to_json(&self) -> Result<String, InvalidStatistics> {
        let document = serde_json::to_string_pretty(self);
        document
            .map(|document| document + "\n")
            .map_err(|source| InvalidStatistics::Syntax { source })
    }

    /// Parses a document and checks that it agrees with itself and with the signature.
    ///
    /// # Errors
    /// [`InvalidStatistics`], with the column.
    pub fn from_bytes(bytes: &[u8], signature: &Signature) -> Result<Self, InvalidStatistics> {
        check_version(bytes)?;
        let statistics: Self =
            serde_json::from_slice(bytes).map_err(|source| InvalidStatistics::Syntax { source })?;
        statistics.check(signature)?;
        Ok(statistics)
    }

    /// Whether these can be statistics of that signature.
    ///
    /// # Errors
    /// [`InvalidStatistics::Columns`], [`InvalidStatistics::Column`].
    pub fn check(&self, signature: &Signature) -> Result<(), InvalidStatistics> {
        check::table("input", &self.input, &signature.input)?;
        check::table("output", &self.output, &signature.output)
    }
}

impl TableStatistics {
    /// Statistics of the rows of both. The order matters only within the errors of the sketches.
    ///
    /// # Errors
    /// [`InvalidStatistics::Merge`] when they have other columns or damaged sketches.
    pub fn merge(&self, other: &Self) -> Result<Self, InvalidStatistics> {
        if self.columns.len() != other.columns.len() {
            return Err(InvalidStatistics::Merge {
                column: "*".to_owned(),
                reason: format!(
                    "{} columns are not {}",
                    self.columns.len(),
                    other.columns.len()
                ),
            });
        }
        let columns = self.columns.iter().zip(&other.columns);
        Ok(Self {
            rows: self.rows.saturating_add(other.rows),
            columns: columns
                .map(|(one, other)| one.merge(other))
                .collect::<Result<_, _>>()?,
        })
    }
}

impl ColumnStatistics {
    /// Statistics of the values of both.
    ///
    /// # Errors
    /// [`InvalidStatistics::Merge`].
    pub fn merge(&self, other: &Self) -> Result<Self, InvalidStatistics> {
        let mut all = ColumnSummary::resume(self)?;
        all.merge(ColumnSummary::resume(other)?)?;
        Ok(all.finish())
    }

    /// The values that occur most often, of a column that counts them.
    #[must_use]
    pub fn frequent(&self) -> Option<&Frequent> {
        let numbers = self.numbers.as_ref().map(|numbers| &numbers.frequent);
        numbers.or_else(|| self.texts.as_ref().map(|texts| &texts.frequent))
    }
}

impl Value {
    /// As a double, rounded if need be. Texts are no numbers.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rounding is what is asked for")]
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Integer(value) => Some(*value as f64),
            Self::Unsigned(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            Self::Text(_) => None,
        }
    }
}

/// The version comes before the rest: a document of another version may have any other shape.
fn check_version(bytes: &[u8]) -> Result<(), InvalidStatistics> {
    let document: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|source| InvalidStatistics::Syntax { source })?;
    match document.get("version") {
        Some(version) if *version == STATISTICS_VERSION => Ok(()),
        Some(version) => Err(InvalidStatistics::Version {
            found: version.to_string().chars().take(32).collect(),
        }),
        None => Err(InvalidStatistics::Version {
            found: "none".to_owned(),
        }),
    }
}
