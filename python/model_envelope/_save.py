"""`save_model`: derive → prove → write → store."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _capture, _lock, _native, _prove
from ._envelope import Envelope, open_stored
from ._errors import EnvelopeError, InvalidInput, NotServable
from ._settings import Settings, settings

SAMPLE_ROWS = 256
"""Rows of the input that are carried in the envelope as its sample."""

LIBRARIES = {
    "pandas": ["pandas"],
    "polars": ["polars"],
    "pyarrow": ["pyarrow"],
    "numpy": ["numpy"],
}


def save_model(
    query_function: Callable[..., Any],
    *,
    name: str,
    description: str = "",
    tags: Mapping[str, str] | None = None,
    api_input: Any = None,
    api_output: Any = None,
    modules: Sequence[str | Path | ModuleType] = (),
    requirements: Sequence[str] = (),
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
        api_input: A pandas, polars or pyarrow table, a numpy array of one or two dimensions, a
            dict of columns, a list of dicts or values, a dict of keyword arguments, or one value.
        api_output: What the function gives for `api_input`, if that is known. It is checked.
        modules: Custom modules (names, paths, modules) that cannot be seen from the function.
        requirements: Packages that cannot be seen from the function, as pip writes them.

    Raises:
        InvalidInput: An argument is not what is needed.
        NotServable: The function cannot run outside of this process; says why and what to do.
        EnvironmentMismatch: The environment cannot be realised on this machine.
    """
    _check_arguments(query_function, name, tags or {}, api_input)
    chosen = settings()
    function = _describe(query_function, api_input, api_output)
    captured = _capture.capture(query_function, modules)
    manifest = _manifest(name, description, dict(tags or {}), captured)
    with tempfile.TemporaryDirectory(prefix="model-envelope-") as folder:
        path = Path(folder, f"{name}.envelope")
        _prove_and_write(path, manifest, function, captured, list(requirements), chosen)
        version = _native.Store(chosen.store).save(path)
    return open_stored(json.loads(version), chosen)


class _Function:
    """What is known about the function before it is proved."""

    def __init__(self, name: str, doc: str, takes: dict[str, Any], gives: dict[str, Any]) -> None:
        self.name, self.doc, self.takes, self.gives = name, doc, takes, gives
        self.sample: Any = None
        self.output: Any = None
        self.statistics = ""


def _check_arguments(function: Any, name: str, tags: Mapping[str, str], api_input: Any) -> None:
    if not callable(function):
        raise InvalidInput(f"`query_function` is a {type(function).__name__}, which cannot be called")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}", name):
        raise InvalidInput(
            f"{name!r} is not a model name",
            hint="use 1 to 128 letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`",
        )
    for key, value in tags.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise InvalidInput(
                f"the tag {key!r}: {value!r} is not text to text",
                hint=f"write {{{str(key)!r}: {str(value)!r}}}",
            )
        if not re.fullmatch(r"[A-Za-z0-9_.\-/]{1,63}", key) or key == "name":
            raise InvalidInput(
                f"{key!r} is not a tag key",
                hint="use 1 to 63 letters, digits, `.`, `_`, `-`, `/`, and not `name`, which means the model's name",
            )
        if len(value.encode()) > 1024:
            raise InvalidInput(f"the value of tag {key!r} has {len(value.encode())} bytes, the most is 1024")
    if api_input is None:
        raise InvalidInput(
            "`api_input` is missing: it shows what the function takes",
            hint="pass some rows, for example the training data, as `api_input=`",
        )


# === derive


def _describe(query_function: Callable[..., Any], api_input: Any, api_output: Any) -> _Function:
    """Learns the signature by running the function on a sample, in this process."""
    rows = _native.conversions()
    parameter = rows.parameter_name(query_function)
    try:
        takes, everything = rows.describe(_without_index(api_input), parameter)
    except rows.Unsupported as error:
        raise InvalidInput(f"`api_input` cannot be carried: {error}") from None
    _check_fits(everything, takes)
    chosen = _sample_indices(everything.num_rows)
    sample = everything.take(chosen)
    value = _run(query_function, rows.decode(sample, takes), takes, rows)
    try:
        gives, output = rows.describe(_without_index(value), "prediction", output=True)
    except rows.Unsupported as error:
        raise NotServable(f"what `{_name(query_function)}` gives cannot be carried: {error}") from None
    if api_output is not None:
        _check_output(rows, api_output, gives, chosen, everything.num_rows, output)
    function = _Function(_name(query_function), inspect.getdoc(query_function) or "", takes, gives)
    function.sample, function.output = sample, output
    function.statistics = _statistics(everything, output)
    return function


