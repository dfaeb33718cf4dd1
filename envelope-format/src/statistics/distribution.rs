//! Quantiles and histogram: exact while the distinct values are few, then from a t-digest.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datasketches::tdigest::TDigestMut;
use serde::{Deserialize, Serialize};

use super::Sketch;

const ALGORITHM: &str = "t-digest";
const FORMAT: u32 = 1;

/// At most 410 centroids of 16 bytes.
const K: u16 = 200;

/// A t-digest has no bound that can be proved. With k = 200 a centroid holds at most 0.8% of the
/// values, and `tests.rs` looks for larger errors.
pub(super) const RANK_ERROR: f64 = 0.01;

/// The quantiles that are given: enough for a box, its whiskers and the tails.
const PROBABILITIES: [f64; 7] = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99];

/// What a terminal can draw side by side, and usual for comparing distributions.
const BINS: usize = 20;

/// Values below which a share of the values lies.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantiles {
    /// The share of values below is wrong by at most so much; 0 when it was counted.
    pub rank_error: f64,
    /// Share and value, ascending.
    pub values: Vec<(f64, f64)>,
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

#[derive(Debug, Clone)]
pub(super) struct QuantileSketch(TDigestMut);

impl Default for QuantileSketch {
    #[expect(clippy::expect_used, reason = "the size is a constant that is allowed")]
    fn default() -> Self {
        Self(TDigestMut::new(K).expect("10 or more is allowed"))
    }
}

impl QuantileSketch {
    pub(super) fn add(&mut self, value: f64) {
        self.0.update(value);
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.0.merge(&other.0);
    }

    pub(super) fn count(&self) -> u64 {
        self.0.total_weight()
    }

    pub(super) fn resume(stored: &Quantiles) -> Result<Self, String> {
        let bytes = stored.sketch.bytes(ALGORITHM, FORMAT, K.into())?;
        let sketch = TDigestMut::deserialize(&bytes).map_err(|error| error.to_string())?;
        (sketch.k() == K)
            .then_some(Self(sketch))
            .ok_or_else(|| format!("its {ALGORITHM} is not of the size it is said to be"))
    }

    fn stored(&mut self) -> Sketch {
        Sketch {
            algorithm: ALGORITHM.to_owned(),
            version: FORMAT,
            size: K.into(),
            data: STANDARD.encode(self.0.serialize()),
        }
    }
}

/// Values in their order: all of them, or a sketch.
#[derive(Debug)]
pub(super) struct Distribution<'d> {
    pub(super) count: u64,
    pub(super) min: f64,
    pub(super) max: f64,
    /// Whether all values are whole numbers.
    pub(super) whole: bool,
    /// All values with their counts, ascending, if they are known.
    pub(super) table: Option<Vec<(f64, u64)>>,
    pub(super) sketch: &'d mut QuantileSketch,
}

impl Distribution<'_> {
    pub(super) fn quantiles(&mut self) -> Quantiles {
        let mut least = self.min;
        let mut values = vec![];
        for share in PROBABILITIES {
            least = self.quantile(share).clamp(least, self.max);
            values.push((share, least));
        }
        Quantiles {
            rank_error: if self.table.is_some() {
                0.0
            } else {
                RANK_ERROR
            },
            values,
            sketch: self.sketch.stored(),
        }
    }

    /// The least value of which it is true that so many are not above it.
    fn quantile(&mut self, share: f64) -> f64 {
        let Some(table) = &self.table else {
            let found = self.sketch.0.quantile(share).ok().flatten();
            return found.unwrap_or(self.min);
        };
        let mut below = 0;
        for (value, count) in table {
            below += count;
            if float(below) >= share * float(self.count) {
                return *value;
            }
        }
        self.max
    }

    pub(super) fn histogram(&mut self) -> Histogram {
        let edges = edges(self.min, self.max, self.whole);
        if edges.len() < 3 {
            let counts = vec![self.count];
            return Histogram { edges, counts };
        }
        let mut counts = Vec::with_capacity(edges.len() - 1);
        let mut before = 0;
        for edge in &edges[1..edges.len() - 1] {
            let below = self.below(*edge).clamp(before, self.count);
            counts.push(below - before);
            before = below;
        }
        counts.push(self.count - before);
        Histogram { edges, counts }
    }

    /// How many values are less.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a count"
    )]
    fn below(&mut self, edge: f64) -> u64 {
        match &self.table {
            Some(table) => table
                .iter()
                .take_while(|(value, _)| *value < edge)
                .map(|(_, count)| count)
                .sum(),
            None => {
                let share = self.sketch.0.rank(edge).ok().flatten().unwrap_or(0.0);
                (share * float(self.count)).round() as u64
            }
        }
    }
}

fn edges(min: f64, max: f64, whole: bool) -> Vec<f64> {
    /// Above, a double cannot say where between two whole numbers a bound is.
    const MOST: f64 = 1e15;
    let is_small = min.abs() < MOST && max.abs() < MOST && max - min < float(BINS as u64);
    let (from, to, bins) = if whole && is_small && min < max {
        (min - 0.5, max + 0.5, max - min + 1.0)
    } else {
        (min, max, float(BINS as u64))
    };
    let mut edges = vec![from];
    let mut step = 1.0;
    while step < bins {
        let share = step / bins;
        // Not `from + share * (to - from)`: the difference may be too large for a double.
        let edge = from * (1.0 - share) + to * share;
        if edges.last().is_some_and(|last| *last < edge) && edge < to {
            edges.push(edge);
        }
        step += 1.0;
    }
    edges.push(to);
    edges
}

#[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
fn float(count: u64) -> f64 {
    count as f64
}
