//! The files of one attempt at a job until they are visible.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use uuid::Uuid;

use crate::claim::{CLAIMS, Claim, remove};
use crate::commit::Finished;
use crate::durable::{DurableStore, Gate, create_folders, parent};
use crate::hold::Hold;
use crate::identity::Key;
use crate::location::Location;
use crate::notes::{self, Notes};
use crate::part_file::Part;
use crate::target::{Change, Target};
use crate::{Error, Format};

/// The files of one attempt at a job, not visible yet.
///
/// An attempt that is dropped deletes its files, so neither an error nor a cancelled job leaves
/// anything behind; unless the job has an identity: then another attempt may need them. It ends well
/// by [`keep`](Self::keep) where the commit is one step, and by [`submit`](Self::submit) where an
/// answer must be awaited. In a bucket it must be told to [give up](Self::give_up): deleting takes time there.
#[derive(Debug)]
#[must_use = "an attempt that is dropped deletes its files"]
pub(crate) struct Attempt {
    table: Location,
    folder: PathBuf,
    /// What the job's files have in common, whichever attempt they are of.
    id: String,
    /// What this attempt's files have in common.
    job: String,
    /// Name of the transaction that makes them visible.
    transaction: String,
    /// Whether the folder is the job's own, and not that of the table.
    staged: bool,
    /// Folders that were not there before, outermost first.
    made: Vec<PathBuf>,
    /// Open as long as files may be written.
    gate: Gate,
    kept: bool,
    /// None only when the attempt has ended.
    hold: Option<Hold>,
}

impl Attempt {
    /// Makes room for the files of a job whose results go to `target` and that nobody can know of.
    pub(crate) async fn begin(target: &Target, id: Uuid) -> Result<Self, Error> {
        let id = id.simple().to_string();
        let hold = Hold::new(&target.location, target.format(), &id).await?;
        Self::within(target, hold, (id.clone(), id.clone(), id))
    }

    /// Makes room for the files of one more attempt at the job `key`.
    pub(crate) fn again(target: &Target, key: &Key, hold: Hold, id: Uuid) -> Result<Self, Error> {
        let job = format!("{}-{}", key.short(), &id.simple().to_string()[..12]);
        let names = (key.short().to_owned(), job, key.text().to_owned());
        Self::within(target, hold, names)
    }

    fn within(
        target: &Target,
        hold: Hold,
        (id, job, transaction): (String, String, String),
    ) -> Result<Self, Error> {
        let location = &target.location;
        let (folder, staged) = match target.change {
            // Files that the log does not name are not in the table.
            Change::Delta(_) => (location.path().to_path_buf(), false),
            Change::Parquet(_) => (staging(location, &id), true),
        };
        let made = match location.bucket() {
            None => create_folders(&folder),
            Some(_) => Ok(vec![]),
        };
        match made {
            Ok(made) => Ok(Self {
                table: location.clone(),
                folder,
                id,
                job,
                transaction,
                staged,
                made,
                gate: Gate::default(),
                kept: false,
                hold: Some(hold),
            }),
            Err(source) => Err(Error::Write {
                path: folder,
                source: Box::new(source),
            }),
        }
    }

    /// Folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Folder in which executors of a cluster write. One that was given up may go on for a while, so it
    /// must not be what becomes the table, or within; what comes too late is among notes that nobody reads.
    pub(crate) fn workshop(&self) -> PathBuf {
        match &self.hold {
            Some(Hold::Claim(claim)) if self.staged => claim.workshop(),
            _ => self.folder.clone(),
        }
    }

    /// Takes files out of the workshop.
    pub(crate) fn take_in(&self, parts: &[Part]) -> Result<(), Error> {
        if !self.staged {
            return Ok(());
        }
        let workshop = self.workshop();
        for part in parts {
            let place = self.folder.join(&part.name);
            let taken = create_folders(&parent(&place))
                .and_then(|_| std::fs::rename(workshop.join(&part.name), &place));
            taken.map_err(|source| Error::Write {
                path: place,
                source: Box::new(source),
            })?;
        }
        delete_folder(&workshop).map_err(|source| Error::Write {
            path: workshop,
            source: Box::new(source),
        })
    }

