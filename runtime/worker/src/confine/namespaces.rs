//! A network, shared memory and a file system of its own, which hold nothing but what is granted.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change,
    unmount,
};
use rustix::process::{chdir, getgid, getuid, pivot_root};
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Wanted;

/// Where the file system of before is, until it is let go.
const BEFORE: &str = "/before";

/// Memory that processes share: not with those outside.
const SHARED_MEMORY: &str = "/dev/shm";

pub(super) fn enter(wanted: &Wanted) -> Result<String, String> {
    let needs = |step: &str, error: &dyn std::fmt::Display| {
        format!("namespaces without privileges (to {step}: {error})")
    };
    let mut flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWIPC;
    if !wanted.network {
        flags |= UnshareFlags::NEWNET;
    }
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let folder = std::env::current_dir().map_err(|error| needs("find the folder", &error))?;
    // SAFETY: the table of descriptors is not unshared (no `FILES`).
    unsafe { unshare_unsafe(flags) }.map_err(|error| needs("make them", &error))?;
    be_same_user(user, group).map_err(|error| needs("stay the same user", &error))?;
    only_granted(wanted, &folder).map_err(|error| needs("mount files", &error))?;
    chdir(&folder).map_err(|error| needs("return to the folder", &error))?;
    let network = if wanted.network { "" } else { " net" };
    Ok(format!("namespaces user{network} ipc mount"))
}

fn be_same_user(user: u32, group: u32) -> io::Result<()> {
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("{user} {user} 1"))?;
    fs::write("/proc/self/gid_map", format!("{group} {group} 1"))
}

/// Replaces the file system by one of the granted paths alone. They are found by the same names as
/// before, and by those that they have when all links are followed.
fn only_granted(wanted: &Wanted, folder: &Path) -> io::Result<()> {
    let mut granted: Vec<(PathBuf, PathBuf)> = vec![];
    for path in wanted.read.iter().chain(&wanted.write) {
        // What is not on this machine is granted in vain.
        if let Ok(found) = fs::canonicalize(path) {
            granted.push((path.clone(), found.clone()));
            granted.push((found.clone(), found));
        }
    }
    granted.sort(); // folders before what is in them
    let (recursive, private) = (MountPropagationFlags::REC, MountPropagationFlags::PRIVATE);
    mount_change("/", recursive | private)?;
    mount_memory(folder)?;
    let before = folder.join(&BEFORE[1..]);
    fs::create_dir(&before)?;
    pivot_root(folder, &before)?;
    chdir("/")?;
    let mut seen: Vec<PathBuf> = vec![];
    for (name, found) in granted {
        if seen.iter().any(|folder| name.starts_with(folder)) {
            continue;
        }
        bring(&below(Path::new(BEFORE), &found), &name)?;
        seen.push(name);
    }
    link_descriptors();
    unmount(BEFORE, UnmountFlags::DETACH)?;
    fs::remove_dir(BEFORE)
}

fn bring(source: &Path, name: &Path) -> io::Result<()> {
    if let Some(parent) = name.parent() {
        fs::create_dir_all(parent)?;
    }
    if source.is_dir() {
        fs::create_dir_all(name)?;
    } else {
        fs::File::create(name)?;
    }
    if name == Path::new(SHARED_MEMORY) {
        return mount_memory(name);
    }
    Ok(mount_bind_recursive(source, name)?)
}

fn mount_memory(folder: &Path) -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    Ok(mount("tmpfs", folder, "tmpfs", flags, None)?)
}

fn below(folder: &Path, path: &Path) -> PathBuf {
    folder.join(path.strip_prefix("/").unwrap_or(path))
}

/// The names by which shells know the descriptors of a process. Few programs use them.
fn link_descriptors() {
    use std::os::unix::fs::symlink;

    let _ = symlink("/proc/self/fd", "/dev/fd");
    for (descriptor, name) in ["stdin", "stdout", "stderr"].iter().enumerate() {
        let _ = symlink(
            format!("/proc/self/fd/{descriptor}"),
            Path::new("/dev").join(name),
        );
    }
}
