"""What a function needs from this process: its pickle, its custom modules, its packages.

The module that defines the function is pickled by value, as `__main__` is: what the function
reaches in it is carried, its other code does not run again. Modules that the function *uses* are
carried as files when they are not installed, and named as packages when they are.
"""

from __future__ import annotations

import ast
import dis
import importlib.util
import io
import pickle
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._errors import InvalidInput, NotServable

MAX_MODULE_BYTES = 64 * 2**20
"""More than this is data, which belongs in the function's state or in storage."""

MIN_BUFFER_BYTES = 64 * 2**10
"""Smaller arrays stay in the pickle: a page of its own would not pay."""

SKIPPED = {"__pycache__", ".git", ".venv", "node_modules", ".ipynb_checkpoints", ".mypy_cache", ".ruff_cache"}


@dataclass
class Captured:
    """What a function needs."""

    pickle: bytes
    buffers: list[bytes]
    files: dict[str, bytes] = field(default_factory=dict)
    """Content of each file of the custom modules, by path below `modules/`."""
    installed: set[str] = field(default_factory=set)
    """Top-level names of installed modules that it imports."""


def capture(function: Callable[..., Any], modules: Sequence[str | Path | types.ModuleType]) -> Captured:
    """Raises `NotServable` with the reason when the function cannot be pickled."""
    pickled, buffers, names = _pickle(function)
    captured = Captured(pickled, buffers)
    pending = _top_levels(names)
    for module in modules:
        pending |= _carry_given(module, captured)
    seen: set[str] = set()
    while pending - seen:
        name = min(pending - seen)
        seen.add(name)
        pending |= _take(name, captured)
    return captured


def _take(name: str, captured: Captured) -> set[str]:
    """Carries a module, or names its package; gives the modules that it imports in turn."""
    if name in sys.stdlib_module_names or name in {"__main__", "__mp_main__"} or name.startswith("_envelope"):
        return set()
    origin = _origin(name)
    if origin is None:
        return set()
    if _is_installed(origin):
        captured.installed.add(name)
        return set()
    return _carry(origin, captured)


def _pickle(function: Callable[..., Any]) -> tuple[bytes, list[bytes], set[str]]:
    import cloudpickle

    names: set[str] = set()

    class Recorder(cloudpickle.Pickler):  # type: ignore[misc]
        """Notes the modules of everything that is pickled."""

        def reducer_override(self, value: Any) -> Any:
            names.update(_modules_of(value))
            return super().reducer_override(value)

    buffers: list[bytes] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < MIN_BUFFER_BYTES:
            return True
        buffers.append(bytes(raw))
        return False

    out = io.BytesIO()
    with _by_value(function):
        try:
            Recorder(out, protocol=5, buffer_callback=keep_in_band).dump(function)
        except Exception as error:
            raise _not_picklable(function, error) from error
    return out.getvalue(), buffers, names


def _modules_of(value: Any) -> Iterator[str]:
    if isinstance(value, types.ModuleType):
        yield value.__name__
    elif isinstance(value, types.FunctionType):
        yield value.__module__ or ""
        yield from _imports_of_code(value.__code__)
    elif isinstance(value, type | types.BuiltinFunctionType):
        yield getattr(value, "__module__", None) or ""
    else:
        yield type(value).__module__


