"""`save_model` and `add_query_function`: from the arguments to a described function."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from . import _capture, _definition, _lock, _native, _prove
from ._envelope import Envelope
from ._errors import InvalidInput, NotServable
from ._publish import QueryFunction, publish
from ._tags import check_tags, check_text

SAMPLE_ROWS = 256
"""Rows of the input that are carried in the envelope as its sample."""


def save_model(
    query_function: Callable[..., Any],
    *,
    name: str,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    api_input: Any = None,
    api_output: Any = None,
    modules: Sequence[str | Path | ModuleType] = (),
    requirements: Sequence[str] | Path | None = None,
    prove: Literal["full", "quick"] = "full",
) -> Envelope:
    """Puts a function in an envelope and keeps it as the next version of `name`.

    Derives the signature and statistics from `api_input` (the rows that the function takes, for
    example its training data), captures the function with its custom modules, locks the packages
    that it imports, and runs a sample of the input in a clean process with exactly these. Nothing
    is stored unless that process gives the same output.

    Args:
        query_function: Takes rows and gives rows: a function, a method, or any callable.
        name: 1 to 128 letters, digits, `.`, `_`, `-`.
        description: For people.
        tags: Text to text, for finding it again.
        api_input: A pandas, polars or pyarrow table, a numpy array or a torch tensor (one row for
            each index of the first dimension), a dict of columns, a list of dicts or values, a
            tuple of columns, a dict of keyword arguments, one value, or several positional
            arguments as `("args", first, second)`. Whatever would not come back exactly as it was
            is refused.
        api_output: What the function gives for `api_input`, if that is known. It is checked.
        modules: Custom modules (names, paths, modules) that cannot be seen from the function.
        requirements: Packages that cannot be seen from the function, as pip writes them, or the
            path of a file of such lines.
        prove: `"full"` makes the locked environment and runs the sample in it. `"quick"` runs it in the
            environment of this process, where making another would take minutes; the envelope says so.

    Raises:
        InvalidInput: An argument is not what is needed.
        NotServable: The function cannot run outside of this process; says why and what to do.
        EnvironmentMismatch: The environment cannot be realised on this machine.
    """
    tags = {} if tags is None else tags
    _check_function(query_function)
    _check_name(name)
    _check_description(description, tags)
    extra = _requirements(requirements)
    function = _describe(query_function, _name(query_function), api_input, api_output)
    manifest = _manifest(name, description, dict(tags))
    return publish(manifest, [function], _sequence("modules", modules), extra, _proof(prove))


def add_query_function(
    envelope: Envelope,
    query_function: Callable[..., Any],
    *,
    name: str | None = None,
    api_input: Any = None,
    api_output: Any = None,
    modules: Sequence[str | Path | ModuleType] = (),
    requirements: Sequence[str] | Path | None = None,
    prove: Literal["full", "quick"] = "full",
) -> Envelope:
    """`Envelope.add_query_function`: a new version with one function more."""
    _check_function(query_function)
    name = _name(query_function) if name is None else name
    _check_function_name(name, envelope)
    extra = _requirements(requirements)
    function = _describe(query_function, name, api_input, api_output)
    # All at once: what they share is loaded, and carried on, once.
    callables = envelope.callables()
    described = envelope.manifest["functions"]
    known = [_known(envelope, one, callables[one["name"]]) for one in described]
    manifest = _manifest(envelope.name, envelope.description, dict(envelope.tags))
    kept = _lock.pins(envelope.environment["lock"])
    return publish(
        manifest, [*known, function], _sequence("modules", modules), [*kept, *extra], _proof(prove)
    )


def _proof(prove: str) -> str:
    if prove not in ("full", "quick"):
        raise InvalidInput(f"{prove!r} is not a kind of proof", hint='write prove="full" or prove="quick"')
    return prove


def _check_function_name(name: str, envelope: Envelope) -> None:
    if not isinstance(name, str) or not name.isidentifier() or len(name) > 200:
        raise InvalidInput(f"{name!r} is not a function name", hint="use a Python identifier")
    if name in envelope.functions:
        raise InvalidInput(
            f"`{envelope.id}` has a function `{name}` already", hint='give this one another: name="…"'
        )


def _known(envelope: Envelope, described: dict[str, Any], function: Callable[..., Any]) -> QueryFunction:
    """A function of an envelope, to be carried on in its next version."""

    def member(name: str) -> bytes:
        return _native.read_member(envelope.path, name)

    return QueryFunction(
        described["name"],
        described["doc"],
        described["parameters"],
        function,
        described["signature"]["input"],
        described["signature"]["output"],
        _native.Batch.from_bytes(member(described["sample"]["input"])),
        _native.Batch.from_bytes(member(described["sample"]["output"])),
        member(described["statistics"]).decode(),
    )


# === arguments


def _check_function(function: Any) -> None:
    if not callable(function):
        method = "predict" if hasattr(function, "predict") else "__call__"
        raise InvalidInput(
            f"`query_function` is a {type(function).__name__}, which cannot be called",
            hint=f"pass one of its methods, for example `.{method}`"
            if method == "predict"
            else "pass a function",
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise InvalidInput(
            f"`{_name(function)}` gives its output later, as a coroutine or a generator",
            hint="pass a plain function that returns what it gives",
        )


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", name):
        raise InvalidInput(
            f"{name!r} is not a model name",
            hint="use 1 to 128 letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`",
        )


def _check_description(description: Any, tags: Any) -> None:
    if not isinstance(description, str):
        raise InvalidInput(f"the description is a {type(description).__name__}, not text")
    check_text("the description", description)
    check_tags(tags)


def _sequence(argument: str, values: Any) -> Sequence[Any]:
    """A list, and not the one text that was meant to be in it."""
    if isinstance(values, str | Path | ModuleType):
        raise InvalidInput(
            f"`{argument}` is one {type(values).__name__}", hint=f"write {argument}=[{values!r}]"
        )
    return list(values)


def _requirements(requirements: Sequence[str] | Path | None) -> list[str]:
    if isinstance(requirements, Path):
        if not requirements.is_file():
            raise InvalidInput(f"there is no file `{requirements}`")
        requirements = requirements.read_text().splitlines()
    lines = (line.partition(" #")[0].strip() for line in _sequence("requirements", requirements or ()))
    return [line for line in lines if line and not line.startswith("#")]


# === derive


def _describe(
    query_function: Callable[..., Any], name: str, api_input: Any, api_output: Any
) -> QueryFunction:
    """Learns the signature by running the function on a sample, in this process."""
    if api_input is None:
        raise InvalidInput(
            "`api_input` is missing: it shows what the function takes",
            hint="pass some rows, for example the training data, as `api_input=`",
        )
    rows = _native.conversions()
    parameter = rows.parameter_name(query_function)
    try:
        takes, everything = rows.describe(api_input, parameter, names=rows.parameter_names(query_function))
    except rows.Unsupported as error:
        raise InvalidInput(f"`api_input` cannot be carried: {error}") from None
    _check_learned(everything, takes)
    sample = everything.take(_sample_indices(everything.num_rows))
    value = _run(query_function, sample, takes, rows)
    try:
        gives, output = rows.describe(value, "prediction", output=True)
    except rows.Unsupported as error:
        raise NotServable(f"what `{name}` gives cannot be carried: {error}") from None
    _check_given(name, gives)
    if api_output is not None:
        _check_output(rows, api_output, gives, _run(query_function, everything, takes, rows))
    statistics = _native.statistics(everything, output)
    parameters = _definition.parameters(query_function)
    return QueryFunction(
        name, _doc(query_function), parameters, query_function, takes, gives, sample, output, statistics
    )


def _check_learned(everything: _native.Batch, takes: dict[str, Any]) -> None:
    if everything.num_rows == 0:
        raise InvalidInput("`api_input` has no rows", hint="pass at least one row; some hundred are better")
    for name in _native.conversions().unlearned(takes):
        raise InvalidInput(
            f"all values of `{name}` are missing: its type cannot be learned",
            hint="pass rows in which it has a value, or drop it",
        )


def _check_given(name: str, gives: dict[str, Any]) -> None:
    for column in _native.conversions().unlearned(gives):
        what = "gives None" if gives["shape"] == "scalar" else f"gives no value in `{column}`"
        raise NotServable(
            f"`{name}` {what} for its sample: the type of its output cannot be learned",
            hint="does it `return` its result? If so, pass an `api_input` for which it gives a value",
        )


def _sample_indices(rows: int) -> list[int]:
    """At most `SAMPLE_ROWS` rows, evenly spread."""
    if rows <= SAMPLE_ROWS:
        return list(range(rows))
    return [index * rows // SAMPLE_ROWS for index in range(SAMPLE_ROWS)]


def _run(function: Callable[..., Any], batch: _native.Batch, takes: dict[str, Any], rows: ModuleType) -> Any:
    """Calls the function in this process with what a worker will give it."""
    argument = rows.decode(batch, takes)
    try:
        return rows.apply(function, argument, takes)
    except (Exception, SystemExit) as error:
        raise NotServable(
            f"`{_name(function)}` fails on its own sample: {type(error).__name__}: {error}",
            hint="`api_input` is what it is called with: does it work with that here?",
            details=rows.traceback_text(error.with_traceback(_user_frames(error))),
        ) from None


def _user_frames(error: BaseException) -> Any:
    """The traceback from the user's function inwards."""
    frames = error.__traceback__
    while frames is not None:
        name = frames.tb_frame.f_code.co_filename
        if not name.startswith("<_envelope") and Path(name).parent != Path(__file__).parent:
            return frames
        frames = frames.tb_next
    return error.__traceback__


