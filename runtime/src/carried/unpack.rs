//! From the bytes in an executable to an environment on this machine: once, and used again.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::process::getuid;
use serde::{Deserialize, Serialize};

use super::machine::{self, Glibc};
use super::pack::Counted;
use super::{Carried, CarriedError};
use crate::{EnvelopeFile, Environment, Error};

/// Written last into an unpacked environment.
const MARKER: &str = "carried.json";

/// An environment in a file, as [`pack`](super::pack()) wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CarriedFile {
    /// The file.
    pub path: PathBuf,
    /// Where in it the packed bytes begin.
    pub offset: u64,
    /// What they are.
    pub carried: Carried,
}

/// What is in [`MARKER`]: every file, so that it is noticed when something that cleans folders, or a
/// power cut, has taken one.
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    files: Vec<(PathBuf, u64)>,
}

/// Where an environment is unpacked into when the user's own cache cannot be written. Only this
/// user's: it is refused when somebody else has made it before.
#[must_use]
pub fn temporary_place() -> PathBuf {
    std::env::temp_dir().join(format!("model-envelope-{}", getuid().as_raw()))
}

impl CarriedFile {
    /// The environment for `envelope`, unpacked into the first of `places` that can be written; at
    /// once when it is there already. Safe when several processes do it at once.
    ///
    /// # Errors
    /// [`Error::Carried`] when it does not fit this machine, was damaged, or there is no place for
    /// it; [`Error::WrongInterpreter`] when it is not the envelope's.
    pub async fn realise(
        self,
        envelope: &EnvelopeFile,
        places: Vec<PathBuf>,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Environment, Error> {
        machine::check(&self.carried, Glibc::here().as_ref())?;
        let environment = match self.find(&places) {
            Some(found) => found,
            None => {
                progress("unpacking the environment (once on this machine)");
                let unpacked = tokio::task::spawn_blocking(move || self.unpack(&places)).await;
                unpacked.map_err(|error| Error::Io {
                    doing: "cannot unpack the environment".into(),
                    source: error.into(),
                })??
            }
        };
        environment.check(envelope.manifest())?;
        Ok(environment)
    }

    fn find(&self, places: &[PathBuf]) -> Option<Environment> {
        let usable = |place: &&PathBuf| is_ours(place) && self.is_complete(place);
        places.iter().find(usable).map(|place| self.entered(place))
    }

    fn unpack(&self, places: &[PathBuf]) -> Result<Environment, CarriedError> {
        let mut last = None;
        for place in places {
            match self.unpack_into(place) {
                Ok(()) => return Ok(self.entered(place)),
                Err(error @ (CarriedError::Place { .. } | CarriedError::NotPrivate { .. })) => {
                    tracing::warn!("{error}");
                    last = Some(error);
                }
                Err(error) => return Err(error),
            }
        }
        Err(last.unwrap_or_else(|| self.no_place(Path::new("-"))(io::ErrorKind::NotFound.into())))
    }

    fn folder(&self, place: &Path) -> PathBuf {
        place.join("carried").join(&self.carried.digest.hex()[..32])
    }

    fn is_complete(&self, place: &Path) -> bool {
        let folder = self.folder(place);
        let marker = fs::read(folder.join(MARKER)).ok();
        let marker: Option<Marker> = marker.and_then(|text| serde_json::from_slice(&text).ok());
        marker.is_some_and(|marker| {
            let is_there = |(path, size): &(PathBuf, u64)| {
                let found = folder.join(path).symlink_metadata();
                found.is_ok_and(|found| found.is_symlink() || found.len() == *size)
            };
            marker.files.iter().all(is_there)
        })
    }

    /// Unpacks beside, and takes the name when everything is there: whoever comes at any moment
    /// finds nothing or all of it.
    fn unpack_into(&self, place: &Path) -> Result<(), CarriedError> {
        let folder = self.folder(place);
        let failed = self.no_place(place);
        if let Some(parent) = folder.parent() {
            let mut private = DirBuilder::new();
            private.recursive(true).mode(0o700);
            private.create(parent).map_err(&failed)?;
        }
        if !is_ours(place) {
            return Err(CarriedError::NotPrivate { path: place.into() });
        }
        let guard = File::create(folder.with_extension("lock")).map_err(&failed)?;
        flock(&guard, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        if self.is_complete(place) {
            return Ok(()); // somebody else did it while we waited
        }
        self.verify()?;
        let new = folder.with_extension("new");
        remove(&new).map_err(&failed)?; // of one that was killed
        let unpacked = self.fill(&new, &folder);
        let unpacked = unpacked.and_then(|()| remove(&folder));
        let unpacked = unpacked.and_then(|()| fs::rename(&new, &folder));
        unpacked.map_err(|source| {
            let _ = fs::remove_dir_all(&new);
            failed(source)
        })
    }

    /// That the bytes are those that were packed is known before one of them is made a file.
    fn verify(&self) -> Result<(), CarriedError> {
        let damaged = |reason: String| CarriedError::Damaged {
            path: self.path.clone(),
            reason,
        };
        let mut counted = Counted::new(io::sink());
        let copied = self
            .packed()
            .and_then(|mut packed| io::copy(&mut packed, &mut counted));
        copied.map_err(|error| damaged(error.to_string()))?;
        let found = counted.digest();
        if found == self.carried.digest {
            return Ok(());
        }
        Err(damaged(format!(
            "its digest is {found}, expected {}",
            self.carried.digest
        )))
    }

    fn packed(&self) -> io::Result<io::Take<File>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.offset))?;
        Ok(file.take(self.carried.packed_bytes))
    }

    /// Writes every file below `new`, which becomes `folder`.
    fn fill(&self, new: &Path, folder: &Path) -> io::Result<()> {
        fs::create_dir(new)?;
        let mut archive = tar::Archive::new(zstd::Decoder::new(self.packed()?)?);
        archive.set_preserve_permissions(true);
        archive.set_preserve_mtime(false);
        let mut files = vec![];
        for entry in archive.entries()? {
            let mut entry = entry?;
            files.push((entry.path()?.into_owned(), entry.size()));
            if !entry.unpack_in(new)? {
                return Err(io::Error::other("a file has a name that leaves the folder"));
            }
        }
        let settings = new.join("environment/pyvenv.cfg");
        fs::write(settings, self.settings(folder))?;
        fs::write(new.join(MARKER), serde_json::to_vec(&Marker { files })?)
    }

    /// What makes the folder a virtual environment, wherever it is.
    fn settings(&self, folder: &Path) -> String {
        format!(
            "home = {}\nversion_info = {}\ninclude-system-site-packages = false\n",
            folder.join("python/bin").display(),
            self.carried.interpreter.version
        )
    }

    fn entered(&self, place: &Path) -> Environment {
        let folder = std::path::absolute(self.folder(place)).unwrap_or_else(|_| self.folder(place));
        let interpreter = &self.carried.interpreter;
        let libraries = folder.join("python/lib");
        Environment {
            python: folder.join("environment/bin/python"),
            library: interpreter
                .library
                .as_ref()
                .map(|name| libraries.join(name)),
            version: interpreter.version.clone(),
            cache_tag: interpreter.cache_tag.clone(),
            platform: interpreter.platform.clone(),
            base: folder.join("python"),
            cache: std::path::absolute(place).unwrap_or_else(|_| place.into()),
            libraries: Some(libraries),
        }
    }

    fn no_place(&self, place: &Path) -> impl Fn(io::Error) -> CarriedError {
        let (path, bytes) = (place.to_owned(), self.carried.unpacked_bytes);
        move |source| CarriedError::Place {
            path: path.clone(),
            bytes,
            source,
        }
    }
}

/// Whether a folder is this user's or the administrator's, and closed to the rest of the world.
/// Whoever can write there decides what workers run.
fn is_ours(place: &Path) -> bool {
    let folders = [place.to_owned(), place.join("carried")];
    folders.iter().all(|folder| {
        folder.metadata().is_ok_and(|found| {
            let is_owner = [0, getuid().as_raw()].contains(&found.uid());
            is_owner && found.mode() & 0o002 == 0
        })
    })
}

fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
