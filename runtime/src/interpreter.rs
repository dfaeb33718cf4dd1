//! `CPython` as a shared library: entered through `dlopen`, never linked. Compiled into the launcher of
//! workers and into the host, which may run one in its own process.
#![expect(
    unsafe_code,
    reason = "an interpreter that is not linked is entered through dlopen"
)]

use std::ffi::{CStr, CString, NulError, c_char, c_int, c_void};

/// Loads the worker core by path and runs it: nothing is installed in the environment.
pub(crate) const BOOT: &str = "\
import importlib.util, sys
core, descriptor, view = sys.argv[1], int(sys.argv[2]), sys.argv[3]
sys.argv = ['']
spec = importlib.util.spec_from_file_location('envelope_worker', core)
module = importlib.util.module_from_spec(spec)
sys.modules['envelope_worker'] = module
spec.loader.exec_module(module)
module.main(descriptor, view)
";

/// The shared library of CPython, loaded into this process.
#[derive(Debug)]
pub(crate) struct Interpreter {
    main: unsafe extern "C" fn(c_int, *mut *mut c_char) -> c_int,
}

impl Interpreter {
    /// `None` when there is no library, or it is of another version than the environment: the
    /// loader happily takes Debian's 3.11.2 for a 3.11.7 environment, whose modules then break.
    pub(crate) fn load(library: &str, version: &str) -> Option<Self> {
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
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<c_int, NulError> {
        let owned = arguments
            .iter()
            .map(|text| CString::new(*text))
            .collect::<Result<Vec<_>, _>>()?;
        let mut pointers: Vec<*mut c_char> =
            owned.iter().map(|text| text.as_ptr().cast_mut()).collect();
        let count = c_int::try_from(pointers.len()).unwrap_or(0);
        pointers.push(std::ptr::null_mut());
        // SAFETY: `pointers` holds `count` C strings that outlive the call, then a null pointer;
        // `Py_BytesMain` copies them before it changes anything.
        Ok(unsafe { (self.main)(count, pointers.as_mut_ptr()) })
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

/// What a signal does, kept while an interpreter starts: that takes Ctrl-C for itself.
#[allow(dead_code, reason = "the host's")]
pub(crate) struct Disposition {
    signal: c_int,
    action: libc::sigaction,
}

#[allow(dead_code, reason = "the host's")]
impl Disposition {
    pub(crate) fn of_interrupt() -> Self {
        let signal = libc::SIGINT;
        // SAFETY: an all-zero `sigaction` is a valid one: the default action, an empty mask.
        let mut action = unsafe { std::mem::zeroed() };
        // SAFETY: the call writes what is in force into `action`, and changes nothing.
        unsafe { libc::sigaction(signal, std::ptr::null(), &raw mut action) };
        Self { signal, action }
    }

    pub(crate) fn restore(self) {
        // SAFETY: what `of_interrupt` has read was in force in this process, so its handler is there.
        unsafe { libc::sigaction(self.signal, &raw const self.action, std::ptr::null_mut()) };
    }
}
