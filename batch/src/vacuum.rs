//! Deletes the files of a table that nobody needs: of versions that are past, and of jobs that died.
//!
//! The order keeps it safe beside jobs that run. First each job's notes are claimed or found to be in
//! use; then the log is read; then files are looked for. A job that commits in between was in use, and
//! what a job writes that begins later is younger than the moment at which this began.

mod bucket;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use futures::TryStreamExt as _;
use futures::future::BoxFuture;

use crate::attempt::{job_of, remove_empty};
use crate::claim::{CLAIMS, Claim, remove};
use crate::durable::{is_incomplete, parent};
use crate::location::Location;
use crate::snapshot::{loaded, unreadable};
use crate::warehouse::locate;
use crate::{Error, Stores};

/// What was deleted, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vacuumed {
    /// The files.
    pub files: Vec<PathBuf>,
    /// How long they are together.
    pub bytes: u64,
    /// Jobs that run at the moment, or may be completed. Their files stay.
    pub jobs_running: usize,
}

/// Deletes files of a table that nobody needs.
///
/// These are files that no version needs which was the latest at some moment since `limit`, and what jobs
/// have left that died before that. With `dry_run` it only tells which. The limit is a moment of the past.
///
/// The table is given by path, or by its name in the `warehouse`. A folder of Parquet files has no
/// versions: only what jobs have left beside it is deleted.
///
/// A bucket has no locks that tell which jobs run. There, a job counts as dead when nothing of it was written
/// since `limit`.
///
/// # Errors
/// [`Error::TableNotFound`], [`Error::Read`], or [`Error::Write`] where something cannot be deleted.
pub async fn vacuum(
    stores: &Stores,
    warehouse: Option<&str>,
    table: &str,
    limit: SystemTime,
    dry_run: bool,
) -> Result<Vacuumed, Error> {
    begin((stores, warehouse, table), limit, dry_run).await
}

type Place<'v> = (&'v Stores, Option<&'v str>, &'v str);

fn begin(
    place: Place<'_>,
    limit: SystemTime,
    dry_run: bool,
) -> BoxFuture<'_, Result<Vacuumed, Error>> {
    Box::pin(vacuum_at(place, limit, dry_run))
}

async fn vacuum_at(
    (stores, warehouse, table): Place<'_>,
    limit: SystemTime,
    dry_run: bool,
) -> Result<Vacuumed, Error> {
    let location = locate(stores, warehouse, table).await?.resolved();
    if location.bucket().is_some() {
        return bucket::vacuum(&location, limit, dry_run).await;
    }
    let path = location.path();
    let is_delta = path.join("_delta_log").is_dir() || path.join(CLAIMS).is_dir();
    let wrong = |source| Error::unwritable(path, source);
    let jobs = Jobs::look(&location, is_delta, limit).map_err(wrong)?;
    let found = if is_delta {
        let needed = needed(&location, limit).await?;
        unneeded(path, needed.as_ref(), &jobs, limit).map_err(wrong)?
    } else {
        staged(&location, &jobs, limit).map_err(wrong)?
    };
    if !path.is_dir() && found.is_empty() && jobs.is_empty() {
        return Err(Error::TableNotFound {
            table: location.to_string(),
            looked_for: "no such folder".into(),
        });
    }
    let vacuumed = Vacuumed {
        bytes: found.iter().map(|file| file.bytes).sum(),
        files: found.into_iter().map(|file| file.path).collect(),
        jobs_running: jobs.in_use.len(),
    };
    if !dry_run {
        delete(&vacuumed.files, path).map_err(wrong)?;
    }
    jobs.end(dry_run);
    Ok(vacuumed)
}

/// The jobs that have notes at a table.
struct Jobs {
    /// Those whose files may still become visible.
    in_use: HashSet<String>,
    /// Those that died long ago. Nobody else can take them up as long as they are here.
    dead: Vec<(String, Claim)>,
}

impl Jobs {
    fn look(table: &Location, is_delta: bool, limit: SystemTime) -> io::Result<Self> {
        let mut jobs = Self {
            in_use: HashSet::new(),
            dead: vec![],
        };
        for (id, folder) in notes(table, is_delta)? {
            match Claim::attempt(&folder)? {
                Some(claim) if newest(&folder)? < limit => jobs.dead.push((id, claim)),
                Some(claim) => {
                    claim.leave();
                    jobs.in_use.insert(id);
                }
                None => {
                    jobs.in_use.insert(id);
                }
            }
        }
        Ok(jobs)
    }

    fn uses(&self, id: &str) -> bool {
        self.in_use.contains(id)
    }

    fn has_left(&self, id: &str) -> bool {
        self.dead.iter().any(|(dead, _)| dead == id)
    }

    fn is_empty(&self) -> bool {
        self.in_use.is_empty() && self.dead.is_empty()
    }

    fn end(self, dry_run: bool) {
        for (_, claim) in self.dead {
            if dry_run {
                claim.leave();
            } else {
                claim.end();
            }
        }
    }
}

/// The folders with notes, and the jobs that they are of.
fn notes(table: &Location, is_delta: bool) -> io::Result<Vec<(String, PathBuf)>> {
    let path = table.path();
    let folder = if is_delta {
        path.join(CLAIMS)
    } else {
        parent(path)
    };
    let mut notes = vec![];
    for entry in entries(&folder)? {
        let name = name(&entry);
        let id = if is_delta {
            Some(name)
        } else {
            staged_id(table, &name)
                .and_then(|id| id.strip_suffix(".job"))
                .map(str::to_owned)
        };
        notes.extend(id.map(|id| (id, entry)));
    }
    Ok(notes)
}

