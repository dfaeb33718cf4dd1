"""Clusters of processes on this machine, and jobs for them."""

import hashlib
import json
import os
import subprocess
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import deltalake
import pandas as pd

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAM = os.environ.get("ENVELOPE_PROGRAM", ROOT / "target" / "release" / "envelope")
KEPT = ROOT / "target" / "cluster"
# `CLUSTER_ROWS` makes the tables of the tests larger, `CLUSTER_LONG` adds clusters to compare.
ROWS = int(os.environ.get("CLUSTER_ROWS", "200_000"))
LONG = "CLUSTER_LONG" in os.environ

# For functions that take a second for each call: one for every 5,000 rows, or for fewer.
SHORT = 40_000

# A job over ten million rows with one worker, on a machine that does other things too.
RUNS_WITHIN = 1200.0

# A lost executor is noticed after 20 seconds without a word, looked for every 5.
NOTICED_WITHIN = 30.0


class Cluster:
    """One scheduler and its executors, each a process."""

    def __init__(self, start, listen="127.0.0.1", credentials=()):
        self.start, self.listen, self.credentials = start, listen, credentials
        self.scheduler = start(
            "scheduler", "--listen", f"{listen}:0", "--json", *credentials, stdout=subprocess.PIPE
        )
        document = ""
        while not document.rstrip().endswith("}"):
            document += self.scheduler.stdout.readline()
        self.url = json.loads(document)["cluster"]
        self.executors = []

    def join(self, slots=1, **options):
        address = self.url.removeprefix("df://")
        arguments = ("--scheduler", address, "--listen", self.listen, "--slots", str(slots))
        self.executors.append(self.start("executor", *arguments, *self.credentials, **options))
        return self.executors[-1]

    def size(self):
        """How many executors the scheduler knows."""
        return len(self.page("/api/executors"))

    def rounds(self):
        """What it tells of each round of its only job."""
        jobs = self.page("/api/jobs")
        return self.page(f"/api/job/{jobs[0]['job_id']}/stages")["stages"] if jobs else []

    def tasks_done(self):
        """How many tasks of its only job are done."""
        return sum(task["status"] == "Successful" for stage in self.rounds() for task in stage["tasks"])

    def page(self, path):
        with urllib.request.urlopen(self.url.replace("df://", "http://") + path, timeout=10) as page:
            return json.load(page)


@contextmanager
def cluster(*slots):
    """A cluster whose executors have so many slots. Every process ends with it."""
    with processes() as start:
        here = Cluster(start)
        for number in slots:
            here.join(number)
        wait_until(lambda: here.size() == len(slots), 20)
        yield here


@contextmanager
def processes():
    """Starts programs that end, the last one first, when nobody needs them any more."""
    with ExitStack() as stack:

        def start(*arguments, **options):
            process = subprocess.Popen([PROGRAM, *arguments], text=True, **options)
            stack.callback(end, process)
            return process

        yield start


def end(process):
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def wait_until(condition, seconds):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)


def job(reference, table, output, *more, keep=("id",)):
    """The command line of a job."""
    kept = [option for column in keep for option in ("--keep", column)]
    tables = ("--input", table, "--output", output, *kept)
    return [PROGRAM, "batch", reference, *tables, "--json", *more]


def run(reference, table, output, *more, **options):
    """What a job says that it has done."""
    command = job(reference, table, output, *more, **options)
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUNS_WITHIN)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(reference, table, output, *more, **options):
    """How a job fails, and its exit code."""
    done = subprocess.run(
        job(reference, table, output, *more, **options), capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "", done.stdout
    return done.returncode, error_in(done.stderr)


def error_in(text):
    """The document about an error, which is the last thing that a program says."""
    return json.loads(text[text.rindex("\n{\n") if "\n{\n" in text else 0 :])["error"]


def rows_of(output):
    return deltalake.DeltaTable(output).to_pandas().sort_values("id", ignore_index=True)


def checksum(rows):
    """The same for the same multiset of rows, to the last bit."""
    digest = hashlib.sha256()
    for column in rows.columns:
        digest.update(column.encode())
        digest.update(pd.util.hash_pandas_object(rows[column], index=False).to_numpy().tobytes())
    return digest.hexdigest()


def below(pid):
    """Processes that a process has started, and that these have."""
    table = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(child): int(parent) for child, parent in map(str.split, table.splitlines())}
    found, frontier = set(), {pid}
    while frontier:
        frontier = {child for child, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found
