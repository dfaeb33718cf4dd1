//! What is shown while people wait.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::terminal::Terminal;

/// Shows steps and rows: as a bar on a terminal, as lines elsewhere when they are wanted.
#[derive(Debug)]
pub(crate) struct Waiting {
    bar: ProgressBar,
    /// Lines are printed instead of a bar.
    lines: bool,
    /// Tenths of the rows that were told in lines.
    told: AtomicU64,
}

const STEP: &str = "{spinner} {msg} ({elapsed})";
const ROWS: &str = "{wide_bar} {human_pos}/{human_len} rows, {rate}/s, {eta} left";
const ROWS_OF_UNKNOWN: &str = "{spinner} {human_pos} rows, {rate}/s";

impl Waiting {
    pub(crate) fn new(terminal: &Terminal) -> Self {
        let target = if terminal.voice.bars {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        Self {
            bar: ProgressBar::with_draw_target(None, target),
            lines: !terminal.voice.bars && terminal.is_verbose(),
            told: AtomicU64::new(0),
        }
    }

    /// Says which step has begun.
    pub(crate) fn step(&self, step: &str) {
        if self.lines {
            return crate::terminal::say(step);
        }
        self.bar.set_style(style(STEP));
        self.bar.set_message(step.to_owned());
        self.bar.enable_steady_tick(Duration::from_millis(100));
    }

    /// Says how many rows are done.
    pub(crate) fn rows(&self, done: u64, total: Option<u64>) {
        // Until then the step that rows wait for says more.
        if done == 0 {
            return;
        }
        if self.lines {
            return self.tell(done, total);
        }
        if self.bar.length() != total || self.bar.position() == 0 {
            self.bar.disable_steady_tick();
            self.bar.set_style(style(if total.is_some() {
                ROWS
            } else {
                ROWS_OF_UNKNOWN
            }));
        }
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_position(done);
    }

    /// A line for each tenth of the rows.
    fn tell(&self, done: u64, total: Option<u64>) {
        let Some(total) = total.filter(|total| *total > 0) else {
            return;
        };
        let tenths = done * 10 / total;
        if self.told.fetch_max(tenths, Ordering::Relaxed) < tenths {
            crate::terminal::say(&format!("{done} of {total} rows"));
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.end();
    }
}

fn style(template: &str) -> ProgressStyle {
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, out: &mut dyn fmt::Write| {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a rate to look at"
        )]
        let rows = state.per_sec() as u64;
        _ = write!(out, "{}", HumanCount(rows));
    })
}
