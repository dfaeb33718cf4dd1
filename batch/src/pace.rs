//! How many rows a call gets: as many as take about a second.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::function::rows_of_a_call;

/// What a call should take. The fixed cost of a call vanishes beside it; a job waits no longer than that
/// for its last call, and a slow function stays far from its deadline.
const AIM: Duration = Duration::from_secs(1);

/// Rows of the first call, from which it is known how long a row takes.
const FIRST_ROWS: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Most bytes of a call, which are there some times at once: on both sides of the socket, and as what the
/// function takes.
const MOST_BYTES: usize = 64 << 20;

/// Learns how long a row takes.
#[derive(Debug)]
pub(crate) struct Pace {
    most: usize,
    tile: Option<u32>,
    /// `None` where the results could be others with other rows beside them.
    row_nanos: Option<AtomicU64>,
}

impl Pace {
    /// For calls of up to `most` rows, which is whole tiles. Whether it is `free` to choose fewer.
    pub(crate) fn new(most: usize, tile: Option<u32>, free: bool) -> Self {
        Self {
            most,
            tile,
            row_nanos: free.then(|| AtomicU64::new(0)),
        }
    }

    /// Rows of the next call, where a row has so many bytes.
    pub(crate) fn rows(&self, row_bytes: usize) -> usize {
        let Some(row_nanos) = &self.row_nanos else {
            return self.most;
        };
        let in_time = match row_nanos.load(Ordering::Relaxed) {
            0 => FIRST_ROWS.get(),
            nanos => usize::try_from(AIM.as_nanos() / u128::from(nanos)).unwrap_or(usize::MAX),
        };
        let wanted = in_time.min(MOST_BYTES / row_bytes.max(1));
        let wanted = NonZeroUsize::new(wanted).unwrap_or(NonZeroUsize::MIN);
        rows_of_a_call(wanted, self.tile).min(self.most)
    }

    /// A call of so many rows took so long. What it waited for a worker, or for the first one to start, is
    /// part of that: the shortest counts, and a longer one a little.
    pub(crate) fn learn(&self, rows: usize, took: Duration) {
        let Some(row_nanos) = &self.row_nanos else {
            return;
        };
        let nanos = took.as_nanos() / (rows.max(1) as u128);
        let nanos = u64::try_from(nanos).unwrap_or(u64::MAX).max(1);
        let known = row_nanos.load(Ordering::Relaxed);
        let now = match known {
            0 => nanos,
            known if nanos < known => nanos,
            known => known + (nanos - known) / 8,
        };
        row_nanos.store(now, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: usize = 65_536;

    #[test]
    fn a_slow_function_gets_as_many_rows_as_it_does_in_a_second() {
        let pace = Pace::new(MOST, None, true);
        assert_eq!(pace.rows(8), 4096);
        pace.learn(4096, Duration::from_secs(41));
        assert_eq!(pace.rows(8), 99);
    }

    #[test]
    fn a_quick_function_gets_the_most_rows_even_if_its_worker_had_to_start() {
        let pace = Pace::new(MOST, None, true);
        pace.learn(4096, Duration::from_secs(4));
        pace.learn(4096, Duration::from_millis(4));
        assert_eq!(pace.rows(8), MOST);
        pace.learn(MOST, Duration::from_millis(200));
        assert_eq!(pace.rows(8), MOST);
    }

    #[test]
    fn calls_consist_of_whole_tiles_and_are_not_empty() {
        let pace = Pace::new(MOST, Some(64), true);
        pace.learn(64, Duration::from_secs(1));
        assert_eq!(pace.rows(8), 64);
        pace.learn(64, Duration::from_millis(300));
        assert_eq!(pace.rows(8), 192);
        let pace = Pace::new(MOST, None, true);
        pace.learn(1, Duration::from_secs(20));
        assert_eq!(pace.rows(8), 1);
    }

    #[test]
    fn wide_rows_are_fewer() {
        let pace = Pace::new(MOST, None, true);
        pace.learn(4096, Duration::from_micros(1));
        assert_eq!(pace.rows(1 << 20), 64);
    }

    #[test]
    fn rows_that_must_stay_together_do() {
        let pace = Pace::new(MOST, None, false);
        pace.learn(MOST, Duration::from_secs(500));
        assert_eq!(pace.rows(1 << 20), MOST);
    }
}
