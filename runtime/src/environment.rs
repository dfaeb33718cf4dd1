//! An environment lock made real on disk, kept by digest.
//!
//! `<cache>/environments/<lock>/<interpreter>/` is a virtual environment. It is complete when
//! `environment.json` is in it: that file is written last. Who builds one holds a file lock beside
//! it, so that two builders do the work once.
//!
//! Never two environments under one name: the lock counts, which has the digest of each wheel, and
//! of the interpreter its version, build, place, platform and C library. An environment whose
//! interpreter, `libpython` or C library is no longer the file it was made with is made anew.

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
def loaded():
    try:
        with open('/proc/self/maps') as maps:
            paths = {line.split(maxsplit=5)[5].strip() for line in maps if '/' in line}
    except OSError:
        return None
    return next((path for path in sorted(paths) if os.path.basename(path).startswith(('libc.so', 'libc-', 'ld-musl'))), None)
lib = os.path.join(sysconfig.get_config_var('LIBDIR') or '', sysconfig.get_config_var('INSTSONAME') or '-')
print(json.dumps({
    'implementation': sys.implementation.name, 'cache_tag': sys.implementation.cache_tag,
    'version': platform.python_version(), 'platform': sysconfig.get_platform().replace('-', '_').replace('.', '_'),
    'base': sys.base_prefix, 'python': sys.executable, 'build': sys.version,
    'libc': ' '.join(platform.libc_ver()), 'loaded': loaded(),
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
    /// Prefix of the interpreter below it, with the standard library.
    pub(crate) base: PathBuf,
    /// The cache it is in.
    pub(crate) cache: PathBuf,
    /// Shared libraries that came with it, if it was unpacked.
    pub(crate) libraries: Option<PathBuf>,
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
    base: PathBuf,
    python: PathBuf,
    /// Compiler and time of the build.
    build: String,
    /// Name and version of the C library, and the file that it was loaded from.
    libc: String,
    loaded: Option<PathBuf>,
    library: Option<PathBuf>,
}

/// What is in [`MARKER`].
#[derive(Debug, Serialize, Deserialize)]
struct Marker {
    interpreter: Probed,
    /// Size and time of the files that the interpreter consists of.
    files: Vec<FileStamp>,
}

/// Says whether a file is still the one it was.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct FileStamp {
    path: PathBuf,
    size: u64,
    modified_seconds: i64,
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
        let source = Source::unpack(&folder, envelope, &lock)?;
        self.build(&folder, &interpreter, &source).await?;
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
        let marker: Marker = serde_json::from_slice(&fs::read(folder.join(MARKER)).ok()?).ok()?;
        // The interpreter under it may have been removed or upgraded since, or another machine that
        // shares the cache may have made it.
        let same = marker
            .files
            .iter()
            .all(|file| FileStamp::of(&file.path).as_ref() == Some(file));
        let environment = self.entered(folder.join("bin/python"), marker.interpreter);
        let usable = same && environment.python.exists() && environment.check(manifest).is_ok();
        usable.then_some(environment)
    }

    /// The environment that `python` is the interpreter of, as it is: whatever is installed there.
    ///
    /// # Errors
    /// [`Error::WrongInterpreter`] when it cannot be run.
    pub async fn current(&self, python: &Path) -> Result<Environment, Error> {
        let probed = probe(python).await.ok_or_else(|| Error::WrongInterpreter {
            needs: "an interpreter".into(),
            found: format!("`{}`, which does not run", python.display()),
        })?;
        Ok(self.entered(python.to_owned(), probed))
    }

    fn entered(&self, python: PathBuf, probed: Probed) -> Environment {
        // Workers run in another folder. (It fails where there is no folder at all.)
        let whole = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        Environment {
            python: whole(python),
            library: probed.library.filter(|library| library.exists()),
            version: probed.version,
            cache_tag: probed.cache_tag,
            platform: probed.platform,
            base: probed.base,
            cache: whole(self.cache.clone()),
            libraries: None,
        }
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

    async fn build(
        &self,
        folder: &Path,
        interpreter: &Probed,
        source: &Source,
    ) -> Result<(), Error> {
        let uv = self.uv.as_deref().ok_or_else(|| Error::Environment {
            reason: "it is not on this machine yet, and `uv`, which makes it, was not found".into(),
            hint: "install uv (`pip install uv`) or set ENVELOPE_UV to the program".into(),
        })?;
        // What a builder that was killed has left is not complete: begin again.
        remove(folder)?;
        let made = self.uv_makes(uv, folder, interpreter, &source.lock()).await;
        made.inspect_err(|_| {
            let _ = fs::remove_dir_all(folder);
        })?;
        let marker = Marker {
            files: interpreter.stamps(),
            interpreter: interpreter.clone(),
        };
        let marker = serde_json::to_vec_pretty(&marker).map_err(|error| Error::Io {
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

impl Probed {
    fn stamps(&self) -> Vec<FileStamp> {
        let files = [
            Some(&self.python),
            self.library.as_ref(),
            self.loaded.as_ref(),
        ];
        let files = files.into_iter().flatten();
        files.filter_map(|path| FileStamp::of(path)).collect()
    }
}

impl FileStamp {
    fn of(path: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;

        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            path: path.to_owned(),
            size: metadata.len(),
            modified_seconds: metadata.mtime(),
        })
    }
}

/// The lock and the wheels that it names, in a folder beside the environment that is being made;
/// gone when this is dropped.
struct Source {
    folder: PathBuf,
}

impl Source {
    fn unpack(environment: &Path, envelope: &EnvelopeFile, lock: &[u8]) -> Result<Self, Error> {
        let source = Self {
            folder: beside(environment, |name| format!("{name}.source")),
        };
        remove(&source.folder)?; // of a builder that was killed
        make_folder(&source.folder)?;
        write(&source.lock(), lock)?;
        for name in &envelope.manifest().environment.wheels {
            let relative = source.below(envelope, name.as_str())?;
            if let Some(parent) = relative.parent() {
                make_folder(parent)?;
            }
            write(&relative, &envelope.read(name)?)?;
        }
        Ok(source)
    }

    fn lock(&self) -> PathBuf {
        self.folder.join("pylock.toml") // uv takes a lock by its file name
    }

    /// Where the wheel `name` goes. Member names leave no folder (rule 3 of the format).
    fn below(&self, envelope: &EnvelopeFile, name: &str) -> Result<PathBuf, Error> {
        let lock = envelope.manifest().environment.lock.as_str();
        let folder = lock.rfind('/').map_or("", |end| &lock[..=end]);
        let relative = name
            .strip_prefix(folder)
            .ok_or_else(|| Error::Environment {
                reason: format!("the wheel `{name}` is not beside the lock `{lock}`"),
                hint: "save the envelope again with this version".into(),
            })?;
        Ok(self.folder.join(relative))
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        // What stays is removed by the next builder.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn folder_name(interpreter: &Probed) -> String {
    let identity = format!(
        "{}\0{}\0{:?}\0{}\0{}",
        interpreter.base.display(),
        interpreter.platform,
        interpreter.library,
        interpreter.build,
        interpreter.libc
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

fn make_folder(path: &Path) -> Result<(), Error> {
    fs::create_dir_all(path).map_err(|source| writing(path, source))
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
