//! What a worker process is started from: two files, a folder, and an environment.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use envelope_format::Digest;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{EnvelopeFile, Environment, Error, view};

const CORE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libworker.so"));
const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envelope-launcher"));

/// What workers inherit of this process's environment: how this machine's processor is to be used.
/// All else (credentials above all) stays here.
const INHERITED_PREFIXES: [&str; 4] = ["OPENBLAS_", "MKL_", "BLIS_", "NVIDIA_"];

/// What decides how many threads BLAS and OpenMP use.
const THREADS: [&str; 6] = [
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "POLARS_MAX_THREADS",
];

/// Starts the worker processes of one envelope.
#[derive(Debug)]
pub(crate) struct Launch {
    environment: Environment,
    launcher: PathBuf,
    core: PathBuf,
    threads: usize,
    /// What the workers may open; everything when this is empty.
    view: Vec<String>,
    /// Working folder and home of the workers; custom modules are below it. Gone with the runtime.
    scratch: TempDir,
}

impl Launch {
    pub(crate) fn prepare(
        envelope: &EnvelopeFile,
        environment: Environment,
        threads: usize,
        observed: Option<&[PathBuf]>,
    ) -> Result<Self, Error> {
        let failed = |source| Error::Io {
            doing: "cannot prepare the worker's files".into(),
            source,
        };
        let (core, launcher) = install(&environment.cache).map_err(failed)?;
        let scratch = tempfile::Builder::new()
            .prefix("model-envelope-")
            .tempdir()
            .map_err(failed)?;
        let view = observed.map(|also| {
            let mut files = vec![envelope.path(), &core, &launcher];
            files.extend(also.iter().map(PathBuf::as_path));
            view::arguments(&environment, &files, scratch.path())
        });
        let launch = Self {
            environment,
            launcher,
            core,
            threads,
            view: view.unwrap_or_default(),
            scratch,
        };
        launch.unpack_modules(envelope)?;
        Ok(launch)
    }

    /// Whether the workers note what they do.
    pub(crate) fn is_observed(&self) -> bool {
        !self.view.is_empty()
    }

    /// Where the envelope's custom modules are imported from, if it has any.
    pub(crate) fn modules(&self, envelope: &EnvelopeFile) -> Option<PathBuf> {
        (!envelope.manifest().source.modules.is_empty())
            .then(|| self.scratch.path().join("modules"))
    }

    /// Member names are relative and leave no folder (rule 3 of the format), so they can be paths.
    fn unpack_modules(&self, envelope: &EnvelopeFile) -> Result<(), Error> {
        for name in &envelope.manifest().source.modules {
            let content = envelope.read(name)?;
            let path = self.scratch.path().join(name.as_str());
            let made = path
                .parent()
                .map_or(Ok(()), fs::create_dir_all)
                .and_then(|()| fs::write(&path, content));
            made.map_err(|source| Error::Io {
                doing: format!("cannot unpack `{name}`"),
                source,
            })?;
        }
        Ok(())
    }

    /// Starts a process that finds `socket` as its standard input.
    pub(crate) fn spawn(&self, socket: OwnedFd) -> io::Result<Child> {
        let environment = &self.environment;
        let library = environment.library.as_deref().unwrap_or(Path::new("-"));
        let mut command = Command::new(&self.launcher);
        command
            .arg(&environment.python)
            .arg(library)
            .arg(&environment.version)
            .arg(&self.core)
            .args(&self.view);
        command.env_clear().envs(self.variables());
        command.current_dir(self.scratch.path());
        command
            .stdin(Stdio::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        // A group of its own: what the function starts ends with it, and Ctrl-C does not reach it.
        command.process_group(0).kill_on_drop(true).spawn()
    }

    fn variables(&self) -> Vec<(String, String)> {
        let bin = self
            .environment
            .python
            .parent()
            .unwrap_or(Path::new("/usr/bin"));
        let home = self.scratch.path().display().to_string();
        let mut variables = vec![
            (
                "PATH".into(),
                format!("{}:/usr/local/bin:/usr/bin:/bin", bin.display()),
            ),
            ("HOME".into(), home.clone()),
            ("TMPDIR".into(), home),
            ("LANG".into(), "C.UTF-8".into()),
        ];
        let inherited = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        variables.extend(inherited.filter(|(name, _)| {
            INHERITED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
        }));
        variables.extend(THREADS.map(|name| (name.into(), self.threads.to_string())));
        variables
    }
}

/// Writes core and launcher into the cache, once for each build of them.
fn install(cache: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let folder = cache.join("worker").join(Digest::of(CORE).short());
    let (core, launcher) = (folder.join("worker.abi3.so"), folder.join("launcher"));
    fs::create_dir_all(&folder)?;
    install_file(&core, CORE, 0o644)?;
    install_file(&launcher, LAUNCHER, 0o755)?;
    Ok((core, launcher))
}

fn install_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let is_there = || fs::read(path).is_ok_and(|found| found == content);
    if is_there() {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    io::Write::write_all(&mut file, content)?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))?;
    // Others may be starting at the same moment, and a view of files is of the file that was there
    // when it was made: the first whole file stays, only a damaged one is replaced.
    match file.persist_noclobber(path) {
        Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists && !is_there() => {
            taken.file.persist(path).map(drop).map_err(|error| error.error)
        }
        Err(taken) if taken.error.kind() != io::ErrorKind::AlreadyExists => Err(taken.error),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn whoever_installs_at_the_same_moment_finds_the_same_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("core");
        let content = vec![7; 1 << 20];
        let install = || {
            install_file(&path, &content, 0o644).expect("room for it");
            fs::metadata(&path).expect("it is there").ino()
        };
        let found: Vec<u64> = std::thread::scope(|scope| {
            let starts: Vec<_> = (0..16).map(|_| scope.spawn(install)).collect();
            starts
                .into_iter()
                .map(|one| one.join().expect("it ends"))
                .collect()
        });
        assert!(found.iter().all(|inode| *inode == found[0]), "{found:?}");
    }

    #[test]
    fn a_damaged_file_is_replaced() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("core");
        fs::write(&path, "half of").expect("a file");
        install_file(&path, b"whole", 0o600).expect("room for it");
        assert_eq!(fs::read(&path).expect("it is there"), b"whole");
    }
}
