//! The folder in which a job notes that it runs, what it reads and what it has finished.
//!
//! It stands beside the results and is gone when they are visible. What is in it outlives the
//! process, so that another one can complete the job; the lock does not, so that nobody waits for a
//! process that is dead.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::durable::{create_folders, parent, write_new};
use crate::location::Location;
use crate::{Error, Format};

/// Folder of such folders in a Delta table. Readers and other programs' vacuum skip names that begin
/// so.
pub(crate) const CLAIMS: &str = "_envelope_jobs";

/// What is held while a process works on the job.
const LOCK: &str = "lock";

const RECORD: &str = "job.json";

/// A look five times a second costs nothing, and nobody notices the wait.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What an attempt must do as the one before did, so that its finished splits fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The job's key.
    pub(crate) job: String,
    /// The table that is read.
    pub(crate) input: String,
    /// Which snapshot of it was asked for, if one was.
    pub(crate) as_of: Option<String>,
    /// Its version, if it has versions.
    pub(crate) version: Option<i64>,
    /// Into how many parts it is cut.
    pub(crate) splits: usize,
}

/// A job that this process works on, and no other.
#[derive(Debug)]
pub(crate) struct Claim {
    folder: PathBuf,
    made: Vec<PathBuf>,
    lock: File,
    /// Whether what is noted is of use to another attempt.
    lasting: bool,
}

impl Claim {
    /// Where the notes of the job `id` are.
    pub(crate) fn place(table: &Location, format: Format, id: &str) -> PathBuf {
        let path = table.path();
        match format {
            Format::Delta => path.join(CLAIMS).join(id),
            // Beside the table: the folder of the files becomes the table as it is.
            Format::Parquet => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                parent(path).join(format!(".{name}.{id}.job"))
            }
        }
    }

    /// Claims the job at `folder`; waits while another process has it.
    pub(crate) async fn wait(
        folder: PathBuf,
        cancelled: &CancellationToken,
    ) -> Result<Self, Error> {
        loop {
            match Self::attempt(&folder).map_err(|source| Error::unwritable(&folder, source))? {
                Some(claim) => return Ok(claim),
                None if cancelled.is_cancelled() => return Err(Error::Cancelled),
                None => tokio::time::sleep(LOOK_AGAIN).await,
            }
        }
    }

    /// Claims a job that nobody else can know of.
    pub(crate) fn new(folder: &Path) -> Result<Self, Error> {
        let claimed = Self::attempt(folder).and_then(|claim| {
            claim.ok_or_else(|| io::Error::other("another process works on the same job"))
        });
        claimed.map_err(|source| Error::unwritable(folder, source))
    }

    /// Claims the job at `folder`, unless another process has it.
    pub(crate) fn attempt(folder: &Path) -> io::Result<Option<Self>> {
        let (lock, made) = Self::open(folder)?;
        match lock.try_lock() {
            Ok(()) if is_at(&lock, &folder.join(LOCK)) => Ok(Some(Self {
                folder: folder.to_path_buf(),
                made,
                lock,
                lasting: folder.join(RECORD).exists(),
            })),
            // Whoever had it is done and has deleted the file that we hold.
            Ok(()) | Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Opens the file of the lock. Folders above may be deleted by others that are done.
    fn open(folder: &Path) -> io::Result<(File, Vec<PathBuf>)> {
        const ATTEMPTS: usize = 100;
        let mut outcome = Err(io::ErrorKind::NotFound.into());
        for _ in 0..ATTEMPTS {
            outcome = create_folders(folder).and_then(|made| {
                let mut options = OpenOptions::new();
                let lock = options.create(true).truncate(false).write(true);
                Ok((lock.open(folder.join(LOCK))?, made))
            });
            match &outcome {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                _ => break,
            }
        }
        outcome
    }

    /// What the attempt before has noted.
    pub(crate) fn record(&self) -> Option<Record> {
        let text = std::fs::read(self.folder.join(RECORD)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Notes what the next attempt must do likewise. From now on the folder outlives a failure.
    pub(crate) fn note(&mut self, record: &Record) -> Result<(), Error> {
        self.lasting = true;
        if self.record().as_ref() == Some(record) {
            return Ok(());
        }
        let path = self.folder.join(RECORD);
        let written = remove(&path)
            .and_then(|()| Ok(serde_json::to_vec_pretty(record)?))
            .and_then(|text| write_new(&path, &text));
        written.map_err(|source| Error::unwritable(&path, source))
    }

    /// Whether what the attempt writes is of use to another one.
    pub(crate) fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Where finished splits are noted.
    pub(crate) fn splits(&self) -> PathBuf {
        self.folder.join("splits")
    }

    /// Where others write for whoever has the claim.
    pub(crate) fn workshop(&self) -> PathBuf {
        self.folder.join("workshop")
    }

    /// The job is done: the notes go.
    pub(crate) fn end(mut self) {
        self.lasting = false;
    }

    /// The notes stay, whatever the job was: somebody must look at them.
    pub(crate) fn leave(mut self) {
        self.lasting = true;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.lasting {
            return;
        }
        // The lock last: as long as it is there, nobody else begins.
        let deleted = delete_notes(&self.folder).and_then(|()| remove(&self.folder.join(LOCK)));
        if let Err(error) = deleted {
            let folder = self.folder.display();
            tracing::warn!(%error, "notes of a job stay in `{folder}`");
        }
        // Only those that are empty go: somebody else may use them by now.
        let _ = std::fs::remove_dir(&self.folder);
        let claims = parent(&self.folder);
        if claims.file_name().is_some_and(|name| name == CLAIMS) {
            let _ = std::fs::remove_dir(claims);
        }
        for folder in self.made.iter().rev() {
            let _ = std::fs::remove_dir(folder);
        }
        // Closing the file would do; waiting for that is not worth a doubt.
        let _ = self.lock.unlock();
    }
}

/// Everything but the lock.
fn delete_notes(folder: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            std::fs::remove_dir_all(entry.path())?;
        } else if entry.file_name() != LOCK {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// Deletes a file that may be gone already.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Whether a file that is open is the one that has this name now.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    let identity = |of: std::fs::Metadata| (of.dev(), of.ino());
    match (file.metadata(), std::fs::metadata(path)) {
        (Ok(open), Ok(named)) => identity(open) == identity(named),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn record() -> Record {
        Record {
            job: "j".into(),
            input: "t".into(),
            as_of: None,
            version: Some(3),
            splits: 7,
        }
    }

    #[tokio::test]
    async fn a_job_is_claimed_by_one_process_at_a_time() {
        let folder = TempDir::new().unwrap();
        let place = folder.path().join("t").join(CLAIMS).join("k");
        let claim = Claim::attempt(&place).unwrap().unwrap();
        assert!(Claim::attempt(&place).unwrap().is_none());
        let (place, cancelled) = (place.clone(), CancellationToken::new());
        let waiting = tokio::spawn(async move { Claim::wait(place, &cancelled).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        claim.end();
        drop(waiting.await.unwrap().unwrap());
        assert!(!folder.path().join("t").exists(), "something is left");
    }

    #[test]
    fn what_is_noted_outlives_a_failure_and_ends_with_the_job() {
        let folder = TempDir::new().unwrap();
        let place = folder.path().join(CLAIMS).join("k");
        let mut claim = Claim::new(&place).unwrap();
        claim.note(&record()).unwrap();
        drop(claim);
        let claim = Claim::new(&place).unwrap();
        assert_eq!(claim.record(), Some(record()));
        claim.end();
        assert!(!place.exists());
        assert!(folder.path().exists());
    }
}
