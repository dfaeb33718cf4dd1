"""Jobs on real clusters of processes on this machine: `make cluster-test`.

The program must have been built with `--features cluster`; `ENVELOPE_PROGRAM` says where it is.
"""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import ExitStack, contextmanager
from pathlib import Path

import deltalake
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
PROGRAM = os.environ.get("ENVELOPE_PROGRAM", ROOT / "target" / "release" / "envelope")
KEPT = ROOT / "target" / "cluster"
ROWS = 200_000

# A lost executor is noticed after 20 seconds without a word, looked for every 5.
NOTICED_WITHIN = 30.0


@pytest.fixture(scope="session", autouse=True)
def surroundings():
    """A store with the envelopes, kept between runs as long as what makes them is older."""
    KEPT.mkdir(parents=True, exist_ok=True)
    os.environ["ENVELOPE_URL"] = str(KEPT / "store")
    os.environ["ENVELOPE_CACHE_DIR"] = str(KEPT / "cache")
    models, done = HERE / "models.py", KEPT / "done"
    if not done.exists() or done.stat().st_mtime < models.stat().st_mtime:
        subprocess.run([sys.executable, models], check=True)
        done.touch()


@pytest.fixture(scope="session")
def table(tmp_path_factory):
    """`ROWS` rows in three files of very different lengths."""
    folder = tmp_path_factory.mktemp("input")
    values = range(ROWS)
    rows = pa.table({"id": values, "x": pa.array(values, pa.float64()), "y": [1.5] * ROWS})
    for name, start, end in (("a", 0, 10), ("b", 10, 150_000), ("c", 150_000, ROWS)):
        pq.write_table(rows.slice(start, end - start), folder / f"{name}.parquet", row_group_size=5_000)
    return folder


class Cluster:
    """One scheduler and its executors, each a process."""

    def __init__(self, processes):
        self.start = processes
        self.scheduler = self.start("scheduler", "--listen", "127.0.0.1:0", "--json", stdout=subprocess.PIPE)
        document = ""
        while not document.rstrip().endswith("}"):
            document += self.scheduler.stdout.readline()
        self.url = json.loads(document)["cluster"]
        self.executors = []

    def join(self, slots=1):
        address = self.url.removeprefix("df://")
        executor = self.start("executor", "--scheduler", address, "--slots", str(slots))
        self.executors.append(executor)
        wait_until(lambda: len(self.page("/api/executors")) == len(self.executors), 20)
        return executor

    def page(self, path):
        with urllib.request.urlopen(self.url.replace("df://", "http://") + path, timeout=10) as page:
            return json.load(page)


@contextmanager
def cluster(*slots):
    """A cluster whose executors have so many slots. Every process ends with it."""
    with ExitStack() as stack:

        def start(*arguments, **options):
            process = subprocess.Popen([PROGRAM, *arguments], text=True, **options)
            stack.callback(end, process)
            return process

        here = Cluster(start)
        for number in slots:
            here.join(number)
        yield here


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


def job(reference, table, output, *more):
    """The command line of a job."""
    return [
        PROGRAM,
        "batch",
        reference,
        "--input",
        table,
        "--output",
        output,
        "--keep",
        "id",
        "--json",
        *more,
    ]


def run(reference, table, output, *more):
    done = subprocess.run(job(reference, table, output, *more), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def refused(reference, table, output, *more):
    """How a job fails, and its exit code."""
    done = subprocess.run(job(reference, table, output, *more), capture_output=True, text=True, timeout=120)
    assert done.stdout == "", done.stdout
    return done.returncode, json.loads(done.stderr.splitlines()[-1])["error"]


def rows_of(output):
    return deltalake.DeltaTable(output).to_pandas().sort_values("id", ignore_index=True)


def checksum(rows):
    """The same for the same multiset of rows, to the last bit."""
    digest = hashlib.sha256()
    for column in rows.columns:
        digest.update(column.encode())
        digest.update(pd.util.hash_pandas_object(rows[column], index=False).to_numpy().tobytes())
    return digest.hexdigest()


def workers_of(executor):
    """Processes below an executor."""
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(executor.pid)], capture_output=True, text=True
    )
    return children.stdout.split()


def test_the_same_rows_wherever_the_work_is_done(table, tmp_path):
    sums = {}
    for workers in (1, 2):
        output = tmp_path / f"local-{workers}"
        assert run("score", table, output, "--workers", str(workers))["rows"] == ROWS
        sums[f"local {workers}"] = checksum(rows_of(output))
    for slots in ((1,), (2,), (1, 1)):
        with cluster(*slots) as here:
            output = tmp_path / f"cluster-{slots}"
            summary = run("score", table, output, "--cluster", here.url)
            assert (summary["rows"], summary["version"]) == (ROWS, 0)
            sums[f"cluster {slots}"] = checksum(rows_of(output))
    assert len(set(sums.values())) == 1, sums
    print(sums)


def test_two_envelopes_share_an_executor(table, tmp_path):
    with cluster(2) as here:
        jobs = [
            subprocess.Popen(
                job(name, table, tmp_path / name, "--cluster", here.url), stdout=subprocess.DEVNULL
            )
            for name in ("score", "slow")
        ]
        assert [process.wait(120) for process in jobs] == [0, 0]
    assert len(rows_of(tmp_path / "score")) == len(rows_of(tmp_path / "slow")) == ROWS


