//! Lets the service program ask the machine for glibc and nothing else.
//!
//! Rust's standard library asks for `libgcc_s.so.1`, to unwind the stack. What is in the static
//! library beside it does as well; a linker script that bears the name of the shared one says so.

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[expect(
        clippy::disallowed_methods,
        reason = "cargo speaks to build scripts by variables"
    )]
    let (out, libc) = (
        std::env::var("OUT_DIR"),
        std::env::var("CARGO_CFG_TARGET_ENV"),
    );
    let (Ok(out), Ok("gnu")) = (out.map(PathBuf::from), libc.as_deref()) else {
        return;
    };
    let script = std::fs::write(out.join("libgcc_s.so"), "INPUT(-lgcc_eh -lgcc)\n");
    if let Err(error) = script {
        panic!("cannot write a linker script: {error}");
    }
    let search = out.display();
    println!("cargo::rustc-link-arg-bin=envelope-service=-L{search}");
}
