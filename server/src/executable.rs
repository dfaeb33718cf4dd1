//! An envelope and a service program in one executable file.
//!
//! ```text
//! ┌──────────────┬─────────┬──────────┬───────┬─────────┐
//! │ program      │ padding │ envelope │ hints │ trailer │
//! └──────────────┴─────────┴──────────┴───────┴─────────┘
//!                          ▲ at a multiple of the page size, so that members stay mappable
//! ```
//!
//! The trailer says where the envelope is; the loader of the operating system does not look behind
//! the program. Neither a compiler nor a container is needed.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use runtime::EnvelopeFile;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::error::Error;

/// Where the machine that built an executable found what its service needs. All of it may be
/// missing on the machine that runs it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hints {
    /// Folder of realised environments.
    pub cache_dir: PathBuf,
    /// The `uv` program.
    pub uv: Option<PathBuf>,
    /// Interpreters to try first.
    pub interpreters: Vec<PathBuf>,
}

/// The envelope in an executable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// First byte of the envelope in the file.
    pub offset: u64,
    /// Length of the envelope in bytes.
    pub length: u64,
    /// What the builder knew.
    pub hints: Hints,
}

/// Ends every executable of this kind; the last byte is the version of the layout.
const MAGIC: [u8; 16] = *b"model-envelope\0\x01";

/// Offset of the envelope, its length, length of the hints, magic.
const TRAILER_BYTES: u64 = 8 + 8 + 8 + 16;

/// The page size of the systems we run on.
const PAGE_BYTES: u64 = 4096;

/// Hints are a few paths.
const MAX_HINTS_BYTES: u64 = 1 << 20;

/// Writes an executable to `out` that serves `envelope`: the program `stub` with the envelope and
/// `hints` behind it.
///
/// `out` appears complete or not at all. A program that is there is replaced, anything else is not.
///
/// # Errors
/// [`Error::Stub`], [`Error::NotAProgram`], [`Error::Runtime`] when the envelope is damaged, [`Error::Io`].
pub fn build(stub: &Path, envelope: &Path, hints: &Hints, out: &Path) -> Result<(), Error> {
    EnvelopeFile::open(envelope)?.verify()?;
    check_stub(stub)?;
    check_free(out)?;
    let folder = match out.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let file = NamedTempFile::new_in(folder).map_err(|source| writing(out, source))?;
    assemble(file.as_file(), stub, envelope, hints).map_err(|source| writing(out, source))?;
    file.persist(out)
        .map_err(|error| writing(out, error.error))?;
    // The name is on disk when the folder is.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| writing(out, source))
}

/// Building again replaces what was built before, and never somebody's notes.
fn check_free(out: &Path) -> Result<(), Error> {
    let Ok(found) = out.symlink_metadata() else {
        return Ok(());
    };
    if found.is_file() && is_program(out).map_err(|source| reading(out, source))? {
        return Ok(());
    }
    Err(Error::NotAProgram {
        path: out.to_owned(),
    })
}

fn is_program(path: &Path) -> io::Result<bool> {
    let mut magic = vec![];
    File::open(path)?.take(4).read_to_end(&mut magic)?;
    Ok(magic == b"\x7fELF")
}

fn check_stub(stub: &Path) -> Result<(), Error> {
    let refuse = |reason| {
        Err(Error::Stub {
            path: stub.to_owned(),
            reason,
        })
    };
    if !is_program(stub).map_err(|source| reading(stub, source))? {
        return refuse("it is not a program for Linux");
    }
    match payload(stub)? {
        None => Ok(()),
        Some(_) => refuse("it carries an envelope already"),
    }
}

fn assemble(mut out: &File, stub: &Path, envelope: &Path, hints: &Hints) -> io::Result<()> {
    let program = io::copy(&mut File::open(stub)?, &mut out)?;
    let offset = program.next_multiple_of(PAGE_BYTES);
    out.seek(SeekFrom::Start(offset))?;
    let length = io::copy(&mut File::open(envelope)?, &mut out)?;
    let hints = serde_json::to_vec(hints)?;
    out.write_all(&hints)?;
    for number in [offset, length, hints.len() as u64] {
        out.write_all(&number.to_le_bytes())?;
    }
    out.write_all(&MAGIC)?;
    out.set_permissions(Permissions::from_mode(0o755))?;
    out.sync_all()
}

/// The envelope in the executable `path`; `None` when it is a program without one.
///
/// # Errors
/// [`Error::Payload`] when there is one, but not where the file says; [`Error::Io`].
pub fn payload(path: &Path) -> Result<Option<Payload>, Error> {
    let file = File::open(path).map_err(|source| reading(path, source))?;
    read_payload(&file).map_err(|broken| match broken {
        Broken::Layout(reason) => Error::Payload {
            path: path.to_owned(),
            reason,
        },
        Broken::Io(source) => reading(path, source),
    })
}

enum Broken {
    Layout(&'static str),
    Io(io::Error),
}

impl From<io::Error> for Broken {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

fn read_payload(file: &File) -> Result<Option<Payload>, Broken> {
    let end = file.metadata()?.len();
    let Some(trailer_offset) = end.checked_sub(TRAILER_BYTES) else {
        return Ok(None);
    };
    let mut trailer = [0; TRAILER_BYTES as usize];
    file.read_exact_at(&mut trailer, trailer_offset)?;
    let (numbers, magic) = trailer.split_at(24);
    if magic[..15] != MAGIC[..15] {
        return Ok(None);
    }
    if magic[15] != MAGIC[15] {
        return Err(Broken::Layout("it is of another version"));
    }
    let number = |index: usize| {
        numbers[index * 8..]
            .first_chunk::<8>()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let (offset, length, hints_length) = (number(0), number(1), number(2));
    if offset == 0 || !offset.is_multiple_of(PAGE_BYTES) {
        return Err(Broken::Layout("it does not begin on a page"));
    }
    let hints_offset = offset.checked_add(length).filter(|_| length > 0);
    if hints_offset.and_then(|offset| offset.checked_add(hints_length)) != Some(trailer_offset) {
        return Err(Broken::Layout("its parts do not fill the file"));
    }
    if hints_length > MAX_HINTS_BYTES {
        return Err(Broken::Layout("its hints are too long"));
    }
    let mut hints = vec![0; usize::try_from(hints_length).unwrap_or(0)];
    file.read_exact_at(&mut hints, offset + length)?;
    let hints =
        serde_json::from_slice(&hints).map_err(|_| Broken::Layout("its hints are not JSON"))?;
    Ok(Some(Payload {
        offset,
        length,
        hints,
    }))
}

fn reading(path: &Path, source: io::Error) -> Error {
    Error::Io {
        doing: format!("cannot read `{}`", path.display()),
        source,
    }
}

fn writing(path: &Path, source: io::Error) -> Error {
    Error::Io {
        doing: format!("cannot write `{}`", path.display()),
        source,
    }
}

#[cfg(test)]
mod tests;
