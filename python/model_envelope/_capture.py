"""What functions need from this process: its pickle, its custom modules, its packages.

The module that defines the function is pickled by value, as `__main__` is: what the function
reaches in it is carried, its other code does not run again. Modules that the function *uses* are
carried as files when they are not installed, and named as packages when they are.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._errors import InvalidInput, NotServable
from ._lock import Installed

MAX_MODULE_BYTES = 64 * 2**20
"""More than this is data, which belongs in the function's state or in storage."""

SKIPPED = {"__pycache__", "node_modules"}
"""Folders that are never part of a package. Hidden files are not either: they hold settings and secrets."""


@dataclass
class Captured:
    """What functions need."""

    pickle: bytes
    buffers: list[memoryview]
    files: dict[str, bytes] = field(default_factory=dict)
    """Content of each file of the custom modules, by path below `modules/`."""
    installed: set[str] = field(default_factory=set)
    """Top-level names of installed modules that it imports."""


def capture(
    functions: Mapping[str, Callable[..., Any]],
    modules: Sequence[str | Path | types.ModuleType],
    installed: Installed,
) -> Captured:
    """What `functions` need, with `modules`, which cannot be seen from them.

    Raises `NotServable` with the reason when one cannot be pickled, `InvalidInput` for a module that
    is not there.
    """
    from ._pickling import pickled

    with _by_value(functions.values()) as names:
        found = pickled(functions, names)
    captured = Captured(found.pickle, found.buffers)
    pending = _top_levels(found.modules)
    for module in modules:
        pending |= _carry_given(module, captured, installed)
    seen: set[str] = set()
    while pending - seen:
        name = min(pending - seen)
        seen.add(name)
        pending |= _take(name, captured, installed)
    return captured


@contextmanager
def _by_value(functions: Iterable[Callable[..., Any]]) -> Iterator[set[str]]:
    """Makes cloudpickle carry the modules that define the functions by value; gives their names."""
    import cloudpickle

    names = {name for function in functions for name in _definers(function) if _is_custom(name)}
    already = set(cloudpickle.list_registry_pickle_by_value())
    registered = [sys.modules[name] for name in sorted(names - already)]
    for module in registered:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield names | already
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def _definers(function: Any) -> Iterator[str]:
    """Names of the modules that define a function: its own, its class's, those of what it wraps."""
    inner = (
        function.func if isinstance(function, functools.partial) else getattr(function, "__wrapped__", None)
    )
    if inner is not None and inner is not function:
        yield from _definers(inner)
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        yield (owner if isinstance(owner, type) else type(owner)).__module__
    named = function if isinstance(function, types.FunctionType | type) else type(function)
    yield named.__module__ or ""


def _is_custom(name: str) -> bool:
    file = getattr(sys.modules.get(name), "__file__", None)
    return name != "__main__" and file is not None and not is_installed(Path(file))


# === modules


def _top_levels(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names if name}


def _take(name: str, captured: Captured, installed: Installed) -> set[str]:
    """Carries a module, or names its package; gives the modules that it imports in turn."""
    if name in sys.stdlib_module_names or name in {"__main__", "__mp_main__"} or name.startswith("_envelope"):
        return set()
    if name == "model_envelope":
        raise NotServable(
            "the function uses `model_envelope` itself, which is not there where it is served",
            hint="call `.load()` outside of the function, and use what it gives inside",
        )
    imported: set[str] = set()
    for origin in origins(name):
        if not is_installed(origin):
            imported |= _carry(origin, captured)
        elif installed.distributions([name]):
            captured.installed.add(name)
        elif _is_third_party(origin):
            imported |= _carry(origin, captured)  # no index has it
    return imported


def origins(name: str) -> list[Path]:
    """File of a module, or folder of a package; several for a package in parts (PEP 420)."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            spec = None
    if spec is None:
        file = getattr(module, "__file__", None)
        return [Path(file)] if file else []
    if spec.submodule_search_locations:
        return [folder for folder in map(Path, spec.submodule_search_locations) if folder.is_dir()]
    return [Path(spec.origin)] if spec.origin and spec.has_location else []


def _is_third_party(origin: Path) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(origin.resolve().parts)


def is_installed(origin: Path) -> bool:
    """Whether an installer put it there, as opposed to its author."""
    resolved = origin.resolve()
    return _is_third_party(resolved) or any(resolved.is_relative_to(root) for root in _installed_roots())


@functools.cache
def _installed_roots() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    roots = [paths["purelib"], paths["platlib"], paths["stdlib"], paths["platstdlib"]]
    roots += [*site.getsitepackages(), site.getusersitepackages()]
    return tuple({Path(root).resolve() for root in roots})


def _carry_given(module: str | Path | types.ModuleType, captured: Captured, installed: Installed) -> set[str]:
    """Carries what the caller passed as `modules=`."""
    if isinstance(module, types.ModuleType):
        module = module.__name__
    if isinstance(module, str) and all(part.isidentifier() for part in module.split(".")):
        name = module.partition(".")[0]
        if not origins(name):
            raise InvalidInput(f"there is no module `{module}`", hint="pass the path of its file or folder")
        return _take(name, captured, installed)
    if not isinstance(module, str | Path):
        raise InvalidInput(f"{module!r} is not a module", hint="`modules=` takes modules, names and paths")
    path = Path(module)
    if not path.exists():
        raise InvalidInput(
            f"there is no module at `{path}`", hint="`modules=` takes modules, names and paths"
        )
    return _carry(path.resolve(), captured)


def _carry(origin: Path, captured: Captured) -> set[str]:
    """Carries a file or a package folder; gives the modules that it imports."""
    imported: set[str] = set()
    for file in [origin] if origin.is_file() else _files_below(origin):
        if file.stat().st_size + sum(map(len, captured.files.values())) > MAX_MODULE_BYTES:
            raise NotServable(
                f"the custom modules have more than 64 MiB with `{file}`",
                hint="move data out of the package, or make the package smaller",
            )
        content = file.read_bytes()
        captured.files[file.relative_to(origin.parent).as_posix()] = content
        if file.suffix == ".py":
            imported |= _imports_of_source(content)
    return imported


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED or path.name.startswith(".") or path.suffix == ".pyc":
            continue
        if path.is_dir() and not folder.resolve().is_relative_to(path.resolve()):
            yield from _files_below(path)
        elif path.is_file():
            yield path


def _imports_of_source(content: bytes) -> set[str]:
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return set()
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
    return _top_levels(names)