def test_the_work_of_a_killed_executor_moves(table, tmp_path):
    with cluster(1, 1) as here:
        begun = time.monotonic()
        run("slow", table, tmp_path / "undisturbed", "--cluster", here.url, "--workers", "16")
        undisturbed = time.monotonic() - begun

        begun = time.monotonic()
        process = subprocess.Popen(
            job("slow", table, tmp_path / "killed", "--cluster", here.url, "--workers", "16"),
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(4)
        here.executors[0].kill()
        killed = time.monotonic()
        wait_until(lambda: len(here.page("/api/executors")) == 1, NOTICED_WITHIN)
        noticed = time.monotonic() - killed
        summary = json.loads(process.communicate(timeout=120)[0])
        took = time.monotonic() - begun
    assert process.returncode == 0
    assert (summary["rows"], summary["version"]) == (ROWS, 0)
    assert checksum(rows_of(tmp_path / "killed")) == checksum(rows_of(tmp_path / "undisturbed"))
    print(
        f"undisturbed {undisturbed:.1f} s; killed after 4 s, noticed {noticed:.1f} s later, done in {took:.1f} s"
    )


def test_an_executor_that_is_asked_to_end_gives_its_work_away_at_once(table, tmp_path):
    with cluster(1, 1) as here:
        process = subprocess.Popen(
            job("slow", table, tmp_path / "out", "--cluster", here.url, "--workers", "8"),
            stdout=subprocess.PIPE,
            text=True,
        )
        time.sleep(3)
        begun = time.monotonic()
        here.executors[0].terminate()
        assert here.executors[0].wait(10) == 0
        stopped = time.monotonic() - begun
        summary = json.loads(process.communicate(timeout=60)[0])
        print(f"stopped after {stopped:.1f} s, done {time.monotonic() - begun:.1f} s after it was asked")
    assert (process.returncode, summary["rows"]) == (0, ROWS)


def test_a_row_that_kills_workers_is_named_and_costs_no_executor(table, tmp_path):
    with cluster(1, 1) as here:
        code, error = refused("poison", table, tmp_path / "out", "--cluster", here.url)
        assert (code, error["code"]) == (1, "worker_crashed")
        assert "id=731" in error["message"]
        assert all(executor.poll() is None for executor in here.executors)
        assert len(here.page("/api/executors")) == 2
        # And they go on working.
        assert run("score", table, tmp_path / "after", "--cluster", here.url)["rows"] == ROWS
    assert not (tmp_path / "out").exists()


def test_an_exception_comes_back_with_its_row_and_its_traceback(table, tmp_path):
    rows = pq.read_table(table).filter(pa.compute.field("id") > 5_000)
    pq.write_table(rows, tmp_path / "in.parquet")
    with cluster(1) as here:
        code, error = refused("poison", tmp_path / "in.parquet", tmp_path / "out", "--cluster", here.url)
    assert (code, error["code"]) == (1, "function_failed")
    text = json.dumps(error)
    assert "id=5137" in text and "ValueError: x is 5137" in text
    local = refused("poison", tmp_path / "in.parquet", tmp_path / "out")[1]
    assert error == local, "as without a cluster"


def test_cancelling_ends_the_work_and_leaves_nothing(table, tmp_path):
    with cluster(1, 1) as here:
        command = job("slow", table, tmp_path / "out", "--cluster", here.url, "--workers", "64")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(4)
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        print(f"cancelled in {time.monotonic() - begun:.1f} s")
        assert not (tmp_path / "out").exists()
        # The slots are free again: the next job does not wait for 60 calls of a second each.
        begun = time.monotonic()
        run("score", table, tmp_path / "next", "--cluster", here.url)
        assert time.monotonic() - begun < 15
        assert not (tmp_path / "out").exists()


def test_progress_is_told_in_lines_of_json(table, tmp_path):
    with cluster(2) as here:
        command = job("slow", table, tmp_path / "out", "--cluster", here.url, "--verbose")
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    told = [line for line in lines if "rows" in line]
    assert len(told) >= 2 and told[-1]["rows"] == ROWS
    assert all(line["total"] == ROWS and line["rows_per_second"] > 0 for line in told)


@pytest.mark.parametrize("address", ["0.0.0.0:50050", "[::]:50050"])
def test_nobody_else_is_let_in(address):
    done = subprocess.run(
        [PROGRAM, "scheduler", "--listen", address], capture_output=True, text=True, timeout=10
    )
    assert done.returncode == 2
    assert re.search(r"error\[exposed\].*other machines", done.stderr)


def test_a_cluster_that_is_not_there_is_refused_before_any_work(table, tmp_path):
    code, error = refused("score", table, tmp_path / "out", "--cluster", "df://127.0.0.1:9")
    assert (code, error["code"]) == (6, "cluster_unreachable")
    with cluster() as here:
        code, error = refused("score", table, tmp_path / "out", "--cluster", here.url)
    assert code == 6 and "no executors" in error["message"]
    assert not (tmp_path / "out").exists()
