//! Becomes a worker: an interpreter of the realised environment that runs the worker core.
//!
//! `envelope-launcher PYTHON LIBPYTHON|- VERSION CORE [r=PATH|w=PATH]…`, with the socket as standard
//! input. The paths, if there are any, are all that the interpreter may open.
//!
//! Where the environment's Python has a shared library of the same version, this process loads it
//! and becomes the interpreter itself; otherwise it executes the environment's Python. Both ways
//! run the same core, found by path: nothing is installed into the environment.

#[path = "../confine.rs"]
mod confine;
#[path = "../../../src/interpreter.rs"]
mod interpreter;

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::stdio::{dup2_stdin, dup2_stdout};

use crate::confine::View;
use crate::interpreter::{BOOT, Interpreter};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [python, library, version, core, paths @ ..] = arguments.as_slice() else {
        return fail("usage: envelope-launcher PYTHON LIBPYTHON|- VERSION CORE [r=PATH|w=PATH]...");
    };
    let descriptor = match move_socket() {
        Ok(descriptor) => descriptor.to_string(),
        Err(error) => return fail(&format!("cannot take over the socket: {error}")),
    };
    // Before there is an interpreter, and a second thread: a thread is confined alone.
    let view = View::from_arguments(paths).confine();
    let line = [python.as_str(), "-I", "-c", BOOT, core, &descriptor, view];
    match Interpreter::load(library, version) {
        Some(interpreter) => match interpreter.run(&line) {
            Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(1)),
            Err(_) => fail("an argument holds a zero byte"),
        },
        None => fail(&format!(
            "cannot run `{python}`: {}",
            Command::new(python).args(&line[1..]).exec()
        )),
    }
}

#[expect(clippy::print_stderr, reason = "the host reads standard error")]
fn fail(reason: &str) -> ExitCode {
    eprintln!("{reason}");
    ExitCode::FAILURE
}

/// Standard output joins standard error: what a model prints must not be mistaken for data.
fn move_socket() -> io::Result<i32> {
    use std::os::fd::IntoRawFd as _;

    let socket = rustix::io::dup(io::stdin())?;
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    dup2_stdout(io::stderr())?;
    Ok(socket.into_raw_fd())
}
