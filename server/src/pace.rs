//! How long a worker takes for so many rows: learned from what it took.
//!
//! A line is fitted to the last calls: something for each call, and something for each row. As long
//! as all calls had about as many rows, nobody knows how much is for which; then all of it is
//! taken to be for the rows, which is the careful guess where calls are gathered.

use std::time::Duration;

/// The weight of the newest call; those of about the last 16 count.
const NEWEST: f64 = 1.0 / 16.0;

/// Rows that vary by less than this part of their mean tell nothing about the slope.
const LEAST_SPREAD: f64 = 0.1;

/// Exponentially weighted moments of rows and seconds.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Pace {
    is_known: bool,
    rows: f64,
    seconds: f64,
    rows_rows: f64,
    rows_seconds: f64,
}

/// Seconds for a call of some rows: `fixed + each × rows`.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Cost {
    fixed: f64,
    each: f64,
}

impl Pace {
    /// A worker took so long for so many rows.
    pub(crate) fn learn(&mut self, rows: usize, took: Duration) {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let (rows, seconds) = (rows.max(1) as f64, took.as_secs_f64());
        let weight = if self.is_known { NEWEST } else { 1.0 };
        let moments = [
            (&mut self.rows, rows),
            (&mut self.seconds, seconds),
            (&mut self.rows_rows, rows * rows),
            (&mut self.rows_seconds, rows * seconds),
        ];
        for (mean, newest) in moments {
            *mean += weight * (newest - *mean);
        }
        self.is_known = true;
    }

    /// What a call costs; nothing while nothing is known.
    pub(crate) fn cost(&self) -> Cost {
        if !self.is_known {
            return Cost::default();
        }
        let most = self.seconds / self.rows;
        let variance = self.rows_rows - self.rows * self.rows;
        if variance < (LEAST_SPREAD * self.rows).powi(2) {
            return Cost {
                fixed: 0.0,
                each: most,
            };
        }
        let slope = (self.rows_seconds - self.rows * self.seconds) / variance;
        let each = slope.clamp(0.0, most);
        Cost {
            fixed: self.seconds - each * self.rows,
            each,
        }
    }
}

impl Cost {
    /// Of a call of so many rows that goes alone.
    pub(crate) fn alone(&self, rows: usize) -> Duration {
        self.shared(rows, 1.0)
    }

    /// Of a call that goes together with others, at most `most` rows at once: its part of it.
    pub(crate) fn gathered(&self, rows: usize, most: usize) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let part = rows as f64 / most.max(1) as f64;
        self.shared(rows, part.min(1.0))
    }

    fn shared(&self, rows: usize, part: f64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "an estimate")]
        let seconds = self.fixed * part + self.each * rows as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// So many rows are done within `time`; at least one.
    pub(crate) fn rows_within(&self, time: Duration) -> usize {
        if self.each <= 0.0 {
            return usize::MAX;
        }
        let rows = (time.as_secs_f64() - self.fixed) / self.each;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not below 1, and what is too large becomes the largest"
        )]
        let rows = rows.max(1.0) as usize;
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learned(calls: impl IntoIterator<Item = (usize, f64)>) -> Cost {
        let mut pace = Pace::default();
        for (rows, seconds) in calls {
            pace.learn(rows, Duration::from_secs_f64(seconds));
        }
        pace.cost()
    }

    #[track_caller]
    fn is_about(cost: Cost, fixed: f64, each: f64) {
        let near = |found: f64, wanted: f64| (found - wanted).abs() <= 0.05 * (fixed + each);
        assert!(near(cost.fixed, fixed) && near(cost.each, each), "{cost:?}");
    }

    #[test]
    fn nothing_known_costs_nothing() {
        assert_eq!(learned([]), Cost::default());
        assert_eq!(learned([]).rows_within(Duration::ZERO), usize::MAX);
    }

    #[test]
    fn the_part_of_the_call_and_that_of_its_rows_are_told_apart() {
        let rows = [1, 100, 3, 64, 20, 1, 500, 7].into_iter().cycle().take(200);
        is_about(
            learned(rows.map(|rows| (rows, 0.010 + 0.001 * rows as f64))),
            0.010,
            0.001,
        );
    }

    #[test]
    fn calls_of_one_size_are_all_rows() {
        is_about(learned([(4, 0.1); 30]), 0.0, 0.025);
    }

    #[test]
    fn a_cost_is_never_negative() {
        let falling = [(1, 0.5), (100, 0.01)].into_iter().cycle().take(50);
        let cost = learned(falling);
        assert!(cost.fixed >= 0.0 && cost.each >= 0.0, "{cost:?}");
    }

    #[test]
    fn a_function_that_becomes_slow_is_noticed_within_some_calls() {
        let calls = std::iter::repeat_n((1, 0.001), 100).chain(std::iter::repeat_n((1, 0.1), 30));
        assert!(learned(calls).alone(1) > Duration::from_millis(80));
    }

    #[test]
    fn rows_that_go_together_share_the_part_of_the_call() {
        let cost = Cost {
            fixed: 1.0,
            each: 0.5,
        };
        assert_eq!(cost.alone(2), Duration::from_secs(2));
        assert_eq!(cost.gathered(2, 8), Duration::from_millis(1250));
        assert_eq!(cost.gathered(20, 8), Duration::from_secs(11));
        assert_eq!(cost.rows_within(Duration::from_secs(3)), 4);
        assert_eq!(cost.rows_within(Duration::ZERO), 1);
    }
}
