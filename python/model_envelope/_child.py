"""Programs that run for this process, and never longer than it."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from pathlib import Path

LINES_KEPT = 200
"""So many of the last lines of standard error are kept: an error as JSON has far fewer."""


@dataclass(frozen=True)
class Ended:
    """What is left of a program."""

    status: int
    """As `subprocess` gives it: negative for a signal."""
    output: str
    errors: str


class Child:
    """A program that has been started. `ended` is told when it is over.

    `heard` is called with each line of its standard error, in a thread. What it raises ends the program.
    """

    def __init__(
        self, command: Sequence[str], variables: Mapping[str, str], heard: Callable[[str], None]
    ) -> None:
        self.ended: Future[Ended] = Future()
        # Nobody who waits for it can cancel it by that.
        self.ended.set_running_or_notify_cancel()
        # A file, because nobody reads while the program runs.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            env=dict(variables),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        )
        try:
            self._guard = _guard(self._process.pid)
        except BaseException:
            self._process.kill()
            self._process.wait()
            raise
        _RUNNING.add(self)
        threading.Thread(target=self._follow, args=(heard,), daemon=True).start()

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def wait(self, seconds: float | None = None) -> bool:
        """Waits until it is over, but no longer. Says if it is over."""
        return bool(wait([self.ended], seconds).done)

    def end(self, seconds: float) -> None:
        """Asks the program to end, and makes it end when it has not done so after `seconds`."""
        self._process.send_signal(signal.SIGINT)
        if not self.wait(seconds):
            self._process.kill()
            self.wait()

    def let_go(self) -> None:
        """In a forked child: the program is its parent's, and must not live as long as this process."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()

    def _follow(self, heard: Callable[[str], None]) -> None:
        last: deque[str] = deque(maxlen=LINES_KEPT)
        problem: BaseException | None = None
        for line in self._process.stderr or ():
            last.append(line)
            if problem is None:
                try:
                    heard(line)
                except BaseException as error:
                    problem = error
                    self._process.send_signal(signal.SIGINT)
        ended = Ended(self._process.wait(), self._printed(), "".join(last))
        self._guard.communicate()
        _RUNNING.discard(self)
        if problem is None:
            self.ended.set_result(ended)
        else:
            self.ended.set_exception(problem)

    def _printed(self) -> str:
        with self._output as output:
            output.seek(0)
            return output.read().decode(errors="replace")


_RUNNING: set[Child] = set()


def _guard(pid: int) -> subprocess.Popen[bytes]:
    """Watches over a program. In a session of its own: what ends a group of processes leaves it alone."""
    process = os.pidfd_open(pid)
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(__file__).with_name("_guard.py")), str(process)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=[process],
            start_new_session=True,
        )
    finally:
        os.close(process)


def _end_all() -> None:
    for child in [*_RUNNING]:
        with contextlib.suppress(ProcessLookupError):
            child.end(10.0)


def _forget() -> None:
    while _RUNNING:
        _RUNNING.pop().let_go()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget)
