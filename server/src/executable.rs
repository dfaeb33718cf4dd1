//! An envelope and a service program in one executable file; on request its environment, too.
//!
//! ```text
//! ┌──────────────┬─────────┬──────────┬──────────────┬───────┬─────────┐
//! │ program      │ padding │ envelope │ environment? │ needs │ trailer │
//! └──────────────┴─────────┴──────────┴──────────────┴───────┴─────────┘
//!                          ▲ at a multiple of the page size, so that members stay mappable
//! ```
//!
//! The trailer says where the envelope is; the loader of the operating system does not look behind
//! the program. Neither a compiler nor a container is needed, and with the environment in it neither
//! Python nor a network where it runs.

use std::fs::{File, Permissions};
use std::io::{self, BufWriter, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use runtime::{Carried, CarriedFile, EnvelopeFile, Environment};
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

impl From<runtime::Environments> for Hints {
    /// What is found here. Paths stay as they are: relative ones are of no use elsewhere.
    fn from(environments: runtime::Environments) -> Self {
        Self {
            cache_dir: environments.cache,
            uv: environments.uv,
            interpreters: environments.interpreters,
        }
    }
}

/// Where an executable that is to be built will find its environment.
#[derive(Debug, Clone, Copy)]
pub enum Surroundings<'a> {
    /// On the machine that runs it, which is this one or very like it.
    Machine(&'a Hints),
    /// In itself: this one is packed into it.
    Carried(&'a Environment),
}

/// What an executable says about its environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Needs {
    /// It is to be found, or made, with what the builder knew.
    Machine(Hints),
    /// It is in the executable, behind the envelope.
    Carried(Box<Carried>),
}

/// The envelope in an executable, and what else it runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Payload {
    /// First byte of the envelope in the file.
    pub offset: u64,
    /// Length of the envelope in bytes.
    pub length: u64,
    /// Where the environment is.
    pub needs: Needs,
}

impl Payload {
    /// The environment `carried` in the executable `path`.
    #[must_use]
    pub fn environment(&self, path: &Path, carried: &Carried) -> CarriedFile {
        CarriedFile {
            path: path.to_owned(),
            offset: self.offset + self.length,
            carried: carried.clone(),
        }
    }
}

/// What was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Length of the executable.
    pub bytes: u64,
    /// Of the program in it.
    pub program_bytes: u64,
    /// Of the envelope in it.
    pub envelope_bytes: u64,
    /// The environment in it, if it carries one.
    pub carried: Option<Carried>,
}

/// Ends every executable of this kind; the last byte is the version of the layout.
const MAGIC: [u8; 16] = *b"model-envelope\0\x02";

/// Offset of the envelope, its length, lengths of the environment and of the needs, magic.
const TRAILER_BYTES: u64 = 4 * 8 + 16;

/// The page size of the systems we run on.
const PAGE_BYTES: u64 = 4096;

/// Needs are a few paths, or the names of a few libraries.
const MAX_NEEDS_BYTES: u64 = 1 << 20;

/// Writes an executable to `out` that serves `envelope`: the program `stub` with the envelope and
/// what it needs behind it. The same input gives the same bytes.
///
/// `out` appears complete or not at all. A program that is there is replaced, anything else is not.
///
/// # Errors
/// [`Error::Stub`], [`Error::NotAProgram`], [`Error::Runtime`] when the envelope is damaged, [`Error::Io`].
pub fn build(
    stub: &Path,
    envelope: &Path,
    surroundings: Surroundings<'_>,
    out: &Path,
) -> Result<Built, Error> {
    EnvelopeFile::open(envelope)?.verify()?;
    check_stub(stub)?;
    check_free(out)?;
    let folder = match out.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    let file = NamedTempFile::new_in(folder).map_err(|source| writing(out, source))?;
    let mut assembly = Assembly::begin(file.as_file(), out, stub)?;
    assembly.add_envelope(envelope)?;
    let built = assembly.finish(surroundings)?;
    file.persist(out)
        .map_err(|error| writing(out, error.error))?;
    // The name is on disk when the folder is.
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| writing(out, source))?;
    Ok(built)
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

