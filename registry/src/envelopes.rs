//! The bytes of envelopes, each under its digest.

use std::fs::File;
use std::io;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use envelope_format::{Digest, Envelope, Manifest, ReadAt as _};
use object_store::path::Path;
use object_store::{CopyMode, MultipartUpload, ObjectStoreExt as _, PutPayload};

use crate::Error;
use crate::durable::DurableFiles;
use crate::error::store;

/// Read and written at a time, in bytes: an envelope may be larger than memory.
const CHUNK_BYTES: u64 = 8 << 20;

/// A save takes minutes at most; what is older was left by one that was killed.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Where the bytes are kept. Nothing here overwrites the bytes of a good envelope.
#[derive(Debug)]
pub(crate) struct Envelopes {
    files: DurableFiles,
}

/// A file that was found to be an envelope down to its last bit.
#[derive(Debug)]
pub(crate) struct VerifiedFile {
    pub(crate) manifest: Manifest,
    pub(crate) digest: Digest,
    path: PathBuf,
    file: Arc<File>,
    state: FileState,
}

/// Changes when somebody writes to the file.
type FileState = (u64, Option<SystemTime>);

impl VerifiedFile {
    /// Verifies the envelope in `path`, all of it.
    pub(crate) async fn open(path: &FilePath) -> Result<Self, Error> {
        let path = path.to_owned();
        blocking(move || Self::verify(path)).await
    }

    fn verify(path: PathBuf) -> Result<Self, Error> {
        let broken = |error| {
            if let envelope_format::Error::Io { source } = error {
                return reading(&path, source);
            }
            Error::Envelope {
                path: path.clone(),
                source: error,
            }
        };
        let file = envelope_format::open_file(&path).map_err(broken)?;
        let copied = || Ok((state(&file)?, file.try_clone()?));
        let (state, copy) = copied().map_err(|source| reading(&path, source))?;
        let envelope = Envelope::open(copy).map_err(broken)?;
        envelope.verify().map_err(broken)?;
        let (manifest, digest) = (envelope.manifest().clone(), envelope.digest());
        Ok(Self {
            manifest,
            digest,
            path,
            file: Arc::new(file),
            state,
        })
    }

    async fn chunk(&self, offset: u64) -> Result<Bytes, Error> {
        let file = Arc::clone(&self.file);
        let size = CHUNK_BYTES.min(self.state.0 - offset);
        let read = move || {
            let mut chunk = vec![0; usize::try_from(size).map_err(io::Error::other)?];
            file.read_at(&mut chunk, offset)?;
            Ok(chunk.into())
        };
        let path = self.path.clone();
        blocking(move || read().map_err(|source| reading(&path, source))).await
    }

    /// What was verified is what was read since.
    fn check_unchanged(&self) -> Result<(), Error> {
        let found = state(&self.file).map_err(|source| reading(&self.path, source))?;
        if found == self.state {
            Ok(())
        } else {
            Err(Error::Changed {
                path: self.path.clone(),
            })
        }
    }
}

impl Envelopes {
    /// Opens the store in the folder `root`; makes it if it is not there.
    pub(crate) fn open(root: &FilePath) -> io::Result<Self> {
        Ok(Self {
            files: DurableFiles::open(root)?,
        })
    }

    /// The file that holds an envelope, if it is stored.
    pub(crate) fn path(&self, digest: &Digest) -> Result<PathBuf, Error> {
        self.files
            .path(&location(digest))
            .map_err(store("name a file"))
    }

    /// Stores the bytes, unless they are there. When this returns they are on the disk.
    pub(crate) async fn put(&self, verified: &VerifiedFile) -> Result<(), Error> {
        let is_damaged = match self.is_good(&verified.digest).await? {
            Some(true) => return Ok(()),
            Some(false) => true,
            None => false,
        };
        let staged = self.stage(verified).await?;
        let published = match is_damaged {
            false => self.create(&staged, &verified.digest).await,
            // These are not the bytes that the digest names, so nobody can be using them.
            true => self
                .files
                .rename(&staged, &location(&verified.digest))
                .await
                .map_err(store("repair an envelope")),
        };
        // It is a second name of the published file, or of no use any more.
        _ = self.files.delete(&staged).await;
        published
    }

