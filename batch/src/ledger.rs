//! The commits to a folder of Parquet files in a bucket.
//!
//! No bucket can rename a folder. So a commit is an entry of a ledger: an object with the next number, which can be
//! created only once, and which says what files the table gets and what goes. What it says is done after that, by
//! whoever comes by first, and may be done twice: a copy has the name that the entry gives it, and what is gone stays
//! gone. There is at most one entry that is not done yet; the next commit does it first.
//!
//! To read a table is to read what its last entry says, done or not; who may write does it first.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStore as _, ObjectStoreExt as _, PutMode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::commit::Facts;
use crate::location::{Location, absolute, store_path};
use crate::notes;
use crate::point;

/// Folder of the entries in that of the table. Readers skip names that begin so.
pub(crate) const LEDGER: &str = "_envelope_commits";

/// Folder of files that are not in the table yet.
pub(crate) const FILES: &str = "_envelope_files";

/// What ends the name of an entry, and of the mark that it is done.
const ENTRY: &str = ".json";
const DONE: &str = ".done";

/// So many copies are under way at once; a server makes them by itself.
const COPIES: usize = 8;

/// One commit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// What the names of the attempt's files contain: tells it from all others.
    pub(crate) attempt: String,
    /// The job that is done with it, if it has an identity.
    pub(crate) job: Option<DoneJob>,
    /// Files that become part of the table, by path below [`FILES`], which is their path below the table.
    pub(crate) added: BTreeSet<String>,
    /// What goes, by path below the table.
    pub(crate) removed: BTreeSet<String>,
}

/// What is known for good about a job whose results are in the table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DoneJob {
    /// What the names of all its files contain.
    pub(crate) id: String,
    /// Rows that were written.
    pub(crate) rows: u64,
    /// Files that were written.
    pub(crate) files: u64,
    /// What the job was.
    pub(crate) facts: Facts,
}

/// The ledger of a table, as it was at one moment.
#[derive(Debug)]
pub(crate) struct Ledger {
    table: Location,
    /// Number of the next entry.
    next: u64,
    /// The last entry, if it is not done yet.
    pending: Option<Entry>,
}

impl Ledger {
    /// Reads what there is.
    pub(crate) async fn read(table: &Location) -> Result<Self, Error> {
        let objects = below(table, LEDGER).await?;
        Self::among(table, &objects).await
    }

    /// Finds it among the objects of the table.
    pub(crate) async fn among(table: &Location, objects: &[ObjectMeta]) -> Result<Self, Error> {
        let last = |end| {
            let numbers = objects
                .iter()
                .filter_map(|object| number(table, object, end));
            numbers.max()
        };
        let (last, done) = (last(ENTRY), last(DONE));
        let pending = match last {
            Some(last) if done < Some(last) => entry(table, last).await?,
            _ => None,
        };
        Ok(Self {
            table: table.clone(),
            next: last.map_or(0, |last| last + 1),
            pending,
        })
    }

    /// Whether there was no commit yet.
    pub(crate) fn is_empty(&self) -> bool {
        self.next == 0
    }

    /// The last entry, if it is not done yet.
    pub(crate) fn pending(&self) -> Option<&Entry> {
        self.pending.as_ref()
    }

    /// Whether an object is part of an entry that is done and not the last: nobody reads it again.
    pub(crate) fn is_past(&self, object: &ObjectMeta) -> bool {
        let number = |end| number(&self.table, object, end);
        let number = number(ENTRY).or_else(|| number(DONE));
        number.is_some_and(|number| number + 1 < self.next)
    }

    /// Whether the entry that is not done yet names a file.
    pub(crate) fn names(&self, object: &ObjectMeta) -> bool {
        let path = absolute(&object.location);
        let files = self.table.path().join(FILES);
        let name = path.strip_prefix(&files).map(|name| name.to_string_lossy());
        let pending = self.pending.as_ref();
        name.is_ok_and(|name| pending.is_some_and(|entry| entry.added.contains(name.as_ref())))
    }