def _check_output(rows: ModuleType, api_output: Any, gives: dict[str, Any], value: Any) -> None:
    try:
        expected = rows.encode(api_output, gives, "prediction")
    except (rows.Unsupported, rows.BadOutput) as error:
        raise InvalidInput(f"`api_output` is not what the function gives: {error}") from None
    difference = expected.difference(rows.encode(value, gives, "prediction"), _prove.TOLERANCE)
    if difference is not None:
        raise InvalidInput(
            f"`api_output` is not what the function gives for `api_input`: {difference}",
            hint="leave it out: the output is learned by running the function",
        )


def _name(function: Any) -> str:
    """A Python identifier for the function."""
    inner = function.func if isinstance(function, partial) else function
    name = getattr(inner, "__name__", None) or type(inner).__name__
    return name if name.isidentifier() and len(name) <= 200 else "predict"


def _doc(function: Any) -> str:
    inner = function.func if isinstance(function, partial) else function
    return inspect.getdoc(inner) or ""


def _manifest(name: str, description: str, tags: dict[str, str]) -> dict[str, Any]:
    """What is known before anything is captured."""
    commit, dirty = _git(_source_folder())
    return {
        "format_version": 1,
        "name": name,
        "description": description,
        "tags": dict(sorted(tags.items())),
        "environment": {
            "python": _lock.interpreter(),
            "platform": _lock.platform_tag(),
            "libc": _lock.libc(),
            "lock": "environment/pylock.toml",
        },
        "source": {"git_commit": commit, "git_dirty": dirty},
    }


def _source_folder() -> Path:
    """Where the program that saves is; for a notebook or a prompt, where it works."""
    script = getattr(sys.modules["__main__"], "__file__", None)
    folder = Path(script).resolve().parent if script else Path.cwd()
    return folder if folder.is_dir() and not _capture.is_installed(folder) else Path.cwd()


def _git(folder: Path) -> tuple[str | None, bool]:
    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "--verify", "HEAD")
    return commit, bool(commit and ask("status", "--porcelain", "--untracked-files=no"))
