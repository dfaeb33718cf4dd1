//! The work that the workers of an envelope have before them.
//!
//! By Little's law a queue of so much work, shared by so many workers, is a wait of so long. A call
//! that could not be answered in its time is refused while that costs nothing, instead of being
//! answered when nobody waits for it any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::error::Refusal;

/// Work and rows of the calls that wait for a worker or have one.
#[derive(Debug)]
pub(crate) struct Backlog {
    workers: u32,
    max_rows: usize,
    /// Longest expected wait, whatever the patience of the caller.
    max_wait: Duration,
    nanoseconds: AtomicU64,
    rows: AtomicUsize,
}

/// What a call adds to the backlog, until it is dropped.
#[derive(Debug)]
#[must_use = "a call is in the backlog for as long as its place lives"]
pub(crate) struct Place {
    backlog: Arc<Backlog>,
    nanoseconds: u64,
    rows: usize,
}

impl Backlog {
    pub(crate) fn new(workers: usize, max_rows: usize, max_wait: Duration) -> Self {
        Self {
            workers: u32::try_from(workers).unwrap_or(u32::MAX).max(1),
            max_rows,
            max_wait,
            nanoseconds: AtomicU64::new(0),
            rows: AtomicUsize::new(0),
        }
    }

    /// How long a call that comes now waits for a worker.
    pub(crate) fn wait(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed)) / self.workers
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows.load(Ordering::Relaxed)
    }

    /// Whether a call that takes `own` time can be answered within `patience`.
    pub(crate) fn has_time(&self, own: Duration, patience: Duration) -> Result<(), Refusal> {
        let wait = self.wait();
        if is_in_time(wait, own, patience) && wait <= self.max_wait {
            return Ok(());
        }
        Err(Refusal::Overloaded { wait })
    }

    /// Adds a call of so many rows and so much work.
    pub(crate) fn enter(self: &Arc<Self>, rows: usize, work: Duration) -> Result<Place, Refusal> {
        let before = self.rows.fetch_add(rows, Ordering::Relaxed);
        let nanoseconds = u64::try_from(work.as_nanos()).unwrap_or(u64::MAX >> 16);
        self.nanoseconds.fetch_add(nanoseconds, Ordering::Relaxed);
        let place = Place {
            backlog: Arc::clone(self),
            nanoseconds,
            rows,
        };
        // One call of any size that is allowed finds room when there is nothing else.
        if before > 0 && before.saturating_add(rows) > self.max_rows {
            return Err(Refusal::TooMuchInFlight { what: "rows" });
        }
        Ok(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let backlog = &self.backlog;
        backlog.rows.fetch_sub(self.rows, Ordering::Relaxed);
        backlog
            .nanoseconds
            .fetch_sub(self.nanoseconds, Ordering::Relaxed);
    }
}

/// Half of what is left beside the call's own time may be spent waiting; the other half is for what
/// the estimate does not know. Who need not wait is always in time.
fn is_in_time(wait: Duration, own: Duration, patience: Duration) -> bool {
    wait.is_zero() || wait <= patience.saturating_sub(own) / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    fn backlog() -> Arc<Backlog> {
        Arc::new(Backlog::new(8, 100, Duration::from_secs(1)))
    }

    #[test]
    fn a_queue_is_as_long_as_it_can_be_answered_in_time() {
        let backlog = backlog();
        let mut places = vec![];
        while backlog
            .has_time(20 * MILLISECOND, 200 * MILLISECOND)
            .is_ok()
        {
            places.push(backlog.enter(1, 20 * MILLISECOND).unwrap());
        }
        // 8 workers, 20 ms each, half of 180 ms: 36 calls, and the one that goes over it.
        assert_eq!(places.len(), 37);
        places.truncate(30);
        assert_eq!(backlog.wait(), 75 * MILLISECOND);
        assert!(
            backlog
                .has_time(20 * MILLISECOND, 200 * MILLISECOND)
                .is_ok()
        );
    }

    #[test]
    fn the_impatient_are_refused_first() {
        let backlog = backlog();
        let _place = backlog.enter(1, 400 * MILLISECOND).unwrap();
        assert!(backlog.has_time(MILLISECOND, 50 * MILLISECOND).is_err());
        assert!(backlog.has_time(MILLISECOND, 500 * MILLISECOND).is_ok());
    }

    #[test]
    fn nobody_waits_longer_than_is_allowed() {
        let backlog = backlog();
        let _place = backlog.enter(1, Duration::from_secs(16)).unwrap();
        let refused = backlog.has_time(MILLISECOND, Duration::from_secs(3600));
        assert_eq!(refused.unwrap_err().code(), "overloaded");
    }

    #[test]
    fn a_slow_call_goes_to_an_idle_worker_however_slow() {
        assert!(
            backlog()
                .has_time(Duration::from_secs(9), Duration::from_secs(1))
                .is_ok()
        );
    }

    #[test]
    fn rows_are_limited_and_one_large_call_is_not() {
        let backlog = backlog();
        drop(backlog.enter(1000, MILLISECOND).unwrap());
        let place = backlog.enter(60, MILLISECOND).unwrap();
        assert_eq!(
            backlog.enter(41, MILLISECOND).unwrap_err().code(),
            "too_much_in_flight"
        );
        assert_eq!(backlog.rows(), 60);
        drop(place);
        assert_eq!((backlog.rows(), backlog.wait()), (0, Duration::ZERO));
    }
}
