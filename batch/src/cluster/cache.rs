//! The envelopes that a machine keeps: copies, shared by all executors on it.
//!
//! ```text
//! <hex>.envelope        a copy, locked for reading by each executor that works with it
//! <hex>.attestation     who vouches for it, if somebody did when it came
//! <hex>.lock            locked by whoever gets the copy, or gives it up; tells when it was asked for last
//! <random>.part         a copy that is being made, locked by whoever makes it
//! room                  locked by whoever makes room
//! ```
//!
//! A copy has its name when all of its bytes have been checked and are on the disk. Locks end with the
//! process that holds them, so nobody waits for one that is dead, and its part is deleted.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use envelope_format::Digest;
use runtime::EnvelopeFile;
use tempfile::NamedTempFile;
use tokio::io::AsyncWriteExt as _;

use super::lending::Lent;
use crate::claim::{is_at, remove};
use crate::durable::{create_folders, sync_folder};

const ENVELOPE: &str = "envelope";
const ATTESTATION: &str = "attestation";
const LOCK: &str = "lock";
const PART: &str = "part";
const ROOM: &str = "room";

/// A folder with copies of envelopes, up to so many bytes.
#[derive(Debug, Clone)]
pub struct EnvelopeCache {
    folder: PathBuf,
    most_bytes: u64,
}

/// A copy that nobody gives up until this is dropped.
#[derive(Debug)]
pub struct InUse {
    envelope: Arc<EnvelopeFile>,
    _in_use: File,
}

impl InUse {
    /// The envelope, of which every byte has been checked.
    #[must_use]
    pub fn envelope(&self) -> &Arc<EnvelopeFile> {
        &self.envelope
    }
}

/// Whether an envelope may run, by the file that has its attestation.
pub type Check = Arc<dyn Fn(&EnvelopeFile, &Path) -> Result<(), runtime::Error> + Send + Sync>;

impl EnvelopeCache {
    /// Keeps copies in `folder`, of `most_bytes` together; more only while all of them are in use.
    pub fn new(folder: impl Into<PathBuf>, most_bytes: u64) -> Self {
        Self {
            folder: folder.into(),
            most_bytes,
        }
    }

    /// Gives the copy of an envelope. `fetch` is asked for its bytes when there is none that is whole
    /// and passes `check`; however many executors ask, one of them fetches.
    ///
    /// # Errors
    /// Those of `fetch` and `check`; [`runtime::Error::Envelope`] for bytes that are not those of the
    /// digest, [`runtime::Error::Io`].
    pub async fn get<F>(
        &self,
        digest: Digest,
        check: &Check,
        fetch: F,
    ) -> Result<InUse, runtime::Error>
    where
        F: AsyncFnOnce() -> Result<Lent, runtime::Error>,
    {
        let alone = self.blocking(move |cache| cache.alone(&digest)).await?;
        let usable = Arc::clone(check);
        let found = self.blocking(move |cache| Ok(cache.find(&digest, &usable)));
        let copy = match found.await? {
            Some(copy) => copy,
            None => self.fetched(digest, check, fetch().await?).await?,
        };
        // Its time changes: it was asked for now.
        alone.write_all_at(b".", 0).map_err(self.failed())?;
        Ok(copy)
    }

    async fn fetched(
        &self,
        digest: Digest,
        check: &Check,
        lent: Lent,
    ) -> Result<InUse, runtime::Error> {
        let Lent {
            bytes,
            attestation,
            mut reader,
        } = lent;
        let mut part = self.blocking(move |cache| cache.reserve(bytes)).await?;
        let file = part.as_file().try_clone().map_err(self.failed())?;
        let mut file = tokio::fs::File::from_std(file);
        let copied = async {
            let copied = tokio::io::copy(&mut reader, &mut file).await?;
            file.flush().await?;
            match copied == bytes {
                true => Ok(()),
                false => Err(io::ErrorKind::UnexpectedEof.into()),
            }
        };
        copied.await.map_err(self.failed())?;
        let check = Arc::clone(check);
        self.checking(move |cache| {
            is_right(&part, &digest)?;
            cache.publish(&mut part, (&digest, attestation.as_deref()), &check)
        })
        .await
    }

    /// From now on nobody else gets this envelope or gives it up.
    fn alone(&self, digest: &Digest) -> io::Result<File> {
        create_folders(&self.folder)?;
        let path = self.file(digest, LOCK);
        loop {
            let lock = open_lock(&path)?;
            lock.lock()?;
            // Whoever gave the envelope up meanwhile has deleted what we waited for.
            if is_at(&lock, &path) {
                return Ok(lock);
            }
        }
    }

    /// The copy that is there, if it may be used.
    fn find(&self, digest: &Digest, check: &Check) -> Option<InUse> {
        let copy = self.open(digest).ok()?;
        let envelope = copy.envelope();
        let is_good = envelope.digest() == *digest && envelope.verify().is_ok();
        let attestation = self.file(digest, ATTESTATION);
        (is_good && check(envelope, &attestation).is_ok()).then_some(copy)
    }

    fn open(&self, digest: &Digest) -> Result<InUse, runtime::Error> {
        let path = self.file(digest, ENVELOPE);
        let in_use = File::open(&path).and_then(|file| file.lock_shared().map(|()| file));
        Ok(InUse {
            _in_use: in_use.map_err(self.failed())?,
            envelope: Arc::new(EnvelopeFile::open(path)?),
        })
    }

