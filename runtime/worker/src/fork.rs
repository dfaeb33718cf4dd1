//! One process becomes two, and how the second one ends.
//!
//! Every process has the same loop. The first one runs nobody's code and only forks: it is there for
//! as long as the host, and inherits what other processes leave behind. One that has loaded the
//! functions may fork too, as long as nothing but imports has started threads in it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use pyo3::prelude::*;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process,
    kill_process_group, pidfd_open, set_child_subreaper, set_parent_process_death_signal, setpgid,
    waitid,
};
use rustix::stdio::{dup2_stderr, dup2_stdout};

use crate::protocol::Ending;
use crate::python::loading;

/// How long what others have left may take to end.
const SWEEP_DEADLINE: Duration = Duration::from_secs(5);

/// Which of the two processes this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Side {
    Child,
    Parent {
        child: Pid,
    },
    /// There is no second one.
    Refused {
        reason: String,
    },
}

/// The processes that were forked from this one and have not ended.
#[derive(Debug, Default)]
pub(crate) struct Children {
    known: Vec<Pid>,
    /// What imports have started before: libraries have helpers.
    helpers: Vec<Pid>,
    /// Whether this process has made itself ready to be forked.
    frozen: bool,
}

impl Children {
    /// Forks. The child leads a process group, prints to `stderr`, and ends with its parent.
    pub(crate) fn fork(&mut self, py: Python<'_>, stderr: &OwnedFd) -> PyResult<Side> {
        if !self.frozen {
            self.frozen = true;
            self.helpers = children_of(getpid());
            loading(py)?.call_method0("freeze")?;
            set_child_subreaper(Some(getpid())).map_err(io::Error::from)?;
        }
        let parent = getpid();
        let forked: i32 = match py.import("os")?.call_method0("fork") {
            Ok(forked) => forked.extract()?,
            Err(error) => {
                let reason = error.to_string();
                return Ok(Side::Refused { reason });
            }
        };
        if let Some(child) = Pid::from_raw(forked) {
            self.known.push(child);
            // Both do it: whoever comes first.
            let _ = setpgid(Some(child), Some(child));
            return Ok(Side::Parent { child });
        }
        *self = Self::default();
        settle(parent, stderr)?;
        loading(py)?.call_method0("forked")?;
        Ok(Side::Child)
    }

    /// Ends a child and everything that it started, unless it ends by itself within `patience`.
    pub(crate) fn end(&mut self, child: i32, patience: Duration) -> Ending {
        let Some(child) = Pid::from_raw(child).filter(|child| self.known.contains(child)) else {
            return Ending::Unknown;
        };
        let by_itself = ends_within(child, patience);
        // Not reaped yet: the number cannot be another process's.
        let _ = kill_process_group(child, Signal::KILL);
        let _ = kill_process(child, Signal::KILL);
        let ending = reap(child, WaitIdOptions::EXITED);
        self.known.retain(|known| *known != child);
        self.sweep_all();
        if by_itself { ending } else { Ending::Killed }
    }

    /// Ends what others have left: who starts a process and ends has no claim to it.
    fn sweep_all(&self) {
        let began = Instant::now();
        while self.sweep() && began.elapsed() < SWEEP_DEADLINE {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether there was something to end. All are stopped before the first is killed: what is killed
    /// one by one may fork faster.
    fn sweep(&self) -> bool {
        let mut stopped = vec![];
        loop {
            let strays = self.strays();
            let known = stopped.len();
            for stray in strays {
                if !stopped.contains(&stray) {
                    let _ = kill_process(stray, Signal::STOP);
                    stopped.push(stray);
                }
            }
            if stopped.len() == known {
                break;
            }
        }
        for stray in &stopped {
            let _ = kill_process(*stray, Signal::KILL);
        }
        for stray in &stopped {
            reap(*stray, WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
        }
        !stopped.is_empty()
    }

    /// What this process has inherited, and everything below it.
    fn strays(&self) -> Vec<Pid> {
        let mut found = children_of(getpid());
        found.retain(|child| !self.known.contains(child) && !self.helpers.contains(child));
        let mut next = 0;
        while let Some(stray) = found.get(next) {
            let children = children_of(*stray);
            found.extend(children);
            next += 1;
        }
        found
    }

    /// Ends everything: the host is gone.
    pub(crate) fn end_all(mut self) {
        self.helpers.clear();
        for child in std::mem::take(&mut self.known) {
            let _ = kill_process_group(child, Signal::KILL);
        }
        self.sweep_all();
    }
}

/// What a child does first.
fn settle(parent: Pid, stderr: &OwnedFd) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid() != Some(parent) {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    let _ = setpgid(None, None);
    dup2_stdout(stderr)?;
    dup2_stderr(stderr)?;
    Ok(())
}

fn ends_within(child: Pid, patience: Duration) -> bool {
    let Ok(descriptor) = pidfd_open(child, PidfdFlags::empty()) else {
        return false;
    };
    let mut watched = [PollFd::new(&descriptor, PollFlags::IN)];
    let patience = Timespec::try_from(patience).ok();
    matches!(poll(&mut watched, patience.as_ref()), Ok(1..))
}

fn reap(child: Pid, options: WaitIdOptions) -> Ending {
    match waitid(WaitId::Pid(child), options) {
        Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ending::Exited(code),
            (None, Some(signal)) => Ending::Signalled(signal),
            (None, None) => Ending::Unknown,
        },
        Ok(None) | Err(_) => Ending::Unknown,
    }
}

/// The children that all threads of a process have.
fn children_of(parent: Pid) -> Vec<Pid> {
    let threads = fs::read_dir(format!("/proc/{}/task", parent.as_raw_nonzero()));
    let lists = threads.into_iter().flatten().flatten();
    let listed: Vec<String> = lists
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .collect();
    let numbers = listed.iter().flat_map(|list| list.split_whitespace());
    numbers
        .filter_map(|text| Pid::from_raw(text.parse().ok()?))
        .collect()
}
