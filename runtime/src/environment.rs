//! An environment lock made real on disk, kept by digest.

use std::path::PathBuf;

use crate::{EnvelopeFile, Error};

/// A realised environment: a virtual environment that holds exactly what a lock says.
#[derive(Debug, Clone)]
pub struct Environment {}

/// Where realised environments are kept, and how new ones are made.
#[derive(Debug, Clone)]
pub struct Environments {
    /// Folder of the cache; made when needed.
    pub cache: PathBuf,
    /// The `uv` program, if it is known where that is. Needed only when an environment is new here.
    pub uv: Option<PathBuf>,
    /// Interpreters to try first.
    pub interpreters: Vec<PathBuf>,
    /// Never use the network.
    pub offline: bool,
}

impl Environments {
    /// The environment of `envelope`: found in the cache, or made now. `progress` is told, in a
    /// few words, about steps that take long. Safe when several processes do it at once.
    ///
    /// # Errors
    /// [`Error::WrongInterpreter`] when no fitting interpreter is here, [`Error::Environment`].
    pub async fn realise(&self, envelope: &EnvelopeFile, progress: &(dyn Fn(&str) + Sync)) -> Result<Environment, Error> {
        todo!()
    }
}
