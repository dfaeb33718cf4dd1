//! A folder of Parquet files that nobody changes while it is looked at or changed.
//!
//! A folder has no log that would notice two commits at once: one that takes the place of the folder would lose
//! what the other has added since it was looked at, and files would go while they are looked at. Other
//! programs do not know of the lock.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use crate::Error;

/// Most commits take some milliseconds.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The right to change the folder of a table. It ends with the process.
#[derive(Debug)]
pub(crate) struct TableLock {
    _folder: Option<File>,
}

impl TableLock {
    /// Waits until no commit to `table` is under way. A table that is not there needs no lock.
    pub(crate) async fn take(table: &Path) -> Result<Self, Error> {
        loop {
            match Self::attempt(table) {
                Ok(Some(lock)) => return Ok(lock),
                Ok(None) => tokio::time::sleep(LOOK_AGAIN).await,
                Err(source) => {
                    return Err(Error::Write {
                        path: table.to_path_buf(),
                        source: Box::new(source),
                    });
                }
            }
        }
    }

    fn attempt(table: &Path) -> io::Result<Option<Self>> {
        let folder = match File::open(table) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Some(Self { _folder: None }));
            }
            opened => opened?,
        };
        match folder.try_lock() {
            // Another folder may have taken its place while we waited.
            Ok(()) => Ok(is_at(&folder, table)?.then_some(Self {
                _folder: Some(folder),
            })),
            Err(TryLockError::WouldBlock) => Ok(None),
            // Not all file systems have locks, or have them for folders.
            Err(TryLockError::Error(error)) => {
                let table = table.display();
                tracing::warn!(%error, "no lock for `{table}`: two commits at once may lose rows");
                Ok(Some(Self { _folder: None }))
            }
        }
    }
}

fn is_at(folder: &File, path: &Path) -> io::Result<bool> {
    let ours = folder.metadata()?;
    match std::fs::metadata(path) {
        Ok(there) => Ok((ours.dev(), ours.ino()) == (there.dev(), there.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_folder_that_has_taken_the_place_of_another_is_locked_itself() {
        let root = TempDir::new().unwrap();
        let table = root.path().join("t");
        std::fs::create_dir(&table).unwrap();
        let lock = TableLock::attempt(&table).unwrap();
        assert!(lock.is_some());
        assert!(TableLock::attempt(&table).unwrap().is_none());
        std::fs::rename(&table, root.path().join("old")).unwrap();
        std::fs::create_dir(&table).unwrap();
        assert!(TableLock::attempt(&table).unwrap().is_some());
    }
}
