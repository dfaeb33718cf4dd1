//! Numbers, and what is counted in numbers: times, and the lengths of texts, bytes and lists.

use serde::{Deserialize, Serialize};

use super::counters::Counters;
use super::distinct::DistinctSketch;
use super::distribution::{Distribution, Histogram, Quantiles};
use super::moments::{Double, Moments};
use super::quantiles::QuantileSketch;
use super::{Frequent, Value};

/// Statistics of numbers. NaN and infinities are counted; all else is about the finite ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberStatistics {
    /// Times NaN.
    pub nans: u64,
    /// Times -∞.
    pub negative_infinities: u64,
    /// Times ∞.
    pub positive_infinities: u64,
    /// Times 0, with -0.0.
    pub zeros: u64,
    /// Numbers below 0, without -∞.
    pub negatives: u64,
    /// The least one, exactly.
    pub min: Option<Value>,
    /// The greatest one, exactly.
    pub max: Option<Value>,
    /// The mean. Missing when the sum is beyond what a double can hold.
    pub mean: Option<f64>,
    /// What the mean leaves out because it is a double. Merging needs it.
    pub mean_rest: f64,
    /// The mean of the squared differences from the mean.
    pub variance: Option<f64>,
    /// Its root.
    pub std: Option<f64>,
    /// Quantiles.
    pub quantiles: Option<Quantiles>,
    /// Histogram.
    pub histogram: Option<Histogram>,
    /// The numbers that occur most often.
    pub frequent: Frequent,
}

impl NumberStatistics {
    /// NaN and infinities. `None` when there are too many to be true.
    pub(super) fn not_finite(&self) -> Option<u64> {
        self.nans
            .checked_add(self.negative_infinities)?
            .checked_add(self.positive_infinities)
    }
}

/// How a number of a column is kept as one 64-bit key, in the same order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    Signed,
    Unsigned,
    Float,
}

/// What takes unsigned numbers to signed ones in the same order.
const HALF: u64 = 1 << 63;

impl Keys {
    #[expect(clippy::cast_possible_wrap, reason = "the same bits")]
    fn of_unsigned(value: u64) -> i64 {
        (value ^ HALF) as i64
    }

    /// The bits of negative floats ascend downwards, so all but their sign are turned round.
    #[expect(
        clippy::cast_possible_wrap,
        clippy::cast_sign_loss,
        reason = "the same bits"
    )]
    fn of_float(value: f64) -> i64 {
        let bits = (value + 0.0).to_bits() as i64; // -0.0 + 0.0 is 0.0
        bits ^ ((bits >> 63) as u64 >> 1) as i64
    }

    pub(super) fn value(self, key: i64) -> Value {
        match self {
            Self::Signed => Value::Integer(key),
            Self::Unsigned => {
                let value = unsigned(key);
                i64::try_from(value).map_or(Value::Unsigned(value), Value::Integer)
            }
            Self::Float => Value::Float(float(key)),
        }
    }

    pub(super) fn key(self, value: &Value) -> Option<i64> {
        match (self, value) {
            (Self::Signed, Value::Integer(value)) => Some(*value),
            (Self::Unsigned, Value::Integer(value)) => {
                u64::try_from(*value).ok().map(Self::of_unsigned)
            }
            (Self::Unsigned, Value::Unsigned(value)) => Some(Self::of_unsigned(*value)),
            (Self::Float, Value::Float(value)) => value.is_finite().then(|| Self::of_float(*value)),
            _ => None,
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "what a double can say of it")]
    fn as_float(self, key: i64) -> f64 {
        match self {
            Self::Signed => key as f64,
            Self::Unsigned => unsigned(key) as f64,
            Self::Float => float(key),
        }
    }

    /// Hashed as other implementations of the sketch hash these types.
    fn distinct(self, key: i64, sketch: &mut DistinctSketch) {
        match self {
            Self::Signed => sketch.add(key),
            Self::Unsigned => sketch.add(unsigned(key)),
            Self::Float => sketch.add(float(key).to_bits()),
        }
    }

    fn zero(self) -> i64 {
        match self {
            Self::Signed | Self::Float => 0,
            Self::Unsigned => i64::MIN,
        }
    }
}

