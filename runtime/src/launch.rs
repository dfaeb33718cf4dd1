//! What a worker process is started from: two files, a folder, and an environment.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::OnceLock;

use rustix::process::{Pid, getpriority_process, setpriority_process};
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, ChildStdout, Command};

use crate::{Confinement, EnvelopeFile, Environment, Error, Sandbox, SandboxLevel};

const CORE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/libworker.so"));
const LAUNCHER: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/envelope-launcher"));

/// Another one for other contents: made when they were, because they are large.
const BUILD: &str = env!("WORKER_BUILD");

/// Both, by name: they ask for shared libraries like all programs.
pub(crate) const PROGRAMS: [(&str, &[u8]); 2] =
    [("the worker core", CORE), ("the launcher", LAUNCHER)];

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

/// What has the allocator of the GNU C library keep what a call has freed, up to 128 MiB of it, and take
/// arrays of up to 32 MiB, the most that it allows, from there. Left to itself it gives most of it back after
/// each call of many rows, and to get a page anew takes longer than to fill it.
const KEEPING: [(&str, &str); 2] = [
    ("MALLOC_MMAP_THRESHOLD_", "33554432"),
    ("MALLOC_TRIM_THRESHOLD_", "134217728"),
];

/// Starts the worker processes of one envelope.
#[derive(Debug)]
pub(crate) struct Launch {
    environment: Environment,
    launcher: PathBuf,
    core: PathBuf,
    threads: usize,
    /// Whether the workers note what they do.
    is_observed: bool,
    keeps_memory: bool,
    /// How the workers are confined, in arguments of the launcher.
    sandbox: Vec<String>,
    asked: SandboxLevel,
    confinement: OnceLock<Confinement>,
    /// Working folder and home of the workers; custom modules are below it. Gone with the runtime.
    scratch: TempDir,
}