    /// A new file to write an envelope into, for [`Envelopes::adopt`].
    pub(crate) fn stage_path(&self) -> Result<PathBuf, Error> {
        self.files
            .path(&self.files.staging())
            .map_err(store("name a file"))
    }

    /// Moves a staged file to its place, unless the same bytes are there.
    pub(crate) async fn adopt(&self, file: &FilePath, digest: &Digest) -> Result<(), Error> {
        let staged = self
            .files
            .staged(file)
            .map_err(store("find a staged file"))?;
        let location = location(digest);
        let mode = match self.is_good(digest).await? {
            Some(true) => {
                return self
                    .files
                    .delete(&staged)
                    .await
                    .map_err(store("remove a staged file"));
            }
            // These are not the bytes that the digest names, so nobody can be using them.
            Some(false) => CopyMode::Overwrite,
            None => CopyMode::Create,
        };
        match self.files.publish(&staged, &location, mode).await {
            Err(object_store::Error::AlreadyExists { .. })
                if self.is_good(digest).await? == Some(true) =>
            {
                Ok(())
            }
            published => published.map_err(store("add an envelope")),
        }
    }

    /// Removes what killed processes left, as seen at the time `now`.
    pub(crate) async fn sweep(&self, now: SystemTime) -> Result<(), Error> {
        let before = now
            .checked_sub(LEFTOVER_AGE)
            .unwrap_or(SystemTime::UNIX_EPOCH);
        self.files
            .sweep(before)
            .await
            .map_err(store("remove leftovers"))
    }

    async fn create(&self, staged: &Path, digest: &Digest) -> Result<(), Error> {
        match self
            .files
            .copy_if_not_exists(staged, &location(digest))
            .await
        {
            Ok(()) => Ok(()),
            // Another process saves the same envelope: its bytes are as good as ours, if good.
            Err(object_store::Error::AlreadyExists { .. })
                if self.is_good(digest).await? == Some(true) =>
            {
                Ok(())
            }
            Err(source) => Err(store("add an envelope")(source)),
        }
    }

    async fn stage(&self, verified: &VerifiedFile) -> Result<Path, Error> {
        let staged = self.files.staging();
        let mut upload = self
            .files
            .put_multipart(&staged)
            .await
            .map_err(store("begin to write"))?;
        if let Err(error) = copy(verified, &mut *upload).await {
            _ = upload.abort().await;
            return Err(error);
        }
        upload
            .complete()
            .await
            .map_err(store("write an envelope"))?;
        Ok(staged)
    }

    /// Whether the stored bytes are what the digest names; `None` when there are none.
    async fn is_good(&self, digest: &Digest) -> Result<Option<bool>, Error> {
        match VerifiedFile::open(&self.path(digest)?).await {
            Ok(stored) => Ok(Some(stored.digest == *digest)),
            Err(Error::Envelope {
                source: envelope_format::Error::Io { source },
                path,
            }) => Err(reading(&path, source)),
            Err(Error::Envelope { .. }) => Ok(Some(false)),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

async fn copy(verified: &VerifiedFile, upload: &mut dyn MultipartUpload) -> Result<(), Error> {
    let mut offset = 0;
    while offset < verified.state.0 {
        let chunk = verified.chunk(offset).await?;
        offset += chunk.len() as u64;
        upload
            .put_part(PutPayload::from(chunk))
            .await
            .map_err(store("write an envelope"))?;
    }
    verified.check_unchanged()
}

fn location(digest: &Digest) -> Path {
    Path::from_iter(["envelopes".to_owned(), format!("{}.envelope", digest.hex())])
}

fn state(file: &File) -> io::Result<FileState> {
    let metadata = file.metadata()?;
    Ok((metadata.len(), metadata.modified().ok()))
}

fn reading(path: &FilePath, source: io::Error) -> Error {
    Error::Io {
        doing: "read",
        path: path.to_owned(),
        source,
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let failed = |panic: tokio::task::JoinError| Error::Io {
        doing: "finish with",
        path: PathBuf::new(),
        source: io::Error::other(panic),
    };
    tokio::task::spawn_blocking(work)
        .await
        .map_err(failed)
        .flatten()
}
