"""Wheels of packages that no index has: packed again from what is installed, or built from its source.

The same content gives the same bytes, so that the same function is locked to the same wheels.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from ._errors import EnvironmentMismatch, NotServable
from ._settings import Settings

if TYPE_CHECKING:
    from importlib import metadata

NOT_PACKED = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json"}
"""Files of `.dist-info` that an installer writes."""

NOT_SOURCE = {"__pycache__", "node_modules", "venv", "env", "build", "dist"}
"""Folders of a project that no wheel is built from. Hidden ones are not either."""

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a wheel: the earliest that a zip archive knows."""


@dataclass(frozen=True)
class Wheel:
    """A wheel file."""

    filename: str
    content: bytes

    def modules(self) -> set[str]:
        """The top-level modules that it installs."""
        names = zipfile.ZipFile(io.BytesIO(self.content)).namelist()
        tops = {
            name.split("/")[0] for name in names if not name.split("/")[0].endswith((".dist-info", ".data"))
        }
        return {top.split(".")[0] for top in tops}


# === from what is installed


def packed(distribution: metadata.Distribution) -> Wheel:
    """The wheel that gives the files of an installed distribution again.

    Raises `NotServable` when they are not all known, or not all there.
    """
    name = distribution.metadata["Name"]
    files = dict(_installed_files(name, distribution))
    info = next((path.split("/")[0] for path in files if path.endswith(".dist-info/WHEEL")), None)
    if info is None:
        raise _not_packable(name, "it was not installed from a wheel")
    tag = _tag(files[f"{info}/WHEEL"].decode())
    return Wheel(f"{info.removesuffix('.dist-info')}-{tag}.whl", _zipped(_with_record(files, info)))


def _installed_files(name: str, distribution: metadata.Distribution) -> Iterator[tuple[str, bytes]]:
    """Path in the wheel, and content, of each file."""
    if distribution.files is None:
        raise _not_packable(name, "which files it has is not recorded")
    root = Path(str(distribution.locate_file("")))
    for file in distribution.files:
        path = Path(str(file.locate()))
        outside = ".." in file.parts or file.is_absolute()
        if file.name in NOT_PACKED or file.suffix == ".pyc" or (outside and path.parent.name == "bin"):
            continue  # programs are made anew from the entry points
        if not path.is_file():
            raise _not_packable(name, f"its file `{path}` is gone")
        if outside:
            inside = os.path.relpath(path.resolve(), Path(sys.prefix).resolve())
            yield f"{_info_stem(distribution, root)}.data/data/{inside}", path.read_bytes()
        else:
            yield file.as_posix(), path.read_bytes()


def _info_stem(distribution: metadata.Distribution, root: Path) -> str:
    path = Path(str(getattr(distribution, "_path", root)))
    return path.name.removesuffix(".dist-info")


def _not_packable(name: str, reason: str) -> NotServable:
    return NotServable(
        f"the package `{name}`, which no index has, cannot be put in the envelope: {reason}",
        hint=f"install `{name}` again, from a wheel or from its folder",
    )


def _tag(wheel: str) -> str:
    """The tag of the file's name, which has all tags of the wheel: `py2.py3-none-any`."""
    tags = [
        line.partition(":")[2].strip().split("-") for line in wheel.splitlines() if line.startswith("Tag:")
    ]
    return "-".join(".".join(dict.fromkeys(parts)) for parts in zip(*tags, strict=True)) or "py3-none-any"


def _with_record(files: dict[str, bytes], info: str) -> dict[str, bytes]:
    lines = [f"{_quoted(path)},{_hash(content)},{len(content)}" for path, content in sorted(files.items())]
    return files | {f"{info}/RECORD": "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()}


def _quoted(path: str) -> str:
    return f'"{path}"' if "," in path else path


def _hash(content: bytes) -> str:
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest())
    return f"sha256={digest.rstrip(b'=').decode()}"


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, content in sorted(files.items()):
            entry = zipfile.ZipInfo(path, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, content)
    return out.getvalue()


# === from source


def built(name: str, project: Path, version: str | None, settings: Settings) -> Wheel:
    """The wheel of a project folder or source archive, built by uv.

    Raises `NotServable` when it cannot be built.
    """
    if settings.uv is None:
        raise EnvironmentMismatch(
            f"`uv`, which builds `{project}`, was not found",
            hint="install it with `pip install uv`, or set ENVELOPE_UV to the program",
        )
    if not project.exists():
        raise NotServable(
            f"the package `{name}` was installed from `{project}`, which is gone",
            hint=f"install `{name}` again",
        )
    return _built(name, project, _state(project), version, settings.uv, settings.offline)


def _state(project: Path) -> tuple[int, int]:
    """Changes when a file of the project does."""
    times = [path.stat().st_mtime_ns for path in _sources(project)]
    return len(times), max(times, default=0)


def _sources(project: Path) -> Iterator[Path]:
    if project.is_file():
        yield project
        return
    for folder, folders, files in os.walk(project):
        folders[:] = [name for name in folders if not _is_no_source(name)]
        yield from (Path(folder, name) for name in files if Path(folder, name).exists())


def _is_no_source(name: str) -> bool:
    return name in NOT_SOURCE or name.startswith(".") or name.endswith(".egg-info")


@lru_cache(maxsize=16)
def _built(
    name: str, project: Path, state: tuple[int, int], version: str | None, uv: Path, offline: bool
) -> Wheel:
    """Remembered as long as the `state` of its source is the same."""
    with tempfile.TemporaryDirectory(prefix="model-envelope-") as folder:
        source, out = _copied(project, Path(folder, "source")), Path(folder, "out")
        command = [str(uv), "build", "--wheel", "--quiet", "--no-create-gitignore", "--out-dir", str(out)]
        command += ["--python", sys.executable, *(["--offline"] if offline else []), str(source)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_variables(version))
        wheels = list(out.glob("*.whl")) if done.returncode == 0 else []
        if not wheels:
            raise _not_buildable(name, project, done.stderr)
        archive = zipfile.ZipFile(wheels[0])
        files = {entry: archive.read(entry) for entry in archive.namelist() if not entry.endswith("/")}
        return Wheel(wheels[0].name, _zipped(files))


def _variables(version: str | None) -> dict[str, str]:
    """Build backends that ask git for the version are told the one that is installed."""
    told = {"SETUPTOOLS_SCM_PRETEND_VERSION": version, "PDM_BUILD_SCM_VERSION": version} if version else {}
    return {**os.environ, **told}


def _copied(project: Path, target: Path) -> Path:
    """A copy to build in: backends leave files behind, and put what they find of the last build in wheels."""
    if project.is_file():
        return project

    def ignore(folder: str, names: list[str]) -> set[str]:
        return {name for name in names if _is_no_source(name) and Path(folder, name).is_dir()}

    shutil.copytree(project, target, ignore=ignore, ignore_dangling_symlinks=True)
    return target


def _not_buildable(name: str, project: Path, stderr: str) -> NotServable:
    reason = "; ".join(line.strip() for line in stderr.splitlines() if line.strip())
    return NotServable(
        f"no wheel can be built of `{name}` in `{project}`: {reason[-1000:]}",
        hint=f"make `uv build --wheel {project}` work, or install what is there with `pip install {project}`",
        details=stderr,
    )