impl Launch {
    pub(crate) fn prepare(
        envelope: &EnvelopeFile,
        environment: Environment,
        threads: usize,
        sandbox: &Sandbox,
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
        let files = [envelope.path(), &core, &launcher];
        let arguments = sandbox.arguments(&environment, &files, scratch.path(), observed)?;
        let launch = Self {
            environment,
            launcher,
            core,
            threads,
            is_observed: observed.is_some(),
            keeps_memory: false,
            sandbox: arguments,
            asked: sandbox.level,
            confinement: OnceLock::new(),
            scratch,
        };
        launch.unpack_modules(envelope)?;
        Ok(launch)
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// The worker core, a library.
    pub(crate) fn core(&self) -> &Path {
        &self.core
    }

    /// Has workers keep the memory of a call for the next one.
    pub(crate) fn keeping_memory(self, keeps_memory: bool) -> Self {
        Self {
            keeps_memory,
            ..self
        }
    }

    /// Threads of BLAS and OpenMP in each worker.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// How much the workers should be confined.
    pub(crate) fn asked(&self) -> SandboxLevel {
        self.asked
    }

    /// Whether the workers note what they do.
    pub(crate) fn is_observed(&self) -> bool {
        self.is_observed
    }

    /// How the workers are confined; `None` before the first one was.
    pub(crate) fn confinement(&self) -> Option<&Confinement> {
        self.confinement.get()
    }

    /// Hears from a launcher, on its standard output, how the workers are confined.
    ///
    /// # Errors
    /// [`Error::Sandbox`] when it refused to start one.
    pub(crate) async fn learn_confinement(&self, report: Option<ChildStdout>) -> Result<(), Error> {
        let mut line = String::new();
        if let Some(mut report) = report {
            let read = report.read_to_string(&mut line).await;
            read.map_err(|source| Error::Io {
                doing: "cannot read how the workers are confined".into(),
                source,
            })?;
        }
        if let Some(confinement) = Confinement::from_report(&line, self.asked)? {
            // What one may not do, none may.
            self.confinement.get_or_init(|| {
                tell(&confinement, self.asked);
                confinement
            });
        }
        Ok(())
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

    /// Starts a process that finds `socket` as its standard input, and tells on its standard output
    /// how it is confined.
    pub(crate) fn spawn(&self, socket: OwnedFd) -> io::Result<Child> {
        let environment = &self.environment;
        let library = environment.library.as_deref().unwrap_or(Path::new("-"));
        let mut command = Command::new(&self.launcher);
        command
            .arg(&environment.python)
            .arg(library)
            .arg(&environment.version)
            .arg(&self.core)
            .args(&self.sandbox);
        command.env_clear().envs(self.variables());
        command.current_dir(self.scratch.path());
        command
            .stdin(Stdio::from(socket))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // A group of its own, which Ctrl-C does not reach. It is not killed: when it finds the socket
        // closed it ends what has come from it, and then itself.
        let process = command.process_group(0).spawn()?;
        if let Err(error) = let_us_go_first(&process) {
            tracing::debug!(%error, "workers have the priority of their host");
        }
        Ok(process)
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
        let libraries = self.environment.libraries.as_ref();
        variables.extend(
            libraries.map(|folder| ("LD_LIBRARY_PATH".into(), folder.display().to_string())),
        );
        let inherited = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        variables.extend(inherited.filter(|(name, _)| {
            INHERITED_PREFIXES
                .iter()
                .any(|prefix| name.starts_with(prefix))
        }));
        variables.extend(THREADS.map(|name| (name.into(), self.threads.to_string())));
        if self.keeps_memory {
            variables.extend(KEEPING.map(|(name, value)| (name.into(), value.into())));
        }
        variables
    }
}

/// By so much workers are nicer than their host. What the host does takes microseconds and decides
/// about calls that workers take milliseconds for: on busy cores it would wait for a time slice of
/// theirs, gather fewer calls, and refuse too late what cannot be answered in time.
const NICER: i32 = 5;

/// What is forked from `process` inherits it.
fn let_us_go_first(process: &Child) -> io::Result<()> {
    let Some(pid) = process.id().and_then(|id| Pid::from_raw(id.cast_signed())) else {
        return Ok(()); // It has ended.
    };
    let priority = getpriority_process(None)? + NICER;
    Ok(setpriority_process(Some(pid), priority.min(19))?)
}

fn tell(confinement: &Confinement, asked: SandboxLevel) {
    if confinement.level < asked {
        tracing::warn!(%asked, "workers are confined less than they should be: {confinement}");
    } else {
        tracing::info!("workers are confined: {confinement}");
    }
}

/// Writes core and launcher into the cache, once for each build of them.
fn install(cache: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let folder = cache.join("worker").join(BUILD);
    let (core, launcher) = (folder.join("worker.abi3.so"), folder.join("launcher"));
    fs::create_dir_all(&folder)?;
    install_file(&core, CORE, 0o644)?;
    install_file(&launcher, LAUNCHER, 0o755)?;
    Ok((core, launcher))
}

fn install_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    // Whoever has written it has waited for the disk before it got its name: it is whole, or of
    // another length because somebody has changed it.
    let is_there =
        || fs::metadata(path).is_ok_and(|found| usize::try_from(found.len()) == Ok(content.len()));
    if is_there() {
        return Ok(());
    }
    let mut file = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    io::Write::write_all(&mut file, content)?;
    fs::set_permissions(file.path(), fs::Permissions::from_mode(mode))?;
    file.as_file().sync_all()?;
    // Others may be starting at the same moment, and a view of files is of the file that was there
    // when it was made: the first whole file stays, only a damaged one is replaced.
    match file.persist_noclobber(path) {
        Err(taken) if taken.error.kind() == io::ErrorKind::AlreadyExists && !is_there() => taken
            .file
            .persist(path)
            .map(drop)
            .map_err(|error| error.error),
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
