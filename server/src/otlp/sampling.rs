//! Which traces are recorded.

use std::fmt;
use std::str::FromStr;

use crate::trace::Trace;

/// Traces are numbered at random: so many of this many are recorded where the number decides.
const ALL: u64 = 1 << 63;

/// A sampler of OpenTelemetry: all traces, none, or some; and what callers have decided, or not.
///
/// ```
/// let sampling: server::Sampling = "parentbased_traceidratio".parse().unwrap();
/// assert_eq!(sampling.with_ratio(0.25).to_string(), "parentbased_traceidratio of 0.25");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    kind: Kind,
    /// Traces with numbers below it are recorded.
    below: u64,
    /// What a caller has decided holds.
    heeds_parent: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    On,
    Off,
    Ratio,
}

impl Default for Sampling {
    /// All traces, except those that a caller has decided not to record.
    fn default() -> Self {
        Self {
            kind: Kind::On,
            below: ALL,
            heeds_parent: true,
        }
    }
}

/// The name of a sampler that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected one of `always_on`, `always_off`, `traceidratio`, `parentbased_always_on`, \
     `parentbased_always_off`, `parentbased_traceidratio`"
)]
pub struct NoSuchSampler;

impl FromStr for Sampling {
    type Err = NoSuchSampler;

    fn from_str(name: &str) -> Result<Self, NoSuchSampler> {
        let parentbased = name.strip_prefix("parentbased_");
        let (kind, below) = match parentbased.unwrap_or(name) {
            "always_on" => (Kind::On, ALL),
            "always_off" => (Kind::Off, 0),
            "traceidratio" => (Kind::Ratio, ALL),
            _ => return Err(NoSuchSampler),
        };
        Ok(Self {
            kind,
            below,
            heeds_parent: parentbased.is_some(),
        })
    }
}

impl fmt::Display for Sampling {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.heeds_parent {
            formatter.write_str("parentbased_")?;
        }
        match self.kind {
            Kind::On => formatter.write_str("always_on"),
            Kind::Off => formatter.write_str("always_off"),
            #[expect(clippy::cast_precision_loss, reason = "for people")]
            Kind::Ratio => write!(
                formatter,
                "traceidratio of {}",
                self.below as f64 / ALL as f64
            ),
        }
    }
}

impl Sampling {
    /// Records this share of the traces, from 0 to 1, if it is a sampler that takes a share.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and `ALL`, and nobody counts traces that exactly"
    )]
    pub fn with_ratio(self, ratio: f64) -> Self {
        match self.kind {
            Kind::On | Kind::Off => self,
            Kind::Ratio => Self {
                below: (ratio.clamp(0.0, 1.0) * ALL as f64) as u64,
                ..self
            },
        }
    }

    /// Whether the trace is recorded here.
    pub(crate) fn takes(&self, trace: &Trace) -> bool {
        match trace.parent {
            Some(parent) if self.heeds_parent => parent.is_sampled,
            // The same bits that others look at: all decide alike.
            _ => low(trace.id) >> 1 < self.below,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is wanted")]
fn low(id: u128) -> u64 {
    id as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::{Parent, random};

    fn takes(sampler: &str, ratio: f64, trace: &Trace) -> bool {
        let sampling: Sampling = sampler.parse().unwrap();
        sampling.with_ratio(ratio).takes(trace)
    }

    fn trace(id: u128, is_sampled: Option<bool>) -> Trace {
        let parent = |is_sampled| Parent {
            span: 1,
            is_sampled,
        };
        Trace {
            id,
            parent: is_sampled.map(parent),
        }
    }

    #[test]
    fn what_a_caller_has_decided_holds_where_the_sampler_says_so() {
        for is_sampled in [true, false] {
            let called = trace(1, Some(is_sampled));
            for heeds in ["parentbased_always_on", "parentbased_always_off"] {
                assert_eq!(takes(heeds, 1.0, &called), is_sampled);
            }
            assert!(takes("always_on", 0.0, &called) && !takes("always_off", 1.0, &called));
        }
        assert!(takes("parentbased_always_on", 0.0, &trace(1, None)));
        assert!(!takes("parentbased_always_off", 1.0, &trace(1, None)));
    }

    #[test]
    fn a_share_of_the_traces_is_that_share() {
        let traces: Vec<_> = (0..10_000).map(|_| trace(random().into(), None)).collect();
        let count = |ratio| {
            let takes = |trace: &&Trace| takes("traceidratio", ratio, trace);
            traces.iter().filter(takes).count()
        };
        assert_eq!((count(0.0), count(1.0)), (0, 10_000));
        assert!((2200..2800).contains(&count(0.25)), "{}", count(0.25));
    }

    #[test]
    fn a_sampler_that_there_is_not_is_refused() {
        for name in ["", "always", "parentbased_", "jaeger_remote"] {
            assert_eq!(name.parse::<Sampling>(), Err(NoSuchSampler), "{name}");
        }
    }
}
