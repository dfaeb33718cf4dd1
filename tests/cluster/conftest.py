"""What all tests of clusters share."""

import os
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import HERE, KEPT, ROWS


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
def rows():
    values = range(ROWS)
    return pa.table({"id": values, "x": pa.array(values, pa.float64()), "y": [1.5] * ROWS})


@pytest.fixture(scope="session")
def table(rows, tmp_path_factory):
    """The rows in three files of very different lengths."""
    folder = tmp_path_factory.mktemp("input")
    for name, start, end in (("a", 0, 10), ("b", 10, ROWS * 3 // 4), ("c", ROWS * 3 // 4, ROWS)):
        pq.write_table(rows.slice(start, end - start), folder / f"{name}.parquet", row_group_size=5_000)
    return folder
