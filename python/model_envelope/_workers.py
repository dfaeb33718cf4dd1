"""The workers that this process predicts with."""

from __future__ import annotations

import atexit
import os
import threading
from collections import OrderedDict
from pathlib import Path

from . import _native
from ._settings import settings

MOST = 8
"""So many envelopes have a worker at once; the one that was used longest ago is ended for another."""

_RUNNERS: OrderedDict[str, _native.Runner] = OrderedDict()
_STARTING = threading.Lock()


def runner(path: Path, digest: str) -> _native.Runner:
    """The worker of the envelope in `path`: started by its first call, ended when this process exits."""
    with _STARTING:
        if digest not in _RUNNERS:
            chosen = settings()
            _RUNNERS[digest] = _native.Runner.start(path, chosen.places, 1, None, sandbox=chosen.sandbox)
        _RUNNERS.move_to_end(digest)
        # What is dropped while another thread still calls it ends after that call.
        while len(_RUNNERS) > MOST:
            _RUNNERS.popitem(last=False)
        return _RUNNERS[digest]


def _close() -> None:
    while _RUNNERS:
        _RUNNERS.popitem()[1].close()


def _forget() -> None:
    """In a forked child: the workers are its parent's."""
    global _STARTING
    _STARTING = threading.Lock()
    _RUNNERS.clear()


atexit.register(_close)
os.register_at_fork(after_in_child=_forget)
