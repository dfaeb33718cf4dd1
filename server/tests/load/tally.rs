//! What became of the questions.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use crate::client::{Answer, Expected, Question};

/// Counts every question exactly once.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    answered: AtomicU64,
    wrong: AtomicU64,
    example: OnceLock<String>,
    cancelled: AtomicU64,
    broken: AtomicU64,
    guilty: Mutex<BTreeMap<String, u64>>,
    failed: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    /// An answer came: the right one, another one, or the reason why there is none.
    pub(crate) fn judge(&self, question: &Question, answer: &Answer) {
        let is_its_own = answer.id == question.id;
        match (&question.expected, answer.status) {
            (expected, 200) if is_its_own && expected.is(answer) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
            }
            (Expected::Case(fault), 400..) if is_its_own && answer.case() == *fault => {
                count(&self.guilty, answer.case());
            }
            (Expected::Body(_) | Expected::BodyOf(_), 400..) if is_its_own => {
                count(&self.failed, answer.case());
            }
            _ => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
                self.example
                    .get_or_init(|| format!("{question:?} was answered {answer:?}"));
            }
        }
    }

    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// The client went away before the answer.
    pub(crate) fn cancelled(&self, count: usize) {
        self.cancelled.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// The service went away before the answer.
    pub(crate) fn broken(&self, count: usize) {
        self.broken.fetch_add(count as u64, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> Counts {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Counts {
            answered: self.answered(),
            wrong: count(&self.wrong),
            example: self.example.get().cloned(),
            cancelled: count(&self.cancelled),
            broken: count(&self.broken),
            guilty: self.guilty.lock().unwrap().clone(),
            failed: self.failed.lock().unwrap().clone(),
        }
    }
}

fn count(of: &Mutex<BTreeMap<String, u64>>, case: String) {
    *of.lock().unwrap().entry(case).or_default() += 1;
}

/// The counts of a [`Tally`] at one moment.
#[derive(Debug)]
pub(crate) struct Counts {
    pub(crate) answered: u64,
    pub(crate) wrong: u64,
    /// The first wrong answer.
    pub(crate) example: Option<String>,
    pub(crate) cancelled: u64,
    /// The connection ended without an answer.
    pub(crate) broken: u64,
    /// Failed as they had to, by status and code.
    pub(crate) guilty: BTreeMap<String, u64>,
    /// Failed and should not have, by status and code.
    pub(crate) failed: BTreeMap<String, u64>,
}

impl Counts {
    pub(crate) fn failures(&self) -> u64 {
        self.failed.values().sum()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            answered,
            wrong,
            example,
            cancelled,
            broken,
            guilty,
            failed,
        } = self;
        if let Some(example) = example {
            writeln!(formatter, "{example}")?;
        }
        if !guilty.is_empty() {
            write!(formatter, "poison {guilty:?}, ")?;
        }
        write!(
            formatter,
            "{answered} answered, {wrong} wrong, {} failed {failed:?}, {cancelled} cancelled, {broken} broken",
            self.failures()
        )
    }
}
