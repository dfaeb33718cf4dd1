//! What this process and everything it starts may do, from now on.
//!
//! All of it is inherited by forks and programs, and none of it can be taken back; it is done
//! before there is an interpreter, and a second thread: a thread is confined alone.
//!
//! Read in this order: [`Wanted`] is what the host asks for; [`limits`], [`namespaces`], [`files`]
//! and [`calls`] each do one layer; [`Wanted::confine`] does them in the only order that works.

#[cfg(target_os = "linux")]
mod calls;
#[cfg(target_os = "linux")]
mod files;
#[cfg(target_os = "linux")]
mod limits;
#[cfg(target_os = "linux")]
mod namespaces;

use std::path::PathBuf;

/// How much is confined. Each level does what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) enum Level {
    #[default]
    None,
    Basic,
    Default,
    Strong,
}

/// What the host asks for.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    level: Level,
    /// Sockets other than those of this machine's processes.
    network: bool,
    /// Bytes of private memory of each process.
    memory: Option<u64>,
    /// Files and folders to read and execute.
    read: Vec<PathBuf>,
    /// Files and folders for everything.
    write: Vec<PathBuf>,
    /// Start with less than was asked for when the kernel cannot give it.
    allow_degraded: bool,
    /// The paths are the view of a proof: they hold at every level, and are what is told.
    proof: bool,
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Confined {
    /// The highest level of which everything holds.
    level: Level,
    /// The layers, in words: `landlock 7, seccomp`.
    layers: Vec<String>,
    /// What the level needs and the kernel does not give.
    missing: Vec<String>,
    /// How well a proof's view is kept: `landlock`, `landlock-partial` or `none`.
    view: Option<&'static str>,
}

impl Level {
    fn of_name(name: &str) -> Option<Self> {
        let levels = [Self::None, Self::Basic, Self::Default, Self::Strong];
        levels.into_iter().find(|level| level.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Basic => "basic",
            Self::Default => "default",
            Self::Strong => "strong",
        }
    }
}

impl Wanted {
    /// From arguments `level=NAME`, `r=PATH`, `w=PATH`, `memory=BYTES`, `network`, `degraded` and
    /// `proof`. `None` when there is another.
    pub(crate) fn from_arguments(arguments: &[String]) -> Option<Self> {
        let mut wanted = Self::default();
        for argument in arguments {
            match argument.split_once('=').unwrap_or((argument, "")) {
                ("level", name) => wanted.level = Level::of_name(name)?,
                ("r", path) => wanted.read.push(path.into()),
                ("w", path) => wanted.write.push(path.into()),
                ("memory", bytes) => wanted.memory = Some(bytes.parse().ok()?),
                ("network", "") => wanted.network = true,
                ("degraded", "") => wanted.allow_degraded = true,
                ("proof", "") => wanted.proof = true,
                _ => return None,
            }
        }
        Some(wanted)
    }

    /// Whether anything of this process changes.
    pub(crate) fn is_confined(&self) -> bool {
        self.level > Level::None
    }

    /// Confines this process.
    ///
    /// # Errors
    /// What the kernel does not give, where the host does not do without.
    pub(crate) fn confine(&self) -> Result<Confined, String> {
        let mut confined = Confined {
            level: Level::None,
            layers: vec![],
            missing: vec![],
            view: None,
        };
        self.apply(&mut confined);
        if confined.level < self.level && !self.allow_degraded {
            return Err(confined.missing.join("; "));
        }
        Ok(confined)
    }

    /// The order: a namespace needs capabilities; in it, Landlock must see the files that will be
    /// seen; under Landlock nothing can be mounted; the last denies what the others are made with.
    #[cfg(target_os = "linux")]
    fn apply(&self, confined: &mut Confined) {
        let spaces = (self.level == Level::Strong).then(|| namespaces::enter(self));
        let limits = (self.level >= Level::Basic).then(|| limits::set(self));
        let wants_files = self.level >= Level::Default || self.proof;
        let files = wants_files.then(|| files::restrict(self));
        let abi = files.as_ref().and_then(|files| files.as_ref().ok());
        let calls = (self.level >= Level::Default).then(|| {
            calls::deny(
                self.network,
                abi.is_some_and(|abi| *abi >= files::TRUNCATION),
            )
        });
        if self.proof {
            confined.view = Some(match abi {
                Some(abi) if *abi >= files::TRUNCATION => "landlock",
                Some(_) => "landlock-partial",
                None => "none",
            });
        }
        let landlock = files.map(|files| files.map(|abi| format!("landlock {abi}")));
        let mut holds = true;
        let mut note = |level, done: &[Option<Result<String, String>>]| {
            for result in done.iter().flatten() {
                match result {
                    Ok(layer) if layer.is_empty() => {}
                    Ok(layer) => confined.layers.push(layer.clone()),
                    Err(reason) => {
                        confined.missing.push(reason.clone());
                        holds = false;
                    }
                }
            }
            if holds && level <= self.level {
                confined.level = level;
            }
        };
        note(Level::Basic, &[limits]);
        note(Level::Default, &[landlock, calls]);
        note(Level::Strong, &[spaces]);
    }

    #[cfg(not(target_os = "linux"))]
    fn apply(&self, confined: &mut Confined) {
        confined.view = self.proof.then_some("none");
        if self.level > Level::None {
            confined.missing.push("this is not Linux".into());
        }
    }
}

impl Confined {
    /// The level, a tab, and the layers or what is missing.
    pub(crate) fn report(&self) -> String {
        format!("{}\t{}", self.level.name(), self.details())
    }

    /// What the worker is told: how well the view of a proof is kept, or the whole of it.
    pub(crate) fn description(&self) -> String {
        if let Some(view) = self.view {
            return view.into();
        }
        let details = self.details();
        let colon = if details.is_empty() { "" } else { ": " };
        format!("{}{colon}{details}", self.level.name())
    }

    fn details(&self) -> String {
        let missing = self
            .missing
            .iter()
            .map(|reason| format!("without {reason}"));
        let layers = self.layers.iter().cloned();
        layers.chain(missing).collect::<Vec<_>>().join(", ")
    }
}

/// Why a layer is not there, in the words of a user.
#[cfg(target_os = "linux")]
fn without(layer: &str) -> impl Fn(std::io::Error) -> String {
    move |error| format!("{layer} ({error})")
}
