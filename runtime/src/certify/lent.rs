//! The trials' workers: one lent by the pool for as long as they take, and a fresh one.

use std::sync::Arc;
use std::time::Duration;

use arrow_array::RecordBatch;
use envelope_format::Function;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::examine::examine;
use super::{Certified, Heard, Trials, Whom, Workers};
use crate::Error;
use crate::fit::fit;
use crate::pool::{LentWorker, Pool};
use crate::process::{Call, Process};

struct Lent<'f> {
    pool: Arc<Pool>,
    function: &'f Function,
    each_row: bool,
    first: Option<LentWorker>,
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
    async fn ask(
        &mut self,
        whom: Whom,
        rows: RecordBatch,
        deadline: Duration,
    ) -> Result<Heard, Error> {
        let answered = match whom {
            Whom::First => timeout(deadline, self.ask_first(&rows)).await,
            Whom::Fresh => {
                self.await_fresh().await?;
                timeout(deadline, self.ask_fresh(&rows)).await
            }
        };
        match answered {
            Ok(Ok(rows)) => Ok(Heard::Rows(rows)),
            Ok(Err(error)) => {
                if matches!(error, Error::Crashed { .. }) {
                    self.lose(whom);
                }
                heard(error)
            }
            Err(_) => {
                self.lose(whom);
                Ok(Heard::Lost(format!(
                    "it did not end within {} s",
                    deadline.as_secs()
                )))
            }
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

impl Lent<'_> {
    fn call(&self) -> Call<'_> {
        Call {
            function: &self.function.name,
            each_row: self.each_row,
        }
    }

    async fn ask_first(&mut self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        let mut first = match self.first.take() {
            Some(first) => first,
            None => self.pool.lend().await?,
        };
        let answer = first
            .call(self.call(), rows)
            .await
            .map(|answer| answer.rows);
        self.first = Some(first);
        answer
    }

    async fn await_fresh(&mut self) -> Result<(), Error> {
        if self.fresh.is_some() {
            return Ok(());
        }
        if self.starting.is_empty() {
            start(&mut self.starting, &self.pool);
        }
        let started = match self.starting.join_next().await {
            Some(Ok(started)) => started,
            Some(Err(_)) | None => Err(Error::Stopped),
        };
        self.fresh = Some(started?);
        Ok(())
    }

    async fn ask_fresh(&mut self, rows: &RecordBatch) -> Result<RecordBatch, Error> {
        let Some(mut fresh) = self.fresh.take() else {
            return Err(Error::Stopped);
        };
        let answer = fresh
            .call(self.call(), rows)
            .await
            .map(|answer| answer.rows);
        self.fresh = Some(fresh);
        answer
    }

    /// A worker that died, or that is still busy, is not asked again.
    fn lose(&mut self, whom: Whom) {
        match whom {
            Whom::First => self.first = None,
            Whom::Fresh => self.fresh = None,
        }
    }
}
