//! What the acceptance tests share: real envelopes, saved by the real Python package.
//!
//! `make test` prepares `.venv` with the package before it runs the tests.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::{Builder, EnvelopeFile, Environments, Runtime};
use rustix::fs::{FlockOperation, flock};

/// The checkout.
#[must_use]
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}

/// Where tests keep envelopes and environments between runs.
#[must_use]
pub fn scratch() -> PathBuf {
    root().join("target/acceptance")
}

/// The file of an envelope that `tests/envelopes.py` makes; made when it is not there or older
/// than what makes it.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn envelope_path(name: &str) -> PathBuf {
    made_by("envelopes.py", name, name)
}

/// The file of an envelope that `tests/frameworks.py` makes with a framework.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn framework_path(name: &str) -> PathBuf {
    made_by("frameworks.py", name, &format!("framework-{name}"))
}

/// Whether the Python of the tests has the package.
#[must_use]
pub fn has_package(name: &str) -> bool {
    let mut python = Command::new(root().join(".venv/bin/python"));
    let found = python.arg("-c").arg(format!("import {name}")).output();
    found.is_ok_and(|found| found.status.success())
}

fn made_by(script: &str, name: &str, stem: &str) -> PathBuf {
    let path = scratch().join(format!("{stem}.envelope"));
    let script = root().join("tests").join(script);
    let makers = [
        script.clone(),
        root().join("python/model_envelope/_native.abi3.so"),
    ];
    if makers.iter().all(|maker| is_newer(&path, maker)) {
        return path;
    }
    std::fs::create_dir_all(scratch()).expect("the scratch folder can be made");
    // Tests run in several processes: one makes it, the others wait.
    let guard =
        File::create(path.with_extension("lock")).expect("the scratch folder can be written");
    flock(&guard, FlockOperation::LockExclusive).expect("a file of ours can be locked");
    if makers.iter().all(|maker| is_newer(&path, maker)) {
        return path;
    }
    let status = Command::new(root().join(".venv/bin/python"))
        .arg(script)
        .arg(name)
        .arg(&path)
        .env("ENVELOPE_URL", scratch().join("store"))
        .env("ENVELOPE_CACHE_DIR", scratch().join("cache"))
        .status()
        .expect("`.venv` is there: `make test` makes it");
    assert!(status.success(), "the envelope `{name}` could not be made");
    path
}

fn is_newer(path: &Path, other: &Path) -> bool {
    let modified = |path: &Path| {
        path.metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    modified(path).is_some_and(|time| modified(other).is_none_or(|other| time >= other))
}

/// An envelope that `tests/envelopes.py` makes.
///
/// # Panics
/// When it cannot be made or opened.
#[must_use]
pub fn envelope(name: &str) -> Arc<EnvelopeFile> {
    Arc::new(EnvelopeFile::open(envelope_path(name)).expect("the envelope is good"))
}

/// Realised environments, shared by all tests.
#[must_use]
pub fn environments() -> Environments {
    Environments {
        cache: scratch().join("cache"),
        uv: Some(root().join(".venv/bin/uv")),
        interpreters: vec![root().join(".venv/bin/python")],
        offline: false,
    }
}

/// Begins a runtime for an envelope that `tests/envelopes.py` makes.
///
/// # Panics
/// When its environment cannot be realised.
pub async fn builder(name: &str) -> Builder {
    let envelope = envelope(name);
    let environment = environments()
        .realise(&envelope, &|_| ())
        .await
        .expect("the environment can be realised");
    Runtime::builder(envelope, environment)
}

/// Workers of an envelope that `tests/envelopes.py` makes.
///
/// # Panics
/// When they do not start.
pub async fn start(name: &str, workers: std::ops::RangeInclusive<usize>) -> Runtime {
    let started = builder(name).await.workers(workers).start().await;
    started.expect("the workers start")
}

/// Whether a process is there and has not ended.
#[must_use]
pub fn is_alive(pid: i32) -> bool {
    // A zombie has ended; only its parent has not noticed.
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Whether a process ends within ten seconds.
pub async fn ends(pid: i32) -> bool {
    let deadline = Instant::now() + Duration::from_secs(10);
    while is_alive(pid) && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    !is_alive(pid)
}

/// A process below another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relative {
    /// Its number.
    pub pid: i32,
    /// That of its parent.
    pub parent: i32,
}

/// Every process below `ancestor`, zombies not counted.
#[must_use]
pub fn descendants(ancestor: u32) -> Vec<Relative> {
    let all: Vec<_> = processes().collect();
    let mut found = vec![];
    let mut parents = vec![ancestor.cast_signed()];
    while let Some(parent) = parents.pop() {
        let children = all.iter().filter(|process| process.parent == parent);
        parents.extend(children.clone().map(|child| child.pid));
        found.extend(children.copied());
    }
    found
}

fn processes() -> impl Iterator<Item = Relative> {
    let listed = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    listed.filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let is_zombie = fields.next()? == "Z";
        let parent = fields.next()?.parse().ok()?;
        (!is_zombie).then_some(Relative { pid, parent })
    })
}