#[expect(clippy::cast_sign_loss, reason = "the same bits")]
fn unsigned(key: i64) -> u64 {
    key as u64 ^ HALF
}

#[expect(clippy::cast_sign_loss, reason = "the same bits")]
fn float(key: i64) -> f64 {
    f64::from_bits((key ^ ((key >> 63) as u64 >> 1) as i64) as u64)
}

/// Learns numbers.
#[derive(Debug, Clone)]
pub(super) struct NumberSummary {
    keys: Keys,
    nans: u64,
    negative_infinities: u64,
    positive_infinities: u64,
    zeros: u64,
    negatives: u64,
    range: Option<(i64, i64)>,
    moments: Moments,
    sketch: QuantileSketch,
    counters: Counters<i64>,
}

impl NumberSummary {
    pub(super) fn new(keys: Keys) -> Self {
        Self {
            keys,
            nans: 0,
            negative_infinities: 0,
            positive_infinities: 0,
            zeros: 0,
            negatives: 0,
            range: None,
            moments: Moments::default(),
            sketch: QuantileSketch::default(),
            counters: Counters::default(),
        }
    }

    pub(super) fn keys(&self) -> Keys {
        self.keys
    }

    pub(super) fn add_floats(&mut self, values: &[f64], distinct: Option<&mut DistinctSketch>) {
        let mut finite = Vec::with_capacity(values.len());
        for value in values {
            if value.is_finite() {
                finite.push(*value);
            } else if value.is_nan() {
                self.nans += 1;
            } else if *value < 0.0 {
                self.negative_infinities += 1;
            } else {
                self.positive_infinities += 1;
            }
        }
        self.moments.merge(&Moments::of_floats(&finite));
        let keys = finite.into_iter().map(Keys::of_float).collect();
        self.add_keys(keys, distinct);
    }

    pub(super) fn add_integers(&mut self, values: &[i64], distinct: Option<&mut DistinctSketch>) {
        self.moments.merge(&Moments::of_integers(values, 0));
        self.add_keys(values.to_vec(), distinct);
    }

    pub(super) fn add_unsigned(&mut self, values: &[u64], distinct: Option<&mut DistinctSketch>) {
        let keys: Vec<_> = values.iter().copied().map(Keys::of_unsigned).collect();
        self.moments
            .merge(&Moments::of_integers(&keys, HALF.into()));
        self.add_keys(keys, distinct);
    }

    /// In their order, all else is read off.
    fn add_keys(&mut self, mut keys: Vec<i64>, distinct: Option<&mut DistinctSketch>) {
        keys.sort_unstable();
        let (Some(min), Some(max)) = (keys.first(), keys.last()) else {
            return;
        };
        self.widen(*min, *max);
        let zero = self.keys.zero();
        let negatives = keys.partition_point(|key| *key < zero);
        let up_to_zero = keys.partition_point(|key| *key <= zero);
        self.negatives += negatives as u64;
        self.zeros += (up_to_zero - negatives) as u64;
        self.sketch.add(&keys);
        let runs = keys.chunk_by(|one, other| one == other);
        let counts: Vec<_> = runs.map(|run| (run[0], run.len() as u64)).collect();
        if let Some(sketch) = distinct {
            for (key, _) in &counts {
                self.keys.distinct(*key, sketch);
            }
        }
        self.counters.add(counts);
    }

    fn widen(&mut self, min: i64, max: i64) {
        self.range = Some(match self.range {
            None => (min, max),
            Some((least, most)) => (least.min(min), most.max(max)),
        });
    }

    pub(super) fn merge(&mut self, other: Self) {
        for (mine, more) in [
            (&mut self.nans, other.nans),
            (&mut self.negative_infinities, other.negative_infinities),
            (&mut self.positive_infinities, other.positive_infinities),
            (&mut self.zeros, other.zeros),
            (&mut self.negatives, other.negatives),
        ] {
            *mine = mine.saturating_add(more);
        }
        if let Some((min, max)) = other.range {
            self.widen(min, max);
        }
        self.moments.merge(&other.moments);
        self.sketch.merge(&other.sketch);
        self.counters.merge(other.counters);
    }

