//! An environment with the interpreter below it as one stream of bytes, and back, on another
//! machine that has no Python.
//!
//! ```text
//! python/bin, python/lib     the interpreter, its standard library, and each shared library that
//!                            anything here asks for, beyond those of glibc
//! environment/               the virtual environment: bin/python → ../../python/bin/…, lib, …
//! carried.json               what was unpacked; written last
//! ```
//!
//! The stream is a tar in zstd without times, names of users and order of folders: the same files
//! give the same bytes. It works wherever it is unpacked, because CPython finds its standard library
//! from `pyvenv.cfg`, which is written when the place is known, and the loader finds the libraries
//! by `LD_LIBRARY_PATH`, which workers get.

mod elf;
mod files;
mod libraries;
mod machine;
mod pack;
mod unpack;

use std::fmt;
use std::io;
use std::path::PathBuf;

use envelope_format::Digest;
use serde::{Deserialize, Serialize};

pub use elf::GlibcVersion;
pub use pack::pack;
pub use unpack::{CarriedFile, temporary_place};

/// What a carried environment is, and what it asks of the machine that unpacks it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carried {
    /// Digest of the packed bytes, which names the folder that they are unpacked into.
    pub digest: Digest,
    /// How many bytes that is.
    pub packed_bytes: u64,
    /// How many bytes the unpacked files have.
    pub unpacked_bytes: u64,
    /// How many files and links there are.
    pub files: u64,
    /// The processor that the code in it is for: `x86_64`.
    pub architecture: String,
    /// The oldest glibc that has every symbol that is asked for.
    pub glibc: GlibcVersion,
    /// The libraries of glibc that are asked for; each machine has its own.
    pub of_glibc: Vec<String>,
    /// The shared libraries that were added, because the interpreter or a package asks for them.
    pub libraries: Vec<String>,
    /// Shared libraries that something asks for and the machine that packed did not have either.
    /// A package whose need for one is real cannot be imported.
    pub missing: Vec<MissingLibrary>,
    interpreter: CarriedInterpreter,
}

/// A shared library that was not found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MissingLibrary {
    /// Its name: `libtbb.so.12`.
    pub library: String,
    /// A file that asks for it.
    pub asked_by: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CarriedInterpreter {
    version: String,
    cache_tag: String,
    platform: String,
    /// Name of its shared library, if it has one.
    library: Option<String>,
}

/// Why an environment cannot be carried, or what is carried cannot be used here.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarriedError {
    /// The interpreter, its library or the worker asks for a shared library that is not here.
    #[error("`{asked_by}` asks for the shared library `{library}`, which is not on this machine")]
    MissingLibrary {
        /// The library.
        library: String,
        /// Who asks.
        asked_by: String,
    },
    /// The glibc of this machine does not have all symbols.
    #[error("this executable needs glibc {needs}, this machine has {found}")]
    OlderGlibc {
        /// The version that has them.
        needs: GlibcVersion,
        /// This machine's.
        found: GlibcVersion,
    },
    /// The code is for another processor.
    #[error("this executable carries code for {needs}, this machine is {found}")]
    Architecture {
        /// What it is for.
        needs: String,
        /// What this machine is.
        found: String,
    },
    /// The packed bytes are not those that were packed.
    #[error("the environment in `{path}` was damaged: {reason}")]
    Damaged {
        /// The executable.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder for what is unpacked belongs to somebody else, who could change what workers run.
    #[error("`{path}` belongs to another user, or everybody can write to it")]
    NotPrivate {
        /// The folder.
        path: PathBuf,
    },
    /// There is no folder to unpack into.
    #[error("cannot unpack the environment into `{path}`")]
    Place {
        /// The folder that was tried last.
        path: PathBuf,
        /// How many bytes it takes.
        bytes: u64,
        /// Why not.
        source: io::Error,
    },
    /// A file cannot be carried as it is.
    #[error("`{path}` cannot be carried: {reason}")]
    Uncarried {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
}

impl CarriedError {
    /// A stable name for the case.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::MissingLibrary { .. } => "missing_library",
            Self::OlderGlibc { .. } => "older_glibc",
            Self::Architecture { .. } => "another_architecture",
            Self::Damaged { .. } => "damaged_executable",
            Self::NotPrivate { .. } => "folder_of_another_user",
            Self::Place { .. } => "no_place_to_unpack",
            Self::Uncarried { .. } => "not_carried",
        }
    }

    /// What the user may do.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::MissingLibrary { .. } => {
                "install the package of this system that has it, then try again".into()
            }
            Self::OlderGlibc { needs, .. } => format!(
                "run it on a system with glibc {needs} or later, or build it on the oldest system that it is for"
            ),
            Self::Architecture { needs, .. } => {
                format!("run it on {needs}, or build it on a machine like this one")
            }
            Self::Damaged { .. } => "copy or build the executable again".into(),
            Self::NotPrivate { .. } => {
                "set ENVELOPE_CACHE_DIR to a folder that is this user's alone".into()
            }
            Self::Place { bytes, .. } => format!(
                "set ENVELOPE_CACHE_DIR to a folder with {} MB of room that can be written, and whose files can be executed",
                bytes.div_ceil(1_000_000)
            ),
            Self::Uncarried { .. } => {
                "remove it from the environment, or from the packages that the envelope asks for"
                    .into()
            }
        }
    }

    /// Whether the operating system forbids what would be needed.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        use io::ErrorKind::{PermissionDenied, ReadOnlyFilesystem};

        match self {
            Self::NotPrivate { .. } => true,
            Self::Place { source, .. } => {
                matches!(source.kind(), PermissionDenied | ReadOnlyFilesystem)
            }
            Self::MissingLibrary { .. }
            | Self::OlderGlibc { .. }
            | Self::Architecture { .. }
            | Self::Damaged { .. }
            | Self::Uncarried { .. } => false,
        }
    }
}

impl fmt::Display for MissingLibrary {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} (asked for by {})",
            self.library, self.asked_by
        )
    }
}

#[cfg(test)]
mod tests;