    /// Makes `entry` the next one. Gives whether it is: another writer may have been quicker.
    ///
    /// # Errors
    /// [`Error::Commit`] where nobody can tell.
    pub(crate) async fn add(&mut self, entry: Entry) -> Result<bool, Error> {
        let path = numbered(&self.table, self.next, ENTRY);
        let text = serde_json::to_vec(&entry);
        let text = text.map_err(|source| Error::unwritable(self.table.named(&path), source))?;
        let path = store_path(&path)?;
        let put = self.table.store();
        let put = put
            .put_opts(&path, text.into(), PutMode::Create.into())
            .await;
        if let Err(source) = put {
            // The answer may be lost, or be that to a second try of one that was.
            let is_taken = matches!(source, object_store::Error::AlreadyExists { .. });
            match self::entry(&self.table, self.next).await {
                Ok(Some(found)) if found == entry => {}
                Ok(Some(_)) => return Ok(false),
                Ok(None) if is_taken => return Ok(false),
                // It may come yet, or be there: nobody knows.
                Ok(None) | Err(_) => {
                    return Err(Error::Commit {
                        table: self.table.to_string(),
                        source: source.into(),
                    });
                }
            }
        }
        self.next += 1;
        self.pending = Some(entry);
        point::reached(point::LOG_WRITTEN);
        Ok(true)
    }

    /// Does what the last entry says, unless that is done.
    pub(crate) async fn complete(&mut self) -> Result<(), Error> {
        let Some(entry) = &self.pending else {
            return Ok(());
        };
        let files = self.table.path().join(FILES);
        let copies: Vec<_> = entry.added.iter().map(|name| self.copy(name)).collect();
        let copies = stream::iter(copies).buffer_unordered(COPIES);
        copies.try_collect::<()>().await?;
        self.delete(self.table.path(), &entry.removed).await?;
        if let Some(job) = &entry.job {
            let path = done(&self.table, &job.id);
            let text = serde_json::to_vec(job);
            let text = text.map_err(|source| Error::unwritable(self.table.named(&path), source))?;
            self.put(&path, text).await?;
        }
        // Before the entry counts as done: a copy that is made late, when the table may have lost the file
        // again, must find nothing.
        self.delete(&files, &entry.added).await?;
        let done = numbered(&self.table, self.next - 1, DONE);
        self.put(&done, vec![]).await?;
        self.pending = None;
        Ok(())
    }

    async fn copy(&self, name: &str) -> Result<(), Error> {
        let table = self.table.path();
        let (from, to) = (table.join(FILES).join(name), table.join(name));
        let (from, to) = (store_path(&from)?, store_path(&to)?);
        let store = self.table.store();
        match store.copy(&from, &to).await {
            Ok(()) => Ok(()),
            Err(object_store::Error::NotFound { .. }) if self.is_copied(&to).await => Ok(()),
            Err(source) => Err(Error::unwritable(self.table.named(&absolute(&to)), source)),
        }
    }

    /// Whether another one has made the copy and deleted what it was made from.
    async fn is_copied(&self, copy: &StorePath) -> bool {
        let done = numbered(&self.table, self.next - 1, DONE);
        let store = self.table.store();
        let is_done = match store_path(&done) {
            Ok(done) => store.head(&done).await.is_ok(),
            Err(_) => false,
        };
        is_done || store.head(copy).await.is_ok()
    }

    async fn delete(&self, folder: &Path, names: &BTreeSet<String>) -> Result<(), Error> {
        let paths = names.iter().map(|name| store_path(&folder.join(name)));
        notes::delete(&self.table, paths.collect::<Result<_, _>>()?).await
    }

    async fn put(&self, path: &Path, text: Vec<u8>) -> Result<(), Error> {
        let put = self.table.store();
        let put = put.put(&store_path(path)?, text.into()).await;
        put.map_err(|source| Error::unwritable(self.table.named(path), source))?;
        Ok(())
    }
}

