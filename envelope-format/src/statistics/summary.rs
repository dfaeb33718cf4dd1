//! Learning a column.

use datasketches::hash::value::raw_bytes;

use super::distinct::DistinctSketch;
use super::numbers::{Keys, NumberSummary};
use super::texts::TextSummary;
use super::{BooleanStatistics, ColumnStatistics, InvalidStatistics};
use crate::DataType;

/// Some values of a column, without the missing ones.
#[derive(Debug)]
pub enum Chunk<'c> {
    /// Floating point numbers.
    Floats(&'c [f64]),
    /// Integers, and times as what they count.
    Integers(&'c [i64]),
    /// Unsigned integers.
    Unsigned(&'c [u64]),
    /// How many are false and how many are true.
    Booleans(BooleanStatistics),
    /// Texts.
    Texts(&'c [&'c str]),
    /// Bytes.
    Bytes(&'c [&'c [u8]]),
    /// The lengths of lists.
    Lengths(&'c [i64]),
    /// So many values of a type of which they are only counted.
    Counted(usize),
}

/// What is learned of one column.
#[derive(Debug, Clone)]
pub struct ColumnSummary {
    name: String,
    data_type: DataType,
    count: u64,
    nulls: u64,
    values: Values,
}

#[derive(Debug, Clone)]
enum Values {
    Nothing,
    Booleans(BooleanStatistics),
    Numbers(NumberSummary, DistinctSketch),
    Texts(TextSummary, NumberSummary, DistinctSketch),
    Bytes(NumberSummary, DistinctSketch),
    Lists(NumberSummary),
}

/// Which statistics there are of a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Nothing,
    Booleans,
    Numbers(Keys),
    Texts,
    Bytes,
    Lists,
}

impl Kind {
    pub(super) fn of(data_type: &DataType) -> Self {
        match data_type {
            // Their values are only counted.
            DataType::Null | DataType::FixedList(..) | DataType::Struct(_) => Self::Nothing,
            DataType::Bool => Self::Booleans,
            DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Date
            | DataType::Time(_)
            | DataType::Timestamp(..)
            | DataType::Duration(_) => Self::Numbers(Keys::Signed),
            DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => {
                Self::Numbers(Keys::Unsigned)
            }
            // Of a decimal, the nearest floating point number is learned.
            DataType::Float16
            | DataType::Float32
            | DataType::Float64
            | DataType::Decimal { .. } => Self::Numbers(Keys::Float),
            DataType::Utf8 => Self::Texts,
            DataType::Binary => Self::Bytes,
            DataType::List(_) => Self::Lists,
        }
    }
}

impl Values {
    fn of(kind: Kind) -> Self {
        let lengths = NumberSummary::new(Keys::Signed);
        match kind {
            Kind::Nothing => Self::Nothing,
            Kind::Booleans => Self::Booleans(BooleanStatistics::default()),
            Kind::Numbers(keys) => {
                Self::Numbers(NumberSummary::new(keys), DistinctSketch::default())
            }
            Kind::Texts => Self::Texts(TextSummary::default(), lengths, DistinctSketch::default()),
            Kind::Bytes => Self::Bytes(lengths, DistinctSketch::default()),
            Kind::Lists => Self::Lists(lengths),
        }
    }
}

impl ColumnSummary {
    /// Nothing is known of the column yet.
    #[must_use]
    pub fn new(name: impl Into<String>, data_type: DataType) -> Self {
        let values = Values::of(Kind::of(&data_type));
        Self {
            name: name.into(),
            data_type,
            count: 0,
            nulls: 0,
            values,
        }
    }

    /// Learns some rows, of which `nulls` have no value: at most [`super::CHUNK_ROWS`] of them.
    ///
    /// # Errors
    /// [`InvalidStatistics::Merge`] when the values are not of the column's type.
    pub fn add(&mut self, nulls: usize, values: &Chunk<'_>) -> Result<(), InvalidStatistics> {
        let known = match (&mut self.values, values) {
            (Values::Nothing, Chunk::Counted(count)) => Some(*count as u64),
            (Values::Booleans(seen), Chunk::Booleans(more)) => add_booleans(seen, *more),
            (Values::Numbers(numbers, distinct), _) => add_numbers(numbers, distinct, values),
            (Values::Texts(summary, lengths, distinct), Chunk::Texts(texts)) => {
                summary.add(texts, distinct);
                let characters = texts.iter().map(|text| length(text.chars().count()));
                lengths.add_integers(&characters.collect::<Vec<_>>(), None);
                Some(texts.len() as u64)
            }
            (Values::Bytes(lengths, distinct), Chunk::Bytes(values)) => {
                for bytes in *values {
                    distinct.add(raw_bytes::from_slice(bytes));
                }
                let sizes: Vec<_> = values.iter().map(|bytes| length(bytes.len())).collect();
                lengths.add_integers(&sizes, None);
                Some(values.len() as u64)
            }
            (Values::Lists(lengths), Chunk::Lengths(values)) => {
                lengths.add_integers(values, None);
                Some(values.len() as u64)
            }
            _ => None,
        };
        let known = known.ok_or_else(|| self.fault("the values are of another type".to_owned()))?;
        self.add_nulls(nulls);
        self.count = self.count.saturating_add(known);
        Ok(())
    }

    /// Learns rows without a value.
    pub fn add_nulls(&mut self, nulls: usize) {
        self.nulls = self.nulls.saturating_add(nulls as u64);
        self.count = self.count.saturating_add(nulls as u64);
    }

