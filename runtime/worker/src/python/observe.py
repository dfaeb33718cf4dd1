"""What a process does that runs a function for the first time: the evidence in an envelope's transcript.

Files inside of the environment, the interpreter and the worker's own folder are the envelope's own and
are not noted; neither is what a function writes. Calls into native code that open files are not seen
here: where the kernel confines this process, they fail.
"""

import json
import os
import sys
import sysconfig
import warnings

MOST = 200
"""So many different things of a kind are noted, no more."""

KERNEL = ("/proc/", "/sys/", "/dev/")

_view = ""
_home = ""
_own = ()
_seconds = {}
_calls = {}
_read, _written, _programs, _hosts, _warnings = {}, {}, {}, {}, {}
NOTED = (_read, _written, _programs, _hosts, _warnings, _seconds, _calls)
_loaded = []


def begin(view):
    """Notes from now on, until the process ends: what is hooked here cannot be unhooked."""
    global _view, _home, _own
    _view, _home = view, os.getcwd()
    paths = sysconfig.get_paths()
    own = {
        sys.prefix,
        sys.exec_prefix,
        *(paths[key] for key in ("stdlib", "platstdlib", "purelib", "platlib")),
    }
    _own = tuple(os.path.join(folder, "") for folder in own if folder not in ("/", "/usr", "/usr/local"))
    sys.addaudithook(_audited)
    warnings.showwarning = _warned


def took(step, seconds):
    """Adds to the time that a step took."""
    _seconds[step] = _seconds.get(step, 0.0) + seconds
    _calls[step] = _calls.get(step, 0) + 1
    if step == "load":
        _loaded.extend(dict(notes) for notes in NOTED)


def seen():
    """What was noted when the functions were loaded and since this was last asked, as JSON."""
    told = _told()
    for notes, loaded in zip(NOTED, _loaded, strict=False):
        notes.clear()
        notes.update(loaded)
    return told


def _told():
    files = {path: _state(path) for path in sorted(set(_read) - set(_written))}
    return json.dumps(
        {
            "view": _view,
            "python": ".".join(map(str, sys.version_info[:3])),
            "packages": _packages(),
            "modules": sorted(_modules()),
            "files": [path for path, state in files.items() if state == "read"],
            "denied": [path for path, state in files.items() if state == "denied"],
            "missing": [os.path.relpath(path, _home) for path, state in files.items() if state == "missing"],
            "programs": sorted(_programs),
            "connections": sorted(_hosts),
            "warnings": list(_warnings.values()),
            "load_seconds": _seconds.get("load", 0.0),
            "calls": _calls.get("call", 0),
            "call_seconds": _seconds.get("call", 0.0),
        }
    )


def _audited(event, arguments):
    note = NOTES.get(event)
    if note is not None:
        try:  # noqa: SIM105 -- a context manager costs more, and this is called often
            note(*arguments)
        except Exception:  # an observer must not change what it observes
            pass


def _opened(path, mode, flags):
    if isinstance(path, int):
        return
    writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else 0
    _keep(_written if writes else _read, os.path.abspath(os.fsdecode(path)))


def _connected(database):
    if database and database != ":memory:":
        _keep(_read, os.path.abspath(os.fsdecode(database)))


def _started(program, *_):
    _keep(_programs, os.fsdecode(program))


def _called(_, address):
    _keep(_hosts, str(address[0] if isinstance(address, tuple) else address))


NOTES = {
    "open": _opened,
    "sqlite3.connect": _connected,
    "subprocess.Popen": _started,
    "os.system": _started,
    "os.posix_spawn": _started,
    "os.exec": _started,
    "socket.connect": _called,
    "socket.getaddrinfo": lambda host, *_: _keep(_hosts, str(host)),
}


def _warned(message, category, filename, lineno, file=None, line=None):
    text = " ".join(str(message).split())[:500]
    _keep(_warnings, (category.__name__, text), {"category": category.__name__, "message": text})


def _keep(notes, key, value=None):
    if len(notes) < MOST:
        notes.setdefault(key, value)


def _state(path):
    """Whether a file that was opened can be read, or why it is not told."""
    if path.startswith((*KERNEL, *_own)) or path.endswith((".py", ".pyc")):
        return "own"
    inside = path.startswith(os.path.join(_home, ""))
    try:
        os.close(os.open(path, os.O_RDONLY | os.O_NONBLOCK))
    except PermissionError:
        return "denied"
    except OSError:
        return "missing" if inside else "own"
    return "own" if inside else "read"


def _modules():
    """Top-level modules that were imported and are not the interpreter's."""
    names = {name.partition(".")[0] for name, module in list(sys.modules.items()) if module is not None}
    return {
        name
        for name in names - sys.stdlib_module_names
        if not name.startswith(("_envelope", "envelope_", "_sysconfigdata", "__"))
    }


def _packages():
    """Name and version of the packages of these modules."""
    from importlib import metadata

    owners = metadata.packages_distributions()
    found = {name for module in _modules() for name in owners.get(module, ())}
    return {name: metadata.version(name) for name in sorted(found)}