/// The objects of a table whose last entry is done; it is done here unless we may not write, or others commit all the
/// time. What is about to be moved could not be read for long.
pub(crate) async fn settled(table: &Location) -> Result<Vec<ObjectMeta>, Error> {
    const TRIES: usize = 20;
    let mut objects = table.objects().await?;
    for _ in 0..TRIES {
        let mut ledger = Ledger::among(table, &objects).await?;
        if ledger.pending().is_none() || ledger.complete().await.is_err() {
            break;
        }
        objects = table.objects().await?;
    }
    Ok(objects)
}

/// The files of a table, as its last entry says: of `listed`, which are those in its folder, and of those that
/// become part of it.
pub(crate) async fn as_committed(
    table: &Location,
    objects: &[ObjectMeta],
    mut listed: Vec<PathBuf>,
) -> Result<Vec<PathBuf>, Error> {
    let ledger = Ledger::among(table, objects).await?;
    let Some(entry) = ledger.pending() else {
        return Ok(listed);
    };
    let there: HashSet<PathBuf> = objects
        .iter()
        .map(|object| absolute(&object.location))
        .collect();
    let top = table.path();
    let gone: HashSet<PathBuf> = entry.removed.iter().map(|name| top.join(name)).collect();
    listed.retain(|path| !gone.contains(path));
    for name in &entry.added {
        let (now, before) = (top.join(name), top.join(FILES).join(name));
        listed.retain(|path| *path != now);
        listed.push(if there.contains(&before) { before } else { now });
    }
    Ok(listed)
}

/// Does what the last commit to a table says, unless that is done.
pub(crate) async fn settle(table: &Location) -> Result<(), Error> {
    Ledger::read(table).await?.complete().await
}

/// The job `id`, if its results are in the table.
pub(crate) async fn done_job(table: &Location, id: &str) -> Result<Option<DoneJob>, Error> {
    if let Some(job) = noted_job(table, id).await? {
        return Ok(Some(job));
    }
    let mut ledger = Ledger::read(table).await?;
    let pending = ledger.pending().and_then(|entry| entry.job.clone());
    ledger.complete().await?;
    Ok(pending.filter(|job| job.id == id))
}

/// The same where the last entry is done.
pub(crate) async fn noted_job(table: &Location, id: &str) -> Result<Option<DoneJob>, Error> {
    read(table, &done(table, id)).await
}

async fn below(table: &Location, folder: &str) -> Result<Vec<ObjectMeta>, Error> {
    let found = table.join(folder).objects().await;
    found.map_err(|error| error.of_table(table))
}

fn numbered(table: &Location, number: u64, end: &str) -> PathBuf {
    table.path().join(LEDGER).join(format!("{number:020}{end}"))
}

fn number(table: &Location, object: &ObjectMeta, end: &str) -> Option<u64> {
    let path = absolute(&object.location);
    let name = path.strip_prefix(table.path()).ok()?;
    let name = name.strip_prefix(LEDGER).ok()?.to_string_lossy();
    name.strip_suffix(end)?.parse().ok()
}

/// What says that a job is done.
fn done(table: &Location, id: &str) -> PathBuf {
    let folder = table.path().join(LEDGER).join("jobs");
    folder.join(format!("{id}.json"))
}

async fn entry(table: &Location, number: u64) -> Result<Option<Entry>, Error> {
    read(table, &numbered(table, number, ENTRY)).await
}

/// An object, if it is there.
async fn read<T: DeserializeOwned>(table: &Location, path: &Path) -> Result<Option<T>, Error> {
    let unreadable = |source: Box<dyn std::error::Error + Send + Sync>| Error::Read {
        table: table.to_string(),
        file: Some(table.named(path)),
        source,
    };
    let found = match table.store().get(&store_path(path)?).await {
        Ok(found) => found.bytes().await,
        Err(object_store::Error::NotFound { .. }) => return Ok(None),
        Err(error) => Err(error),
    };
    let text = found.map_err(|source| unreadable(source.into()))?;
    let value = serde_json::from_slice(&text).map_err(|source| unreadable(source.into()))?;
    Ok(Some(value))
}
