"""Capture → lock → prove → write → store: what happens to functions that are described."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _capture, _lock, _native, _prove
from ._envelope import Envelope, open_stored
from ._errors import EnvelopeError, NotServable
from ._settings import Settings, settings

LIBRARIES = {"pandas", "polars", "pyarrow", "numpy"}
"""Libraries whose objects functions take and give."""


@dataclass(frozen=True)
class QueryFunction:
    """What is known about a function before it is proved."""

    name: str
    doc: str
    callable: Callable[..., Any]
    takes: dict[str, Any]
    gives: dict[str, Any]
    sample: _native.Batch
    output: _native.Batch
    statistics: str


def publish(
    manifest: dict[str, Any],
    functions: list[QueryFunction],
    modules: Sequence[str | Path | ModuleType],
    requirements: Sequence[str],
) -> Envelope:
    """Proves the functions and stores them as the next version of the manifest's name.

    Raises `NotServable`, or `EnvironmentMismatch` where the environment cannot be made; then nothing
    is stored.
    """
    chosen = settings()
    installed = _lock.Installed()
    callables = {function.name: function.callable for function in functions}
    captured = _capture.capture(callables, modules, installed)
    store = _native.Store(chosen.store)
    # Written where it will stay: a large model is written once.
    path = store.stage()
    try:
        draft = _Draft(path, manifest, captured)
        _Proof(draft, functions, installed, requirements, chosen).run()
        version = json.loads(store.adopt(path))
    finally:
        path.unlink(missing_ok=True)
    return replace(open_stored(version, chosen), saved=callables)


class _Draft:
    """The envelope that is being written."""

    def __init__(self, path: Path, manifest: dict[str, Any], captured: _capture.Captured) -> None:
        self.path = path
        self.captured = captured
        buffers = [f"state/buffers/{index:05}" for index in range(len(captured.buffers))]
        modules = [f"modules/{file}" for file in sorted(captured.files)]
        self.manifest = manifest | {
            "state": {"pickle": "state/functions.pkl", "buffers": buffers},
            "source": manifest["source"] | {"modules": modules},
        }
        self.writer = _native.EnvelopeWriter(path)
        for name, buffer in zip(buffers, captured.buffers, strict=True):
            self.writer.buffer(name, buffer)

    def write(self, functions: list[QueryFunction], certificates: list[dict[str, Any]], lock: bytes) -> None:
        """Writes all but the large buffers, again if need be."""
        members = [
            ("environment/pylock.toml", lock),
            ("state/functions.pkl", self.captured.pickle),
            *(member for function in functions for member in _members(function)),
            *((f"modules/{file}", content) for file, content in sorted(self.captured.files.items())),
        ]
        described = list(map(_described, functions, certificates))
        self.writer.finish(json.dumps(self.manifest | {"functions": described}), members)


def _members(function: QueryFunction) -> list[tuple[str, bytes]]:
    folder = f"functions/{function.name}"
    return [
        (f"{folder}/sample/input.arrow", function.sample.to_bytes()),
        (f"{folder}/sample/output.arrow", function.output.to_bytes()),
        (f"{folder}/statistics.json", function.statistics.encode()),
    ]


def _described(function: QueryFunction, certificate: dict[str, Any]) -> dict[str, Any]:
    folder = f"functions/{function.name}"
    return {
        "name": function.name,
        "doc": function.doc,
        "signature": {"input": function.takes, "output": function.gives},
        "sample": {"input": f"{folder}/sample/input.arrow", "output": f"{folder}/sample/output.arrow"},
        "statistics": f"{folder}/statistics.json",
        "certificate": certificate,
    }


@dataclass
class _Proof:
    """Runs the functions in a clean process, and writes them with the evidence."""

    draft: _Draft
    functions: list[QueryFunction]
    installed: _lock.Installed
    requirements: Sequence[str]
    chosen: Settings

    def run(self) -> None:
        tell = _teller(self.chosen)
        needed = self.installed.distributions(self.draft.captured.installed | _libraries(self.functions))
        while True:
            tell("locking the environment")
            lock = _lock.lock(needed, self.requirements, self.installed, self.chosen)
            self.draft.write(self.functions, [_prove.UNPROVED] * len(self.functions), lock)
            try:
                tell("running the sample in a clean process")
                proved, certificates = self.prove(tell)
                break
            except EnvelopeError as error:
                needed |= self.missing(error, needed)
        self.draft.write(proved, certificates, lock)
        tell("")

    def prove(self, tell: Callable[[str], None]) -> tuple[list[QueryFunction], list[dict[str, Any]]]:
        """The functions with the output that a clean process gave, and their certificates."""
        runner = _native.Runner.start(self.draft.path, self.chosen.places, 1, tell, trusted=True)
        try:
            proved = [
                replace(
                    function,
                    output=_prove.reproduce(runner, function.name, function.sample, function.output),
                )
                for function in self.functions
            ]
            return proved, [
                _prove.certify(runner, one.name, one.sample, one.output, one.gives["shape"]) for one in proved
            ]
        finally:
            runner.close()

    def missing(self, error: EnvelopeError, needed: set[str]) -> set[str]:
        """The distributions of a module that only the proof run could find; raises if there are none."""
        found = re.search(r"No module named '([^']+)'", f"{error.message} {error.details}")
        if not found:
            raise error
        module = found.group(1).partition(".")[0]
        missing = self.installed.distributions([module]) - needed
        if missing:
            return missing
        raise NotServable(
            f"the function imports `{found.group(1)}`, which was not captured",
            hint=f'pass it as modules=["{module}"] if it is your own, else as requirements=["{module}"]',
            details=error.details,
        ) from None


def _libraries(functions: Sequence[QueryFunction]) -> set[str]:
    """The libraries of the objects that the functions take and give."""
    found: set[str] = set()
    for rows in (rows for function in functions for rows in (function.takes, function.gives)):
        dtypes = [field.get("dtype") or "list" for field in rows["fields"]]
        found.update(name.partition(".")[0] for name in (rows["shape"], *dtypes))
        if rows["shape"] in ("columns", "tuple") and set(dtypes) != {"list"}:
            found.add("numpy")
    return found & LIBRARIES


def _teller(chosen: Settings) -> Callable[[str], None]:
    """Shows the step that is under way, on one line of a terminal."""

    def tell(step: str) -> None:
        if chosen.progress:
            sys.stderr.write(f"\r\x1b[K{step}{'…' if step else ''}")
            sys.stderr.flush()

    return tell
