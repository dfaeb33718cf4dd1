//! How many distinct values there are: exact while they are few, then by `HyperLogLog`.

use std::hash::Hash;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datasketches::hll::{HllSketch, HllType, HllUnion};
use serde::{Deserialize, Serialize};

use super::Sketch;

const ALGORITHM: &str = "hyperloglog";
const FORMAT: u32 = 1;

/// 4,096 registers of one byte: a standard error of 1.6% in 4 KiB.
const LG_K: u8 = 12;

/// Standard error of the estimate: 1.04 / √registers.
const RELATIVE_ERROR: f64 = 0.016_25;

/// The number of distinct values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distinct {
    /// The number. Neither missing values nor NaN nor infinities count.
    pub estimate: u64,
    /// Its standard error, as a share of it; 0 when it was counted.
    pub relative_error: f64,
    /// What it is estimated from, and with which it can be merged.
    pub sketch: Sketch,
}

#[derive(Debug, Clone)]
pub(super) struct DistinctSketch(HllSketch);

impl Default for DistinctSketch {
    fn default() -> Self {
        Self(of_size(LG_K))
    }
}

#[expect(clippy::expect_used, reason = "the size is a constant that is allowed")]
fn of_size(lg_k: u8) -> HllSketch {
    HllSketch::new(lg_k, HllType::Hll8).expect("4 to 21 are allowed")
}

impl DistinctSketch {
    pub(super) fn add(&mut self, value: impl Hash) {
        self.0.update(value);
    }

    #[expect(clippy::expect_used, reason = "the size is a constant that is allowed")]
    pub(super) fn merge(&mut self, other: &Self) {
        if other.0.is_empty() {
            return;
        }
        let mut union = HllUnion::new(LG_K).expect("4 to 21 are allowed");
        union.update(&self.0);
        union.update(&other.0);
        self.0 = union.to_sketch(HllType::Hll8);
    }

    /// `counted` is the exact number, if it is known; there are not more than `most`.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate of a count"
    )]
    pub(super) fn finish(&self, counted: Option<usize>, most: u64) -> Distinct {
        let estimate = counted.map_or_else(|| self.0.estimate().round() as u64, |it| it as u64);
        Distinct {
            estimate: estimate.min(most),
            relative_error: if counted.is_some() {
                0.0
            } else {
                RELATIVE_ERROR
            },
            sketch: Sketch {
                algorithm: ALGORITHM.to_owned(),
                version: FORMAT,
                size: LG_K.into(),
                data: STANDARD.encode(self.0.serialize()),
            },
        }
    }

    pub(super) fn resume(stored: &Distinct) -> Result<Self, String> {
        let bytes = stored.sketch.bytes(ALGORITHM, FORMAT, LG_K.into())?;
        let sketch = HllSketch::deserialize(&bytes).map_err(|error| error.to_string())?;
        let ours = sketch.lg_config_k() == LG_K && sketch.target_type() == HllType::Hll8;
        ours.then_some(Self(sketch))
            .ok_or_else(|| format!("its {ALGORITHM} is not of the size it is said to be"))
    }
}

impl Sketch {
    /// The bytes, if they are of this kind.
    pub(super) fn bytes(
        &self,
        algorithm: &str,
        version: u32,
        size: u32,
    ) -> Result<Vec<u8>, String> {
        if (self.algorithm.as_str(), self.version, self.size) != (algorithm, version, size) {
            return Err(format!(
                "its sketch is a {} of version {} and size {}, this program knows {algorithm} of version {version} and size {size}",
                self.algorithm, self.version, self.size
            ));
        }
        STANDARD
            .decode(&self.data)
            .map_err(|error| format!("its {algorithm} is not base64: {error}"))
    }
}
