//! What a process prints: drained always, logged within limits, the last of it kept to explain a death.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, BufReader};
use tokio::time::{Instant, sleep};

/// Lines that are kept.
const LINES: usize = 20;

/// Longest line that is kept, in bytes; the rest of it is cut.
const LINE_BYTES: usize = 2000;

/// Lines of one process that are logged in a second.
const LOGGED: u32 = 100;

/// How long the last lines of a process that has ended may take to arrive.
const SETTLE_DEADLINE: Duration = Duration::from_millis(200);

/// The last lines that a process wrote to standard output and standard error.
#[derive(Debug, Clone, Default)]
pub(crate) struct Printed(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<VecDeque<String>>,
    /// The call that is under way; 0 before the first.
    call: AtomicU64,
    /// Nothing more will come.
    complete: AtomicBool,
}

impl Printed {
    /// Reads `pipe` until it is closed.
    pub(crate) fn of(pipe: impl AsyncRead + Unpin + Send + 'static) -> Self {
        let printed = Self::default();
        let follower = printed.clone();
        tokio::spawn(async move {
            follower.follow(pipe).await;
            follower.0.complete.store(true, Ordering::Release);
        });
        printed
    }

    /// From now on, lines belong to this call.
    pub(crate) fn during(&self, call: u64) {
        self.0.call.store(call, Ordering::Relaxed);
    }

    /// Waits for the last lines of a process that has ended.
    pub(crate) async fn settle(&self) {
        let began = Instant::now();
        while !self.0.complete.load(Ordering::Acquire) && began.elapsed() < SETTLE_DEADLINE {
            sleep(Duration::from_millis(5)).await;
        }
    }

    pub(crate) fn text(&self) -> String {
        let lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join("\n")
    }

    async fn follow(&self, pipe: impl AsyncRead + Unpin) {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        let mut rate = Rate::default();
        loop {
            line.clear();
            // Bounded: a model that prints without a line end must not fill our memory.
            match (&mut reader)
                .take(LINE_BYTES as u64)
                .read_until(b'\n', &mut line)
                .await
            {
                Ok(0) | Err(_) => return,
                Ok(_) => self.push(
                    String::from_utf8_lossy(&line).trim_end().to_owned(),
                    &mut rate,
                ),
            }
        }
    }

    fn push(&self, line: String, rate: &mut Rate) {
        let call = self.0.call.load(Ordering::Relaxed);
        match rate.admits(Instant::now()) {
            Admitted::Yes { dropped: 0 } => tracing::debug!(target: "worker", call, "{line}"),
            Admitted::Yes { dropped } => {
                tracing::warn!(target: "worker", dropped, "lines were not logged: more than {LOGGED} in a second");
                tracing::debug!(target: "worker", call, "{line}");
            }
            Admitted::No => {}
        }
        let mut lines = self.0.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LINES {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

/// Lines in the second that is under way.
#[derive(Debug, Default)]
struct Rate {
    since: Option<Instant>,
    logged: u32,
    dropped: u64,
}

#[derive(Debug, PartialEq, Eq)]
enum Admitted {
    /// So many before it were not.
    Yes {
        dropped: u64,
    },
    No,
}

impl Rate {
    fn admits(&mut self, now: Instant) -> Admitted {
        let over = self
            .since
            .is_none_or(|since| now.duration_since(since) >= Duration::from_secs(1));
        if over {
            self.since = Some(now);
            self.logged = 0;
        }
        if self.logged == LOGGED {
            self.dropped += 1;
            return Admitted::No;
        }
        self.logged += 1;
        Admitted::Yes {
            dropped: std::mem::take(&mut self.dropped),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_logged_in_part_and_the_rest_is_counted() {
        let (mut rate, now) = (Rate::default(), Instant::now());
        let admitted = (0..1000)
            .filter(|_| rate.admits(now) != Admitted::No)
            .count();
        assert_eq!(admitted, LOGGED as usize);
        let later = now + Duration::from_secs(1);
        assert_eq!(rate.admits(later), Admitted::Yes { dropped: 900 });
        assert_eq!(rate.admits(later), Admitted::Yes { dropped: 0 });
    }

    #[tokio::test]
    async fn the_last_lines_are_kept_and_long_ones_are_cut() {
        let text: String = (0..50).map(|line| format!("{line}\n")).collect();
        let printed = Printed::of(std::io::Cursor::new(text + &"x".repeat(5000)));
        printed.settle().await;
        let lines: Vec<String> = printed.text().lines().map(str::to_owned).collect();
        assert_eq!(lines.len(), LINES);
        assert_eq!(lines[LINES - 4], "49");
        assert!(lines.iter().all(|line| line.len() <= LINE_BYTES));
    }
}
