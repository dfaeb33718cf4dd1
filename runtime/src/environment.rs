//! An environment lock made real on disk, kept by digest.
//!
//! `<cache>/environments/<lock>/<interpreter>/` is a virtual environment. It is complete when
//! `environment.json` is in it: that file is written last. Who builds one holds a file lock beside
//! it, so that two builders do the work once.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use envelope_format::{Digest, Interpreter, Manifest};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::{EnvelopeFile, Error};

/// Written last into a realised environment.
const MARKER: &str = "environment.json";

/// What an interpreter says about itself, as JSON.
const PROBE: &str = "\
import json, os, platform, sys, sysconfig
lib = os.path.join(sysconfig.get_config_var('LIBDIR') or '', sysconfig.get_config_var('INSTSONAME') or '-')
print(json.dumps({
    'implementation': sys.implementation.name, 'cache_tag': sys.implementation.cache_tag,
    'version': platform.python_version(), 'platform': sysconfig.get_platform().replace('-', '_').replace('.', '_'),
    'base': sys.base_prefix, 'python': sys.executable,
    'library': lib if '.so' in lib and os.path.exists(lib) else None}))
";

/// A realised environment: a virtual environment that holds exactly what a lock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    /// Its interpreter.
    pub(crate) python: PathBuf,
    /// Shared library of that interpreter, if it has one.
    pub(crate) library: Option<PathBuf>,
    /// Exact version of the interpreter.
    pub(crate) version: String,
    pub(crate) cache_tag: String,
    pub(crate) platform: String,
    /// The cache it is in.
    pub(crate) cache: PathBuf,
}

/// Where realised environments are kept, and how new ones are made.
#[derive(Debug, Clone, Default)]
pub struct Environments {
    /// Folder of the cache; made when needed.
    pub cache: PathBuf,
    /// The `uv` program, if it is known where that is. Needed only when an environment is new here.
    pub uv: Option<PathBuf>,
    /// Interpreters to try first, in this order.
    pub interpreters: Vec<PathBuf>,
    /// Never use the network.
    pub offline: bool,
}

/// What [`PROBE`] prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Probed {
    implementation: String,
    cache_tag: String,
    version: String,
    platform: String,
    base: String,
    python: PathBuf,
    library: Option<PathBuf>,
}

impl Environments {
    /// The environment of `envelope`: found in the cache, or made now. `progress` is told, in a
    /// few words, about steps that take long. Safe when several processes do it at once.
    ///
    /// # Errors
    /// [`Error::WrongInterpreter`] when no fitting interpreter is here, [`Error::Environment`].
    pub async fn realise(
        &self,
        envelope: &EnvelopeFile,
        progress: &(dyn Fn(&str) + Sync),
    ) -> Result<Environment, Error> {
        let manifest = envelope.manifest();
        let lock = envelope.read(&manifest.environment.lock)?;
        let folder = self
            .cache
            .join("environments")
            .join(&Digest::of(&lock).hex()[..32]);
        if let Some(found) = self.find(&folder, manifest) {
            return Ok(found);
        }
        let interpreter = self.interpreter(manifest).await?;
        let folder = folder.join(folder_name(&interpreter));
        let _guard = exclusive(&folder).await?;
        if let Some(found) = self.complete(&folder, manifest) {
            return Ok(found); // somebody else made it while we waited
        }
        progress(&format!(
            "realising the environment of `{}` (once on this machine)",
            manifest.name
        ));
        self.build(&folder, &interpreter, &lock).await?;
        self.complete(&folder, manifest)
            .ok_or_else(|| Error::Environment {
                reason: format!("`{}` is not usable after it was made", folder.display()),
                hint: "remove that folder and try again".into(),
            })
    }

    /// A complete environment for this lock and an interpreter that fits; the exact version first.
    fn find(&self, folder: &Path, manifest: &Manifest) -> Option<Environment> {
        let folders = fs::read_dir(folder)
            .ok()?
            .flatten()
            .map(|entry| entry.path());
        let mut found: Vec<_> = folders
            .filter_map(|folder| self.complete(&folder, manifest))
            .collect();
        let exact = &manifest.environment.python.version;
        found.sort_by_key(|environment| {
            (environment.version != *exact, environment.version.clone())
        });
        found.into_iter().next()
    }

