//! Texts: the first and the last in order, and the most frequent ones.

use datasketches::hash::value::raw_bytes;
use serde::{Deserialize, Serialize};

use super::Frequent;
use super::Value;
use super::counters::{Counters, count};
use super::distinct::DistinctSketch;

/// Texts of more bytes are not among the most frequent ones, and as the first or the last one only
/// their beginning is given: statistics stay small whatever is written in a column.
pub(super) const MAX_TEXT_BYTES: usize = 256;

/// Statistics of texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextStatistics {
    /// The first one by code points.
    pub min: Option<String>,
    /// The last one by code points.
    pub max: Option<String>,
    /// Whether `min` is only the beginning of the first one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub min_is_cut: bool,
    /// Whether `max` is only the beginning of the last one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub max_is_cut: bool,
    /// Texts of more than 256 bytes, which are not among the most frequent ones.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub long: u64,
    /// The texts that occur most often.
    pub frequent: Frequent,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde asks for")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// A text, or the beginning of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Bound {
    text: String,
    is_cut: bool,
}

impl Bound {
    fn of(text: &str) -> Self {
        let end = text.floor_char_boundary(MAX_TEXT_BYTES);
        Self {
            text: text[..end].to_owned(),
            is_cut: end < text.len(),
        }
    }
}

/// Learns texts.
#[derive(Debug, Clone, Default)]
pub(super) struct TextSummary {
    range: Option<(Bound, Bound)>,
    long: u64,
    counters: Counters<String>,
    expected: usize,
}

impl TextSummary {
    pub(super) fn add(&mut self, texts: &[&str], distinct: &mut DistinctSketch) {
        let (Some(min), Some(max)) = (texts.iter().min(), texts.iter().max()) else {
            return;
        };
        self.widen(Bound::of(min), Bound::of(max));
        let mut counts = count(texts.iter().copied(), self.expected);
        self.expected = counts.len();
        for (text, _) in &counts {
            distinct.add(raw_bytes::from_str(text));
        }
        counts.retain(|(text, count)| {
            let is_long = text.len() > MAX_TEXT_BYTES;
            self.long += if is_long { *count } else { 0 };
            !is_long
        });
        self.counters.add(counts);
    }

    fn widen(&mut self, min: Bound, max: Bound) {
        self.range = Some(match self.range.take() {
            None => (min, max),
            Some((first, last)) => (first.min(min), last.max(max)),
        });
    }

    pub(super) fn merge(&mut self, other: Self) {
        if let Some((min, max)) = other.range {
            self.widen(min, max);
        }
        self.long = self.long.saturating_add(other.long);
        self.counters.merge(other.counters);
    }

    /// The number of distinct texts, if all of them are counted.
    pub(super) fn counted(&self) -> Option<usize> {
        let all = self.counters.is_exact() && self.long == 0;
        all.then_some(self.counters.counts.len())
    }

    pub(super) fn finish(self) -> TextStatistics {
        let (min, max) = self.range.unzip();
        let is_cut = |bound: &Option<Bound>| bound.as_ref().is_some_and(|bound| bound.is_cut);
        TextStatistics {
            min_is_cut: is_cut(&min),
            max_is_cut: is_cut(&max),
            min: min.map(|bound| bound.text),
            max: max.map(|bound| bound.text),
            long: self.long,
            frequent: self.counters.finish(|text| Value::Text(text.clone())),
        }
    }

    pub(super) fn resume(stored: &TextStatistics) -> Result<Self, String> {
        let bound = |text: &String, is_cut| Bound {
            text: text.clone(),
            is_cut,
        };
        let range = stored.min.as_ref().zip(stored.max.as_ref());
        let text = |value: &Value| match value {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(_) | Value::Unsigned(_) | Value::Float(_) => None,
        };
        Ok(Self {
            range: range
                .map(|(min, max)| (bound(min, stored.min_is_cut), bound(max, stored.max_is_cut))),
            long: stored.long,
            counters: Counters::resume(&stored.frequent, text)
                .ok_or("it has a value that is not a text")?,
            expected: 0,
        })
    }
}
