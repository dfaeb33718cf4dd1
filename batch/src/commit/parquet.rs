//! One renaming of a folder of Parquet files.
//!
//! A job with an identity leaves a mark in the folder: an empty file whose name says which job it was
//! and how much it wrote. It comes with the files, in the same renaming, so it is there exactly if they
//! are.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{Finished, Outcome};
use crate::Error;
use crate::attempt::{Attempt, file_name};
use crate::claim::remove;
use crate::durable::{parent, sync_folder, write_new};
use crate::identity::Key;
use crate::location::{Location, store_path};
use crate::part_file::{Part, PartFile};
use crate::point;
use crate::target::{ParquetChange, Target};

/// What names of marks begin with. Readers skip it; and the file is empty, for those that do not.
const MARK: &str = "_envelope-job-";

pub(super) async fn commit(
    target: &Target,
    change: ParquetChange,
    attempt: Attempt,
    parts: &[Part],
) -> Result<Outcome, Error> {
    let path = target.location.path();
    let marks = marks_to_come(change, &attempt, path, parts)?;
    if parts.is_empty() {
        if change == ParquetChange::Append && marks.is_empty() {
            return Ok(Outcome::Written(None));
        }
        // A folder without a file would not say which columns the table has.
        if change != ParquetChange::Append {
            write_empty(&attempt, &target.written).await?;
        }
    }
    let folder = attempt.folder().to_path_buf();
    prepare(&attempt, parts, &marks).map_err(|source| write(&folder, source))?;
    let done = match change {
        ParquetChange::Create => create(attempt, path),
        ParquetChange::Append => append(attempt, path),
        ParquetChange::Replace => replace(attempt, path),
    };
    match done {
        Ok(()) => Ok(Outcome::Written(None)),
        Err((attempt, error)) if is_taken(&error) => taken(&target.location, attempt),
        Err((_, error)) => Err(write(path, error)),
    }
}

/// The folder holds the files and the marks and nothing else, and is on the disk.
fn prepare(attempt: &Attempt, parts: &[Part], marks: &[String]) -> io::Result<()> {
    let folder = attempt.folder();
    let mut wanted: HashSet<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let empty = empty_name(attempt);
    wanted.insert(&empty);
    // Attempts that died may have left files, whole or not: all that is there becomes the table.
    for path in entries(folder)? {
        if !wanted.contains(name(&path).as_str()) {
            remove(&path)?;
        }
    }
    for mark in marks {
        write_new(&folder.join(mark), &[])?;
    }
    sync_folder(folder)
}

/// The marks that the folder gets: its own, and those of the table whose place it takes.
fn marks_to_come(
    change: ParquetChange,
    attempt: &Attempt,
    table: &Path,
    parts: &[Part],
) -> Result<Vec<String>, Error> {
    let mut names = vec![];
    if change == ParquetChange::Replace {
        // Those of other jobs; of this one there may be one that died after its renaming.
        names = marks(table).map_err(|source| write(table, source))?;
        names.retain(|mark| of_mark(mark, attempt.id()).is_none());
        names.sort();
        names.dedup();
    }
    if attempt.splits().is_some() {
        let rows: u64 = parts.iter().map(|part| part.rows).sum();
        names.push(format!("{MARK}{}-{rows}-{}", attempt.id(), parts.len()));
    }
    Ok(names)
}

/// The name is another table's by now, or that of another attempt at the same job.
fn is_taken(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
    )
}

fn taken(location: &Location, attempt: Attempt) -> Result<Outcome, Error> {
    match marked(location, attempt.id())? {
        Some(finished) => {
            attempt.discard();
            Ok(Outcome::Before(finished))
        }
        None => Err(Error::Conflict {
            table: location.to_string(),
            source: None,
        }),
    }
}

/// What a step of the commit gives: an attempt that has not ended comes back.
type Step = Result<(), (Attempt, io::Error)>;

fn create(attempt: Attempt, path: &Path) -> Step {
    rename(attempt, path).map(Attempt::keep)
}

