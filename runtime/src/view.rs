//! What a worker that is observed may open: what every machine has that can run the envelope.

use std::path::{Path, PathBuf};

use crate::Environment;

/// Shared libraries, their loader, the system's own programs, and facts that libraries ask for:
/// zones, languages, certificates, names of hosts and users, the kernel's about this machine.
const SYSTEM: [&str; 32] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/bin",
    "/sbin",
    "/usr/bin",
    "/usr/sbin",
    "/usr/share/zoneinfo",
    "/usr/share/locale",
    "/usr/share/ca-certificates",
    "/usr/share/fonts",
    "/usr/share/fontconfig",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.alias",
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/etc/fonts",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/resolv.conf",
    "/etc/passwd",
    "/etc/mime.types",
    "/proc",
    "/sys",
];

/// Devices that hold no files of anybody.
const DEVICES: [&str; 13] = [
    "/dev/null",
    "/dev/zero",
    "/dev/full",
    "/dev/random",
    "/dev/urandom",
    "/dev/shm",
    "/dev/tty",
    "/dev/dri",
    "/dev/kfd",
    "/dev/nvidia0",
    "/dev/nvidiactl",
    "/dev/nvidia-uvm",
    "/dev/nvidia-uvm-tools",
];

/// The launcher's arguments for a worker of `environment`, which may write in `scratch` alone.
pub(crate) fn arguments(environment: &Environment, files: &[&Path], scratch: &Path) -> Vec<String> {
    let reading = SYSTEM.iter().map(PathBuf::from);
    let reading = reading
        .chain(of_environment(environment))
        .chain(files.iter().map(PathBuf::from))
        .map(|path| format!("r={}", path.display()));
    let writing = DEVICES.iter().map(PathBuf::from);
    let writing = writing
        .chain(accelerators())
        .chain([scratch.to_owned()])
        .map(|path| format!("w={}", path.display()));
    reading.chain(writing).collect()
}

/// A prefix such as `/usr` has more below it than Python.
fn of_environment(environment: &Environment) -> Vec<PathBuf> {
    let mut paths = vec![];
    let prefix = environment.python.parent().and_then(Path::parent);
    for prefix in prefix.into_iter().chain([environment.base.as_path()]) {
        if prefix.join("pyvenv.cfg").exists() {
            paths.push(prefix.to_owned());
            continue;
        }
        paths.extend(["bin", "lib", "lib64", "ssl"].map(|folder| prefix.join(folder)));
    }
    paths.extend(environment.library.clone());
    // Where Debian keeps `sitecustomize.py` and the zones of the interpreter of its own.
    let minor: Vec<_> = environment.version.splitn(3, '.').take(2).collect();
    paths.push(format!("/etc/python{}", minor.join(".")).into());
    paths
}

fn accelerators() -> Vec<PathBuf> {
    let devices = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let nvidia = |path: &PathBuf| path.display().to_string().starts_with("/dev/nvidia");
    devices.map(|entry| entry.path()).filter(nvidia).collect()
}
