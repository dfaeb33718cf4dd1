"""The environment lock: what a function imports, pinned with hashes (PEP 751), by uv."""

from __future__ import annotations

import functools
import inspect
import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import EnvironmentMismatch, NotServable
from ._settings import Settings

if TYPE_CHECKING:
    from importlib import metadata


def interpreter() -> dict[str, str]:
    """This interpreter, as a manifest describes it."""
    return {
        "implementation": sys.implementation.name,
        "version": platform.python_version(),
        "cache_tag": sys.implementation.cache_tag or "",
    }


def platform_tag() -> str:
    """Operating system and processor, as in wheel tags."""
    return sysconfig.get_platform().replace("-", "_").replace(".", "_")


def libc() -> str:
    """Name and version of the C library."""
    return " ".join(platform.libc_ver()) or "unknown"


class Installed:
    """The distributions that are installed here and that a package index has."""

    def __init__(self) -> None:
        from importlib import metadata  # slow to import

        self.versions: dict[str, str] = {}
        self._by_module: dict[str, set[str]] = defaultdict(set)
        seen = set()
        for distribution in metadata.distributions():
            name = distribution.metadata["Name"]
            if not name or name in seen:
                continue  # one that is further down the path is not the one that is imported
            seen.add(name)
            # Installed from a folder, a file or a repository: the index may have something else.
            if distribution.read_text("direct_url.json") is not None:
                continue
            self.versions[name] = distribution.version
            for module in _top_levels(distribution):
                self._by_module[module].add(name)

    def distributions(self, modules: Iterable[str]) -> set[str]:
        """Names of the distributions that have any of these top-level modules."""
        return set().union(*(self._by_module.get(module, ()) for module in modules))

    def pins(self, names: Iterable[str]) -> list[str]:
        """Requirements of exactly the installed versions."""
        return sorted(f"{name}=={self.versions[name]}" for name in names)


def _top_levels(distribution: metadata.Distribution) -> Iterator[str]:
    """The modules that a distribution installs beside those of others."""
    record = distribution.read_text("RECORD")
    if record is None:
        yield from (distribution.read_text("top_level.txt") or "").split()
        return
    paths = {line.rpartition(",")[0].rpartition(",")[0].strip('"') for line in record.splitlines()}
    tops = {path.partition("/")[0] if "/" in path else inspect.getmodulename(path) for path in paths}
    yield from (top for top in tops if top and top.isidentifier() and top != "__pycache__")


def lock(distributions: set[str], extra: Iterable[str], installed: Installed, settings: Settings) -> bytes:
    """Locks the distributions, at the versions that are installed, with all that they need.

    `extra` are requirements as pip writes them.
    """
    if settings.uv is None:
        raise EnvironmentMismatch(
            "`uv`, which locks the environment, was not found",
            hint="install it with `pip install uv`, or set ENVELOPE_UV to the program",
        )
    requirements = (*installed.pins(distributions), *extra)
    return _compiled(requirements, tuple(installed.pins(installed.versions)), settings.uv, settings.offline)


@functools.lru_cache(maxsize=16)
def _compiled(requirements: tuple[str, ...], constraints: tuple[str, ...], uv: Path, offline: bool) -> bytes:
    """What uv makes of requirements; remembered, because a notebook saves the same model often."""
    with tempfile.TemporaryDirectory(prefix="model-envelope-") as folder:
        Path(folder, "requirements.in").write_text("\n".join([*requirements, ""]))
        Path(folder, "constraints.txt").write_text("\n".join([*constraints, ""]))
        command = [str(uv), "pip", "compile", "requirements.in", "--constraints", "constraints.txt"]
        command += ["--format", "pylock.toml", "-o", "pylock.toml", "--python", sys.executable]
        command += ["--no-header", "--no-annotate", "--quiet", *(["--offline"] if offline else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode != 0:
            reason = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
            raise NotServable(
                f"the environment cannot be locked: {reason[:1000]}",
                hint="each package that the function imports must be on the package index, as it is here",
            )
        return Path(folder, "pylock.toml").read_bytes()


def pins(lock: str) -> list[str]:
    """What a lock pins, as requirements. (`tomllib` is not in Python 3.10.)"""
    return [f"{name}=={version}" for name, version in packages(lock)]


def packages(lock: str) -> Iterator[tuple[str, str]]:
    """Names and versions of the packages of a lock."""
    name = ""
    for line in lock.splitlines():
        key, _, value = line.partition(" = ")
        if line.startswith("[[packages]]"):
            name = ""
        elif key == "name":
            name = value.strip('"')
        elif key == "version" and name:
            yield name, value.strip('"')
