"""What all tests of tables in buckets share; the envelopes are those of the tests of clusters."""

import importlib.util
import sys
from pathlib import Path

import pyarrow as pa
import pytest

CLUSTER = Path(__file__).resolve().parent.parent / "cluster"
sys.path.insert(0, str(CLUSTER))

from servers import FUNCTION, RACES, program, serve  # noqa: E402

spec = importlib.util.spec_from_file_location("cluster_conftest", CLUSTER / "conftest.py")
cluster = importlib.util.module_from_spec(spec)
spec.loader.exec_module(cluster)
surroundings = cluster.surroundings

ROWS = 5_000


@pytest.fixture(scope="session")
def rows():
    values = range(ROWS)
    return pa.table({"id": values, "x": pa.array(values, pa.float64()), "y": [1.5] * ROWS})


def started(name, factory):
    if not program(name):
        pytest.skip(f"`{name}` is not installed: `make s3-test` installs it")
    return serve(name, factory.mktemp(name))


@pytest.fixture(scope="session")
def checked(tmp_path_factory):
    """A server that checks signatures."""
    with started(FUNCTION, tmp_path_factory) as server:
        yield server


@pytest.fixture(scope="session")
def atomic(tmp_path_factory):
    """A server that lets one of those win that create the same object."""
    with started(RACES, tmp_path_factory) as server:
        yield server


@pytest.fixture
def at(monkeypatch):
    """Makes jobs of this process ask a server."""

    def use(variables):
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return use