    /// A part with room for so many bytes.
    fn reserve(&self, bytes: u64) -> io::Result<NamedTempFile> {
        let room = open_lock(&self.folder.join(ROOM))?;
        room.lock()?;
        self.make_room(bytes)?;
        let part = tempfile::Builder::new()
            .suffix(".part")
            .tempfile_in(&self.folder)?;
        part.as_file().lock()?;
        // What it will take counts from now on.
        part.as_file().set_len(bytes)?;
        Ok(part)
    }

    /// Gives up what was asked for the longest ago and is not in use, until so many bytes fit.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut taken = bytes + self.parts()?;
        let mut copies = self.copies()?;
        copies.sort_by_key(|copy| copy.asked_for);
        taken += copies.iter().map(|copy| copy.bytes).sum::<u64>();
        for copy in copies {
            if taken <= self.most_bytes {
                return Ok(());
            }
            if self.give_up(&copy.hex)? {
                taken -= copy.bytes;
            }
        }
        if taken > self.most_bytes {
            let (taken, most) = (taken, self.most_bytes);
            tracing::warn!(
                taken,
                most,
                "envelopes that are in use take more bytes than they may"
            );
        }
        Ok(())
    }

    /// Bytes of parts; those that nobody makes any more are deleted.
    fn parts(&self) -> io::Result<u64> {
        let mut bytes = 0;
        for path in self.files(PART)? {
            match File::open(&path).and_then(|file| Ok((is_free(&file)?, file.metadata()?.len()))) {
                Ok((true, _)) => remove(&path)?,
                Ok((false, taken)) => bytes += taken,
                // It has become a copy.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(bytes)
    }

    fn copies(&self) -> io::Result<Vec<Kept>> {
        let mut copies = vec![];
        for path in self.files(ENVELOPE)? {
            let hex = path.file_stem().unwrap_or_default().to_string_lossy();
            let asked_for = self.folder.join(format!("{hex}.{LOCK}")).metadata();
            copies.push(Kept {
                bytes: path.metadata()?.len(),
                // One without a lock was asked for by nobody who is alive.
                asked_for: asked_for.and_then(|found| found.modified()).ok(),
                hex: hex.into_owned(),
            });
        }
        Ok(copies)
    }

    /// Deletes a copy, unless somebody is getting it or works with it.
    fn give_up(&self, hex: &str) -> io::Result<bool> {
        let path = |what: &str| self.folder.join(format!("{hex}.{what}"));
        let alone = open_lock(&path(LOCK))?;
        if !is_free(&alone)? || !is_free(&File::open(path(ENVELOPE))?)? {
            return Ok(false);
        }
        for what in [ENVELOPE, ATTESTATION, LOCK] {
            remove(&path(what))?;
        }
        Ok(true)
    }

    /// Gives a part the name of the envelope that it is.
    fn publish(
        &self,
        part: &mut NamedTempFile,
        (digest, attestation): (&Digest, Option<&[u8]>),
        check: &Check,
    ) -> Result<InUse, runtime::Error> {
        let vouched = self.file(digest, ATTESTATION);
        let written = match attestation {
            Some(bytes) => std::fs::write(&vouched, bytes),
            None => remove(&vouched),
        };
        written.map_err(self.failed())?;
        check(&EnvelopeFile::open(part.path())?, &vouched)?;
        let place = self.file(digest, ENVELOPE);
        let published = part.as_file().sync_all().and_then(|()| {
            std::fs::rename(part.path(), &place)?;
            sync_folder(&self.folder)
        });
        published.map_err(self.failed())?;
        // The lock for writing goes with the part; we are alone with the copy.
        part.as_file().unlock().map_err(self.failed())?;
        self.open(digest)
    }

    fn file(&self, digest: &Digest, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}", digest.hex()))
    }

    fn files(&self, ending: &str) -> io::Result<Vec<PathBuf>> {
        let entries = std::fs::read_dir(&self.folder)?;
        let paths = entries.map(|entry| entry.map(|entry| entry.path()));
        let fits = |path: &PathBuf| path.extension().is_some_and(|found| found == ending);
        paths
            .filter(|path| path.as_ref().map_or(true, fits))
            .collect()
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, runtime::Error> {
        let failed = self.failed();
        self.checking(move |cache| work(cache).map_err(failed))
            .await
    }

    async fn checking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T, runtime::Error> + Send + 'static,
    ) -> Result<T, runtime::Error> {
        let cache = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&cache)).await;
        done.map_err(|panic| self.failed()(panic.into()))?
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> runtime::Error + Send + 'static {
        let doing = format!("cannot keep an envelope in `{}`", self.folder.display());
        move |source| runtime::Error::Io { doing, source }
    }
}

/// A copy, as far as it matters to whoever makes room.
struct Kept {
    hex: String,
    bytes: u64,
    asked_for: Option<SystemTime>,
}

/// Whether these are the bytes of the digest, all of them.
fn is_right(part: &NamedTempFile, digest: &Digest) -> Result<(), runtime::Error> {
    let envelope = EnvelopeFile::open(part.path())?;
    envelope.verify()?;
    if envelope.digest() == *digest {
        return Ok(());
    }
    let other = format!("it is `{}`, not `{digest}`", envelope.digest());
    Err(runtime::Error::Io {
        doing: "cannot use the envelope that was sent".into(),
        source: io::Error::new(io::ErrorKind::InvalidData, other),
    })
}

fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).open(path)
}

/// Locks a file that nobody else has locked, for as long as it is open.
fn is_free(file: &File) -> io::Result<bool> {
    match file.try_lock() {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

#[cfg(test)]
mod tests;
