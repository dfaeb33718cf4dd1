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
from ._installed import Installed

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
    by_value: set[str] = field(default_factory=set)
    """Names of modules that are in the pickle."""


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

    with _by_value(functions.values(), installed) as names:
        found = pickled(functions, names)
    captured = Captured(found.pickle, found.buffers, by_value=names)
    if "model_envelope" in _top_levels(found.modules):
        raise uses_ourselves()
    pending = set(found.modules)
    for module in modules:
        pending |= _carry_given(module, captured, installed)
    _take_all(pending, captured, installed)
    return captured


def capture_more(modules: Iterable[str], captured: Captured, installed: Installed) -> bool:
    """Adds modules that only a run has shown; gives whether there is something new."""
    files, known = len(captured.files), set(captured.installed)
    ours = {"model_envelope", "envelope_worker"}
    hooks = {type(finder).__module__ for finder in sys.meta_path}
    hidden = ours | _top_levels(hooks)
    names = {name for name in set(modules) - captured.by_value if _top_level(name) not in hidden}
    _take_all(names, captured, installed)
    needed = installed.with_dependencies(installed.distributions(known))
    return len(captured.files) > files or not installed.distributions(captured.installed) <= needed


def _take_all(pending: set[str], captured: Captured, installed: Installed) -> None:
    seen: set[str] = set()
    while pending - seen:
        name = min(pending - seen)
        seen.add(name)
        pending = pending | _take(name, captured, installed)


@contextmanager
def _by_value(functions: Iterable[Callable[..., Any]], installed: Installed) -> Iterator[set[str]]:
    """Makes cloudpickle carry the modules that define the functions by value; gives their names."""
    import cloudpickle

    definers = {name for function in functions for name in _definers(function)}
    names = {name for name in definers if _is_custom(name, installed)}
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


def _is_custom(name: str, installed: Installed) -> bool:
    """Whether no package installs that module."""
    file = getattr(sys.modules.get(name), "__file__", None)
    if name == "__main__" or file is None or is_installed(Path(file)):
        return False
    return not installed.editable(name.partition(".")[0], Path(file))


# === modules


def _top_level(name: str) -> str:
    return name.partition(".")[0]


def _top_levels(names: Iterable[str]) -> set[str]:
    return {_top_level(name) for name in names if name}


def uses_ourselves() -> NotServable:
    """The refusal of a function that calls this package."""
    return NotServable(
        "the function uses `model_envelope` itself, which is not there where it is served",
        hint="call `.load()` outside of the function, and use what it gives inside",
    )


def _take(name: str, captured: Captured, installed: Installed) -> set[str]:
    """Carries a module, or names its package; gives the modules that it imports in turn."""
    top = _top_level(name)
    if top in {"", "__main__", "__mp_main__", "model_envelope"} or top.startswith("_envelope"):
        return set()  # what imports this package is the program that saves
    if top in sys.stdlib_module_names:
        _check_not_hiding(top)
        return set()
    imported: set[str] = set()
    for origin in origins(top):
        if not is_installed(origin) and not installed.editable(top, origin):
            _carry(origin, captured)
            imported |= _imports_of_module(name, origin)
        elif installed.distributions([top]):
            captured.installed.add(top)
        elif _is_third_party(origin):
            _carry(origin, captured)  # no index has it
            imported |= _imports_of_module(name, origin)
    return imported


def _check_not_hiding(name: str) -> None:
    """Other code of a clean process needs the standard library's module of that name."""
    for origin in origins(name):
        if not is_installed(origin):
            raise NotServable(
                f"the function uses `{origin}`, which hides the standard library's module `{name}`",
                hint=f"give it another name than `{name}`, and import it by that",
            )


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
        if not origins(_top_level(module)):
            raise InvalidInput(f"there is no module `{module}`", hint="pass the path of its file or folder")
        return _take(module, captured, installed)
    if not isinstance(module, str | Path):
        raise InvalidInput(f"{module!r} is not a module", hint="`modules=` takes modules, names and paths")
    path = Path(module)
    if not path.exists():
        raise InvalidInput(
            f"there is no module at `{path}`", hint="`modules=` takes modules, names and paths"
        )
    origin = path.resolve()
    _carry(origin, captured)
    files = [origin] if origin.is_file() else [file for file in _files_below(origin) if file.suffix == ".py"]
    relative = [(file, ".".join(file.parent.relative_to(origin.parent).parts)) for file in files]
    return {
        name for file, package in relative for name in _imports_of_source(file.read_bytes(), package or None)
    }


def _carry(origin: Path, captured: Captured) -> None:
    """Carries a file, or all files of a package's folder."""
    if not origin.exists():
        if not any(folder.is_file() for folder in origin.parents):
            raise NotServable(
                f"the module `{origin}` was imported, but its file is gone",
                hint="put the file back, and save again",
            )
        raise NotServable(
            f"the module `{origin}` is in an archive, and only files are carried",
            hint=f"unpack the archive into a folder, and import `{origin.stem}` from there",
        )
    for file in [origin] if origin.is_file() else _files_below(origin):
        name = file.relative_to(origin.parent).as_posix()
        if name in captured.files:
            continue
        if file.stat().st_size + sum(map(len, captured.files.values())) > MAX_MODULE_BYTES:
            raise NotServable(
                f"the custom modules have more than 64 MiB with `{file}`",
                hint="move data out of the package, or make the package smaller",
            )
        captured.files[name] = file.read_bytes()


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED or path.name.startswith(".") or path.suffix == ".pyc":
            continue
        if path.is_dir() and not folder.resolve().is_relative_to(path.resolve()):
            yield from _files_below(path)
        elif path.is_file():
            yield path


def _imports_of_module(name: str, origin: Path) -> set[str]:
    """What a module and the packages that it is in import, of which `origin` is the outermost.

    What else is in the package is not looked at: a program that trains is not part of what it saves.
    """
    if origin.is_file():
        return set(_imports_of_source(origin.read_bytes(), None))
    found: set[str] = set()
    folder, package = origin, _top_level(name)
    found.update(_imports_of_file(folder / "__init__.py", package))
    for part in name.split(".")[1:]:
        found.update(_imports_of_file(folder / f"{part}.py", package))
        folder, package = folder / part, f"{package}.{part}"
        found.update(_imports_of_file(folder / "__init__.py", package))
    return found


def _imports_of_file(file: Path, package: str) -> Iterator[str]:
    if file.is_file():
        yield from _imports_of_source(file.read_bytes(), package)


def _imports_of_source(content: bytes, package: str | None) -> Iterator[str]:
    """Full names of the modules that a source file of `package` may import."""
    from ._pickling import imported_names

    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = [alias.name for alias in node.names]
            yield from imported_names(node.module or "", names, node.level, package)