/// A folder in the folder, so that readers see all new files or none.
fn append(attempt: Attempt, path: &Path) -> Step {
    let place = appended(path, attempt.id());
    rename(attempt, &place).map(Attempt::keep)
}

fn appended(table: &Path, id: &str) -> PathBuf {
    table.join(format!("part-{id}"))
}

fn rename(attempt: Attempt, path: &Path) -> Result<Attempt, (Attempt, io::Error)> {
    match std::fs::rename(attempt.folder(), path) {
        Ok(()) => Ok(seen(attempt, path)),
        Err(error) => Err((attempt, error)),
    }
}

/// The files are visible: an error from here on changes nothing about that.
fn seen(attempt: Attempt, path: &Path) -> Attempt {
    point::reached(point::RENAMED);
    if let Err(error) = sync_folder(&parent(path)) {
        let path = path.display();
        tracing::warn!(%error, "`{path}` is complete, but may be gone after a power cut");
    }
    point::reached(point::AFTER_COMMIT);
    attempt
}

/// Two folders change places, in one step where the file system knows how. What is at the
/// attempt's place then is the old table, and goes when the attempt goes.
fn replace(attempt: Attempt, old: &Path) -> Step {
    match exchange(attempt.folder(), old, attempt.id()) {
        Ok(()) => {
            seen(attempt, old).discard();
            Ok(())
        }
        Err(error) => Err((attempt, error)),
    }
}

fn exchange(new: &Path, old: &Path, id: &str) -> io::Result<()> {
    match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(()),
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            let aside = parent(new).join(format!(".{id}.old"));
            std::fs::rename(old, &aside)?;
            std::fs::rename(new, old)?;
            std::fs::rename(aside, new)
        }
        Err(error) => Err(error.into()),
    }
}

fn write(path: &Path, source: io::Error) -> Error {
    Error::Write {
        path: path.to_path_buf(),
        source: Box::new(source),
    }
}

fn empty_name(attempt: &Attempt) -> String {
    file_name(0, 0, attempt.job())
}

async fn write_empty(attempt: &Attempt, schema: &SchemaRef) -> Result<(), Error> {
    let name = empty_name(attempt);
    let location = store_path(&attempt.folder().join(&name))?;
    let mut file = PartFile::begin(Arc::new(attempt.store()), location, name, schema, false)?;
    file.write(&RecordBatch::new_empty(Arc::clone(schema)))
        .await?;
    file.finish().await?;
    Ok(())
}

/// Whether a name is that of a mark.
pub(crate) fn is_mark(name: &str) -> bool {
    name.starts_with(MARK)
}

/// The job `key`, if the table has its mark.
pub(super) fn finished(location: &Location, key: &Key) -> Result<Option<Finished>, Error> {
    marked(location, key.short())
}

fn marked(location: &Location, id: &str) -> Result<Option<Finished>, Error> {
    let unreadable = |source| Error::Read {
        table: location.to_string(),
        file: None,
        source: Box::new(source),
    };
    let marks = marks(location.path()).map_err(unreadable)?;
    Ok(marks.iter().find_map(|mark| of_mark(mark, id)))
}

/// What the mark says, if it is that of the job.
fn of_mark(name: &str, id: &str) -> Option<Finished> {
    let counts = name.strip_prefix(MARK)?.strip_prefix(id)?;
    let (rows, files) = counts.strip_prefix('-')?.split_once('-')?;
    Some(Finished {
        rows: rows.parse().ok()?,
        file_count: files.parse().ok()?,
        ..Finished::default()
    })
}

/// Names of the marks in the folder of a table and in the folders that were added to it.
fn marks(table: &Path) -> io::Result<Vec<String>> {
    let mut marks = vec![];
    for entry in entries(table)? {
        let name = name(&entry);
        if is_mark(&name) {
            marks.push(name);
        } else if name.starts_with("part-") && entry.is_dir() {
            let within = entries(&entry)?;
            marks.extend(
                within
                    .iter()
                    .map(|path| self::name(path))
                    .filter(|name| is_mark(name)),
            );
        }
    }
    Ok(marks)
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if is_absent(&error) => Ok(vec![]),
        Err(error) => Err(error),
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

fn name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
