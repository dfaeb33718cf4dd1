//! What is told of a load.

use std::fmt;
use std::time::Duration;

use crate::load::Outcome;

/// The figures of one step.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) offered: f64,
    /// Good answers in a second that came before their deadline.
    pub(crate) goodput: f64,
    /// Of all good answers.
    pub(crate) admitted: Quantiles,
    pub(crate) shed: usize,
    /// Of those that were refused for lack of capacity.
    pub(crate) shedding: Quantiles,
    /// Answers of other kinds: deadlines that passed, mostly.
    pub(crate) late_answers: usize,
    pub(crate) broken: usize,
    pub(crate) lateness: Quantiles,
}

#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Quantiles {
    pub(crate) half: Duration,
    pub(crate) p99: Duration,
    pub(crate) most: Duration,
}

impl Quantiles {
    pub(crate) fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable();
        let at = |part: usize| times.get((times.len() * part / 100).min(times.len().max(1) - 1));
        Self {
            half: at(50).copied().unwrap_or_default(),
            p99: at(99).copied().unwrap_or_default(),
            most: times.last().copied().unwrap_or_default(),
        }
    }
}

/// A generator that was later than this measured itself.
const MOST_LATENESS: Duration = Duration::from_millis(5);

impl Figures {
    /// Whether the generator was in time.
    pub(crate) fn is_valid(&self) -> bool {
        self.lateness.p99 <= MOST_LATENESS
    }

    pub(crate) fn of(outcomes: &[Outcome], length: Duration, deadline: Duration) -> Self {
        let with = |status: u16| {
            let these = outcomes
                .iter()
                .filter(move |outcome| outcome.status == Some(status));
            these.map(|outcome| outcome.latency)
        };
        let (good, shed) = (with(200).count(), with(503).count());
        let broken = outcomes
            .iter()
            .filter(|outcome| outcome.status.is_none())
            .count();
        let in_time = with(200).filter(|latency| *latency <= deadline).count();
        #[expect(clippy::cast_precision_loss, reason = "figures for people")]
        let each_second = |count: usize| count as f64 / length.as_secs_f64();
        Self {
            offered: each_second(outcomes.len()),
            goodput: each_second(in_time),
            admitted: Quantiles::of(with(200)),
            shed,
            shedding: Quantiles::of(with(503)),
            late_answers: outcomes.len() - good - shed - broken,
            broken,
            lateness: Quantiles::of(outcomes.iter().map(|outcome| outcome.late)),
        }
    }
}

pub(crate) const TITLES: &str = "  load   offered/s  goodput/s  admitted p50    p99    max  |   shed   p50    p99    max  | late  broken | generator late p99";

impl fmt::Display for Figures {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
        write!(
            formatter,
            "{:>10.0} {:>10.0} {:>12} {:>6} {:>6} ms| {:>6} {:>5} {:>6} {:>6} ms| {:>4} {:>7} | {} ms{}",
            self.offered,
            self.goodput,
            ms(self.admitted.half),
            ms(self.admitted.p99),
            ms(self.admitted.most),
            self.shed,
            ms(self.shedding.half),
            ms(self.shedding.p99),
            ms(self.shedding.most),
            self.late_answers,
            self.broken,
            ms(self.lateness.p99),
            if self.is_valid() {
                ""
            } else {
                ": says nothing"
            },
        )
    }
}
