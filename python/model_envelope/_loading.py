"""An envelope's function in this process, where the environment is the same as where it was proved."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from . import _native
from ._capture import origins
from ._errors import EnvironmentMismatch
from ._lock import packages


def check_environment(name: str, python: dict[str, str], lock: str) -> None:
    """Raises `EnvironmentMismatch` unless this process has that interpreter and those packages."""
    # Code of one minor crashes another: refuse before a byte is unpickled.
    if python["cache_tag"] != sys.implementation.cache_tag:
        raise EnvironmentMismatch(
            f"`{name}` was saved with {python['cache_tag']}, this is {sys.implementation.cache_tag}",
            hint="use `.predict(...)`, which runs in the envelope's own interpreter",
        )
    different = list(_differences(lock))
    if different:
        shown = ", ".join(different[:5]) + (f" and {len(different) - 5} more" if len(different) > 5 else "")
        raise EnvironmentMismatch(
            f"`{name}` was proved with other packages than this process has: {shown}",
            hint="use `.predict(...)`, which has its own packages, or install these versions",
        )


def _differences(lock: str) -> Iterator[str]:
    from importlib import metadata  # slow to import

    for name, version in packages(lock):
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            yield f"{name} {version} is not installed"
            continue
        if here != version:
            yield f"{name} {version}, here {here}"


def add_modules(envelope: Path, members: list[str], root: Path) -> None:
    """Makes the custom modules of an envelope importable from `root`, below which they are written.

    Raises `EnvironmentMismatch` when this process would import, or has imported, another module of
    the same name.
    """
    carried = {member.removeprefix("modules/"): _native.read_member(envelope, member) for member in members}
    for name, content in carried.items():
        _write(root / name, content)
    if str(root) not in sys.path:
        sys.path.append(str(root))
    importlib.invalidate_caches()
    for top in sorted({name.partition("/")[0].removesuffix(".py") for name in carried}):
        _check_not_shadowed(top, carried)


def _write(target: Path, content: bytes) -> None:
    """Others may be writing the same: each renames a whole file into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.{os.getpid()}")
    temporary.write_bytes(content)
    temporary.replace(target)


def _check_not_shadowed(top: str, carried: dict[str, bytes]) -> None:
    folders = [origin.parent for origin in origins(top)]
    for name, content in carried.items():
        if name.partition("/")[0].removesuffix(".py") != top:
            continue
        if not any(_holds(folder / name, content) for folder in folders):
            here = f"in `{folders[0]}`" if folders else "imported here"
            raise EnvironmentMismatch(
                f"the envelope carries a module `{top}` that is not the one {here}",
                hint="use `.predict(...)`, which runs in a process of its own",
            )


def _holds(file: Path, content: bytes) -> bool:
    return file.is_file() and file.read_bytes() == content


def unpickle(envelope: Path, state: dict[str, Any], cache: Path) -> dict[str, Any]:
    """The functions by name. Runs the author's code here."""
    import pickle

    buffers = _mapped(envelope, _native.mapped_members(envelope, state["buffers"], cache))
    functions: dict[str, Any] = pickle.loads(_native.read_member(envelope, state["pickle"]), buffers=buffers)
    return functions


def _mapped(envelope: Path, ranges: list[tuple[int, int]]) -> list[memoryview]:
    """Parts of a file, copied when they are written to: some estimators write through their arrays."""
    import mmap

    def mapped(file: int, offset: int, length: int) -> memoryview:
        if not length:  # nothing cannot be mapped
            return memoryview(b"")
        protection = mmap.PROT_READ | mmap.PROT_WRITE
        return memoryview(mmap.mmap(file, length, flags=mmap.MAP_PRIVATE, prot=protection, offset=offset))

    with envelope.open("rb") as file:
        return [mapped(file.fileno(), offset, length) for offset, length in ranges]
