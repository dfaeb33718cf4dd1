//! What is shown while people wait.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::json;

use crate::terminal::Terminal;

/// Shows steps and rows: as a bar on a terminal, as lines elsewhere when they are wanted.
#[derive(Debug)]
pub(crate) struct Waiting {
    bar: ProgressBar,
    /// Lines are printed instead of a bar.
    lines: bool,
    /// The lines are JSON.
    json: bool,
    begun: Instant,
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
            json: terminal.json(),
            begun: Instant::now(),
            told: AtomicU64::new(0),
        }
    }

    /// Says which step has begun.
    pub(crate) fn step(&self, step: &str) {
        if self.lines {
            return crate::terminal::say(&step_line(step, self.json));
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
            let line = rows_line(done, total, self.begun.elapsed(), self.json);
            crate::terminal::say(&line);
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

fn step_line(step: &str, json: bool) -> String {
    if json {
        json!({"step": step}).to_string()
    } else {
        step.to_owned()
    }
}

/// How many rows are done after `took`, how fast that is, and how long the others will take.
fn rows_line(done: u64, total: u64, took: Duration, json: bool) -> String {
    #[expect(clippy::cast_precision_loss, reason = "figures to look at")]
    let (done_of, left_of) = (done as f64, total.saturating_sub(done) as f64);
    let rate = done_of / took.as_secs_f64().max(0.001);
    let left = left_of / rate.max(0.001);
    if json {
        let (rate, left) = (rate.round(), (left * 10.0).round() / 10.0);
        json!({"rows": done, "total": total, "rows_per_second": rate, "seconds_left": left})
            .to_string()
    } else {
        format!("{done} of {total} rows, {rate:.0}/s, {left:.0} s left")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_fast_and_how_long() {
        let line = |json| rows_line(250, 1000, Duration::from_secs(2), json);
        assert_eq!(line(false), "250 of 1000 rows, 125/s, 6 s left");
        let line: serde_json::Value = serde_json::from_str(&line(true)).unwrap();
        assert_eq!(
            line,
            json!({"rows": 250, "total": 1000, "rows_per_second": 125.0, "seconds_left": 6.0})
        );
    }
}
