"""Unpickles functions, and tells what that did to the process: whether it may still be forked."""

import gc
import os
import pickle
import sys

# Imports and models make many objects and little garbage: looking for it takes a tenth of the time.
gc.disable()


def threads():
    """Threads of this process; 0 where that cannot be known."""
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 0


class _Unpickler(pickle.Unpickler):
    """Counts the threads that imports have started: libraries stop those before a fork."""

    imported = 0

    def find_class(self, module, name):
        if (module, name) == ("cloudpickle.cloudpickle", "subimport"):
            return self._import
        if module in sys.modules:
            return super().find_class(module, name)
        return self._counted(super().find_class, module, name)

    def _import(self, name):
        return self._counted(_imported, name)

    def _counted(self, function, *arguments):
        before = threads()
        try:
            return function(*arguments)
        finally:
            self.imported += threads() - before
            _note_random_state()


def _imported(name):
    __import__(name)
    return sys.modules[name]


def load(file, buffers):
    """What was pickled, the modules that were imported for it, and threads that something else started."""
    _note_random_state()
    modules, before = set(sys.modules), threads()
    unpickler = _Unpickler(file, buffers=buffers)
    loaded = unpickler.load()
    new = [name for name in sys.modules if name not in modules and name != "__mp_main__"]
    return loaded, new, max(0, threads() - before - unpickler.imported)


def import_all(names):
    """Imports what can be imported; the rest is somebody's invention and comes with the functions."""
    for name in names:
        try:
            __import__(name)
        except BaseException:  # some exit
            continue
    settled()


# === modules

_settled = set()
"""Modules that there were when the functions had been loaded."""


def imported_since():
    """Modules that calls have imported: those that are found by their name, for others to import."""
    return [name for name in sys.modules if name not in _settled and _has_spec(sys.modules[name])]


def _has_spec(module):
    try:
        return module.__spec__ is not None
    except Exception:  # of a module that makes its attributes when they are asked for
        return False


# === what is forked

_own = {}
"""Descriptors that connect this process with its host, and the file that each was opened for."""


def keep_for_itself(descriptors):
    """What this process forks does not get these: it finds nothing to read or to write there."""
    if not _own:
        os.register_at_fork(after_in_child=_let_go)
    _own.clear()
    _own.update((number, _identity(number)) for number in descriptors)


def _let_go():
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for number, identity in _own.items():
        # A function may have closed it, and opened something of its own there.
        if _identity(number) == identity:
            os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _identity(number):
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_dev, status.st_ino


# === random numbers

_random_state = None
"""Of numpy's global generator, as it was when numpy was imported."""


def _note_random_state():
    global _random_state
    if _random_state is None:
        _random_state = _state_of_numpy()


def _state_of_numpy():
    random = sys.modules.get("numpy.random")
    try:
        return None if random is None else random.get_state()[1].tobytes()
    except Exception:
        return None


def settled():
    """All that is done before the first call has been done, our own conversions' imports too."""
    _note_random_state()
    _settled.update(sys.modules)
    freeze()
    gc.enable()


def freeze():
    """What is there now is never collected: collecting would write to all of its pages."""
    gc.freeze()


def forked():
    """Each process draws its own numbers, as it would if it were not forked, unless somebody has seeded."""
    if _random_state is not None and _state_of_numpy() == _random_state:
        sys.modules["numpy.random"].seed()


def own_kib():
    """Memory that is not of a file, in KiB."""
    with open("/proc/self/statm") as file:
        _, resident, shared = file.read().split()[:3]
    return (int(resident) - int(shared)) * (os.sysconf("SC_PAGE_SIZE") // 1024)
