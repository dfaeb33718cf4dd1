//! The values that occur most often: exact while they are few, then by Misra and Gries.
//!
//! Chunks are counted exactly and then reduced, so that the error grows by the count of the most
//! frequent value that a chunk has to give up; where all values are distinct, by 1 for each chunk.

use std::collections::BTreeMap;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::{Frequent, Value};

/// Most values that are kept. More than the categories that people can tell apart in a picture.
pub(super) const COUNTERS: usize = 128;

/// Counts of the most frequent values.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Counters<T> {
    pub(super) counts: BTreeMap<T, u64>,
    pub(super) error: u64,
}

impl<T> Default for Counters<T> {
    fn default() -> Self {
        Self {
            counts: BTreeMap::new(),
            error: 0,
        }
    }
}

impl<T: Ord + Clone> Counters<T> {
    pub(super) fn is_exact(&self) -> bool {
        self.error == 0
    }

    /// Adds the exact counts of a chunk.
    pub(super) fn add<K: Into<T>>(&mut self, mut counts: Vec<(K, u64)>) {
        self.error += cut(&mut counts);
        for (value, count) in counts {
            *self.counts.entry(value.into()).or_default() += count;
        }
        self.shrink();
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.error = self.error.saturating_add(other.error);
        for (value, count) in other.counts {
            let sum = self.counts.entry(value).or_default();
            *sum = sum.saturating_add(count);
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        if self.counts.len() > COUNTERS {
            let mut counts: Vec<_> = std::mem::take(&mut self.counts).into_iter().collect();
            self.error = self.error.saturating_add(cut(&mut counts));
            self.counts = counts.into_iter().collect();
        }
    }

    pub(super) fn finish(&self, value: impl Fn(&T) -> Value) -> Frequent {
        let mut sorted: Vec<_> = self.counts.iter().collect();
        // Stable, so that equally frequent values stay in their own order.
        sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        Frequent {
            counters: COUNTERS as u32,
            error: self.error,
            values: sorted
                .into_iter()
                .map(|(key, count)| (value(key), *count))
                .collect(),
        }
    }

    /// The inverse of `finish`, unless a value is none of this column.
    pub(super) fn resume(stored: &Frequent, key: impl Fn(&Value) -> Option<T>) -> Option<Self> {
        let entry = |(value, count): &(Value, u64)| Some((key(value)?, *count));
        let counts: BTreeMap<_, _> = stored.values.iter().map(entry).collect::<Option<_>>()?;
        let all = counts.len() == stored.values.len();
        let error = stored.error;
        (all && counts.len() <= COUNTERS).then_some(Self { counts, error })
    }
}

/// Lowers all counts by that of the most frequent value that has no place, and keeps what is left.
fn cut<T>(counts: &mut Vec<(T, u64)>) -> u64 {
    if counts.len() <= COUNTERS {
        return 0;
    }
    let descending = |one: &(T, u64), other: &(T, u64)| other.1.cmp(&one.1);
    let lost = counts.select_nth_unstable_by(COUNTERS, descending).1.1;
    counts.retain_mut(|(_, count)| {
        *count = count.saturating_sub(lost);
        *count > 0
    });
    lost
}

/// How often each value of a chunk occurs, in the order in which they first occur: this order
/// does not depend on how the map hashes.
pub(super) fn count<T: Hash + Eq + Copy>(
    values: impl Iterator<Item = T>,
    expected: usize,
) -> Vec<(T, u64)> {
    let mut places: FxHashMap<T, u32> =
        FxHashMap::with_capacity_and_hasher(expected, rustc_hash::FxBuildHasher);
    let mut counts: Vec<(T, u64)> = Vec::with_capacity(expected);
    for value in values {
        let next = u32::try_from(counts.len()).unwrap_or(u32::MAX);
        let place = *places.entry(value).or_insert(next);
        if place == next {
            counts.push((value, 0));
        }
        counts[place as usize].1 += 1;
    }
    counts
}