/// What follows the table's name in the name of a folder beside it.
fn staged_id<'n>(table: &Location, name: &'n str) -> Option<&'n str> {
    let of_table = self::name(table.path());
    name.strip_prefix('.')?
        .strip_prefix(of_table.as_str())?
        .strip_prefix('.')
        .filter(|id| id.len() >= 32 && id[..32].bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// A file that nobody needs.
struct Unneeded {
    path: PathBuf,
    bytes: u64,
}

/// The files that versions name which were the latest at some moment since `limit`. None where there is
/// no version.
async fn needed(location: &Location, limit: SystemTime) -> Result<Option<HashSet<PathBuf>>, Error> {
    let table = match loaded(location).await {
        Ok(table) => table,
        Err(Error::TableNotFound { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let wrong = |source| unreadable(location, source);
    let state = table.snapshot().map_err(wrong)?;
    let log = table.log_store();
    let mut needed = HashSet::new();
    let views: Vec<_> = state
        .snapshot()
        .file_views(log.as_ref(), None)
        .try_collect()
        .await
        .map_err(wrong)?;
    for view in views {
        needed.insert(location.path().join(view.path().as_ref()));
    }
    let limit = limit
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |limit| limit.as_millis());
    let removed: Vec<_> = state
        .all_tombstones(log.as_ref())
        .try_collect()
        .await
        .map_err(wrong)?;
    for tombstone in removed {
        // One that does not say when counts as removed now.
        let at = tombstone.deletion_timestamp().unwrap_or(i64::MAX);
        if u128::try_from(at).is_ok_and(|at| at >= limit) {
            // Whether the log's escapes are undone here is not ours to know: both are kept.
            let path = tombstone.path();
            let plain = percent_encoding::percent_decode_str(&path).decode_utf8_lossy();
            needed.insert(location.path().join(plain.as_ref()));
            needed.insert(location.path().join(path.as_ref()));
        }
    }
    Ok(Some(needed))
}

/// Files of a Delta table that are not needed and older than `limit`. Without a log that says what is
/// needed, only what jobs that died have left: the rest may be anybody's.
fn unneeded(
    table: &Path,
    needed: Option<&HashSet<PathBuf>>,
    jobs: &Jobs,
    limit: SystemTime,
) -> io::Result<Vec<Unneeded>> {
    let mut found = vec![];
    for path in data_files(table)? {
        let name = name(&path);
        let job = job_of(&name);
        let is_unneeded = match needed {
            Some(needed) => !needed.contains(&path) && !job.is_some_and(|job| jobs.uses(job)),
            None => job.is_some_and(|job| jobs.has_left(job)),
        };
        if is_unneeded {
            found.extend(old(path, limit)?);
        }
    }
    // Whoever writes an entry of the log right now is a job that is in use.
    if jobs.in_use.is_empty() {
        for path in entries(&table.join("_delta_log"))? {
            if is_incomplete(&name(&path)) {
                found.extend(old(path, limit)?);
            }
        }
    }
    Ok(found)
}

/// Parquet files in the folder of a table, and files of ours that are not whole.
fn data_files(table: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = vec![];
    let mut folders = vec![table.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder)? {
            let name = name(&path);
            let is_hidden = name.starts_with(['_', '.']);
            if path.is_dir() && !is_hidden {
                folders.push(path);
            } else if job_of(&name).is_some() || (!is_hidden && name.ends_with(".parquet")) {
                files.push(path);
            }
        }
    }
    Ok(files)
}

/// Files in folders beside a Parquet table that jobs have left.
fn staged(table: &Location, jobs: &Jobs, limit: SystemTime) -> io::Result<Vec<Unneeded>> {
    let mut found = vec![];
    for path in entries(&parent(table.path()))? {
        let folder = name(&path);
        let Some(id) = staged_id(table, &folder) else {
            continue;
        };
        if id.len() == 32 && !jobs.uses(id) && newest(&path)? < limit {
            found.push(Unneeded {
                bytes: length(&path)?,
                path,
            });
        }
    }
    Ok(found)
}

fn old(path: PathBuf, limit: SystemTime) -> io::Result<Option<Unneeded>> {
    match std::fs::metadata(&path) {
        Ok(metadata) if metadata.modified()? < limit => Ok(Some(Unneeded {
            bytes: metadata.len(),
            path,
        })),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn delete(paths: &[PathBuf], table: &Path) -> io::Result<()> {
    for path in paths {
        if path.is_dir() {
            std::fs::remove_dir_all(path)?;
            continue;
        }
        remove(path)?;
        if path.starts_with(table) {
            remove_empty(&parent(path), table);
        }
    }
    Ok(())
}

/// When something at or below `path` was last written.
fn newest(path: &Path) -> io::Result<SystemTime> {
    let mut newest = std::fs::metadata(path)?.modified()?;
    if path.is_dir() {
        for entry in entries(path)? {
            newest = newest.max(self::newest(&entry)?);
        }
    }
    Ok(newest)
}

fn length(path: &Path) -> io::Result<u64> {
    if path.is_dir() {
        return entries(path)?.iter().map(|entry| length(entry)).sum();
    }
    Ok(std::fs::metadata(path)?.len())
}

/// What is in a folder; nothing if it is not there.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(error),
    };
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
