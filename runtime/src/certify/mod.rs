//! Tests whether the output for a row depends on the other rows, and how equal outputs are.
//!
//! Nothing here is a proof. A function is asked for the rows of its sample, and for rows that the
//! sample does not have, in many companies; the first difference ends the trials and is the reason
//! why it is not row-wise. The certificate says how many trials there were, and their seed.
//!
//! [`foreign`] makes rows, [`trials`] puts them together, [`evidence`] and [`compare`] judge what
//! came back: these decide and ask nobody. [`examine`] is the order of it all, and asks [`Workers`],
//! which [`lent`] has.

mod compare;
mod evidence;
mod examine;
mod foreign;
mod lent;
mod pace;
mod trials;

use std::future::Future;
use std::time::Duration;

use arrow_array::RecordBatch;
use envelope_format::Certificate;

use crate::Error;

pub use compare::difference;
pub(crate) use lent::{certify, is_called_for_each_row};

/// How much is tested.
#[derive(Debug, Clone, Copy)]
pub struct Trials {
    /// Seed of all choices.
    pub seed: u64,
    /// After this, only what is needed for a certificate is still tried; after four times this
    /// there is no certificate.
    pub limit: Duration,
}

impl Default for Trials {
    /// A seed that is always the same, so that the same function gives the same envelope.
    fn default() -> Self {
        Self {
            seed: 20_210_701,
            limit: Duration::from_secs(20),
        }
    }
}

/// What the trials came to.
#[derive(Debug, Clone)]
pub struct Certified {
    /// The evidence.
    pub certificate: Certificate,
    /// What the function gives for the sample when it is called as the certificate says: in whole
    /// tiles if there are some. `None` where it gives a row for each call, or is not row-wise.
    pub output: Option<RecordBatch>,
}

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whom {
    /// The worker that has been asked from the beginning.
    First,
    /// One that has been asked nothing but what another worker should answer in the same way.
    Fresh,
}

/// What came back.
#[derive(Debug)]
pub(crate) enum Heard {
    Rows(RecordBatch),
    /// The function raised, or the rows or its output were not what the signature says.
    Refused(String),
    /// The worker died or was killed.
    Lost(String),
}

/// Rows to ask for, and how long that may take.
#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) rows: RecordBatch,
    pub(crate) deadline: Duration,
}

/// Calls the function under test.
pub(crate) trait Workers {
    /// Asks for rows; an error ends the trials.
    fn ask(&mut self, whom: Whom, ask: Ask) -> impl Future<Output = Result<Heard, Error>> + Send;

    /// Asks the first worker and a second one at the same time. Which of the two is asked makes no
    /// difference to what is looked for.
    fn ask_two(
        &mut self,
        first: Ask,
        second: Ask,
    ) -> impl Future<Output = Result<[Heard; 2], Error>> + Send;
}

#[cfg(test)]
mod tests;
