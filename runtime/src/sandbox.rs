//! What workers may do to the machine that they run on.
//!
//! The launcher confines a worker before there is an interpreter; what the worker starts is confined
//! as it is. It contains accidents and common malware (which reads files and credentials, calls
//! home, fills the disk or the memory); it is no boundary against a determined attacker with native
//! code. See `docs/sandbox.md`.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::{Environment, Error, view};

/// How much workers are confined. Each level does what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum SandboxLevel {
    /// Processes of their own with an empty environment and a private home, no more.
    None,
    /// No new privileges, of root's only to open any file, no core dumps, limits on descriptors and
    /// the size of files.
    Basic,
    /// Files of the envelope, its environment and the system are read-only, a private folder can be
    /// written, nothing else opened (Landlock); no network, no signals to others; system calls that
    /// a model has no use for fail (seccomp).
    #[default]
    Default,
    /// A network, a file system and shared memory of its own, which hold nothing but what is
    /// granted, by namespaces that need no privileges.
    Strong,
}

/// What workers may do. The default is the level [`SandboxLevel::Default`] without grants.
///
/// ```
/// # use runtime::{Sandbox, SandboxLevel};
/// let sandbox = Sandbox {
///     level: SandboxLevel::Strong,
///     read: vec!["/data/prices".into()],
///     ..Sandbox::default()
/// };
/// # assert!(!sandbox.network);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sandbox {
    /// How much is confined.
    pub level: SandboxLevel,
    /// Lets workers reach the network: TCP, UDP, name servers. From [`SandboxLevel::Default`] on
    /// they otherwise reach nobody; below it they always do.
    pub network: bool,
    /// Files and folders that workers may read and execute, besides those they need. Must exist.
    pub read: Vec<PathBuf>,
    /// Files and folders that workers may also change. Must exist.
    pub write: Vec<PathBuf>,
    /// Bytes of private memory that each process may have, from [`SandboxLevel::Basic`] on: what is
    /// beyond raises `MemoryError`. Neither mapped files nor shared memory count. Default: no limit.
    pub memory: Option<u64>,
    /// Start with less than the level says when this machine cannot give it. Otherwise the start
    /// fails with [`Error::Sandbox`].
    pub allow_degraded: bool,
}

/// One thing that workers may do besides what their level allows: `network`, `read=PATH` or
/// `write=PATH`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Grant {
    /// To reach the network: [`Sandbox::network`].
    Network,
    /// To read and execute this file, or what is in this folder: [`Sandbox::read`].
    Read(PathBuf),
    /// To change it as well: [`Sandbox::write`].
    Write(PathBuf),
}

/// How the workers of a [`Runtime`](crate::Runtime) are confined: `default: landlock 7, seccomp`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    /// The highest level of which everything holds. Lower than what was asked for only where
    /// [`Sandbox::allow_degraded`] allows that.
    pub level: SandboxLevel,
    /// The layers and their versions, and what is missing. For people: the words may change.
    pub layers: String,
}

impl SandboxLevel {
    /// All of them, the weakest first.
    pub const ALL: [Self; 4] = [Self::None, Self::Basic, Self::Default, Self::Strong];

    /// `none`, `basic`, `default` or `strong`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Default => "default",
            Self::Strong => "strong",
        }
    }
}

impl fmt::Display for SandboxLevel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

/// There is no sandbox level of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is not a sandbox level: none, basic, default, strong")]
pub struct NoSuchLevel {
    /// The name.
    pub name: String,
}

impl FromStr for SandboxLevel {
    type Err = NoSuchLevel;

    fn from_str(name: &str) -> Result<Self, NoSuchLevel> {
        let found = Self::ALL.into_iter().find(|level| level.name() == name);
        found.ok_or_else(|| NoSuchLevel { name: name.into() })
    }
}

/// There is no grant of this form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a grant: network, read=PATH, write=PATH")]
pub struct NoSuchGrant {
    /// What was written.
    pub text: String,
}

impl FromStr for Grant {
    type Err = NoSuchGrant;

    fn from_str(text: &str) -> Result<Self, NoSuchGrant> {
        match text.split_once('=') {
            None if text == "network" => Ok(Self::Network),
            Some(("read", path)) if !path.is_empty() => Ok(Self::Read(path.into())),
            Some(("write", path)) if !path.is_empty() => Ok(Self::Write(path.into())),
            _ => Err(NoSuchGrant { text: text.into() }),
        }
    }
}

impl Sandbox {
    /// The same sandbox with these grants besides.
    #[must_use]
    pub fn granting(mut self, grants: impl IntoIterator<Item = Grant>) -> Self {
        for grant in grants {
            match grant {
                Grant::Network => self.network = true,
                Grant::Read(path) => self.read.push(path),
                Grant::Write(path) => self.write.push(path),
            }
        }
        self
    }

    /// The launcher's arguments for a worker that needs `files` and writes in `scratch`. `observed`
    /// are files of a proof, whose view is narrower than that of any level: see `view.rs`.
    pub(crate) fn arguments(
        &self,
        environment: &Environment,
        files: &[&Path],
        scratch: &Path,
        observed: Option<&[PathBuf]>,
    ) -> Result<Vec<String>, Error> {
        let mut files = files.to_vec();
        if let Some(also) = observed {
            files.extend(also.iter().map(PathBuf::as_path));
            // A proof tells what a function calls, and says itself when files are not confined.
            let level = self.level.min(SandboxLevel::Default);
            let mut arguments = vec![format!("level={level}")];
            arguments.extend(["proof", "network", "degraded"].map(String::from));
            arguments.extend(view::proof(environment, &files, scratch).arguments());
            return Ok(arguments);
        }
        let mut arguments = vec![format!("level={}", self.level)];
        let options = [(self.network, "network"), (self.allow_degraded, "degraded")];
        arguments.extend(
            options
                .iter()
                .filter(|(is, _)| *is)
                .map(|(_, name)| (*name).into()),
        );
        arguments.extend(self.memory.map(|bytes| format!("memory={bytes}")));
        if self.level >= SandboxLevel::Default {
            let mut view = view::default(environment, &files, scratch);
            view.read.extend(granted(&self.read)?);
            view.write.extend(granted(&self.write)?);
            arguments.extend(view.arguments());
        }
        Ok(arguments)
    }
}

/// A grant of what is not there is a slip of the pen.
fn granted(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Error> {
    let granted = paths.iter().map(|path| {
        path.canonicalize().map_err(|source| Error::Io {
            doing: format!("cannot grant `{}` to workers", path.display()),
            source,
        })
    });
    granted.collect()
}

impl Confinement {
    /// From the launcher's line; `None` when it said nothing.
    ///
    /// # Errors
    /// [`Error::Sandbox`] when it refused.
    pub(crate) fn from_report(line: &str, asked: SandboxLevel) -> Result<Option<Self>, Error> {
        let line = line.trim_end_matches('\n');
        if let Some(missing) = line.strip_prefix('!') {
            return Err(Error::Sandbox {
                level: asked,
                missing: missing.into(),
            });
        }
        let Some((level, layers)) = line.split_once('\t') else {
            return Ok(None);
        };
        let level = level.parse().ok();
        Ok(level.map(|level| Self {
            level,
            layers: layers.into(),
        }))
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.level)?;
        if self.layers.is_empty() {
            return Ok(());
        }
        write!(formatter, ": {}", self.layers)
    }
}

#[cfg(test)]
mod tests;