def _imports_of_code(code: types.CodeType) -> Iterator[str]:
    """Modules that a function's body imports when it runs."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield str(instruction.argval)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _imports_of_code(constant)


@contextmanager
def _by_value(function: Callable[..., Any]) -> Iterator[None]:
    """Pickles the modules that define the function by value."""
    import cloudpickle

    registered = []
    for name in sorted(set(_definers(function))):
        module = sys.modules.get(name)
        origin = getattr(module, "__file__", None)
        if module is None or name == "__main__" or origin is None or _is_installed(Path(origin)):
            continue
        if name not in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.register_pickle_by_value(module)
            registered.append(module)
    try:
        yield
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


def _definers(function: Any) -> Iterator[str]:
    inner = getattr(function, "func", None) or getattr(function, "__wrapped__", None)
    if inner is not None and inner is not function:
        yield from _definers(inner)
    owner = getattr(function, "__self__", None)
    if owner is not None and not isinstance(owner, types.ModuleType):
        yield (owner if isinstance(owner, type) else type(owner)).__module__
    if isinstance(function, types.FunctionType | type):
        yield function.__module__ or ""
    else:
        yield type(function).__module__


def _not_picklable(function: Callable[..., Any], error: Exception) -> NotServable:
    name = getattr(function, "__name__", type(function).__name__)
    culprit = _culprit(function)
    where = f": it uses `{culprit[0]}`, a {culprit[1]}" if culprit else ""
    return NotServable(
        f"`{name}` cannot be carried to another process{where} ({type(error).__name__}: {error})",
        hint=f"create {f'`{culprit[0]}`' if culprit else 'it'} inside the function, so that each worker has its own",
    )


def _culprit(function: Any) -> tuple[str, str] | None:
    """The captured variable that cannot be pickled."""
    import inspect

    import cloudpickle

    if not isinstance(function, types.FunctionType):
        return None
    captured = inspect.getclosurevars(function)
    for name, value in {**captured.nonlocals, **captured.globals}.items():
        try:
            cloudpickle.dumps(value)
        except Exception:
            return name, f"{type(value).__module__}.{type(value).__qualname__}"
    return None


# === modules


def _top_levels(names: Iterable[str]) -> set[str]:
    return {name.partition(".")[0] for name in names if name}


def _origin(name: str) -> Path | None:
    """File of a module, or folder of a package."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    if spec is None:
        try:
            spec = importlib.util.find_spec(name)
        except (ImportError, ValueError, AttributeError):
            spec = None
    if spec is None:
        file = getattr(module, "__file__", None)
        return Path(file) if file else None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin) if spec.origin and spec.has_location else None


def _is_installed(origin: Path) -> bool:
    origin = origin.resolve()
    return any(origin.is_relative_to(root) for root in _installed_roots())


def _installed_roots() -> Iterator[Path]:
    paths = sysconfig.get_paths()
    roots = [paths["purelib"], paths["platlib"], paths["stdlib"], paths["platstdlib"]]
    roots += [*site.getsitepackages(), site.getusersitepackages()]
    roots += [str(Path(sys.base_prefix, "lib", "python3", "dist-packages"))]
    for root in roots:
        yield Path(root).resolve()


def _carry_given(module: str | Path | types.ModuleType, captured: Captured) -> set[str]:
    """Carries what the caller passed as `modules=`."""
    if isinstance(module, types.ModuleType):
        module = module.__name__.partition(".")[0]
    if isinstance(module, str) and module.isidentifier():
        origin = _origin(module)
        if origin is None:
            raise InvalidInput(f"there is no module `{module}`", hint="pass the path of its file or folder")
        if _is_installed(origin):
            captured.installed.add(module)
            return set()
        return _carry(origin, captured)
    path = Path(module)
    if not path.exists():
        raise InvalidInput(f"there is no module at `{path}`", hint="`modules=` takes modules, names and paths")
    return _carry(path.resolve(), captured)


def _carry(origin: Path, captured: Captured) -> set[str]:
    """Carries a file or a package folder; gives the modules that it imports."""
    files = [origin] if origin.is_file() else list(_files_below(origin))
    imported: set[str] = set()
    for file in files:
        name = file.relative_to(origin.parent).as_posix()
        content = file.read_bytes()
        captured.files[name] = content
        if file.suffix == ".py":
            imported |= _imports_of_source(content)
    size = sum(map(len, captured.files.values()))
    if size > MAX_MODULE_BYTES:
        raise NotServable(
            f"the custom modules have {size / 2**20:.0f} MiB with `{origin}`, the most is 64",
            hint="move data out of the package, or make the package smaller",
        )
    return imported


def _files_below(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name in SKIPPED or path.suffix == ".pyc":
            continue
        if path.is_dir():
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
