//! One renaming of a folder of Parquet files.
//!
//! A job with an identity leaves a mark in the folder: an empty file whose name says which job it was
//! and how much it wrote. It comes with the files, in the same renaming, so it is there exactly if they
//! are.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::RecordBatch;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::mark::{self, is_mark};
use super::{Finished, Outcome};
use crate::Error;
use crate::attempt::{Attempt, file_name};
use crate::claim::remove;
use crate::durable::{create_folders, parent, sync_folder, write_new};
use crate::identity::Key;
use crate::layout::{Layout, Values};
use crate::location::{Location, store_path};
use crate::merge::{Keys, Left};
use crate::part_file::{Part, PartFile};
use crate::point;
use crate::source::{Source, parquet_files};
use crate::table_lock::TableLock;
use crate::target::{Old, ParquetChange, Target, fitting};

pub(super) async fn commit(
    target: &Target,
    change: ParquetChange,
    attempt: Attempt,
    parts: &[Part],
) -> Result<Outcome, Error> {
    let path = target.location.path();
    let folder = attempt.folder().to_path_buf();
    let keys = Keys::of(target, &attempt, parts).await?;
    prepare(&attempt, parts).map_err(|source| Error::unwritable(&folder, source))?;
    let lock = match change {
        ParquetChange::Create { .. } => None,
        ParquetChange::Append | ParquetChange::Replace(_) => Some(TableLock::take(path).await?),
    };
    if let ParquetChange::Replace(old) = change {
        stay(target, old, &attempt, (parts, keys)).await?;
    }
    let marks = marks_to_come(change, &attempt, path, parts)?;
    if change == ParquetChange::Append && parts.is_empty() && marks.is_empty() {
        return Ok(Outcome::Written(None));
    }
    let is_empty = || parquet_files(&folder).map(|files| files.is_empty());
    if change != ParquetChange::Append
        && is_empty().map_err(|source| Error::unwritable(&folder, source))?
    {
        write_empty(&attempt, target).await?;
    }
    complete(&attempt, &marks).map_err(|source| Error::unwritable(&folder, source))?;
    let done = match change {
        ParquetChange::Create { .. } => create(attempt, path),
        ParquetChange::Append => append(attempt, path),
        ParquetChange::Replace(_) => replace(attempt, path),
    };
    drop(lock);
    let done = match done {
        Err((attempt, error)) if is_taken(&error) && change == APPENDS && fits(target).await => {
            let _lock = TableLock::take(path).await?;
            append(attempt, path)
        }
        done => done,
    };
    match done {
        Ok(()) => Ok(Outcome::Written(None)),
        Err((attempt, error)) if is_taken(&error) => taken(&target.location, attempt).await,
        Err((_, error)) => Err(Error::unwritable(path, error)),
    }
}

/// A table that somebody else makes at the same time is added to.
const APPENDS: ParquetChange = ParquetChange::Create { appends: true };

/// Whether the results fit the table that is there.
async fn fits(target: &Target) -> bool {
    let there = Source::open(&target.location).await;
    there.is_ok_and(|there| check_fits(target, &there).is_ok())
}

/// The folder holds the files of the results and nothing else: attempts that died may have left files,
/// whole or not, and all that is there becomes the table.
fn prepare(attempt: &Attempt, parts: &[Part]) -> io::Result<()> {
    let folder = attempt.folder();
    let wanted: HashSet<PathBuf> = parts.iter().map(|part| folder.join(&part.name)).collect();
    let (files, folders) = tree(folder)?;
    for file in files.iter().filter(|file| !wanted.contains(*file)) {
        remove(file)?;
    }
    for within in folders.iter().rev().filter(|within| *within != folder) {
        // Those that are not empty stay.
        let _ = std::fs::remove_dir(within);
    }
    Ok(())
}

/// Adds the marks, and asks the disk to keep the names.
fn complete(attempt: &Attempt, marks: &[String]) -> io::Result<()> {
    let folder = attempt.folder();
    for mark in marks {
        write_new(&folder.join(mark), &[])?;
    }
    let (_, folders) = tree(folder)?;
    folders
        .iter()
        .rev()
        .try_for_each(|folder| sync_folder(folder))
}

/// All files at or below `folder`, and all folders, outer ones first.
fn tree(folder: &Path) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut folders) = (vec![], vec![folder.to_path_buf()]);
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        for path in entries(&folder)? {
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    Ok((files, folders))
}

