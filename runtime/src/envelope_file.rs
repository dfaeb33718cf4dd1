//! An envelope on disk.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use envelope_format::{Digest, Envelope, Function, Manifest, MemberName, ReadAt as _, Section};

use crate::Error;

/// An envelope in a file, or in a part of one (a service executable carries its envelope).
#[derive(Debug)]
pub struct EnvelopeFile {
    path: PathBuf,
    offset: u64,
    envelope: Envelope<Section<File>>,
}

impl EnvelopeFile {
    /// Opens the envelope in `path`; checks its structure, not yet the content of its members.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Envelope`].
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let file = open(&path)?;
        let length = file.length().map_err(|source| reading(&path, source))?;
        Self::from_section(&path, file, 0, length)
    }

    /// Opens the envelope in the `length` bytes of `path` from `offset` on.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Envelope`].
    pub fn open_section(path: impl Into<PathBuf>, offset: u64, length: u64) -> Result<Self, Error> {
        let path = path.into();
        let file = open(&path)?;
        Self::from_section(&path, file, offset, length)
    }

    /// Workers run in another folder and open the file again: its path must not depend on ours.
    fn from_section(path: &Path, file: File, offset: u64, length: u64) -> Result<Self, Error> {
        let path = path
            .canonicalize()
            .map_err(|source| reading(path, source))?;
        match Envelope::open(Section::new(file, offset, length)) {
            Ok(envelope) => Ok(Self {
                path,
                offset,
                envelope,
            }),
            Err(source) => Err(Error::Envelope { path, source }),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The description of the envelope.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        self.envelope.manifest()
    }

    /// Its identity.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.envelope.digest()
    }

    /// The function called `name`, or the default one.
    ///
    /// # Errors
    /// [`Error::NoSuchFunction`].
    pub fn function(&self, name: Option<&str>) -> Result<&Function, Error> {
        self.manifest()
            .function(name)
            .map_err(Error::NoSuchFunction)
    }

    /// Reads a member and checks its digest.
    ///
    /// # Errors
    /// [`Error::Envelope`].
    pub fn read(&self, name: &MemberName) -> Result<Vec<u8>, Error> {
        self.envelope
            .read(name)
            .map_err(|source| self.broken(source))
    }

    /// Checks every member.
    ///
    /// # Errors
    /// [`Error::Envelope`].
    pub fn verify(&self) -> Result<(), Error> {
        self.envelope.verify().map_err(|source| self.broken(source))
    }

    /// Checks the mapped members, once for each state of the file: workers map them without reading
    /// them, and hashing takes longer than all the rest of loading. `cache` remembers what was good.
    ///
    /// # Errors
    /// [`Error::Envelope`] or [`Error::Io`].
    pub fn verify_mapped(&self, cache: &Path) -> Result<(), Error> {
        if self.manifest().state.buffers.is_empty() {
            return Ok(());
        }
        let marker = cache.join("verified").join(self.digest().hex());
        let state = state(&self.path).map_err(|source| reading(&self.path, source))?;
        if fs::read_to_string(&marker).is_ok_and(|seen| seen == state) {
            return Ok(());
        }
        self.envelope
            .verify_mapped()
            .map_err(|source| self.broken(source))?;
        // Without the marker it is verified again, which is slow and not wrong.
        _ = fs::create_dir_all(cache.join("verified")).and_then(|()| fs::write(marker, state));
        Ok(())
    }

    /// First byte in the file, and length, of a mapped member; `None` when it is deflated.
    ///
    /// # Errors
    /// [`Error::Envelope`].
    pub fn range(&self, name: &MemberName) -> Result<Option<(u64, u64)>, Error> {
        let range = self
            .envelope
            .range(name)
            .map_err(|source| self.broken(source))?;
        Ok(range.map(|range| (self.offset + range.offset, range.length)))
    }

    fn broken(&self, source: envelope_format::Error) -> Error {
        Error::Envelope {
            path: self.path.clone(),
            source,
        }
    }
}

/// Changes whenever somebody writes to the file, or puts another in its place.
fn state(path: &Path) -> std::io::Result<String> {
    let found = fs::metadata(path)?;
    let (changed, nanoseconds) = (found.ctime(), found.ctime_nsec());
    let (device, inode, size) = (found.dev(), found.ino(), found.size());
    Ok(format!(
        "{device} {inode} {size} {changed}.{nanoseconds:09}\n"
    ))
}

fn open(path: &Path) -> Result<File, Error> {
    envelope_format::open_file(path).map_err(|error| {
        if let envelope_format::Error::Io { source } = error {
            return reading(path, source);
        }
        Error::Envelope {
            path: path.to_owned(),
            source: error,
        }
    })
}

fn reading(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        doing: format!("cannot read `{}`", path.display()),
        source,
    }
}
