//! The files of one attempt at a job until they are visible.

mod folder;
mod leftovers;
mod names;

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use uuid::Uuid;

use self::folder::Folder;
pub(crate) use self::leftovers::{is_left_over, remove_empty, tidy};
pub(crate) use self::names::{file_name, job_of};
use crate::Error;
use crate::durable::{DurableStore, parent};
use crate::hold::Hold;
use crate::identity::Key;
use crate::ledger::FILES;
use crate::location::Location;
use crate::notes;
use crate::part_file::Part;
use crate::target::{Change, Target};

/// The files of one attempt at a job, not visible yet.
///
/// An attempt that is dropped deletes its files, so neither an error nor a cancelled job leaves
/// anything behind; unless the job has an identity: then another attempt may need them. It ends well
/// by [`keep`](Self::keep) where the commit is one step, and by [`submit`](Self::submit) where an
/// answer must be awaited. In a bucket it must be told to [give up](Self::give_up): deleting takes time there.
#[derive(Debug)]
#[must_use = "an attempt that is dropped deletes its files"]
pub(crate) struct Attempt {
    names: Names,
    room: Room,
    kept: bool,
    /// None only when the attempt has ended.
    hold: Option<Hold>,
}

/// What is called after an attempt.
#[derive(Debug)]
struct Names {
    /// What the job's files have in common, whichever attempt they are of.
    id: String,
    /// What this attempt's files have in common.
    job: String,
    /// Name of the transaction that makes them visible.
    transaction: String,
}

/// Where an attempt writes.
#[derive(Debug)]
enum Room {
    /// A folder of this machine.
    Folder(Folder),
    /// A place in a bucket, where files that neither a log nor a ledger names are not in the table.
    Bucket(Location),
}

impl Room {
    fn prepare(target: &Target, id: &str) -> Result<Self, Error> {
        let table = &target.location;
        Ok(match table.bucket() {
            None => Self::Folder(Folder::prepare(target, id)?),
            Some(_) => Self::Bucket(match target.change {
                Change::Delta(_) => table.clone(),
                Change::Parquet(_) => table.join(FILES),
            }),
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Folder(folder) => folder.path(),
            Self::Bucket(place) => place.path(),
        }
    }

    /// How messages call it.
    fn name(&self) -> PathBuf {
        match self {
            Self::Folder(folder) => folder.path().to_path_buf(),
            Self::Bucket(place) => place.named(place.path()),
        }
    }

    /// Deletes the files of `names` that are not `named`: in a folder those of all attempts at the job, for no
    /// other is alive; in a bucket those of this one.
    async fn sweep(&self, names: &Names, named: &HashSet<String>) -> Result<(), Error> {
        match self {
            Self::Folder(folder) => folder
                .sweep(named)
                .map_err(|source| Error::unwritable(folder.path(), source)),
            Self::Bucket(place) => notes::sweep(place, place.path(), &names.job, named).await,
        }
    }
}

impl Attempt {
    /// Makes room for the files of a job whose results go to `target` and that nobody can know of.
    pub(crate) async fn begin(target: &Target, id: Uuid) -> Result<Self, Error> {
        let id = id.simple().to_string();
        let hold = Hold::new(&target.location, target.format(), &id).await?;
        let names = Names {
            id: id.clone(),
            job: id.clone(),
            transaction: id,
        };
        Self::within(target, hold, names)
    }

    /// Makes room for the files of one more attempt at the job `key`.
    pub(crate) fn again(target: &Target, key: &Key, hold: Hold, id: Uuid) -> Result<Self, Error> {
        let names = Names {
            id: key.short().to_owned(),
            job: format!("{}-{}", key.short(), &id.simple().to_string()[..12]),
            transaction: key.text().to_owned(),
        };
        Self::within(target, hold, names)
    }

    fn within(target: &Target, hold: Hold, names: Names) -> Result<Self, Error> {
        Ok(Self {
            room: Room::prepare(target, &names.id)?,
            names,
            kept: false,
            hold: Some(hold),
        })
    }

    /// Folder of its files.
    pub(crate) fn folder(&self) -> &Path {
        self.room.path()
    }

    /// Folder in which executors of a cluster write. One that was given up may go on for a while, so it
    /// must not be what becomes the table, or within; what comes too late is among notes that nobody reads.
    pub(crate) fn workshop(&self) -> PathBuf {
        match (&self.room, &self.hold) {
            (Room::Folder(folder), Some(Hold::Claim(claim))) if folder.is_staged() => {
                claim.workshop()
            }
            (room, _) => room.path().to_path_buf(),
        }
    }