    /// What the names of the job's files contain.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// What the names of its own files contain.
    pub(crate) fn job(&self) -> &str {
        &self.job
    }

    /// Name of the transaction in the log of a Delta table.
    pub(crate) fn transaction(&self) -> &str {
        &self.transaction
    }

    /// Where finished splits are noted, if another attempt may use them.
    pub(crate) fn splits(&self) -> Option<PathBuf> {
        let hold = self.hold.as_ref().filter(|hold| hold.is_lasting());
        hold.map(Hold::splits)
    }

    /// The files of this machine; they can be written until the attempt ends.
    pub(crate) fn files(&self) -> DurableStore {
        DurableStore::behind(self.gate.clone())
    }

    /// Where its own files can be written.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        match self.table.bucket() {
            None => Arc::new(self.files()),
            Some(_) => self.table.store(),
        }
    }

    /// Makes a folder that goes when the attempt goes. Buckets have none.
    pub(crate) fn make(&mut self, folder: &Path) -> io::Result<()> {
        if self.table.bucket().is_none() {
            self.made.extend(create_folders(folder)?);
        }
        Ok(())
    }

    /// Its files will not be visible: they go, unless another attempt may need them.
    pub(crate) async fn give_up(&mut self) {
        if self.table.bucket().is_none() {
            // Done when it is dropped.
            return;
        }
        self.kept = true;
        if self.hold.as_ref().is_some_and(Hold::is_lasting) {
            return;
        }
        let swept = notes::sweep(&self.table, &self.folder, &self.job, &HashSet::new()).await;
        self.told(swept);
        self.finish().await;
    }

    /// Nobody needs the notes any more.
    async fn finish(&mut self) {
        if let Some(Hold::Notes(notes)) = &self.hold {
            let ended = notes.end().await;
            self.told(ended);
        }
        self.end();
    }

    /// What of it cannot be deleted costs space only.
    fn told(&self, done: Result<(), Error>) {
        if let Err(error) = done {
            let (job, table) = (&self.job, &self.table);
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            tracing::warn!(%error, cause, job, "files of a job stay in `{table}`; no reader sees them");
        }
    }

    /// The log has the files `named`; others of this attempt go.
    async fn clear(&self, named: &HashSet<String>) {
        if self.table.bucket().is_none() {
            if let Err(error) = self.sweep(named) {
                self.warn(&error);
            }
            return;
        }
        self.told(notes::sweep(&self.table, &self.folder, &self.job, named).await);
    }

    /// Deletes what other attempts at the job have left, but not what is in `named`.
    fn sweep(&self, named: &HashSet<String>) -> io::Result<()> {
        sweep(&self.folder, &self.id, named)
    }

    /// The files are visible now, and somebody else's.
    pub(crate) fn keep(mut self) {
        self.kept = true;
        self.end();
    }

    /// What is in its folder is not needed any more, now or later.
    pub(crate) fn discard(mut self) {
        self.kept = true;
        self.gate.close();
        if let Err(error) = self.delete() {
            self.warn(&error);
        }
        self.end();
    }

    /// The files are named to the log. Until it answers, readers may see them.
    pub(crate) fn submit(mut self) -> Submitted {
        self.kept = true;
        Submitted(self)
    }

    /// Nobody needs the notes any more.
    fn end(&mut self) {
        if let Some(Hold::Claim(claim)) = self.hold.take() {
            claim.end();
        }
    }

    fn delete(&self) -> io::Result<()> {
        if self.staged {
            return std::fs::remove_dir_all(&self.folder);
        }
        self.sweep(&HashSet::new())
    }

    fn warn(&self, error: &io::Error) {
        let (job, folder) = (&self.job, self.folder.display());
        tracing::warn!(%error, job, "files of a job stay in `{folder}`; no reader sees them");
    }
}

