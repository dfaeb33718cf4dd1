//! What a worker may open. One that is observed: what every machine has that can run the envelope.
//! One that serves: also what this machine's administrator has installed, which is nobody's secret.

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

/// What this machine has installed for all: programs, libraries of vendors, fonts and data.
const INSTALLED: [&str; 19] = [
    "/usr",
    "/opt/intel",
    "/opt/nvidia",
    "/opt/rocm",
    "/nix/store",
    "/gnu/store",
    "/etc/OpenCL",
    "/etc/alternatives",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hostname",
    "/etc/inputrc",
    "/etc/machine-id",
    "/etc/os-release",
    "/etc/protocols",
    "/etc/services",
    "/etc/terminfo",
    "/etc/vulkan",
];

/// The terminal of whoever started us, which is not for a worker that serves.
const TERMINAL: &str = "/dev/tty";

/// Files and folders that may be opened.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) read: Vec<PathBuf>,
    pub(crate) write: Vec<PathBuf>,
}

impl View {
    /// The launcher's arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let read = self.read.iter().map(|path| format!("r={}", path.display()));
        let write = self.write.iter();
        let write = write.map(|path| format!("w={}", path.display()));
        read.chain(write).collect()
    }
}

/// For a worker of `environment` that is observed. It may write in `scratch` alone.
pub(crate) fn proof(environment: &Environment, files: &[&Path], scratch: &Path) -> View {
    let system = SYSTEM.iter().map(PathBuf::from);
    let files = files.iter().map(PathBuf::from);
    let devices = DEVICES.iter().map(PathBuf::from);
    View {
        read: system
            .chain(of_environment(environment))
            .chain(files)
            .collect(),
        write: devices
            .chain(accelerators())
            .chain([scratch.to_owned()])
            .collect(),
    }
}

/// For a worker of `environment` that serves.
pub(crate) fn default(environment: &Environment, files: &[&Path], scratch: &Path) -> View {
    let mut view = proof(environment, files, scratch);
    view.read.extend(INSTALLED.iter().map(PathBuf::from));
    view.write.retain(|path| path != Path::new(TERMINAL));
    view
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