def _without_index(value: Any) -> Any:
    """A frame without a plain integer index, which says only where rows once were."""
    index = getattr(value, "index", None)
    kind = getattr(getattr(index, "dtype", None), "kind", "")
    if hasattr(value, "reset_index") and kind == "i" and getattr(index, "name", "") is None:
        return value.reset_index(drop=True)
    return value


def _check_fits(everything: Any, takes: dict[str, Any]) -> None:
    if takes["shape"] == "records" and everything.num_rows == 0:
        raise InvalidInput("`api_input` has no rows: types cannot be learned from it")
    if everything.num_rows == 0:
        raise InvalidInput("`api_input` has no rows", hint="pass at least one row; some hundred are better")
    for field in takes["fields"]:
        if field["type"] in ("null", "list<null>"):
            raise InvalidInput(
                f"all values of `{field['name']}` are missing: its type cannot be learned",
                hint="pass rows in which it has a value, or drop it",
            )


def _sample_indices(rows: int) -> list[int]:
    """At most `SAMPLE_ROWS` rows, evenly spread."""
    if rows <= SAMPLE_ROWS:
        return list(range(rows))
    return [index * rows // SAMPLE_ROWS for index in range(SAMPLE_ROWS)]


def _run(function: Callable[..., Any], argument: Any, takes: dict[str, Any], rows: ModuleType) -> Any:
    try:
        return rows.apply(function, argument, takes)
    except Exception as error:
        raise NotServable(
            f"`{_name(function)}` fails on its own sample: {type(error).__name__}: {error}",
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


def _check_output(
    rows: ModuleType, api_output: Any, gives: dict[str, Any], chosen: list[int], count: int, output: Any
) -> None:
    try:
        expected = rows.encode(_without_index(api_output), gives, "prediction")
    except (rows.Unsupported, rows.BadOutput) as error:
        raise InvalidInput(f"`api_output` is not what the function gives: {error}") from None
    if expected.num_rows == count != output.num_rows or expected.num_rows == count == len(chosen):
        expected = expected.take(chosen)
    elif expected.num_rows == count:
        expected = expected.take(chosen)
    difference = expected.difference(output, _prove.TOLERANCE)
    if difference is not None:
        raise NotServable(f"`api_output` is not what the function gives for `api_input`: {difference}")


def _statistics(everything: Any, output: Any) -> str:
    described = {
        "input": json.loads(_native.statistics(everything)),
        "output": json.loads(_native.statistics(output)),
    }
    return json.dumps(described, indent=2)


def _name(function: Any) -> str:
    """A Python identifier for the function."""
    inner = getattr(function, "func", function)
    name = getattr(inner, "__name__", None) or type(inner).__name__
    return name if name.isidentifier() else "predict"


def _manifest(
    name: str, description: str, tags: dict[str, str], captured: _capture.Captured
) -> dict[str, Any]:
    commit, dirty = _git()
    return {
        "format_version": 1,
        "name": name,
        "description": description,
        "tags": dict(sorted(tags.items())),
        "functions": [],
        "environment": {
            "python": _lock.interpreter(),
            "platform": _lock.platform_tag(),
            "libc": _lock.libc(),
            "lock": "environment/pylock.toml",
        },
        "source": {
            "git_commit": commit,
            "git_dirty": dirty,
            "modules": [f"modules/{file}" for file in sorted(captured.files)],
        },
    }


def _git() -> tuple[str | None, bool]:
    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    commit = ask("rev-parse", "HEAD")
    return commit, bool(commit and ask("status", "--porcelain", "--untracked-files=no"))


# === prove and write


def _prove_and_write(
    path: Path,
    manifest: dict[str, Any],
    function: _Function,
    captured: _capture.Captured,
    requirements: list[str],
    chosen: Settings,
) -> None:
    """Writes the envelope, runs it in a clean process, and writes it again with the evidence."""
    tell = _teller(chosen)
    installed = captured.installed | _libraries(function)
    needed = _lock.distributions(installed) - {"model-envelope"}
    unproved = {"row_wise": False, "equality": "none", "tile": None, "trials": 0, "seed": 0}
    while True:
        tell("locking the environment")
        lock = _lock.lock(needed, requirements, chosen)
        _write(path, manifest, function, captured, lock, unproved)
        try:
            tell("running the sample in a clean process")
            output, certificate = _prove_once(path, function, chosen, tell)
            break
        except EnvelopeError as error:
            needed = needed | _missing_distributions(error, needed)
    function.output = output
    _write(path, manifest, function, captured, lock, certificate)
    tell("")


def _prove_once(
    path: Path, function: _Function, chosen: Settings, tell: Callable[[str], None]
) -> tuple[_native.Batch, dict[str, Any]]:
    runner = _native.Runner.start(path, chosen.places, 1, tell)
    try:
        output = _prove.reproduce(runner, function.name, function.sample, function.output)
        one_row = function.gives["shape"] in ("scalar", "record", "keywords")
        return output, _prove.certify(runner, function.name, function.sample, output, one_row=one_row)
    finally:
        runner.close()


def _missing_distributions(error: EnvelopeError, needed: set[str]) -> set[str]:
    """The distributions of a module that only the proof run could find; raises if there are none."""
    found = re.search(r"No module named '([^']+)'", f"{error.message} {error.details}")
    if not found:
        raise error
    module = found.group(1).partition(".")[0]
    missing = _lock.distributions([module]) - needed
    if missing:
        return missing
    raise NotServable(
        f"the function imports `{found.group(1)}`, which was not captured",
        hint=f'pass it as modules=["{module}"] if it is your own, or as requirements=["{module}"] if it is a package',
        details=error.details,
    ) from error


def _libraries(function: _Function) -> set[str]:
    """The libraries of the objects that the function takes and gives."""
    found: set[str] = set()
    for rows in (function.takes, function.gives):
        found.update(LIBRARIES.get(rows["shape"].partition(".")[0], []))
        if any((field.get("dtype") or "list") not in _PLAIN for field in rows["fields"]):
            found.update(LIBRARIES["numpy"] if not found else [])
        if any("pyarrow" in (field.get("dtype") or "") for field in rows["fields"]):
            found.update(LIBRARIES["pyarrow"])
    return found


_PLAIN = {"list", "int", "float", "str", "bool", "bytes", "datetime", "date", "timedelta", "NoneType", "tuple"}


def _write(
    path: Path,
    manifest: dict[str, Any],
    function: _Function,
    captured: _capture.Captured,
    lock: bytes,
    certificate: dict[str, Any],
) -> None:
    folder = f"functions/{function.name}"
    buffers = [f"{folder}/buffers/{index:05}" for index in range(len(captured.buffers))]
    described = {
        "name": function.name,
        "doc": function.doc,
        "signature": {"input": function.takes, "output": function.gives},
        "pickle": f"{folder}/function.pkl",
        "buffers": buffers,
        "sample": {"input": f"{folder}/sample/input.arrow", "output": f"{folder}/sample/output.arrow"},
        "statistics": f"{folder}/statistics.json",
        "certificate": certificate,
    }
    members = [
        ("environment/pylock.toml", False, lock),
        (described["pickle"], False, captured.pickle),
        (f"{folder}/sample/input.arrow", False, function.sample.to_bytes()),
        (f"{folder}/sample/output.arrow", False, function.output.to_bytes()),
        (f"{folder}/statistics.json", False, function.statistics.encode()),
        *((f"modules/{file}", False, content) for file, content in sorted(captured.files.items())),
        *((name, True, content) for name, content in zip(buffers, captured.buffers, strict=True)),
    ]
    _native.write_envelope(path, json.dumps(manifest | {"functions": [described]}), members)


def _teller(chosen: Settings) -> Callable[[str], None]:
    """Shows the step that is under way, on one line of a terminal."""

    def tell(step: str) -> None:
        if chosen.progress:
            sys.stderr.write(f"\r\x1b[K{step}{'…' if step else ''}")
            sys.stderr.flush()

    return tell
