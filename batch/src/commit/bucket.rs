//! One entry in the ledger of a folder of Parquet files in a bucket.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;
use std::sync::Arc;

use super::parquet::{changed, check_fits, left, write_empty};
use super::{Facts, Finished, Outcome};
use crate::Error;
use crate::attempt::Attempt;
use crate::identity::Key;
use crate::ledger::{self, DoneJob, Entry, Ledger};
use crate::location::Location;
use crate::merge::{Keys, Left};
use crate::part_file::Part;
use crate::point;
use crate::source::Source;
use crate::target::{Old, ParquetChange, Target, objects_below};

pub(super) async fn commit(
    target: &Target,
    change: ParquetChange,
    attempt: Attempt,
    (parts, facts): (&[Part], Facts),
) -> Result<Outcome, Error> {
    let submitted = attempt.submit();
    let nothing = HashSet::new();
    match entered(target, change, submitted.attempt(), (parts, facts)).await {
        Ok(Entered::Now(mut ledger)) => {
            if let Err(error) = ledger.complete().await {
                // Committed it is: an error would have the job done again.
                let table = target.location.to_string();
                tracing::warn!(%error, table, "the results are committed; the next job on the table, or `envelope vacuum`, moves their files to their places");
                return Ok(Outcome::Written(None));
            }
            point::reached(point::AFTER_COMMIT);
            submitted.done(&nothing).await;
            Ok(Outcome::Written(None))
        }
        Ok(Entered::NeedNot) => {
            submitted.done(&nothing).await;
            Ok(Outcome::Written(None))
        }
        Ok(Entered::Before(finished)) => {
            submitted.done(&nothing).await;
            Ok(Outcome::Before(finished))
        }
        // The entry may be there: it names the files.
        Err(error @ Error::Commit { .. }) => Err(error),
        Err(error) => {
            submitted.withdraw().await;
            Err(error)
        }
    }
}

/// What the ledger has of an attempt.
enum Entered {
    /// Its entry, which is the last.
    Now(Ledger),
    /// The entry of another attempt at the same job.
    Before(Finished),
    /// None: nothing would change.
    NeedNot,
}

async fn entered(
    target: &Target,
    change: ParquetChange,
    attempt: &Attempt,
    (parts, facts): (&[Part], Facts),
) -> Result<Entered, Error> {
    let table = &target.location;
    check_copied(table, parts)?;
    let keys = Keys::of(target, attempt, parts).await?;
    loop {
        let mut ledger = Ledger::read(table).await?;
        ledger.complete().await?;
        if let Some(job) = ledger::noted_job(table, attempt.id()).await? {
            return Ok(Entered::Before(before(job)));
        }
        let (added, removed) = files(target, change, attempt, (parts, keys.clone())).await?;
        let entry = Entry {
            attempt: attempt.job().to_owned(),
            job: attempt.splits().map(|_| DoneJob {
                id: attempt.id().to_owned(),
                rows: parts.iter().map(|part| part.rows).sum(),
                files: parts.len() as u64,
                facts: facts.clone(),
            }),
            added,
            removed,
        };
        if entry.job.is_none() && entry.added.is_empty() && entry.removed.is_empty() {
            return Ok(Entered::NeedNot);
        }
        if ledger.add(entry).await? {
            return Ok(Entered::Now(ledger));
        }
    }
}

/// Refuses a file that no server copies.
fn check_copied(table: &Location, parts: &[Part]) -> Result<(), Error> {
    const MOST_BYTES: u64 = 5 << 30;
    match parts.iter().find(|part| part.bytes > MOST_BYTES) {
        None => Ok(()),
        Some(part) => Err(Error::Write {
            path: table.named(&table.path().join(&part.name)),
            source: "a file of more than 5 GiB cannot be copied to its place; write a Delta table"
                .into(),
        }),
    }
}

/// Names of files.
type Files = BTreeSet<String>;

/// The files that the table gets, and those that go.
async fn files(
    target: &Target,
    change: ParquetChange,
    attempt: &Attempt,
    (parts, keys): (&[Part], Option<Arc<Keys>>),
) -> Result<(Files, Files), Error> {
    let table = &target.location;
    let mut added: Files = parts.iter().map(|part| part.name.clone()).collect();
    let mut removed = Files::new();
    let mut stays = false;
    match change {
        ParquetChange::Create { .. } if all_files(table).await?.is_empty() => {}
        ParquetChange::Create { appends: false } => return Err(changed(table)),
        ParquetChange::Create { appends: true } | ParquetChange::Append => {
            check_fits(target, &Source::open(table).await?)?;
            stays = true;
        }
        ParquetChange::Replace(Old::All) => removed = all_files(table).await?,
        ParquetChange::Replace(Old::OfPartitions | Old::WithKeys) => {
            let there = Source::open(table).await?;
            let left = left(target, &there, attempt, (parts, keys)).await?;
            for (file, left) in there.files.iter().zip(left) {
                stays |= left == Left::All;
                if left != Left::All {
                    removed.insert(below(table, &file.path));
                }
                if let Left::Some(part) = left {
                    added.insert(part.name);
                }
            }
        }
    }
    if added.is_empty() && !stays {
        added.insert(write_empty(attempt, target).await?.name);
    }
    Ok((added, removed))
}

/// All that is in the folder of the table but what jobs keep there for themselves.
async fn all_files(table: &Location) -> Result<Files, Error> {
    let files = objects_below(table).await?;
    Ok(files.iter().map(|file| below(table, file)).collect())
}

fn below(table: &Location, path: &Path) -> String {
    let below = path.strip_prefix(table.path()).unwrap_or(path);
    below.to_string_lossy().into_owned()
}

/// The job `key`, if its results are in the table.
pub(super) async fn finished(table: &Location, key: &Key) -> Result<Option<Finished>, Error> {
    let job = ledger::done_job(table, key.short()).await?;
    Ok(job.map(before))
}

fn before(job: DoneJob) -> Finished {
    Finished {
        rows: job.rows,
        file_count: job.files,
        facts: job.facts,
        ..Finished::default()
    }
}
