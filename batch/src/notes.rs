//! What a job notes in a bucket: that it is under way, what it reads and what it has finished.
//!
//! They are where a claim is in a local table, but there is no lock: two processes may work on one job, and
//! use each other's finished splits. So nobody deletes files of another attempt but `vacuum`, when nothing
//! of the job was written for long.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as StorePath;
use object_store::{ObjectStore as _, ObjectStoreExt as _};

use crate::Error;
use crate::claim::{CLAIMS, Record};
use crate::location::{Location, absolute, store_path};

/// Name of the note that a job is under way.
const NAME: &str = "job.json";

/// The notes of one job.
#[derive(Debug)]
pub(crate) struct Notes {
    table: Location,
    folder: PathBuf,
    record: Option<Record>,
    lasting: bool,
}

impl Notes {
    /// The notes of the job `id`, as far as there are any. Nothing is written.
    pub(crate) async fn find(table: &Location, id: &str) -> Result<Self, Error> {
        let mut notes = Self {
            table: table.clone(),
            folder: table.path().join(CLAIMS).join(id),
            record: None,
            lasting: false,
        };
        let path = store_path(&notes.folder.join(NAME))?;
        let read = match table.store().get(&path).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(notes),
            Err(error) => Err(error),
        };
        let text = read.map_err(|source| Error::Read {
            table: table.to_string(),
            file: Some(table.named(&notes.folder.join(NAME))),
            source: Box::new(source),
        })?;
        notes.record = serde_json::from_slice(&text).ok();
        Ok(notes)
    }

    /// What an attempt before has noted.
    pub(crate) fn record(&self) -> Option<Record> {
        self.record.clone()
    }

    /// Whether what the attempt writes is of use to another one.
    pub(crate) fn is_lasting(&self) -> bool {
        self.lasting
    }

    /// Where finished splits are noted.
    pub(crate) fn splits(&self) -> PathBuf {
        self.folder.join("splits")
    }

    /// Says that the job is under way: without that, its files are somebody else's.
    pub(crate) async fn begin(&self) -> Result<(), Error> {
        self.write(b"null".to_vec()).await
    }

    /// Notes what the next attempt must do likewise.
    pub(crate) async fn note(&mut self, record: &Record) -> Result<(), Error> {
        self.lasting = true;
        if self.record.as_ref() == Some(record) {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(record);
        let text = text.map_err(|source| self.unwritable(Box::new(source)))?;
        self.write(text).await
    }

    async fn write(&self, text: Vec<u8>) -> Result<(), Error> {
        let path = store_path(&self.folder.join(NAME))?;
        let written = self.table.store().put(&path, text.into()).await;
        written.map_err(|source| self.unwritable(Box::new(source)))?;
        Ok(())
    }

    /// The job is done: the notes go.
    pub(crate) async fn end(&self) -> Result<(), Error> {
        let notes = below(&self.table, &self.folder).await?;
        delete(&self.table, notes).await
    }

    fn unwritable(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        Error::Write {
            path: self.table.named(&self.folder.join(NAME)),
            source,
        }
    }
}

/// Deletes the files in `folder`, and in the folders of its partitions, that have `job` in their names and
/// are not named (by path below `folder`).
pub(crate) async fn sweep(
    table: &Location,
    folder: &Path,
    job: &str,
    named: &HashSet<String>,
) -> Result<(), Error> {
    let is_ours = |path: &StorePath| {
        let path = absolute(path);
        let below = path.strip_prefix(folder).unwrap_or(&path);
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().contains(job) && !named.contains(below.to_string_lossy().as_ref())
    };
    let mut files = below(table, folder).await?;
    files.retain(is_ours);
    delete(table, files).await
}

async fn below(table: &Location, folder: &Path) -> Result<Vec<StorePath>, Error> {
    let store = table.store();
    let found = store.list(Some(&store_path(folder)?));
    let found: Result<Vec<_>, _> = found.map_ok(|object| object.location).try_collect().await;
    found.map_err(|source| Error::Read {
        table: table.to_string(),
        file: None,
        source: Box::new(source),
    })
}

/// Deletes objects, some of which may be gone already.
pub(crate) async fn delete(table: &Location, objects: Vec<StorePath>) -> Result<(), Error> {
    let objects = stream::iter(objects.into_iter().map(Ok)).boxed();
    let store = table.store();
    let mut deleted = store.delete_stream(objects);
    while let Some(outcome) = deleted.next().await {
        match outcome {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => {
                return Err(Error::Write {
                    path: table.named(table.path()),
                    source: Box::new(source),
                });
            }
        }
    }
    Ok(())
}