/// A hidden folder beside the table, on the same disk, so that it can be moved in.
pub(crate) fn staging(table: &Location, id: &str) -> PathBuf {
    let path = table.path();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.{id}"))
}

/// Deletes what a process has left that died between its commit and its end. Whoever works on the job
/// now sees to that itself.
pub(crate) async fn tidy(table: &Location, format: Format, key: &Key, finished: &Finished) {
    if table.bucket().is_some() {
        // Files that another attempt has left are left to `vacuum`: it may be alive.
        let notes = Notes::find(table, key.short()).await;
        if let Ok(notes) = notes
            && notes.record().is_some()
            && let Err(error) = notes.end().await
        {
            tracing::warn!(%error, "notes of a finished job stay in `{table}`");
        }
        return;
    }
    let place = Claim::place(table, format, key.short());
    if !place.exists() || (format == Format::Delta && finished.version.is_none()) {
        return;
    }
    let tidied = match Claim::attempt(&place) {
        Ok(None) => return,
        Err(error) => Err(error),
        Ok(Some(claim)) => {
            let deleted = match format {
                Format::Delta => sweep(table.path(), key.short(), &finished.files),
                Format::Parquet => delete_folder(&staging(table, key.short())),
            };
            deleted.map(|()| claim.end())
        }
    };
    if let Err(error) = tidied {
        let place = place.display();
        tracing::warn!(%error, "leftovers of a finished job stay at `{place}`");
    }
}

fn delete_folder(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Name of a file.
pub(crate) fn file_name(partition: usize, position: usize, job: &str) -> String {
    format!("part-{partition:05}-{position:05}-{job}.parquet")
}

/// The job that a file is of, by its name; none if it is not a file of ours. Files that are not whole
/// have names that begin with a dot.
pub(crate) fn job_of(name: &str) -> Option<&str> {
    const LENGTH: usize = 32;
    let name = name.strip_prefix('.').unwrap_or(name);
    let (partition, rest) = name.strip_prefix("part-")?.split_once('-')?;
    let (position, job) = rest.split_once('-')?;
    let numbers = [partition, position]
        .map(|part| part.len() >= 5 && part.bytes().all(|letter| letter.is_ascii_digit()));
    let id = job.get(..LENGTH)?;
    let is_id = id.bytes().all(|letter| letter.is_ascii_hexdigit());
    (numbers == [true, true] && is_id && name.contains(".parquet")).then_some(id)
}

/// Deletes files of the job `id` in `folder` and the folders of its partitions, but not those that
/// are named (by path below `folder`); and the folders of partitions that have no file.
fn sweep(folder: &Path, id: &str, named: &HashSet<String>) -> io::Result<()> {
    let (files, partitions) = left_by(folder, id)?;
    for path in files {
        let below = path.strip_prefix(folder).unwrap_or(&path);
        if !named.contains(below.to_string_lossy().as_ref()) {
            // An upload that is dropped deletes its own file, perhaps at this very moment.
            remove(&path)?;
        }
    }
    // A write that failed, on a full disk say, has left no file, but the folder that it made for it.
    for partition in partitions.iter().rev() {
        // Those that are not empty stay.
        let _ = std::fs::remove_dir(partition);
    }
    Ok(())
}

/// Files of the job `id`, whole or not, in `folder` and the folders of its partitions; and these folders,
/// outer ones first.
fn left_by(folder: &Path, id: &str) -> io::Result<(Vec<PathBuf>, Vec<PathBuf>)> {
    let (mut files, mut partitions) = (vec![], vec![]);
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if job_of(&name) == Some(id) {
                files.push(entry.path());
            } else if name.contains('=') && entry.file_type()?.is_dir() {
                folders.push(entry.path());
                partitions.push(entry.path());
            }
        }
    }
    Ok((files, partitions))
}

