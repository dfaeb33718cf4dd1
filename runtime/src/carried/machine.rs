//! What the machine that we run on gives to carried code: its processor and its C library.

use std::fs;
use std::path::{Path, PathBuf};

use super::elf::{Elf, GlibcVersion};
use super::libraries::system_folders;
use super::{Carried, CarriedError};

/// The C library that this process was started with.
#[derive(Debug)]
pub(super) struct Glibc {
    folder: PathBuf,
    version: GlibcVersion,
}

impl Glibc {
    /// `None` where there is no `/proc`, or another C library.
    pub(super) fn here() -> Option<Self> {
        let maps = fs::read_to_string("/proc/self/maps").ok()?;
        let paths = maps
            .lines()
            .filter_map(|line| line.find('/').map(|at| &line[at..]));
        let path = paths.map(Path::new).find(|path| is_libc(path))?;
        Some(Self {
            folder: path.parent()?.to_owned(),
            version: Elf::open(path)?.has.into_iter().max()?,
        })
    }

    fn has(&self, library: &str) -> bool {
        let folders = std::iter::once(self.folder.clone()).chain(system_folders());
        folders
            .into_iter()
            .any(|folder| folder.join(library).exists())
    }
}

fn is_libc(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("libc.so.") || (name.starts_with("libc-2.") && name.ends_with(".so"))
}

/// Refuses what would end in a message of the loader, or a crash.
pub(super) fn check(carried: &Carried, glibc: Option<&Glibc>) -> Result<(), CarriedError> {
    let here = std::env::consts::ARCH;
    if carried.architecture != here {
        return Err(CarriedError::Architecture {
            needs: carried.architecture.clone(),
            found: here.into(),
        });
    }
    // Where it is not known, the loader will tell.
    let Some(glibc) = glibc else { return Ok(()) };
    if glibc.version < carried.glibc {
        return Err(CarriedError::OlderGlibc {
            needs: carried.glibc,
            found: glibc.version,
        });
    }
    match carried.of_glibc.iter().find(|library| !glibc.has(library)) {
        None => Ok(()),
        Some(library) => Err(CarriedError::MissingLibrary {
            library: library.clone(),
            asked_by: "the environment that this executable carries".into(),
        }),
    }
}
