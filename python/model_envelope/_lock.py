"""The environment lock: what a function imports, pinned with hashes (PEP 751), by uv."""

from __future__ import annotations

import functools
import platform
import re
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlparse

from ._errors import EnvironmentMismatch, NotServable
from ._installed import Installed, without_credentials
from ._settings import Settings
from ._wheels import Wheel, built


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


@dataclass(frozen=True)
class Lock:
    """A lock, and the wheels that it names by path."""

    content: bytes
    wheels: dict[str, bytes] = field(default_factory=dict)
    """Content by file name; the lock says `wheels/NAME`."""


def lock(distributions: set[str], extra: Iterable[str], installed: Installed, settings: Settings) -> Lock:
    """Locks the distributions, as they are installed, with all that they need.

    `extra` are requirements as pip writes them. What no index has is carried as wheels.
    """
    if settings.uv is None:
        raise EnvironmentMismatch(
            "`uv`, which locks the environment, was not found",
            hint="install it with `pip install uv`, or set ENVELOPE_UV to the program",
        )
    needed = installed.with_dependencies(distributions)
    lines: list[str] = installed.pins(distributions & installed.versions.keys())
    wheels: dict[str, bytes] = {}
    given = [installed.direct(name) for name in sorted(needed - installed.versions.keys())]
    for requirement in (*given, *(_local(line, settings) for line in extra)):
        if isinstance(requirement, Wheel):
            wheels[requirement.filename] = requirement.content
            lines.append(f"./wheels/{requirement.filename}")
        else:
            lines.append(requirement)
    constraints = tuple(installed.pins(installed.versions))
    return _compiled(tuple(lines), constraints, tuple(wheels.items()), settings.uv, settings.offline)


def _local(line: str, settings: Settings) -> str | Wheel:
    """A requirement that is a path of this machine is carried; any other is kept as it is."""
    text = re.sub(r"^(-e|--editable)[ =]+", "", line).strip()
    path = Path(text.removeprefix("file://"))
    if not re.match(r"[./~]|file://", text) or not path.expanduser().exists():
        return line
    path = path.expanduser().resolve()
    return (
        Wheel(path.name, path.read_bytes())
        if path.suffix == ".whl"
        else built(path.name, path, None, settings)
    )


@functools.lru_cache(maxsize=16)
def _compiled(
    requirements: tuple[str, ...],
    constraints: tuple[str, ...],
    wheels: tuple[tuple[str, bytes], ...],
    uv: Path,
    offline: bool,
) -> Lock:
    """What uv makes of requirements; remembered, because a notebook saves the same model often."""
    with tempfile.TemporaryDirectory(prefix="model-envelope-") as folder:
        Path(folder, "requirements.in").write_text("\n".join([*requirements, ""]))
        Path(folder, "constraints.txt").write_text("\n".join([*constraints, ""]))
        Path(folder, "wheels").mkdir()
        for name, content in wheels:
            Path(folder, "wheels", name).write_bytes(content)
        command = [str(uv), "pip", "compile", "requirements.in", "--constraints", "constraints.txt"]
        command += ["--format", "pylock.toml", "-o", "pylock.toml", "--python", sys.executable]
        command += ["--no-header", "--no-annotate", "--quiet", *(["--offline"] if offline else [])]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode != 0:
            raise _not_lockable(done.stderr)
        return _portable(Path(folder, "pylock.toml").read_text(), dict(wheels), Path(folder))


def _not_lockable(stderr: str) -> NotServable:
    reason = "; ".join(line.strip() for line in stderr.splitlines() if line.strip())
    conflict = "No solution found" in reason or "unsatisfiable" in reason
    hint = (
        "the named packages exclude each other as they are installed here: `pip check` shows such "
        "packages; install versions that go together, then save again"
        if conflict
        else "each package that the function imports must be on the package index, as it is here"
    )
    return NotServable(f"the environment cannot be locked: {without_credentials(reason)[:1000]}", hint=hint)


# === nothing of this machine


def _portable(text: str, wheels: dict[str, bytes], folder: Path) -> Lock:
    """The lock with what it names by path carried beside it, and without credentials."""
    for match in _paths(text):
        path = Path(unquote(urlparse(match["at"]).path)) if match["kind"] == "url" else folder / match["at"]
        if not path.is_file() or path.suffix != ".whl":
            raise NotServable(
                f"the environment cannot be locked: it has `{path}`, which is on this machine only",
                hint="build a wheel of it with `uv build --wheel`, and install that",
            )
        wheels[path.name] = path.read_bytes()
        text = text.replace(match[0], f'path = "wheels/{path.name}"')
    return Lock(without_credentials(text).encode(), wheels)


def _paths(text: str) -> Iterator[re.Match[str]]:
    for match in re.finditer(r'\b(?P<kind>path|url) = "(?P<at>[^"]+)"', text):
        if match["kind"] == "path" or match["at"].startswith("file:"):
            yield match


def pins(lock: str) -> list[str]:
    """What a lock takes from an index, as requirements. (`tomllib` is not in Python 3.10.)"""
    sections = re.split(r"^\[\[packages\]\]$", lock, flags=re.MULTILINE)
    indexed = [part for part in sections if not re.search(r"^(archive|vcs|directory) = ", part, re.MULTILINE)]
    text = "[[packages]]".join(indexed)
    return [f"{name}=={version}" for name, version in packages(text)]


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
