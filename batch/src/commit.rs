//! Makes the results of a job visible, all at once. Nothing else in this crate does.

mod delta;
mod parquet;

use std::collections::HashMap;

use serde_json::Value;

use crate::Error;
use crate::attempt::Attempt;
use crate::part_file::Part;
use crate::target::{Change, Target};

/// What the log of a Delta table says about the job, beside its files.
pub(crate) type Facts = HashMap<String, Value>;

/// Commits the files of `attempt`. Gives the version of the Delta table that has them.
pub(crate) async fn commit(
    target: &Target,
    attempt: Attempt,
    parts: &[Part],
    facts: Facts,
) -> Result<Option<i64>, Error> {
    match &target.change {
        Change::Delta(change) => delta::commit(target, change, attempt, (parts, facts))
            .await
            .map(Some),
        Change::Parquet(change) => parquet::commit(target, *change, attempt, parts)
            .await
            .map(|()| None),
    }
}
