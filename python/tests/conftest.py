"""Every test has a store of its own; realised environments are kept from run to run."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import packages
import pytest

import model_envelope as me

# Realised environments; the Rust tests keep theirs in the same place.
CACHE = Path(__file__).resolve().parents[2] / "target" / "acceptance" / "cache"


@pytest.fixture(scope="session", autouse=True)
def _cache():
    """Environments are made once for all tests, and found again by the next run."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ENVELOPE_CACHE_DIR", str(CACHE))
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """The folder in which this test's envelopes are kept."""
    monkeypatch.setenv("ENVELOPE_URL", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary files go, in this process and in those that it starts."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def save():
    """Saves a function under its own name."""

    def save(function, sample, **more):
        return me.save_model(
            query_function=function, name=more.pop("name", "model"), api_input=sample, **more
        )

    return save


@pytest.fixture
def python(tmp_path):
    """Runs a program in a clean process that can import nothing of the tests; gives what it printed."""

    def python(program, *, stdin=None, cwd=None, **variables):
        command = [sys.executable, *(["-c", program] if isinstance(program, str) else [str(program)])]
        done = subprocess.run(
            command,
            input=stdin,
            env={**os.environ, **variables},
            cwd=cwd or tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return python


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Packages that only this machine has; `site.folder` is to be added to the path of a program."""
    return packages.install(tmp_path_factory.mktemp("installed"))
