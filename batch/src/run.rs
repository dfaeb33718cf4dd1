//! The job path: claim, decide, plan, carry out, commit.

mod carry_out;
mod claimed;
mod decided;
mod planned;

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use self::carry_out::finish;
pub(crate) use self::decided::Decided;
pub(crate) use self::planned::Planned;

use self::carry_out::carry_out;
use self::claimed::{Claimed, claim, done_meanwhile};
use self::decided::decide;
use self::planned::plan;
use crate::attempt::Attempt;
use crate::commit::{Finished, Outcome, commit};
use crate::coverage;
use crate::model::splittable;
use crate::part_file::Part;
use crate::progress::Progress;
use crate::source::Source;
use crate::{Error, Job, Model, Stores};

/// What does the work of a job.
#[derive(Clone)]
pub struct Components {
    /// The functions that are applied to each row: their results stand side by side.
    pub models: Vec<Model>,
    /// Identity of the job: in the names of its files and in the log. No two jobs have the same.
    pub id: Uuid,
    /// Is told how far the job is, some times a second.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
    /// Opens the stores that tables are in.
    pub stores: Stores,
    /// Ends the job early.
    pub cancelled: CancellationToken,
}

impl fmt::Debug for Components {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Components")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// What a job has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Summary {
    /// Rows that were written.
    pub rows: u64,
    /// Files that were written.
    pub files: u64,
    /// Files among them that an earlier attempt at the same job had finished.
    pub files_reused: u64,
    /// Version of the Delta table that has the results, as far as its log still tells.
    pub version: Option<i64>,
    /// Whether an earlier run of the same job had done all this, so that nothing was changed.
    pub already_done: bool,
}

impl Summary {
    pub(crate) fn of(parts: &[Part], files_reused: u64, outcome: Outcome) -> Self {
        match outcome {
            Outcome::Before(finished) => Self::before(&finished),
            Outcome::Written(version) => Self {
                rows: parts.iter().map(|part| part.rows).sum(),
                files: parts.len() as u64,
                files_reused,
                version,
                already_done: false,
            },
        }
    }

    fn before(finished: &Finished) -> Self {
        Self {
            rows: finished.rows,
            files: finished.file_count,
            files_reused: 0,
            version: finished.version,
            already_done: true,
        }
    }
}

/// Applies query functions to every row of a table.
///
/// All that can be refused is refused before any work. The results become visible all at once; a
/// job that fails, is cancelled or whose future is dropped leaves nothing behind. A job with an
/// [identity](Job::identity) leaves what it has finished, for the run that completes it.
///
/// ```no_run
/// # use std::sync::Arc; use batch::{Components, Job, Model};
/// # async fn example(runtime: runtime::Runtime) -> Result<(), batch::Error> {
/// let mut job = Job::new("warehouse/clients", "warehouse/predictions");
/// job.keep = vec!["client_id".into()];
/// let components = Components {
///     models: vec![Model::new(Arc::new(runtime))],
///     id: uuid::Uuid::new_v4(),
///     progress: Arc::new(|progress| eprintln!("{} rows", progress.rows_done)),
///     stores: batch::Stores::new(std::env::vars()),
///     cancelled: tokio_util::sync::CancellationToken::new(),
/// };
/// let summary = batch::run(&job, &components).await?;
/// println!("{} rows in version {:?}", summary.rows, summary.version);
/// # Ok(()) }
/// ```
///
/// # Errors
/// See [`Error`].
pub async fn run(job: &Job, components: &Components) -> Result<Summary, Error> {
    begin_run(job, components).await
}

/// Boxed, as all that this crate lets others wait for: who links it would compile the whole job again.
fn begin_run<'r>(
    job: &'r Job,
    components: &'r Components,
) -> BoxFuture<'r, Result<Summary, Error>> {
    Box::pin(some_attempts(job, components))
}

async fn some_attempts(job: &Job, components: &Components) -> Result<Summary, Error> {
    const ATTEMPTS: usize = 5;
    let mut attempt = 1;
    loop {
        match attempt_at(job, components).await {
            // What is finished lasts, so that another look at the table and another commit cost little.
            Err(Error::Conflict { .. }) if job.identity.is_some() && attempt < ATTEMPTS => {
                attempt += 1;
            }
            Err(error) => return done_meanwhile(job, components).await.ok_or(error),
            done => return done,
        }
    }
}

async fn attempt_at(job: &Job, components: &Components) -> Result<Summary, Error> {
    let models = splittable(job, &components.models)?;
    let hold = match claim(job, components, &models).await? {
        Claimed::Done(finished) => return Ok(Summary::before(&finished)),
        Claimed::Ours(hold) => hold,
    };
    let before = hold.as_ref().and_then(|(_, hold)| hold.record());
    let decided = decide(job, components, models, before).await?;

    let mut attempt = decided.begin(hold).await?;
    let (parts, reused) = match results(&decided, &attempt).await {
        Ok(results) => results,
        Err(error) => {
            attempt.give_up().await;
            return Err(error);
        }
    };
    let outcome = commit(&decided.target, attempt, &parts, decided.facts()).await?;
    Ok(Summary::of(&parts, reused, outcome))
}

/// The files of the results, none of which is visible yet, and how many an earlier attempt had finished.
async fn results(decided: &Decided<'_>, attempt: &Attempt) -> Result<(Vec<Part>, u64), Error> {
    let planned = plan(decided, attempt).await?;
    let written = match carry_out(&planned, decided).await {
        Ok(written) => written,
        Err(error) => return Err(decided.located(error).await),
    };
    let (reused, taken) = (coverage::reused(&written), coverage::rows_taken(&written));
    let parts = coverage::parts(written, planned.partitions())?;
    if decided.workplace.is_shared() {
        attempt.take_in(&parts)?;
    }
    check_complete(&decided.source, taken)?;
    Ok((parts, reused))
}

/// The last look before results become visible: as many rows are in them as the table says it has.
fn check_complete(source: &Source, taken: u64) -> Result<(), Error> {
    match source.rows() {
        Some(expected) if expected != taken => Err(Error::Read {
            table: source.name.clone(),
            file: None,
            source: format!("it says that it has {expected} rows, but {taken} were read").into(),
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
