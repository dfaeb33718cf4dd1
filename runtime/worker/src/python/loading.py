"""Unpickles functions, and tells what that did to the process: whether it may still be forked."""

import os
import pickle
import sys


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
    _note_random_state()


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
    """Everything is there that calls need: what our own conversions have imported, too."""
    _note_random_state()


def forked():
    """Each process draws its own numbers, as it would if it were not forked, unless somebody has seeded."""
    if _random_state is not None and _state_of_numpy() == _random_state:
        sys.modules["numpy.random"].seed()


def own_kib():
    """Memory that is not of a file, in KiB."""
    with open("/proc/self/statm") as file:
        _, resident, shared = file.read().split()[:3]
    return (int(resident) - int(shared)) * (os.sysconf("SC_PAGE_SIZE") // 1024)