    fn complete(&self, folder: &Path, manifest: &Manifest) -> Option<Environment> {
        let probed: Probed = serde_json::from_slice(&fs::read(folder.join(MARKER)).ok()?).ok()?;
        let environment = Environment {
            python: folder.join("bin/python"),
            library: probed.library.filter(|library| library.exists()),
            version: probed.version,
            cache_tag: probed.cache_tag,
            platform: probed.platform,
            cache: self.cache.clone(),
        };
        // The interpreter under it may have been removed or upgraded since.
        let usable = environment.python.exists() && environment.check(manifest).is_ok();
        usable.then_some(environment)
    }

    /// An interpreter of this machine that understands the envelope's code.
    async fn interpreter(&self, manifest: &Manifest) -> Result<Probed, Error> {
        let wanted = &manifest.environment;
        let mut candidates = self.interpreters.clone();
        if let Some(uv) = &self.uv {
            candidates.extend(uv_finds(uv, &wanted.python.version).await);
            candidates.extend(uv_finds(uv, &wanted.python.minor()).await);
        }
        let mut seen = vec![];
        for candidate in candidates {
            let Some(probed) = probe(&candidate).await else {
                continue;
            };
            if probed.cache_tag == wanted.python.cache_tag && probed.platform == wanted.platform {
                return Ok(probed);
            }
            seen.push(format!(
                "{} {} on {}",
                probed.implementation, probed.version, probed.platform
            ));
        }
        seen.sort();
        seen.dedup();
        Err(Error::WrongInterpreter {
            needs: described(&wanted.python, &wanted.platform),
            found: if seen.is_empty() {
                "no interpreter".into()
            } else {
                seen.join(", ")
            },
        })
    }

    async fn build(&self, folder: &Path, interpreter: &Probed, lock: &[u8]) -> Result<(), Error> {
        let uv = self.uv.as_deref().ok_or_else(|| Error::Environment {
            reason: "it is not on this machine yet, and `uv`, which makes it, was not found".into(),
            hint: "install uv (`pip install uv`) or set ENVELOPE_UV to the program".into(),
        })?;
        // What a builder that was killed has left is not complete: begin again.
        remove(folder)?;
        // uv takes a lock by its file name.
        let lock_file = beside(folder, |name| {
            format!("pylock.{}.toml", name.replace('.', "-"))
        });
        write(&lock_file, lock)?;
        let made = self.uv_makes(uv, folder, interpreter, &lock_file).await;
        let _ = fs::remove_file(&lock_file);
        made.inspect_err(|_| {
            let _ = fs::remove_dir_all(folder);
        })?;
        let marker = serde_json::to_vec_pretty(interpreter).map_err(|error| Error::Io {
            doing: "cannot describe the environment".into(),
            source: error.into(),
        })?;
        let temporary = folder.join(format!("{MARKER}.new"));
        write(&temporary, &marker)?;
        fs::rename(&temporary, folder.join(MARKER)).map_err(|source| writing(folder, source))
    }

    async fn uv_makes(
        &self,
        uv: &Path,
        folder: &Path,
        interpreter: &Probed,
        lock: &Path,
    ) -> Result<(), Error> {
        let mut venv = Command::new(uv);
        venv.args([
            "venv",
            "--quiet",
            "--no-project",
            "--no-config",
            "--no-python-downloads",
            "--python",
        ]);
        run(venv.arg(&interpreter.python).arg(folder)).await?;
        let mut sync = Command::new(uv);
        sync.args([
            "pip",
            "sync",
            "--quiet",
            "--compile-bytecode",
            "--allow-empty-requirements",
        ]);
        if self.offline {
            sync.arg("--offline");
        }
        // An index that the lock was not made from is of no use: the lock names every file.
        sync.env_remove("VIRTUAL_ENV")
            .env_remove("PYTHONDONTWRITEBYTECODE");
        run(sync
            .arg("--python")
            .arg(folder.join("bin/python"))
            .arg(lock))
        .await
    }
}