    /// The number of distinct numbers, if all of them are counted.
    pub(super) fn counted(&self) -> Option<usize> {
        self.counters
            .is_exact()
            .then_some(self.counters.counts.len())
    }

    pub(super) fn finish(self) -> NumberStatistics {
        let keys = self.keys;
        let finite = |value: f64| value.is_finite().then_some(value);
        let some = self.range.is_some();
        let mean = some.then_some(self.moments.mean);
        let (quantiles, histogram) = self.distribution().map(|it| self.pictures(&it)).unzip();
        let variance = some.then(|| self.moments.variance());
        let variance = variance
            .and_then(finite)
            .filter(|_| self.moments.mean.high.is_finite());
        NumberStatistics {
            nans: self.nans,
            negative_infinities: self.negative_infinities,
            positive_infinities: self.positive_infinities,
            zeros: self.zeros,
            negatives: self.negatives,
            min: self.range.map(|(min, _)| keys.value(min)),
            max: self.range.map(|(_, max)| keys.value(max)),
            mean: mean.and_then(|mean| finite(mean.high)),
            mean_rest: mean.and_then(|mean| finite(mean.low)).unwrap_or(0.0),
            variance,
            std: variance.map(f64::sqrt),
            quantiles,
            histogram,
            frequent: self.counters.finish(|key| keys.value(*key)),
        }
    }

    fn distribution(&self) -> Option<Distribution> {
        let (min, max) = self.range?;
        let counters = &self.counters;
        let is_counted = counters.is_exact();
        Some(Distribution {
            table: if is_counted {
                counters
                    .counts
                    .iter()
                    .map(|(key, count)| (*key, *count))
                    .collect()
            } else {
                self.sketch.table()
            },
            min,
            max,
            is_exact: is_counted || self.sketch.is_exact(),
        })
    }

    fn pictures(&self, values: &Distribution) -> (Quantiles, Histogram) {
        let keys = self.keys;
        let quantiles = values.quantiles(|key| keys.value(key), self.sketch.stored());
        let whole = keys != Keys::Float;
        let histogram = values.histogram(|key| keys.as_float(key), whole);
        (quantiles, histogram)
    }

    /// `count` is the number of finite values.
    pub(super) fn resume(
        stored: &NumberStatistics,
        keys: Keys,
        count: u64,
    ) -> Result<Self, String> {
        let mut summary = Self::new(keys);
        let key = |value: &Value| keys.key(value);
        let foreign = || "it has a value that is not of its type".to_owned();
        summary.counters = Counters::resume(&stored.frequent, key).ok_or_else(foreign)?;
        summary.range = match (&stored.min, &stored.max) {
            (Some(min), Some(max)) => Some(key(min).zip(key(max)).ok_or_else(foreign)?),
            _ => None,
        };
        if let Some(quantiles) = &stored.quantiles {
            summary.sketch = QuantileSketch::resume(&quantiles.sketch)?;
        }
        if summary.sketch.count() != Some(count) {
            return Err(format!("its quantiles are not of {count} values"));
        }
        summary.moments = moments(stored, count);
        summary.nans = stored.nans;
        summary.negative_infinities = stored.negative_infinities;
        summary.positive_infinities = stored.positive_infinities;
        summary.zeros = stored.zeros;
        summary.negatives = stored.negatives;
        Ok(summary)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn moments(stored: &NumberStatistics, count: u64) -> Moments {
    if count == 0 {
        return Moments::default();
    }
    Moments {
        count,
        mean: Double {
            // What overflowed stays so when more is added.
            high: stored.mean.unwrap_or(f64::NAN),
            low: stored.mean_rest,
        },
        squares: stored.variance.unwrap_or(f64::NAN) * count as f64,
    }
}
