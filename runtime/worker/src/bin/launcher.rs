//! Becomes a worker: an interpreter of the realised environment that runs the worker core.
//!
//! `envelope-launcher PYTHON LIBPYTHON|- VERSION CORE [r=PATH|w=PATH]…`, with the socket as standard
//! input. The paths, if there are any, are all that the interpreter may open.
//!
//! Where the environment's Python has a shared library of the same version, this process loads it
//! and becomes the interpreter itself; otherwise it executes the environment's Python. Both ways
//! run the same core, found by path: nothing is installed into the environment.
#![expect(
    unsafe_code,
    reason = "an interpreter that is not linked is entered through dlopen"
)]

#[path = "../confine.rs"]
mod confine;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use rustix::stdio::{dup2_stdin, dup2_stdout};

use crate::confine::View;

/// The socket arrives as standard input and moves here, so that code which reads standard input
/// gets the end of a file.
const BOOT: &str = "\
import importlib.machinery, importlib.util, sys
core, descriptor, view = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.argv = ['']
loader = importlib.machinery.ExtensionFileLoader('envelope_worker', core)
spec = importlib.util.spec_from_file_location('envelope_worker', core, loader=loader)
module = importlib.util.module_from_spec(spec)
sys.modules['envelope_worker'] = module
loader.exec_module(module)
module.main(descriptor, view)
";

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

/// Standard output joins standard error: what a model prints must not be mistaken for data.
fn move_socket() -> io::Result<i32> {
    use std::os::fd::IntoRawFd as _;

    let socket = rustix::io::dup(io::stdin())?;
    dup2_stdin(std::fs::File::open("/dev/null")?)?;
    dup2_stdout(io::stderr())?;
    Ok(socket.into_raw_fd())
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