/// Removes the folder of a partition that has no file, and those above it, up to `top`.
pub(crate) fn remove_empty(folder: &Path, top: &Path) {
    for folder in folder.ancestors().take_while(|folder| *folder != top) {
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Whether all that there is at `path` is what attempts at the jobs of `table` have left. Their notes
/// tell that: without them a file is somebody else's.
pub(crate) fn is_left_over(table: &Path, path: &Path) -> io::Result<bool> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if let Some(id) = job_of(&name) {
        return Ok(table.join(CLAIMS).join(id).is_dir());
    }
    if !name.contains('=') || !path.is_dir() {
        return Ok(name == CLAIMS);
    }
    for entry in std::fs::read_dir(path)? {
        if !is_left_over(table, &entry?.path())? {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if self.kept || self.table.bucket().is_some() {
            return;
        }
        // Tasks that were stopped may have left a write behind that is not done yet.
        self.gate.close();
        if self.hold.as_ref().is_some_and(Hold::is_lasting) {
            return;
        }
        if let Err(error) = self.delete() {
            self.warn(&error);
        }
        for folder in self.made.iter().rev() {
            // Only those that are empty go: somebody else may use them by now.
            let _ = std::fs::remove_dir(folder);
        }
        // The notes last: as long as they are there, nobody takes the files for somebody else's.
        self.end();
    }
}

/// Files that readers may see. Dropping it leaves them, and the notes: a file too many costs space, a
/// file too few costs a table.
#[derive(Debug)]
pub(crate) struct Submitted(Attempt);

impl Submitted {
    /// Name of the transaction in the log of a Delta table.
    pub(crate) fn transaction(&self) -> &str {
        &self.0.transaction
    }

    /// The attempt that they are of.
    pub(crate) fn attempt(&self) -> &Attempt {
        &self.0
    }

    /// The log has the files `named`; what else there is of the job goes.
    pub(crate) async fn done(mut self, named: &HashSet<String>) {
        self.0.clear(named).await;
        self.0.finish().await;
    }

    /// The log has not taken the files. They go, unless another attempt may need them.
    pub(crate) async fn withdraw(mut self) {
        self.0.kept = false;
        self.0.give_up().await;
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if self.0.kept
            && let Some(hold) = self.0.hold.take()
        {
            hold.leave();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_ours_tell_a_job() {
        let id = "0123456789abcdef0123456789abcdef";
        let whole = file_name(3, 100_000, &format!("{id}-0123456789ab"));
        assert_eq!(job_of(&whole), Some(id));
        assert_eq!(job_of(&file_name(0, 0, id)), Some(id));
        assert_eq!(job_of(&format!(".{whole}.77-1")), Some(id));
        for other in [
            "part-00000-4d0e6c2c-5f0e-4a0e-9c3e-3f6a5a0e3b1d-c000.snappy.parquet",
            "part-00000-00000-0123.parquet",
            "data.parquet",
            "_delta_log",
        ] {
            assert_eq!(job_of(other), None, "{other}");
        }
    }

    #[test]
    fn folders_of_partitions_go_with_the_last_file_or_without_one() {
        let top = tempfile::TempDir::new().unwrap();
        let at = |below: &str| top.path().join(below);
        let id = "0123456789abcdef0123456789abcdef";
        for folder in ["a=1/b=1", "a=1/b=2", "a=2", "a=3/b=1", "data"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        let ours = file_name(0, 0, id);
        for file in [format!("a=1/b=1/{ours}"), "a=2/x".into()] {
            std::fs::write(at(&file), "").unwrap();
        }
        sweep(top.path(), id, &HashSet::new()).unwrap();
        let left = ["a=1", "a=2", "a=2/x", "a=3", "data"].map(|below| at(below).exists());
        assert_eq!(left, [false, true, true, false, true]);
    }
}
