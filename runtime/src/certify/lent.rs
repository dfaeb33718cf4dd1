//! The trials' workers: one lent by the pool for as long as they take, one beside it, and a fresh one.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use envelope_format::Function;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::examine::examine;
use super::{Ask, Certified, Heard, Trials, Whom, Workers};
use crate::Error;
use crate::fit::fit;
use crate::pool::{LentWorker, Pool};
use crate::process::{Call, Process};
use crate::runtime::Answered;

struct Lent<'f> {
    pool: Arc<Pool>,
    function: &'f Function,
    each_row: bool,
    first: Option<LentWorker>,
    second: Option<Process>,
    fresh: Option<Process>,
    /// The fresh worker begins while the first one answers.
    starting: JoinSet<Result<Process, Error>>,
}

/// Tests `function` on its `sample`; `tell` hears how many of how many trials are done.
pub(crate) async fn certify(
    pool: &Arc<Pool>,
    function: &Function,
    sample: &RecordBatch,
    trials: Trials,
    tell: &(dyn Fn(u32, u32) + Sync),
) -> Result<Certified, Error> {
    let sample = fit(function, sample)?;
    let mut starting = JoinSet::new();
    start(&mut starting, pool);
    let mut workers = Lent {
        pool: Arc::clone(pool),
        function,
        each_row: is_called_for_each_row(function),
        first: None,
        second: None,
        fresh: None,
        starting,
    };
    let certified = examine(function, &sample, &mut workers, trials, tell).await;
    if let Some(first) = workers.first.take() {
        first.returned();
    }
    certified
}

/// Whether a call takes or gives one row only, so that several rows are several calls.
pub(crate) fn is_called_for_each_row(function: &Function) -> bool {
    let signature = &function.signature;
    signature.input.shape.is_one_row() || signature.output.shape.is_one_row()
}

fn start(starting: &mut JoinSet<Result<Process, Error>>, pool: &Arc<Pool>) {
    let pool = Arc::clone(pool);
    starting.spawn(async move { pool.start_process().await });
}

impl Workers for Lent<'_> {
    async fn ask(&mut self, whom: Whom, ask: Ask) -> Result<Heard, Error> {
        let call = self.call();
        match whom {
            Whom::First => {
                let mut first = self.first().await?;
                let (heard, alive) = heard_of(first.call(call, &ask.rows), ask.deadline).await;
                self.first = alive.then_some(first);
                heard
            }
            Whom::Fresh => {
                let mut fresh = self.fresh().await?;
                let (heard, alive) = heard_of(fresh.call(call, &ask.rows), ask.deadline).await;
                self.fresh = alive.then_some(fresh);
                heard
            }
        }
    }

    async fn ask_two(&mut self, first: Ask, second: Ask) -> Result<[Heard; 2], Error> {
        let call = self.call();
        let mut one = self.first().await?;
        let mut other = match self.second.take() {
            Some(second) => second,
            None => self.pool.start_process().await?,
        };
        let ((one_heard, one_alive), (other_heard, other_alive)) = tokio::join!(
            heard_of(one.call(call, &first.rows), first.deadline),
            heard_of(other.call(call, &second.rows), second.deadline),
        );
        self.first = one_alive.then_some(one);
        self.second = other_alive.then_some(other);
        Ok([one_heard?, other_heard?])
    }
}

/// What an answer says about the function, and whether its worker can be asked again: not if it has
/// died or is still busy.
async fn heard_of(
    answer: impl Future<Output = Result<Answered, Error>>,
    deadline: Duration,
) -> (Result<Heard, Error>, bool) {
    match timeout(deadline, answer).await {
        Ok(Ok(answered)) => (Ok(Heard::Rows(answered.rows)), true),
        Ok(Err(error)) => {
            let alive = !matches!(error, Error::Crashed { .. });
            (heard(error), alive)
        }
        Err(_) => {
            let what = format!("it did not end within {} s", deadline.as_secs());
            (Ok(Heard::Lost(what)), false)
        }
    }
}

/// What a failure says about the function; an error that is not its own ends the trials.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of another kind are those that are not the function's"
)]
fn heard(error: Error) -> Result<Heard, Error> {
    match error {
        Error::Function { exception, .. } => Ok(Heard::Refused(format!("it raised {exception}"))),
        Error::Output { reason, .. } => Ok(Heard::Refused(format!("a wrong output: {reason}"))),
        Error::RowsDoNotFit { reason, .. } => Ok(Heard::Refused(reason)),
        Error::Crashed { reason, .. } => Ok(Heard::Lost(format!("the worker died: {reason}"))),
        other => Err(other),
    }
}

impl<'f> Lent<'f> {
    fn call(&self) -> Call<'f> {
        Call {
            function: &self.function.name,
            each_row: self.each_row,
            awake: false,
        }
    }

    async fn first(&mut self) -> Result<LentWorker, Error> {
        match self.first.take() {
            Some(first) => Ok(first),
            None => self.pool.lend().await,
        }
    }

    async fn fresh(&mut self) -> Result<Process, Error> {
        if let Some(fresh) = self.fresh.take() {
            return Ok(fresh);
        }
        if self.starting.is_empty() {
            start(&mut self.starting, &self.pool);
        }
        match self.starting.join_next().await {
            Some(Ok(started)) => started,
            Some(Err(_)) | None => Err(Error::Stopped),
        }
    }
}
