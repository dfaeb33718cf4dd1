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
    reason = "an interpreter that is not linked is entered through dlopen"
)]

#[path = "../confine/mod.rs"]
mod confine;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::stdio::{dup2_stdin, dup2_stdout};

use crate::confine::Wanted;

/// The socket arrives as standard input and moves here, so that code which reads standard input
/// gets the end of a file.
const BOOT: &str = "\
import importlib.util, sys
core, descriptor, view = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.argv = ['']
spec = importlib.util.spec_from_file_location('envelope_worker', core)
module = importlib.util.module_from_spec(spec)
sys.modules['envelope_worker'] = module
spec.loader.exec_module(module)
module.main(descriptor, view)
";

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
        Some(interpreter) => interpreter.run(&line),
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

/// The shared library of CPython, loaded into this process.
struct Interpreter {
    main: unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int,
}

impl Interpreter {
    /// `None` when there is no library, or it is of another version than the environment: the
    /// loader happily takes Debian's 3.11.2 for a 3.11.7 environment, whose modules then break.
    fn load(library: &str, version: &str) -> Option<Self> {
        if library == "-" {
            return None;
        }
        let path = CString::new(library).ok()?;
        // SAFETY: `path` is a C string. Loading runs the initialisers of libpython, which only
        // register themselves. RTLD_GLOBAL, because extension modules leave `Py*` undefined.
        let handle = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        let get_version = symbol(handle, c"Py_GetVersion")?;
        let main = symbol(handle, c"Py_BytesMain")?;
        // SAFETY: `Py_GetVersion` takes nothing, gives a static C string, and may be called before
        // the interpreter is initialised (CPython documentation, "Before Python Initialization").
        let get_version: unsafe extern "C" fn() -> *const c_char =
            unsafe { std::mem::transmute(get_version) };
        // SAFETY: as above.
        let found = unsafe { get_version() };
        // SAFETY: as above: a static C string.
        let found = unsafe { CStr::from_ptr(found) }.to_str().ok()?;
        // SAFETY: `Py_BytesMain(int, char **) -> int` is in the stable ABI since 3.8.
        let main = unsafe {
            std::mem::transmute::<*mut c_void, unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int>(
                main,
            )
        };
        (found.split(' ').next() == Some(version)).then_some(Self { main })
    }

    /// Runs `python arguments…` in this process. `arguments[0]` decides `sys.prefix` and
    /// `sys.executable`.
    fn run(&self, arguments: &[&str]) -> ExitCode {
        let owned: Result<Vec<CString>, _> =
            arguments.iter().map(|text| CString::new(*text)).collect();
        let Ok(owned) = owned else {
            return fail("an argument holds a zero byte");
        };
        let mut pointers: Vec<*mut c_char> =
            owned.iter().map(|text| text.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).unwrap_or(0);
        pointers.push(std::ptr::null_mut());
        // SAFETY: `pointers` holds `count` C strings that outlive the call, then a null pointer;
        // `Py_BytesMain` copies them before it changes anything.
        let status = unsafe { (self.main)(count, pointers.as_mut_ptr()) };
        ExitCode::from(u8::try_from(status).unwrap_or(1))
    }
}

fn symbol(handle: *mut c_void, name: &CStr) -> Option<*mut c_void> {
    if handle.is_null() {
        return None;
    }
    // SAFETY: `handle` is what `dlopen` gave and is never closed; `name` is a C string.
    let found = unsafe { libc::dlsym(handle, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}
