"""What all tests of clusters share."""

import fcntl
import os
import subprocess
import sys
from contextlib import ExitStack

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import HERE, KEPT, LONG, ROWS, SHORT, cluster


@pytest.fixture(scope="session", autouse=True)
def surroundings():
    """A store with the envelopes, kept between runs as long as what makes them is older."""
    KEPT.mkdir(parents=True, exist_ok=True)
    os.environ["ENVELOPE_URL"] = str(KEPT / "store")
    os.environ["ENVELOPE_CACHE_DIR"] = str(KEPT / "cache")
    models, done = HERE / "models.py", KEPT / "done"
    with (KEPT / "lock").open("w") as lock:
        # Tests that run beside these need the same envelopes.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists() or done.stat().st_mtime < models.stat().st_mtime:
            parts = [subprocess.Popen([sys.executable, models, part, "2"]) for part in ("0", "1")]
            assert [part.wait() for part in parts] == [0, 0]
            done.touch()


@pytest.fixture(scope="session")
def rows():
    values = range(ROWS)
    return pa.table({"id": values, "x": pa.array(values, pa.float64()), "y": [1.5] * ROWS})


@pytest.fixture(scope="session")
def table(rows, tmp_path_factory):
    """The rows in three files of very different lengths."""
    return in_files(rows, tmp_path_factory.mktemp("input"))


@pytest.fixture(scope="session")
def short_table(rows, tmp_path_factory):
    """The first rows likewise, for functions that take their time."""
    return in_files(rows.slice(0, SHORT), tmp_path_factory.mktemp("short"))


def in_files(rows, folder):
    end = rows.num_rows
    for name, first, last in (("a", 0, 10), ("b", 10, end * 3 // 4), ("c", end * 3 // 4, end)):
        pq.write_table(rows.slice(first, last - first), folder / f"{name}.parquet", row_group_size=5_000)
    return folder


@pytest.fixture(scope="session")
def single():
    """One executor with one slot. This cluster and the next two are for tests that end no part of them."""
    with cluster(1) as here:
        yield here


@pytest.fixture(scope="session")
def wide():
    """One executor with two slots."""
    with cluster(2) as here:
        yield here


@pytest.fixture(scope="session")
def pair():
    """Two executors with one slot each."""
    with cluster(1, 1) as here:
        yield here


@pytest.fixture(scope="session")
def clusters(single, wide, pair):
    """Clusters of every kind, by the slots of their executors."""
    with ExitStack() as stack:
        more = {"1-1-1-1": stack.enter_context(cluster(1, 1, 1, 1))} if LONG else {}
        yield {"1": single, "2": wide, "1-1": pair, **more}
