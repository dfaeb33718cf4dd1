//! Makes the results of a job visible, all at once. Nothing else in this crate does.

mod bucket;
mod delta;
mod finished;
mod mark;
mod parquet;

use std::collections::HashMap;

use serde_json::Value;

pub(crate) use self::finished::{Finished, finished};
pub(crate) use self::mark::is_mark;
use crate::Error;
use crate::attempt::Attempt;
use crate::part_file::Part;
use crate::point;
use crate::target::{Change, Target};

/// What the log of a Delta table says about the job, beside its files.
pub(crate) type Facts = HashMap<String, Value>;

/// What has become of the files of an attempt.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// They are visible, in this version of the Delta table.
    Written(Option<i64>),
    /// Another attempt at the same job was quicker: its files are visible, and these are gone.
    Before(Finished),
}

/// Commits the files of `attempt`.
pub(crate) async fn commit(
    target: &Target,
    attempt: Attempt,
    parts: &[Part],
    facts: Facts,
) -> Result<Outcome, Error> {
    point::reached(point::BEFORE_COMMIT);
    match &target.change {
        Change::Delta(change) => delta::commit(target, change, attempt, (parts, facts)).await,
        Change::Parquet(change) if target.location.bucket().is_some() => {
            bucket::commit(target, *change, attempt, (parts, facts)).await
        }
        Change::Parquet(change) => parquet::commit(target, *change, attempt, parts).await,
    }
}