impl Environment {
    /// Refuses an envelope of another interpreter or platform, whose code would crash this one.
    pub(crate) fn check(&self, manifest: &Manifest) -> Result<(), Error> {
        let wanted = &manifest.environment;
        if wanted.python.cache_tag == self.cache_tag && wanted.platform == self.platform {
            return Ok(());
        }
        Err(Error::WrongInterpreter {
            needs: described(&wanted.python, &wanted.platform),
            found: format!("{} on {}", self.version, self.platform),
        })
    }

    /// The interpreter of the environment.
    #[must_use]
    pub fn python(&self) -> &Path {
        &self.python
    }

    /// The same environment, entered by executing its interpreter even where its shared library
    /// could be loaded.
    #[must_use]
    pub fn without_library(self) -> Self {
        Self {
            library: None,
            ..self
        }
    }

    /// Whether workers load the interpreter's shared library instead of executing it.
    #[must_use]
    pub fn has_library(&self) -> bool {
        self.library.is_some()
    }
}

fn described(python: &Interpreter, platform: &str) -> String {
    format!("{} {} on {platform}", python.implementation, python.minor())
}

/// Never two environments under one name: the build of the interpreter counts.
fn folder_name(interpreter: &Probed) -> String {
    let identity = format!(
        "{}\0{}\0{:?}",
        interpreter.base, interpreter.platform, interpreter.library
    );
    format!(
        "{}-{}-{}",
        interpreter.implementation,
        interpreter.version,
        &Digest::of(identity.as_bytes()).hex()[..8]
    )
}

/// A file next to `folder`.
fn beside(folder: &Path, rename: impl Fn(&str) -> String) -> PathBuf {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    folder.with_file_name(rename(&name))
}

async fn uv_finds(uv: &Path, version: &str) -> Option<PathBuf> {
    let mut command = Command::new(uv);
    command.args([
        "python",
        "find",
        "--no-project",
        "--no-config",
        "--no-python-downloads",
        "--system",
        version,
    ]);
    let found = command
        .stdin(Stdio::null())
        .output()
        .await
        .ok()
        .filter(|output| output.status.success())?;
    Some(PathBuf::from(String::from_utf8(found.stdout).ok()?.trim()))
}

async fn probe(python: &Path) -> Option<Probed> {
    let mut command = Command::new(python);
    command
        .args(["-I", "-c", PROBE])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = command
        .output()
        .await
        .ok()
        .filter(|output| output.status.success())?;
    serde_json::from_slice(&output.stdout).ok()
}

/// Runs a step; its standard error explains a failure.
async fn run(command: &mut Command) -> Result<(), Error> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await;
    let output = output.map_err(|source| Error::Io {
        doing: "cannot run `uv`".into(),
        source,
    })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    Err(Error::Environment {
        reason: lines.join("; ").chars().take(1000).collect(),
        hint: "check the network and the package index, then try again".into(),
    })
}

/// Waits until nobody else builds in `folder`. The operating system drops the lock with the guard,
/// also when we are killed.
async fn exclusive(folder: &Path) -> Result<File, Error> {
    let path = beside(folder, |name| format!("{name}.lock"));
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(|source| writing(parent, source))?;
    }
    let wait = move || -> io::Result<File> {
        let file = File::create(path)?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(file)
    };
    let locked = tokio::task::spawn_blocking(wait)
        .await
        .map_err(io::Error::other)
        .flatten();
    locked.map_err(|source| writing(folder, source))
}

fn remove(folder: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(writing(folder, error)),
        _ => Ok(()),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), Error> {
    fs::write(path, content).map_err(|source| writing(path, source))
}

fn writing(path: &Path, source: io::Error) -> Error {
    Error::Io {
        doing: format!("cannot write `{}`", path.display()),
        source,
    }
}
