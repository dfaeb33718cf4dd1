//! Quantiles and histogram of values in their order.

use serde::{Deserialize, Serialize};

use super::quantiles::RANK_ERROR;
use super::{Sketch, Value};

/// The quantiles that are given: enough for a box, its whiskers and the tails.
const PROBABILITIES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// What a terminal can draw side by side, and usual for comparing distributions.
const BINS: u32 = 20;

/// Values below which a share of the values lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// The share of values below is wrong by less, but for one case in 10,000; 0 when all values
    /// were counted.
    pub rank_error: f64,
    /// Share and value, ascending: the least value of which so many are not above.
    pub values: Vec<(f64, Value)>,
    /// What they are computed from, and with which they can be merged.
    pub sketch: Sketch,
}

/// How many values lie between bounds of equal distance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// The bounds, ascending, one more than counts. A bin holds its lower bound; the last one
    /// both. Whole numbers of a small range have a bin each.
    pub edges: Vec<f64>,
    /// The counts; as exact as the quantiles.
    pub counts: Vec<u64>,
}

/// Values in their order, each with the number of those it stands for. There is one at least.
#[derive(Debug)]
pub(super) struct Distribution {
    /// Keys, as which they are ordered, and counts.
    pub(super) table: Vec<(i64, u64)>,
    pub(super) min: i64,
    pub(super) max: i64,
    /// Whether these are all values.
    pub(super) is_exact: bool,
}

impl Distribution {
    pub(super) fn quantiles(&self, value: impl Fn(i64) -> Value, sketch: Sketch) -> Quantiles {
        let quantile = |share| (share, value(self.quantile(share)));
        Quantiles {
            rank_error: if self.is_exact { 0.0 } else { RANK_ERROR },
            values: PROBABILITIES.map(quantile).to_vec(),
            sketch,
        }
    }

    fn count(&self) -> u64 {
        self.table.iter().map(|(_, count)| count).sum()
    }

    fn quantile(&self, share: f64) -> i64 {
        let wanted = share * float(self.count());
        let mut below = 0;
        for (key, count) in &self.table {
            below += count;
            if float(below) >= wanted {
                return *key;
            }
        }
        self.max
    }

    /// `whole` says that all values are whole numbers.
    pub(super) fn histogram(&self, value: impl Fn(i64) -> f64, whole: bool) -> Histogram {
        let edges = edges(value(self.min), value(self.max), whole);
        let mut counts = vec![0; edges.len() - 1];
        let last = counts.len() - 1;
        for (key, count) in &self.table {
            let bounds = &edges[1..=last];
            counts[bounds.partition_point(|edge| *edge <= value(*key))] += count;
        }
        Histogram { edges, counts }
    }
}

fn edges(min: f64, max: f64, whole: bool) -> Vec<f64> {
    /// Above, a double cannot say where between two whole numbers a bound is.
    const MOST: f64 = 1e15;
    let is_small = min.abs() < MOST && max.abs() < MOST && max - min < f64::from(BINS);
    let (from, to, bins) = if whole && is_small && min < max {
        (min - 0.5, max + 0.5, max - min + 1.0)
    } else {
        (min, max, f64::from(BINS))
    };
    let mut edges = vec![from];
    for step in (1..BINS).map(f64::from).take_while(|step| *step < bins) {
        let share = step / bins;
        // Not `from + share * (to - from)`: the difference may be too large for a double.
        let edge = from * (1.0 - share) + to * share;
        if edges.last().is_some_and(|last| *last < edge) && edge < to {
            edges.push(edge);
        }
    }
    edges.push(to);
    edges
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
