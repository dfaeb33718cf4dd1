"""A function as bytes: by value, and the same bytes from every process that saves the same function.

cloudpickle does the work. What it takes from this process besides the function is left out here:
the paths of source files, random identities of classes, the order of sets.
"""

from __future__ import annotations

import dis
import functools
import inspect
import io
import os
import pickle
import types
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as internals

from ._errors import NotServable

MIN_BUFFER_BYTES = 64 * 2**10
"""Smaller arrays stay in the pickle: a page of its own would not pay."""

FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)


_NO_FILE = "<dynamic-code>"
"""What cloudpickle writes in place of a file."""


@dataclass
class Pickled:
    """A function as bytes."""

    pickle: bytes
    buffers: list[memoryview]
    """Large arrays, not copied, in the order in which `pickle.loads` wants them."""
    modules: set[str]
    """Names of the modules that it needs, as far as can be seen from it."""


def pickled(functions: Mapping[str, Callable[..., Any]], by_value: set[str]) -> Pickled:
    """Pickles functions as a `dict`, which keeps what they share shared; what the modules named in
    `by_value` define is pickled by value.

    Raises `NotServable`, naming the variable that cannot be carried.
    """
    buffers: list[memoryview] = []

    def keep_in_band(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < MIN_BUFFER_BYTES:
            return True
        buffers.append(raw)
        return False

    out = io.BytesIO()
    pickler = Pickler(out, by_value, keep_in_band)
    try:
        pickler.dump(dict(functions))
    except Exception as error:
        raise _not_picklable(functions, by_value, error) from error
    return Pickled(out.getvalue(), buffers, pickler.modules)


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles by value what the modules in `by_value` and `__main__` define; notes the other modules."""

    def __init__(
        self, out: io.BytesIO, by_value: set[str], keep_in_band: Callable[..., bool] | None = None
    ) -> None:
        super().__init__(out, protocol=5, buffer_callback=keep_in_band)
        self.by_value = by_value | {"__main__", "__mp_main__"}
        self.modules: set[str] = set()
        self._sets: dict[int, _Ordered] = {}

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, _Ordered):
            return type(value.items), (sorted(value.items, key=_order),)
        if isinstance(value, types.CodeType):
            return self._reduce_code(value)
        if isinstance(value, types.CellType):
            return self._reduce_cell(value)
        if isinstance(value, functools._lru_cache_wrapper) and value.__module__ in self.by_value:
            return _reduce_cache(value)
        if isinstance(value, FILES) and not _is_standard_stream(value):
            raise pickle.PicklingError(
                f"an open file (`{getattr(value, 'name', '?')}`) belongs to this process"
            )
        reduced = _reduce_standard(value)
        if reduced is not NotImplemented:
            return reduced
        reduced = super().reducer_override(value)
        self._note(value)
        if isinstance(value, types.FunctionType) and reduced is not NotImplemented:
            return self._reduce_function(value, reduced)
        if isinstance(value, type) and reduced is not NotImplemented:
            return self._reduce_class(value, reduced)
        if reduced is NotImplemented and type(value) not in self.dispatch_table and _keeps_sets(value):
            make, arguments, state, *rest = value.__reduce_ex__(5)
            return make, arguments, self._ordered_values(state), *rest
        return reduced

    def _note(self, value: Any) -> None:
        """Notes the module that a value, or its type, is imported from."""
        if isinstance(value, types.ModuleType):
            self.modules.add(value.__name__)
            return
        for owner in (value, type(value)) if callable(value) else (type(value),):
            module = getattr(owner, "__module__", None)
            if isinstance(module, str) and module not in self.by_value:
                self.modules.add(module)

    def _reduce_function(self, function: types.FunctionType, reduced: Any) -> Any:
        make, arguments, (attributes, slots), *rest = reduced
        # What a module knows about its file. A function of a package finds its relatives by the rest.
        known = arguments[1]
        known.pop("__path__", None)
        if "__file__" in known:
            known["__file__"] = os.path.basename(known["__file__"] or "")
        self.modules.update(_imports_of_code(function.__code__, function.__globals__.get("__package__")))
        used = slots["__globals__"]
        if isinstance(used.get("__file__"), str):
            used["__file__"] = os.path.basename(used["__file__"])
        slots["__globals__"] = self._ordered_values(used)
        slots["_cloudpickle_submodules"] = _submodules(function)
        return make, arguments, (attributes, slots), *rest

    def _reduce_code(self, code: types.CodeType) -> Any:
        """Tracebacks say `model.py:7` wherever that file was."""
        constants = tuple(self._ordered(constant) for constant in code.co_consts)
        file = "".join(os.path.basename(code.co_filename))  # a text that nothing else refers to
        make, arguments = self.dispatch_table[types.CodeType](
            code.replace(co_filename=file, co_consts=constants)
        )
        # From version 3.1.3 on, cloudpickle leaves the file out.
        is_file = [type(argument) is str and argument == _NO_FILE for argument in arguments]
        named = (file if is_it else argument for is_it, argument in zip(is_file, arguments, strict=True))
        return make, tuple(named)

    def _reduce_cell(self, cell: types.CellType) -> Any:
        make, arguments = self.dispatch_table[types.CellType](cell)
        return make, tuple(map(self._ordered, arguments))

    def _reduce_class(self, kind: type, reduced: Any) -> Any:
        """Without the random number by which cloudpickle knows a class again in the same process."""
        identity = internals._DYNAMIC_CLASS_TRACKER_BY_CLASS.get(kind)
        if identity is None:
            return reduced
        make, arguments, (attributes, slots), *rest = reduced
        arguments = tuple(None if argument == identity else argument for argument in arguments)
        return make, arguments, (self._ordered_values(attributes), slots), *rest

    def _ordered_values(self, state: Any) -> Any:
        """A dict of variables or attributes, with its sets in order."""
        if not isinstance(state, dict):
            return state
        return {name: self._ordered(value) for name, value in state.items()}

    def _ordered(self, value: Any) -> Any:
        """Sets go in an order of their own, which a process's hash seed does not change."""
        if type(value) not in (set, frozenset):
            return value
        return self._sets.setdefault(id(value), _Ordered(value))


class _Ordered:
    """A set that is to be pickled in order."""

    def __init__(self, items: set[Any] | frozenset[Any]) -> None:
        self.items = items


def _order(item: Any) -> tuple[str, str]:
    return type(item).__name__, repr(item)


def _reduce_cache(cached: Any) -> Any:
    """A function under `functools.cache`: it begins with nothing cached."""
    parameters = cached.cache_parameters()
    arguments = (cached.__wrapped__, parameters["maxsize"], parameters["typed"], functools._CacheInfo)
    return functools._lru_cache_wrapper, arguments, dict(vars(cached))


def _submodules(function: types.FunctionType) -> list[types.ModuleType]:
    """The modules that it reaches as attributes of their packages, which must be imported too."""
    values = [*_globals_used(function).values(), *_cells(function).values()]
    packages = [value for value in values if isinstance(value, types.ModuleType)]
    codes = _codes(function.__code__)
    found = [module for code in codes for module in internals._find_imported_submodules(code, packages)]
    return list({module.__name__: module for module in found}.values())


def _reduce_standard(value: Any) -> Any:
    """Objects of the standard library that are made of what can be pickled, and a lock or a view."""
    if type(value) is functools.cached_property:
        return functools.cached_property, (value.func,), {"attrname": value.attrname}
    if type(value) is weakref.WeakKeyDictionary:
        return weakref.WeakKeyDictionary, (dict(value),)
    if type(value) is types.MappingProxyType:
        return types.MappingProxyType, (dict(value),)
    return NotImplemented


def _keeps_sets(value: Any) -> bool:
    """Whether it is a plain object with a set among its attributes."""
    kind: Any = type(value)
    if isinstance(value, type):
        return False
    plain = all(getattr(kind, name) is getattr(object, name) for name in ("__reduce__", "__reduce_ex__"))
    return plain and any(type(item) in (set, frozenset) for item in getattr(value, "__dict__", {}).values())


def _is_standard_stream(value: Any) -> bool:
    import sys

    return value in (sys.stdin, sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__)


def _imports_of_code(code: types.CodeType, package: str | None) -> Iterator[str]:
    """Modules that a function of `package` imports when it runs."""
    for inner in _codes(code):
        recent: list[Any] = [0, None]
        for instruction in dis.get_instructions(inner):
            if instruction.opname == "IMPORT_NAME":
                # Before it, the level of a relative import and the imported names were put on the stack.
                yield from imported_names(str(instruction.argval), recent[1] or (), recent[0] or 0, package)
            recent = [recent[1], instruction.argval]


def imported_names(module: str, names: Iterable[str], level: int, package: str | None) -> Iterator[str]:
    """Full names of the modules that an import statement may mean."""
    base = module
    if level:
        parents = (package or "").split(".")
        base = ".".join([*parents[: len(parents) - level + 1], *filter(None, [module])])
    yield base
    yield from (f"{base}.{name}" for name in names if name != "*")


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    """A function's code, and that of the functions and comprehensions in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _globals_used(function: types.FunctionType) -> dict[str, Any]:
    """The variables of its module that a function uses, at any depth."""
    names = sorted({name for code in _codes(function.__code__) for name in code.co_names})
    return {name: function.__globals__[name] for name in names if name in function.__globals__}


def _cells(function: types.FunctionType) -> dict[str, Any]:
    """The variables of the functions around it that a function uses."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}


def _is_filled(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (it raises while the variable has no value)
    except ValueError:
        return False
    return True


# === what to say when it does not work


def _not_picklable(
    functions: Mapping[str, Callable[..., Any]], by_value: set[str], error: Exception
) -> NotServable:
    found = ((name, _culprit(function, by_value, set())) for name, function in functions.items())
    name, culprit = next((pair for pair in found if pair[1]), (next(iter(functions)), None))
    subject = f"`{culprit[0]}`" if culprit else "it"
    where = f": it uses `{culprit[0]}`, a {culprit[1]}" if culprit else ""
    reason = " ".join(str(error).split())
    return NotServable(
        f"`{name}` cannot be carried to another process{where} ({type(error).__name__}: {reason})",
        hint=f"create {subject} inside the function, so that each worker has its own",
    )


def _culprit(value: Any, by_value: set[str], seen: set[int]) -> tuple[str, str] | None:
    """Path and type of the innermost variable that cannot be pickled."""
    seen.add(id(value))
    for name, part in _parts(value):
        if id(part) in seen:
            continue
        try:
            Pickler(io.BytesIO(), by_value).dump(part)
        except Exception:
            inner = _culprit(part, by_value, seen)
            return (f"{name}.{inner[0]}", inner[1]) if inner else (name, _type_name(part))
    return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What a function, method or object holds, by name."""
    if isinstance(value, types.MethodType):
        yield "self", value.__self__
        yield from _parts(value.__func__)
    elif isinstance(value, functools.partial):
        yield "function", value.func
        yield from ((f"argument {index}", item) for index, item in enumerate(value.args))
        yield from value.keywords.items()
    elif isinstance(value, types.FunctionType):
        yield from (_cells(value) | _globals_used(value)).items()
        parameters = inspect.signature(value).parameters.items()
        yield from ((name, parameter.default) for name, parameter in parameters)
    elif isinstance(value, dict):
        yield from ((str(key), item) for key, item in value.items())
    elif not isinstance(value, type | types.ModuleType):
        yield from getattr(value, "__dict__", {}).items()


def _type_name(value: Any) -> str:
    kind = type(value)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
