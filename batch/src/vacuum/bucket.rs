//! The same in a bucket. There are no locks: a job is alive as long as it writes.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use chrono::{DateTime, Utc};
use object_store::ObjectMeta;

use super::{Vacuumed, needed};
use crate::Error;
use crate::attempt::job_of;
use crate::claim::CLAIMS;
use crate::ledger::{self, FILES, Ledger};
use crate::location::{Location, absolute};
use crate::notes;

/// Deletes what is older than `limit` and no version needs which was the latest since then.
pub(super) async fn vacuum(
    table: &Location,
    limit: SystemTime,
    dry_run: bool,
) -> Result<Vacuumed, Error> {
    let before = DateTime::<Utc>::from(limit);
    if !dry_run {
        ledger::settle(table).await?;
    }
    // First the files, then the log: what comes in between is younger, or named by it.
    let objects = table.objects().await?;
    if objects.is_empty() {
        return Err(Error::TableNotFound {
            table: table.to_string(),
            looked_for: "no file below it".into(),
        });
    }
    let needed = needed(table, limit).await?;
    let jobs = Jobs::look(table, &objects, before);
    let ledger = Ledger::among(table, &objects).await?;
    let is_unneeded = |object: &&ObjectMeta| {
        object.last_modified < before
            && (ledger.is_past(object)
                || jobs.has_left(table, (needed.as_ref(), !ledger.is_empty()), object))
            && !ledger.names(object)
    };
    let unneeded: Vec<&ObjectMeta> = objects.iter().filter(is_unneeded).collect();
    let notes = objects
        .iter()
        .filter(|object| jobs.notes_of_dead(table, object));
    if !dry_run {
        let gone = unneeded.iter().copied().chain(notes);
        let gone = gone.map(|object| object.location.clone()).collect();
        notes::delete(table, gone).await?;
    }
    Ok(Vacuumed {
        bytes: unneeded.iter().map(|object| object.size).sum(),
        files: unneeded
            .iter()
            .map(|object| table.named(&absolute(&object.location)))
            .collect(),
        jobs_running: jobs.noted.difference(&jobs.dead).count(),
    })
}

/// The jobs that have files or notes at the table.
struct Jobs {
    /// Those that say that they are under way.
    noted: HashSet<String>,
    /// Those of which nothing was written since the limit.
    dead: HashSet<String>,
}

impl Jobs {
    fn look(table: &Location, objects: &[ObjectMeta], before: DateTime<Utc>) -> Self {
        let mut newest: HashMap<String, DateTime<Utc>> = HashMap::new();
        let mut noted = HashSet::new();
        for object in objects {
            let path = below(table, object);
            let of_notes = job_of_note(&path);
            noted.extend(of_notes.clone());
            if let Some(job) = of_notes.or_else(|| job_of(&name(&path)).map(str::to_owned)) {
                let newest = newest.entry(job).or_insert(object.last_modified);
                *newest = object.last_modified.max(*newest);
            }
        }
        let dead = newest.into_iter().filter(|(_, newest)| *newest < before);
        Self {
            noted,
            dead: dead.map(|(job, _)| job).collect(),
        }
    }

    /// Whether nobody needs the file, nor will. Without a log that says what is needed, only files of
    /// jobs that noted that they are under way are known to be theirs.
    fn has_left(
        &self,
        table: &Location,
        (needed, has_ledger): (Option<&HashSet<PathBuf>>, bool),
        object: &ObjectMeta,
    ) -> bool {
        let path = below(table, object);
        let job = name(&path);
        let job = job_of(&job);
        let is_hidden = |name: &OsStr| {
            let name = name.to_string_lossy();
            name.starts_with('.') || (name.starts_with('_') && !name.contains('='))
        };
        let within = path.strip_prefix(FILES).ok();
        if within.unwrap_or(&path).iter().any(is_hidden) || !name(&path).ends_with(".parquet") {
            return false;
        }
        match needed {
            Some(needed) => {
                let is_alive =
                    job.is_some_and(|job| self.noted.contains(job) && !self.dead.contains(job));
                !needed.contains(&absolute(&object.location)) && !is_alive
            }
            // In the folder of Parquet files that has a ledger, what is not hidden is in the table.
            None if within.is_none() && has_ledger => false,
            None => job.is_some_and(|job| self.noted.contains(job) && self.dead.contains(job)),
        }
    }

    fn notes_of_dead(&self, table: &Location, object: &ObjectMeta) -> bool {
        job_of_note(&below(table, object)).is_some_and(|job| self.dead.contains(&job))
    }
}

fn below(table: &Location, object: &ObjectMeta) -> PathBuf {
    let path = absolute(&object.location);
    path.strip_prefix(table.path()).unwrap_or(&path).to_owned()
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// The job that a note is of.
fn job_of_note(below: &Path) -> Option<String> {
    let mut names = below.strip_prefix(CLAIMS).ok()?.iter();
    Some(names.next()?.to_string_lossy().into_owned())
}
