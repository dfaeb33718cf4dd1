"""The environment lock: what a function imports, pinned with hashes (PEP 751), by uv."""

from __future__ import annotations

import platform
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from ._errors import EnvironmentMismatch, NotServable
from ._settings import Settings


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


def distributions(modules: Iterable[str]) -> set[str]:
    """The distributions that install the modules."""
    known = metadata.packages_distributions()
    return {distribution for module in modules for distribution in known.get(module, [])}


def lock(distributions: set[str], extra: Iterable[str], settings: Settings) -> bytes:
    """Locks the distributions, at the versions that are installed, with all that they need."""
    requirements = sorted(f"{name}=={metadata.version(name)}" for name in distributions)
    with tempfile.TemporaryDirectory(prefix="model-envelope-") as folder:
        source = Path(folder, "requirements.in")
        source.write_text("\n".join([*requirements, *extra, ""]))
        constraints = Path(folder, "constraints.txt")
        constraints.write_text("\n".join(_installed()))
        locked = Path(folder, "pylock.toml")
        _compile(source, constraints, locked, settings)
        return locked.read_bytes()


def _compile(source: Path, constraints: Path, locked: Path, settings: Settings) -> None:
    if settings.uv is None:
        raise EnvironmentMismatch(
            "`uv`, which locks the environment, was not found",
            hint="install it with `pip install uv`, or set ENVELOPE_UV to the program",
        )
    command = [settings.uv, "pip", "compile", source, "--constraints", constraints, "--format", "pylock.toml"]
    command += ["--python", sys.executable, "--no-header", "--no-annotate", "--quiet", "-o", locked]
    command += ["--offline"] if settings.offline else []
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=source.parent)
    if done.returncode != 0:
        reason = "; ".join(line.strip() for line in done.stderr.splitlines() if line.strip())
        raise NotServable(
            f"the environment cannot be locked: {reason[:1000]}",
            hint="every package that the function imports must be on the package index at the installed version",
        )


def _installed() -> list[str]:
    """Every installed distribution, pinned, except those that no index has."""
    pins = set()
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        if name and distribution.read_text("direct_url.json") is None:
            pins.add(f"{name}=={distribution.version}")
    return sorted(pins)