    /// Learns what another summary knows.
    ///
    /// # Errors
    /// [`InvalidStatistics::Merge`] when it is of another column.
    pub fn merge(&mut self, other: Self) -> Result<(), InvalidStatistics> {
        if (&self.name, &self.data_type) != (&other.name, &other.data_type) {
            return Err(self.fault(format!(
                "it is a {}, the other one is `{}`, a {}",
                self.data_type, other.name, other.data_type
            )));
        }
        self.count = self.count.saturating_add(other.count);
        self.nulls = self.nulls.saturating_add(other.nulls);
        self.values.merge(other.values);
        Ok(())
    }

    /// The statistics.
    #[must_use]
    pub fn finish(self) -> ColumnStatistics {
        let present = self.count - self.nulls;
        let mut done = ColumnStatistics {
            name: self.name,
            data_type: self.data_type,
            count: self.count,
            nulls: self.nulls,
            numbers: None,
            booleans: None,
            texts: None,
            lengths: None,
            distinct: None,
        };
        match self.values {
            Values::Nothing => {}
            Values::Booleans(seen) => done.booleans = Some(seen),
            Values::Numbers(numbers, distinct) => {
                let counted = numbers.counted();
                let finished = numbers.finish();
                let finite = present - finished.not_finite().unwrap_or(present);
                done.distinct = Some(distinct.finish(counted, finite));
                done.numbers = Some(finished);
            }
            Values::Texts(texts, lengths, distinct) => {
                done.distinct = Some(distinct.finish(texts.counted(), present));
                done.texts = Some(texts.finish());
                done.lengths = Some(lengths.finish());
            }
            Values::Bytes(lengths, distinct) => {
                done.distinct = Some(distinct.finish(None, present));
                done.lengths = Some(lengths.finish());
            }
            Values::Lists(lengths) => done.lengths = Some(lengths.finish()),
        }
        done
    }

    /// What was known when the statistics were written. They must be valid.
    ///
    /// # Errors
    /// [`InvalidStatistics::Merge`] when they are damaged.
    pub fn resume(stored: &ColumnStatistics) -> Result<Self, InvalidStatistics> {
        let mut summary = Self::new(&stored.name, stored.data_type.clone());
        summary.count = stored.count;
        summary.nulls = stored.nulls;
        summary.values = Values::resume(stored).map_err(|reason| summary.fault(reason))?;
        Ok(summary)
    }

    fn fault(&self, reason: String) -> InvalidStatistics {
        InvalidStatistics::Merge {
            column: self.name.clone(),
            reason,
        }
    }
}

fn add_booleans(seen: &mut BooleanStatistics, more: BooleanStatistics) -> Option<u64> {
    seen.falses = seen.falses.saturating_add(more.falses);
    seen.trues = seen.trues.saturating_add(more.trues);
    Some(more.falses.saturating_add(more.trues))
}

fn add_numbers(
    numbers: &mut NumberSummary,
    distinct: &mut DistinctSketch,
    values: &Chunk<'_>,
) -> Option<u64> {
    let count = match (numbers.keys(), values) {
        (Keys::Float, Chunk::Floats(values)) => {
            numbers.add_floats(values, Some(distinct));
            values.len()
        }
        (Keys::Signed, Chunk::Integers(values)) => {
            numbers.add_integers(values, Some(distinct));
            values.len()
        }
        (Keys::Unsigned, Chunk::Unsigned(values)) => {
            numbers.add_unsigned(values, Some(distinct));
            values.len()
        }
        _ => return None,
    };
    Some(count as u64)
}

fn length(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

impl Values {
    fn merge(&mut self, other: Self) {
        match (self, other) {
            (Self::Booleans(mine), Self::Booleans(more)) => {
                add_booleans(mine, more);
            }
            (Self::Numbers(mine, distinct), Self::Numbers(more, others))
            | (Self::Bytes(mine, distinct), Self::Bytes(more, others)) => {
                mine.merge(more);
                distinct.merge(&others);
            }
            (Self::Texts(mine, lengths, distinct), Self::Texts(more, sizes, others)) => {
                mine.merge(more);
                lengths.merge(sizes);
                distinct.merge(&others);
            }
            (Self::Lists(mine), Self::Lists(more)) => mine.merge(more),
            // Of one type there is one kind of values, and `Nothing` has nothing to add.
            _ => {}
        }
    }

    fn resume(stored: &ColumnStatistics) -> Result<Self, String> {
        let missing = |part: &str| format!("it has no `{part}`");
        let present = stored
            .count
            .checked_sub(stored.nulls)
            .ok_or("more values are missing than there are")?;
        let lengths = || {
            let lengths = stored.lengths.as_ref().ok_or_else(|| missing("lengths"))?;
            NumberSummary::resume(lengths, Keys::Signed, present)
        };
        let distinct = || {
            let distinct = stored.distinct.as_ref();
            DistinctSketch::resume(distinct.ok_or_else(|| missing("distinct"))?)
        };
        Ok(match Kind::of(&stored.data_type) {
            Kind::Nothing => Self::Nothing,
            Kind::Booleans => Self::Booleans(stored.booleans.ok_or_else(|| missing("booleans"))?),
            Kind::Numbers(keys) => {
                let numbers = stored.numbers.as_ref().ok_or_else(|| missing("numbers"))?;
                let finite = numbers
                    .not_finite()
                    .and_then(|others| present.checked_sub(others))
                    .ok_or("more numbers are not finite than there are")?;
                Self::Numbers(NumberSummary::resume(numbers, keys, finite)?, distinct()?)
            }
            Kind::Texts => {
                let texts = stored.texts.as_ref().ok_or_else(|| missing("texts"))?;
                Self::Texts(TextSummary::resume(texts)?, lengths()?, distinct()?)
            }
            Kind::Bytes => Self::Bytes(lengths()?, distinct()?),
            Kind::Lists => Self::Lists(lengths()?),
        })
    }
}
