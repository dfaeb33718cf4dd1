//! One commit at a time to a folder of Parquet files.
//!
//! A folder has no log that would notice two at once: one that takes the place of the folder would lose what
//! the other has added since it was looked at. Other programs do not know of the lock.

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
pub(super) struct TableLock {
    _folder: Option<File>,
}

impl TableLock {
    /// Waits until no other commit to `table` is under way.
    pub(super) async fn take(table: &Path) -> Result<Self, Error> {
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
        let folder = File::open(table)?;
        match folder.try_lock() {
            Ok(()) => {
                // Another folder may have taken its place while we waited.
                let (ours, there) = (folder.metadata()?, std::fs::metadata(table)?);
                let is_there = (ours.dev(), ours.ino()) == (there.dev(), there.ino());
                Ok(is_there.then_some(Self {
                    _folder: Some(folder),
                }))
            }
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
