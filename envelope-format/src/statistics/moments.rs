//! Mean and variance: exact to the last bits, and mergeable.

/// A number as the sum of two doubles, of which the second is what the first leaves out.
///
/// A mean needs the second part: of times in nanoseconds a double knows only every 256th, and the
/// variance of two merged parts depends on the difference of their means.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Double {
    pub(super) high: f64,
    pub(super) low: f64,
}

impl Double {
    fn plus(self, value: f64) -> Self {
        let (high, rest) = two_sum(self.high, value);
        let (high, low) = two_sum(high, self.low + rest);
        Self { high, low }
    }

    fn minus(self, other: Self) -> f64 {
        let (high, rest) = two_sum(self.high, -other.high);
        high + (rest + (self.low - other.low))
    }

    fn divided_by(self, divisor: f64) -> Self {
        let high = self.high / divisor;
        let rest = (-high).mul_add(divisor, self.high) + self.low;
        Self { high, low: 0.0 }.plus(rest / divisor)
    }

    #[expect(clippy::cast_precision_loss, reason = "`low` is what is lost")]
    fn of_integer(value: i128) -> Self {
        let high = value as f64;
        #[expect(clippy::cast_possible_truncation, reason = "a rounded 66-bit number")]
        let low = (value - high as i128) as f64;
        Self { high, low }
    }
}

/// The rounded sum, and what rounding left out.
fn two_sum(one: f64, other: f64) -> (f64, f64) {
    let sum = one + other;
    let part = sum - one;
    (sum, (one - (sum - part)) + (other - part))
}

/// Number of values, their mean, and the sum of squared differences from it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Moments {
    pub(super) count: u64,
    pub(super) mean: Double,
    pub(super) squares: f64,
}

impl Moments {
    pub(super) fn of_floats(values: &[f64]) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let sum = values.iter().fold(Double::default(), |sum: Double, value| {
            let (high, rest) = two_sum(sum.high, *value);
            let low = sum.low + rest;
            Double { high, low }
        });
        let mean = sum.divided_by(number(values.len()));
        let difference = |value: &f64| (value - mean.high) - mean.low;
        Self::around(mean, values, difference)
    }

    /// Of `values` that all have to be raised by `offset`.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "a mean of 64-bit numbers has 64 bits, and differences may be rounded"
    )]
    pub(super) fn of_integers(values: &[i64], offset: i128) -> Self {
        let (Some(min), Some(max)) = (values.iter().min(), values.iter().max()) else {
            return Self::default();
        };
        let count = values.len() as i128;
        let sum: i128 = values.iter().map(|value| i128::from(*value)).sum();
        let whole = sum.div_euclid(count);
        let part = sum.rem_euclid(count) as f64 / count as f64;
        let mean = Double::of_integer(whole + offset).plus(part);
        let base = whole as i64;
        if max.checked_sub(*min).is_some() {
            Self::around(mean, values, |value| (value - base) as f64 - part)
        } else {
            Self::around(mean, values, |value| *value as f64 - base as f64 - part)
        }
    }

    /// In eight sums, so that each stays small and the processor can add them side by side.
    fn around<T>(mean: Double, values: &[T], difference: impl Fn(&T) -> f64) -> Self {
        let mut squares = [0.0; 8];
        let mut rests = [0.0; 8];
        let mut add = |lane: usize, value: &T| {
            let difference = difference(value);
            squares[lane] += difference * difference;
            rests[lane] += difference;
        };
        let groups = values.chunks_exact(8);
        let last = groups.remainder();
        for group in groups {
            for (lane, value) in group.iter().enumerate() {
                add(lane, value);
            }
        }
        for (lane, value) in last.iter().enumerate() {
            add(lane, value);
        }
        let rest: f64 = rests.iter().sum();
        let squares: f64 = squares.iter().sum();
        Self {
            count: values.len() as u64,
            mean,
            // The differences would sum up to nothing, were the mean not rounded.
            squares: (squares - rest * rest / number(values.len())).max(0.0),
        }
    }

    /// By Chan, Golub and `LeVeque`.
    #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
    pub(super) fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        if self.count == 0 {
            *self = *other;
            return;
        }
        let count = self.count.saturating_add(other.count);
        let share = other.count as f64 / count as f64;
        let difference = other.mean.minus(self.mean);
        self.mean = self.mean.plus(difference * share);
        self.squares += other.squares + difference * difference * share * self.count as f64;
        self.count = count;
    }

    /// Divided by the number of values, not by one less: it is of these values.
    #[expect(clippy::cast_precision_loss, reason = "counts are below 2^53")]
    pub(super) fn variance(&self) -> f64 {
        self.squares / self.count as f64
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "the length of a slice in memory"
)]
fn number(length: usize) -> f64 {
    length as f64
}