    /// Takes files out of the workshop.
    pub(crate) fn take_in(&self, parts: &[Part]) -> Result<(), Error> {
        match &self.room {
            Room::Folder(folder) if folder.is_staged() => folder.take_in(&self.workshop(), parts),
            Room::Folder(_) | Room::Bucket(_) => Ok(()),
        }
    }

    /// What the names of the job's files contain.
    pub(crate) fn id(&self) -> &str {
        &self.names.id
    }

    /// What the names of its own files contain.
    pub(crate) fn job(&self) -> &str {
        &self.names.job
    }

    /// Name of the transaction in the log of a Delta table.
    pub(crate) fn transaction(&self) -> &str {
        &self.names.transaction
    }

    /// Where finished splits are noted, if another attempt may use them.
    pub(crate) fn splits(&self) -> Option<PathBuf> {
        let hold = self.hold.as_ref().filter(|hold| hold.is_lasting());
        hold.map(Hold::splits)
    }

    /// The files of this machine; those of the attempt can be written until it ends.
    pub(crate) fn files(&self) -> DurableStore {
        match &self.room {
            Room::Folder(folder) => folder.store(),
            Room::Bucket(_) => DurableStore::local(),
        }
    }

    /// Where its own files can be written.
    pub(crate) fn store(&self) -> Arc<dyn ObjectStore> {
        match &self.room {
            Room::Folder(folder) => Arc::new(folder.store()),
            Room::Bucket(place) => place.store(),
        }
    }

    /// Makes a folder that goes when the attempt goes. Buckets have none.
    pub(crate) fn make(&mut self, place: &Path) -> io::Result<()> {
        match &mut self.room {
            Room::Folder(folder) => folder.make(place),
            Room::Bucket(_) => Ok(()),
        }
    }

    /// Its files will not be visible: they go, unless another attempt may need them.
    pub(crate) async fn give_up(&mut self) {
        let Room::Bucket(_) = self.room else {
            // Done when it is dropped.
            return;
        };
        self.kept = true;
        if !self.is_lasting() {
            self.clear(&HashSet::new()).await;
            self.finish().await;
        }
    }

    /// Whether another attempt may need its files.
    fn is_lasting(&self) -> bool {
        self.hold.as_ref().is_some_and(Hold::is_lasting)
    }

    /// The log has the files `named`; others go.
    async fn clear(&self, named: &HashSet<String>) {
        self.told(self.room.sweep(&self.names, named).await);
    }

    /// Nobody needs the notes any more.
    async fn finish(&mut self) {
        if let Some(Hold::Notes(notes)) = &self.hold {
            self.told(notes.end().await);
        }
        self.end();
    }

    /// The files are visible now, and somebody else's.
    pub(crate) fn keep(mut self) {
        self.kept = true;
        self.end();
    }

    /// What is in its folder is not needed any more, now or later.
    pub(crate) fn discard(mut self) {
        self.kept = true;
        self.delete();
        self.end();
    }

    /// The files are named to the log. Until it answers, readers may see them.
    pub(crate) fn submit(mut self) -> Submitted {
        self.kept = true;
        Submitted(self)
    }

    /// Nobody else need keep away any more.
    fn end(&mut self) {
        if let Some(Hold::Claim(claim)) = self.hold.take() {
            claim.end();
        }
    }

    /// Deletes what is in its folder. In a bucket that takes time: see [`give_up`](Self::give_up).
    fn delete(&self) {
        if let Room::Folder(folder) = &self.room {
            folder.close();
            self.told(folder.delete());
        }
    }

    /// What of it cannot be deleted costs space only.
    fn told<E: std::error::Error>(&self, done: Result<(), E>) {
        if let Err(error) = done {
            let (job, place) = (&self.names.job, self.room.name());
            let (cause, place) = (error.source().map(ToString::to_string), place.display());
            tracing::warn!(%error, cause, job, "files of a job stay in `{place}`; no reader sees them");
        }
    }
}

/// A hidden folder beside the table, on the same disk, so that it can be moved in.
pub(crate) fn staging(table: &Location, id: &str) -> PathBuf {
    let path = table.path();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    parent(path).join(format!(".{name}.{id}"))
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let Room::Folder(folder) = &self.room else {
            return;
        };
        if self.kept {
            return;
        }
        folder.close();
        if self.is_lasting() {
            return;
        }
        self.delete();
        folder.unmake();
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
        self.0.transaction()
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
