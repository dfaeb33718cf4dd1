"""Processes of a service: started, waited for, measured, and ended with all that they started."""

import ctypes
import os
import signal
import socket
import subprocess
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

MEGABYTE = 1e6
START_SECONDS = 90
STOP_SECONDS = 5
PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans():
    """From now on what a service leaves behind is below us, where `Tree` finds it.

    Some peers' workers survive the process that was started, in sessions of their own.
    """
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGTERM, leave)


def leave(*_):
    raise SystemExit("ended by a signal")


def free_port():
    """A port, with two free ones behind it for peers that want more."""
    while True:
        with socket.socket() as first, socket.socket() as second, socket.socket() as third:
            try:
                first.bind(("127.0.0.1", 0))
                port = first.getsockname()[1]
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
            except (OSError, OverflowError):
                continue
            return port


@contextmanager
def running(command, environment, folder, log):
    """A service and all that it started; when the block has ended, they have."""
    others = set(children())
    with log.open("w") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
    tree = Tree(process, others)
    try:
        yield tree
    finally:
        tree.end()


def children():
    return psutil.Process().children(recursive=True)


@dataclass
class Tree:
    first: subprocess.Popen
    others: set
    """What was below us before, and is none of it."""

    def processes(self):
        return [child for child in children() if child not in self.others]

    def has_ended(self):
        return self.first.poll() is not None

    def memory(self):
        """PSS and RSS of all of it, in megabytes."""
        found = [used for child in self.processes() if (used := memory_of(child))]
        return tuple(sum(getattr(used, kind) for used in found) / MEGABYTE for kind in ("pss", "rss"))

    def end(self):
        if not self.has_ended():
            os.killpg(self.first.pid, signal.SIGTERM)
        psutil.wait_procs(self.processes(), STOP_SECONDS)
        while left := self.processes():
            for child in left:
                kill(child)
            psutil.wait_procs(left, STOP_SECONDS)
        self.first.poll()


def kill(child):
    with suppress(psutil.NoSuchProcess):
        child.kill()


def memory_of(child):
    try:
        return child.memory_full_info()
    except psutil.NoSuchProcess:
        return None


def with_cpu_seconds(command):
    """What a command printed, and how much CPU time it took."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise subprocess.CalledProcessError(process.returncode, command)
    return output, usage.ru_utime + usage.ru_stime


def last_line(log):
    """The last that a process has printed: mostly why it ended."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else "it printed nothing"


def until(condition, seconds, pause=0.005):
    """The first true value of `condition`, or `None` after so many seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(pause)
    return None