/// Puts what stays of the table beside the results: links to files that stay as they are, and new files
/// of the rows that stay of others.
async fn stay(
    target: &Target,
    old: Old,
    attempt: &Attempt,
    results: (&[Part], Option<Arc<Keys>>),
) -> Result<(), Error> {
    if old == Old::All {
        return Ok(());
    }
    let table = &target.location;
    let there = Source::open(table).await?;
    for (file, left) in there
        .files
        .iter()
        .zip(left(target, &there, attempt, results).await?)
    {
        if left == Left::All {
            let below = file.path.strip_prefix(table.path()).unwrap_or(&file.path);
            let place = attempt.folder().join(below);
            link(&file.path, &place).map_err(|source| Error::unwritable(&place, source))?;
        }
    }
    Ok(())
}

/// What is left of each file of the table when the results take the place of rows with their keys; without keys,
/// of rows in their partitions.
pub(super) async fn left(
    target: &Target,
    there: &Source,
    attempt: &Attempt,
    (parts, keys): (&[Part], Option<Arc<Keys>>),
) -> Result<Vec<Left>, Error> {
    check_fits(target, there)?;
    let partitions: HashSet<&Values> = parts.iter().map(|part| &part.values).collect();
    let mut all = vec![];
    for (position, file) in there.files.iter().enumerate() {
        all.push(match &keys {
            Some(keys) => keys.left(file, attempt, (position, false)).await?,
            None if partitions.contains(&Layout::texts(&file.partition_values)) => Left::Nothing,
            None => Left::All,
        });
    }
    Ok(all)
}

/// Refuses a table that was another one before the job.
pub(super) fn check_fits(target: &Target, there: &Source) -> Result<(), Error> {
    let table = &target.location;
    match fitting(table, target.layout.clone(), there) {
        Ok(_) => Ok(()),
        Err(_) => Err(changed(table)),
    }
}

/// The table is another one than before the job.
pub(super) fn changed(table: &Location) -> Error {
    Error::Conflict {
        table: table.to_string(),
        source: None,
    }
}

fn link(file: &Path, place: &Path) -> io::Result<()> {
    create_folders(&parent(place))?;
    match std::fs::hard_link(file, place) {
        // Not all file systems have links.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {
            std::fs::copy(file, place)?;
            File::open(place)?.sync_all()
        }
        outcome => outcome,
    }
}

/// The marks that the folder gets: its own, and those of the table whose place it takes.
fn marks_to_come(
    change: ParquetChange,
    attempt: &Attempt,
    table: &Path,
    parts: &[Part],
) -> Result<Vec<String>, Error> {
    let mut names = vec![];
    if matches!(change, ParquetChange::Replace(_)) {
        // Those of other jobs; of this one there may be one that died after its renaming.
        names = marks(table).map_err(|source| Error::unwritable(table, source))?;
        names.retain(|mark| mark::read(mark, attempt.id()).is_none());
        names.sort();
        names.dedup();
    }
    if attempt.splits().is_some() {
        names.push(mark::name(attempt.id(), parts));
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

async fn taken(location: &Location, attempt: Attempt) -> Result<Outcome, Error> {
    match marked(location, attempt.id()).await? {
        Some(finished) => {
            attempt.discard();
            Ok(Outcome::Before(finished))
        }
        None => Err(changed(location)),
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

/// A file without rows: a folder without a file would not say which columns the table has.
pub(super) async fn write_empty(attempt: &Attempt, target: &Target) -> Result<Part, Error> {
    let values = vec![None; target.layout.columns().len()];
    let name = file_name(0, 0, attempt.job());
    let name = format!("{}{name}", target.layout.folder(&values)?);
    let folder = store_path(attempt.folder())?;
    let columns = target.layout.of_files();
    let mut file = PartFile::begin((attempt.store(), &folder), (name, values), &columns, false)?;
    file.write(&RecordBatch::new_empty(columns)).await?;
    file.finish().await
}

/// The job `key`, if the table has its mark.
pub(super) async fn finished(location: &Location, key: &Key) -> Result<Option<Finished>, Error> {
    marked(location, key.short()).await
}

async fn marked(location: &Location, id: &str) -> Result<Option<Finished>, Error> {
    // Marks move when a folder takes the place of the table.
    let _lock = TableLock::take(location.path()).await?;
    let unreadable = |source| Error::Read {
        table: location.to_string(),
        file: None,
        source: Box::new(source),
    };
    let marks = marks(location.path()).map_err(unreadable)?;
    Ok(marks.iter().find_map(|mark| mark::read(mark, id)))
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
