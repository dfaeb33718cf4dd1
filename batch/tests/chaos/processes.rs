//! Processes that other processes have started.

use rustix::process::{Pid, Signal, kill_process};

/// Kills the processes below `parent`. Gives how many.
pub(crate) fn kill_descendants(parent: u32) -> usize {
    descendants(parent)
        .into_iter()
        .filter(|pid| kill(*pid))
        .count()
}

/// Those that `parent` has started, and those that they have started.
pub(crate) fn descendants(parent: u32) -> Vec<u32> {
    let all = processes();
    let (mut found, mut next) = (vec![parent], 0);
    while let Some(parent) = found.get(next).copied() {
        next += 1;
        let children = all.iter().filter(|(_, of)| *of == parent);
        found.extend(children.map(|(pid, _)| pid));
    }
    found.split_off(1)
}

/// Whether the process was there to be killed.
pub(crate) fn kill(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, Signal::KILL).is_ok())
}

/// Every process with its parent.
fn processes() -> Vec<(u32, u32)> {
    let entries = std::fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let parent = stat.rsplit_once(')')?.1.split_whitespace().nth(1)?;
            Some((pid, parent.parse().ok()?))
        })
        .collect()
}
