//! An envelope on disk.

use std::fs::File;
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

    /// First byte in the file, and length, of a mapped member.
    pub(crate) fn range(&self, name: &MemberName) -> Result<Option<(u64, u64)>, Error> {
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

fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| reading(path, source))
}

fn reading(path: &Path, source: std::io::Error) -> Error {
    Error::Io {
        doing: format!("cannot read `{}`", path.display()),
        source,
    }
}
