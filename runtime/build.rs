//! Builds the two files that become a worker process and makes them available to `include_bytes!`,
//! so that a program which links this crate is complete: there is nothing to install beside it.

use std::env;
use std::hash::{DefaultHasher, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    for input in [
        "worker",
        "src/interpreter.rs",
        "src/protocol.rs",
        "src/schema.rs",
        "../envelope-format/src",
    ] {
        println!("cargo::rerun-if-changed={input}");
    }
    let out = PathBuf::from(variable("OUT_DIR"));
    // A folder of its own: the outer build holds the lock of its own folder.
    let target = out.ancestors().nth(4).unwrap_or(&out).join("worker-core");
    build(&target);
    let mut contents = DefaultHasher::new();
    for file in ["libworker.so", "envelope-launcher"] {
        let built = target.join("release").join(file);
        let copied = std::fs::copy(&built, out.join(file)).and_then(|_| std::fs::read(&built));
        match copied {
            Ok(content) => contents.write(&content),
            Err(error) => panic!("cannot copy {}: {error}", built.display()),
        }
    }
    println!("cargo::rustc-env=WORKER_BUILD={:016x}", contents.finish());
}

fn build(target: &Path) {
    let manifest = Path::new(&variable("CARGO_MANIFEST_DIR")).join("worker/Cargo.toml");
    let mut cargo = Command::new(variable("CARGO"));
    cargo
        .args([
            "build",
            "--release",
            "--quiet",
            "--lib",
            "--bins",
            "--manifest-path",
        ])
        .arg(manifest);
    cargo.arg("--target-dir").arg(target);
    // The core is built the same way whoever builds us: not by clippy, not for another target
    // folder, and without the Python that happens to be first on PATH.
    for inherited in [
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTC_WRAPPER",
        "CARGO_BUILD_TARGET",
        "CARGO_ENCODED_RUSTFLAGS",
    ] {
        cargo.env_remove(inherited);
    }
    for (name, _) in env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("PYO3_") || name == "PYTHON_SYS_EXECUTABLE" {
            cargo.env_remove(name);
        }
    }
    cargo.env("PYO3_NO_PYTHON", "1");
    cargo
        .env("CARGO_PROFILE_RELEASE_STRIP", "symbols")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0");
    match cargo.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("building the worker core failed: {status}"),
        Err(error) => panic!("cannot run cargo: {error}"),
    }
}

fn variable(name: &str) -> String {
    #[expect(
        clippy::disallowed_methods,
        reason = "cargo speaks to build scripts by variables"
    )]
    env::var(name).unwrap_or_else(|_| panic!("cargo did not set {name}"))
}
