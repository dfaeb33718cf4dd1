//! Becomes a worker: an interpreter of the realised environment that runs the worker core.
//!
//! `envelope-launcher PYTHON LIBPYTHON|- VERSION CORE [level=NAME|r=PATH|w=PATH|…]…`, with the socket
//! as standard input. The options say how the process is confined, see [`confine`]; one line on
//! standard output tells how it is, or, after an exclamation mark, why it does not start.
//!
//! Where the environment's Python has a shared library of the same version, this process loads it
//! and becomes the interpreter itself; otherwise it executes the environment's Python. Both ways
//! run the same core, found by path: nothing is installed into the environment.
#![expect(
    unsafe_code,
    reason = "descriptors are closed and namespaces made before there is a second thread"
)]

#[path = "../confine/mod.rs"]
mod confine;
#[path = "../../../src/interpreter.rs"]
mod interpreter;

use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::stdio::{dup2_stdin, dup2_stdout};

use crate::confine::Wanted;
use crate::interpreter::{BOOT, Interpreter};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [python, library, version, core, options @ ..] = arguments.as_slice() else {
        return fail("usage: envelope-launcher PYTHON LIBPYTHON|- VERSION CORE [OPTION]...");
    };
    let Some(wanted) = Wanted::from_arguments(options) else {
        return fail("envelope-launcher: there is an option that it does not know");
    };
    if wanted.is_confined() {
        inherit_nothing_else();
    }
    let (descriptor, report) = match move_streams() {
        Ok((descriptor, report)) => (descriptor.to_string(), report),
        Err(error) => return fail(&format!("cannot take over the socket: {error}")),
    };
    let confined = wanted.confine();
    tell(report, &confined);
    let view = match confined {
        Ok(confined) => confined.description(),
        Err(missing) => return fail(&format!("the kernel does not give {missing}")),
    };
    let line = [python.as_str(), "-I", "-c", BOOT, core, &descriptor, &view];
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

/// Who started us may have left files open, which no rule about opening files is asked for.
#[cfg(target_os = "linux")]
fn inherit_nothing_else() {
    // SAFETY: nothing in this process has opened a descriptor yet: all from 3 on are inherited, and
    // known to nobody here. Kernels before 5.9 do not have the call, and leave them open.
    let _ = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, 0u32) };
}

#[cfg(not(target_os = "linux"))]
fn inherit_nothing_else() {}

/// Standard output joins standard error: what a model prints must not be mistaken for data. Gives the
/// socket, and what was standard output.
fn move_streams() -> io::Result<(i32, std::fs::File)> {
    use std::os::fd::IntoRawFd as _;

    let socket = rustix::io::dup(io::stdin())?;
    let report = rustix::io::fcntl_dupfd_cloexec(io::stdout(), 0)?;
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    dup2_stdout(io::stderr())?;
    Ok((socket.into_raw_fd(), report.into()))
}

/// The host need not listen.
fn tell(mut report: std::fs::File, confined: &Result<confine::Confined, String>) {
    let line = match confined {
        Ok(confined) => confined.report(),
        Err(missing) => format!("!{missing}"),
    };
    let _ = writeln!(report, "{line}");
}