/// An executable that is being written, part after part.
struct Assembly<'a> {
    file: &'a File,
    /// What it will be called.
    out: &'a Path,
    program_bytes: u64,
    envelope_bytes: u64,
}

impl<'a> Assembly<'a> {
    fn begin(mut file: &'a File, out: &'a Path, stub: &Path) -> Result<Self, Error> {
        let program = File::open(stub).map_err(|source| reading(stub, source))?;
        let copied = io::copy(&mut &program, &mut file);
        Ok(Self {
            file,
            out,
            program_bytes: copied.map_err(|source| writing(out, source))?,
            envelope_bytes: 0,
        })
    }

    /// Where the envelope begins.
    fn offset(&self) -> u64 {
        self.program_bytes.next_multiple_of(PAGE_BYTES)
    }

    fn add_envelope(&mut self, envelope: &Path) -> Result<(), Error> {
        let content = File::open(envelope).map_err(|source| reading(envelope, source))?;
        let mut file = self.file;
        let copied = file
            .seek(SeekFrom::Start(self.offset()))
            .and_then(|_| io::copy(&mut &content, &mut file));
        self.envelope_bytes = copied.map_err(|source| writing(self.out, source))?;
        Ok(())
    }

    fn finish(&self, surroundings: Surroundings<'_>) -> Result<Built, Error> {
        let needs = match surroundings {
            Surroundings::Machine(hints) => Needs::Machine(hints.clone()),
            Surroundings::Carried(environment) => {
                // It fails when the last bytes cannot be written, which would be lost in silence.
                let mut out = BufWriter::new(self.file);
                let carried = runtime::pack(environment, &mut out)?;
                out.flush().map_err(|source| writing(self.out, source))?;
                Needs::Carried(Box::new(carried))
            }
        };
        let ended = self.end(&needs);
        Ok(Built {
            bytes: ended.map_err(|source| writing(self.out, source))?,
            program_bytes: self.program_bytes,
            envelope_bytes: self.envelope_bytes,
            carried: needs.into_carried(),
        })
    }

    /// Writes what is read first. Gives the length of the whole.
    fn end(&self, needs: &Needs) -> io::Result<u64> {
        let mut file = self.file;
        let text = serde_json::to_vec(needs)?;
        file.write_all(&text)?;
        let lengths = [self.envelope_bytes, needs.packed_bytes(), text.len() as u64];
        for number in [self.offset()].into_iter().chain(lengths) {
            file.write_all(&number.to_le_bytes())?;
        }
        file.write_all(&MAGIC)?;
        file.set_permissions(Permissions::from_mode(0o755))?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

impl Needs {
    /// Length of the environment in the executable.
    fn packed_bytes(&self) -> u64 {
        match self {
            Self::Machine(_) => 0,
            Self::Carried(carried) => carried.packed_bytes,
        }
    }

    fn into_carried(self) -> Option<Carried> {
        match self {
            Self::Machine(_) => None,
            Self::Carried(carried) => Some(*carried),
        }
    }
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
    let (numbers, magic) = trailer.split_at(32);
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
    let (offset, length, packed, described) = (number(0), number(1), number(2), number(3));
    if offset == 0 || !offset.is_multiple_of(PAGE_BYTES) {
        return Err(Broken::Layout("it does not begin on a page"));
    }
    let needs_offset = offset
        .checked_add(length)
        .filter(|_| length > 0)
        .and_then(|end| end.checked_add(packed));
    if needs_offset.and_then(|offset| offset.checked_add(described)) != Some(trailer_offset) {
        return Err(Broken::Layout("its parts do not fill the file"));
    }
    if described > MAX_NEEDS_BYTES {
        return Err(Broken::Layout("what it needs takes too long to say"));
    }
    let mut text = vec![0; usize::try_from(described).unwrap_or(0)];
    file.read_exact_at(&mut text, trailer_offset - described)?;
    let needs: Needs = serde_json::from_slice(&text)
        .map_err(|_| Broken::Layout("what it needs cannot be read"))?;
    if needs.packed_bytes() != packed {
        return Err(Broken::Layout(
            "its environment has another length than it says",
        ));
    }
    Ok(Some(Payload {
        offset,
        length,
        needs,
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
