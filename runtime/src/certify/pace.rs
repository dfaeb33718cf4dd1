//! How quick a function is, and what there is time for.

use std::time::Duration;

use tokio::time::Instant;

/// What any call may take beside a multiple of what the sample took.
const CALL_DEADLINE: Duration = Duration::from_secs(10);

/// Measured while the trials go on.
#[derive(Debug)]
pub(super) struct Pace {
    began: Instant,
    limit: Duration,
    /// What the sample took.
    sample: Duration,
    /// Seconds for each row of the quickest call that was large enough to tell.
    row_seconds: f64,
}

impl Pace {
    /// A call that says how long a row takes has so many.
    const TELLING: usize = 64;

    /// The sample was asked for when it `began`, and is answered now.
    pub(super) fn new(began: Instant, limit: Duration) -> Self {
        Self {
            began,
            limit,
            sample: began.elapsed(),
            row_seconds: 0.0,
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn took(&mut self, rows: usize, time: Duration) {
        let seconds = time.as_secs_f64() / precise(rows.max(1));
        if self.row_seconds == 0.0 {
            self.row_seconds = seconds;
        }
        if rows >= Self::TELLING {
            // The quickest: what made another call slower was the machine, most likely, and which
            // trials are done should not depend on that.
            self.row_seconds = self.row_seconds.min(seconds);
        }
    }

    pub(super) fn seconds(&self, rows: usize) -> f64 {
        self.row_seconds * precise(rows)
    }

    /// Whether there is time for a call of so many rows.
    pub(super) fn allows(&self, rows: usize) -> bool {
        self.began.elapsed().as_secs_f64() + self.seconds(rows) < self.limit.as_secs_f64()
    }

    pub(super) fn is_over(&self) -> bool {
        self.began.elapsed() > self.limit
    }

    pub(super) fn is_hopeless(&self) -> bool {
        self.began.elapsed() > self.limit * 4
    }

    pub(super) fn deadline(&self, rows: usize, sample: usize) -> Duration {
        let share = precise(rows) / precise(sample.max(1)) + 1.0;
        CALL_DEADLINE + self.sample.mul_f64(20.0 * share)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an estimate")]
fn precise(rows: usize) -> f64 {
    rows as f64
}
