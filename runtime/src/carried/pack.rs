//! From an environment of this machine to one stream of bytes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use envelope_format::Digest;
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

use super::files::{self, Files, Origin, reading, unchecked};
use super::{Carried, CarriedInterpreter, libraries};
use crate::{Environment, Error, launch};

/// Packs slower than what reads it back by far; beyond this level minutes buy a few percent.
const LEVEL: i32 = 12;

/// Writes `environment`, with its interpreter and the shared libraries that it needs, to `out`.
///
/// The same files give the same bytes.
///
/// # Errors
/// [`Error::Carried`] when a shared library without which nothing works is missing, [`Error::Io`].
pub fn pack(environment: &Environment, out: impl Write) -> Result<Carried, Error> {
    let mut files = files::of_environment(environment)?;
    let libraries = libraries::gather(&files, &launch::PROGRAMS)?;
    for (name, path) in &libraries.found {
        let origin = Origin::File {
            path: path.clone(),
            is_executable: true,
        };
        files.insert(format!("python/lib/{name}"), origin);
    }
    let (packed, unpacked_bytes) = write(&files, out)?;
    let library = environment.library.as_deref().and_then(Path::file_name);
    Ok(Carried {
        digest: packed.digest(),
        packed_bytes: packed.bytes,
        unpacked_bytes,
        files: files.len() as u64,
        architecture: std::env::consts::ARCH.into(),
        glibc: libraries.glibc,
        missing: libraries.missing(),
        of_glibc: libraries.of_glibc.into_iter().collect(),
        libraries: libraries.found.into_keys().collect(),
        interpreter: CarriedInterpreter {
            version: environment.version.clone(),
            cache_tag: environment.cache_tag.clone(),
            platform: environment.platform.clone(),
            library: library.map(|name| name.to_string_lossy().into_owned()),
        },
    })
}

fn write<W: Write>(files: &Files, out: W) -> Result<(Counted<W>, u64), Error> {
    let packing = |source| Error::Io {
        doing: "cannot pack the environment".into(),
        source,
    };
    let encoder = zstd::Encoder::new(Counted::new(out), LEVEL).map_err(packing)?;
    let mut archive = tar::Builder::new(encoder);
    let mut bytes = 0;
    for (name, origin) in files {
        bytes += append(&mut archive, name, origin)?;
    }
    let encoder = archive.into_inner().map_err(packing)?;
    Ok((encoder.finish().map_err(packing)?, bytes))
}

/// Adds one file. Gives its length.
fn append(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    origin: &Origin,
) -> Result<u64, Error> {
    match origin {
        Origin::Link(target) => {
            let mut header = header(EntryType::Symlink, 0o777, 0);
            let added = archive.append_link(&mut header, name, target);
            added.map_err(|source| reading(target, source))?;
            Ok(0)
        }
        Origin::Compiled(path) => {
            let code = unchecked(fs::read(path).map_err(|source| reading(path, source))?);
            let size = code.len() as u64;
            let mut header = header(EntryType::Regular, 0o644, size);
            let added = archive.append_data(&mut header, name, code.as_slice());
            added.map_err(|source| reading(path, source)).map(|()| size)
        }
        Origin::File {
            path,
            is_executable,
        } => {
            let mode = if *is_executable { 0o755 } else { 0o644 };
            let added = append_file(archive, name, path, mode);
            added.map_err(|source| reading(path, source))
        }
    }
}

fn append_file(
    archive: &mut tar::Builder<impl Write>,
    name: &str,
    path: &Path,
    mode: u32,
) -> io::Result<u64> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let mut header = header(EntryType::Regular, mode, size);
    archive.append_data(&mut header, name, file)?;
    Ok(size)
}

/// Nothing of when, and of whose.
fn header(kind: EntryType, mode: u32, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Passes bytes on, and knows their number and digest.
pub(super) struct Counted<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Counted<W> {
    pub(super) fn new(inner: W) -> Self {
        Self {
            inner,
            hasher: Sha256::new(),
            bytes: 0,
        }
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::from(<[u8; 32]>::from(self.hasher.clone().finalize()))
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
