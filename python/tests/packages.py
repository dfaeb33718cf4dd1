"""Packages that only this machine has, installed as editable, from a folder, a wheel or a repository."""

import os
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path


def project(name, version="1.0", *, requires=(), extra="", backend='"setuptools"'):
    return textwrap.dedent(f"""
        [build-system]
        requires = [{backend}]
        build-backend = "setuptools.build_meta"
        [project]
        name = "{name}"
        version = "{version}"
        dependencies = {list(requires)}
        """) + textwrap.dedent(extra)


PROJECTS = {
    "edit/pyproject.toml": project("edit-pack", requires=["cloudpickle"]),
    "edit/src/editpack/__init__.py": """
        from .scaling import scale
        def predict(values):
            return [scale(value) + 1 for value in values]
        """,
    "edit/src/editpack/scaling.py": "def scale(value):\n    return value * 10",
    "dir/pyproject.toml": project(
        "dir-pack",
        extra="""
        [tool.setuptools.package-data]
        dirpack = ["*.txt"]
        """,
    ),
    "dir/dirpack/__init__.py": """
        from importlib.resources import files
        def offset():
            return float(files(__name__).joinpath("offset.txt").read_text())
        """,
    "dir/dirpack/offset.txt": "40.5",
    "plug/pyproject.toml": project(
        "plug-pack",
        extra="""
        [project.entry-points."model_envelope.test"]
        hundred = "plugpack:add"
        """,
    ),
    "plug/plugpack/__init__.py": "def add(value):\n    return value + 100",
    "wheel/pyproject.toml": project("wheel-pack"),
    "wheel/wheelpack/__init__.py": "def triple(value):\n    return value * 3",
    "vcs/pyproject.toml": project("vcs-pack"),
    "vcs/vcspack/__init__.py": "def halve(value):\n    return value / 2",
    "conflict/pyproject.toml": project("conflict-pack", requires=["cloudpickle<1"]),
    "conflict/conflictpack/__init__.py": "ONE = 1",
    "gone/pyproject.toml": project("gone-pack"),
    "gone/src/gonepack/__init__.py": "ONE = 1",
    "broken/pyproject.toml": project("broken-pack"),
    "broken/src/brokenpack/__init__.py": "ONE = 1",
}


@dataclass(frozen=True)
class Site:
    """A folder of installed packages, and their sources."""

    folder: Path
    sources: Path
    wheel: Path


def install(root):
    """Installs packages in all the ways there are, into `site-packages` below `root`."""
    folder, sources = root / "site-packages", root / "sources"
    for name, text in PROJECTS.items():
        (sources / name).parent.mkdir(parents=True, exist_ok=True)
        (sources / name).write_text(textwrap.dedent(text))
    wheel = build(sources / "wheel", root / "wheels")
    commit(sources / "vcs")
    given = ["-e", "edit", "-e", "gone", "-e", "broken", "./dir", "./plug", "./conflict", str(wheel)]
    uv(
        "pip",
        "install",
        "--no-deps",
        "--target",
        folder,
        *given,
        f"git+file://{sources / 'vcs'}",
        cwd=sources,
    )
    (sources / "broken" / "pyproject.toml").write_text(
        project("broken-pack", backend='"no-such-backend-of-us"')
    )
    return Site(folder, sources, wheel)


def program():
    return shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")


def uv(*arguments, cwd=None, python=sys.executable):
    command = [program(), *map(str, arguments), "--python", str(python), "--quiet"]
    subprocess.run(command, cwd=cwd, check=True)


def build(source, out):
    uv("build", "--wheel", "--out-dir", out, source)
    return next(out.glob("*.whl"))


def commit(folder):
    identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for step in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-q", "-m", "all"]):
        subprocess.run(["git", *step], cwd=folder, check=True)
