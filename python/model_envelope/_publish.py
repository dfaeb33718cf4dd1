"""Capture → lock → prove → write → store: what happens to functions that are described."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from . import _capture, _lock, _native, _prove, _trace, _transcript
from ._envelope import Envelope, open_stored
from ._errors import EnvelopeError, NotServable
from ._installed import Installed
from ._settings import Settings, settings
from ._transcript import Steps

LIBRARIES = {"pandas", "polars", "pyarrow", "numpy", "torch"}
"""Libraries whose objects functions take and give."""


@dataclass(frozen=True)
class QueryFunction:
    """What is known about a function before it is proved."""

    name: str
    doc: str
    parameters: list[dict[str, str]]
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
    proof: str,
) -> Envelope:
    """Proves the functions and stores them as the next version of the manifest's name.

    Raises `NotServable`, or `EnvironmentMismatch` where the environment cannot be made; then nothing
    is stored.
    """
    chosen = settings()
    steps = Steps()
    installed = Installed(chosen)
    callables = {function.name: function.callable for function in functions}
    with steps.timed("capture"):
        captured = _capture.capture(callables, modules, installed)
    store = _native.Store(chosen.store)
    # Written where it will stay: a large model is written once.
    path = store.stage()
    try:
        with steps.timed("write"):
            draft = _Draft(path, manifest, captured, proof)
        _Proof(draft, functions, installed, requirements, chosen, steps).run()
        with steps.timed("write"):
            draft.writer.flushed()
            version = json.loads(store.adopt(path))
    finally:
        path.unlink(missing_ok=True)
    steps.log(manifest["name"], chosen)
    return replace(open_stored(version, chosen), saved=callables)


@dataclass(frozen=True)
class Evidence:
    """What is kept of a function's proof."""

    certificate: dict[str, Any]
    transcript: bytes | None = None


UNPROVED = Evidence(_prove.UNPROVED)


class _Draft:
    """The envelope that is being written."""

    def __init__(self, path: Path, manifest: dict[str, Any], captured: _capture.Captured, proof: str) -> None:
        self.path = path
        self.captured = captured
        self.proof = proof
        buffers = [f"state/buffers/{index:05}" for index in range(len(captured.buffers))]
        self.manifest = manifest | {"state": {"pickle": "state/functions.pkl", "buffers": buffers}}
        self.writer = _native.EnvelopeWriter(path)
        for name, buffer in zip(buffers, captured.buffers, strict=True):
            self.writer.buffer(name, buffer)
        self.writer.flush()

    def write(self, functions: list[QueryFunction], evidence: list[Evidence], lock: _lock.Lock) -> str:
        """Writes all but the large buffers, again if need be; gives the digest."""
        wheels = {f"environment/wheels/{name}": wheel for name, wheel in sorted(lock.wheels.items())}
        modules = {f"modules/{file}": content for file, content in sorted(self.captured.files.items())}
        proved = list(zip(functions, evidence, strict=True))
        members = [
            ("environment/pylock.toml", lock.content),
            *wheels.items(),
            ("state/functions.pkl", self.captured.pickle),
            *(member for function, found in proved for member in _members(function, found)),
            *modules.items(),
        ]
        described = {
            "functions": [_described(function, found, self.proof) for function, found in proved],
            "environment": self.manifest["environment"] | {"wheels": [*wheels]},
            "source": self.manifest["source"] | {"modules": [*modules]},
        }
        return self.writer.finish(json.dumps(self.manifest | described), members)


def _members(function: QueryFunction, evidence: Evidence) -> list[tuple[str, bytes]]:
    folder = f"functions/{function.name}"
    members = [
        (f"{folder}/sample/input.arrow", function.sample.to_bytes()),
        (f"{folder}/sample/output.arrow", function.output.to_bytes()),
        (f"{folder}/statistics.json", function.statistics.encode()),
    ]
    if evidence.transcript is not None:
        members.append((f"{folder}/transcript.json", evidence.transcript))
    return members


def _described(function: QueryFunction, evidence: Evidence, proof: str) -> dict[str, Any]:
    folder = f"functions/{function.name}"
    return {
        "name": function.name,
        "doc": function.doc,
        "parameters": function.parameters,
        "signature": {"input": function.takes, "output": function.gives},
        "sample": {"input": f"{folder}/sample/input.arrow", "output": f"{folder}/sample/output.arrow"},
        "statistics": f"{folder}/statistics.json",
        "certificate": evidence.certificate,
        "transcript": None if evidence.transcript is None else f"{folder}/transcript.json",
        "proof": proof,
    }


@dataclass
class _Proof:
    """Runs the functions in a clean process, and writes them with the evidence."""

    draft: _Draft
    functions: list[QueryFunction]
    installed: Installed
    requirements: Sequence[str]
    chosen: Settings
    steps: Steps
    needed: set[str] = field(default_factory=set)
    """Names of the distributions to lock."""

    def run(self) -> None:
        tell = _teller(self.chosen)
        captured = self.draft.captured
        self.needed = self.installed.distributions(captured.installed | _libraries(self.functions))
        while True:
            tell("locking the environment")
            with self.steps.timed("lock"):
                lock = _lock.lock(self.needed, self.requirements, self.installed, self.chosen)
            with self.steps.timed("write"):
                digest = self.draft.write(self.functions, [UNPROVED] * len(self.functions), lock)
            try:
                tell("running the sample in a clean process")
                proved, certificates, seen = self.prove(tell)
                break
            except EnvelopeError as error:
                if not self.more_is_reached(error):
                    raise
        evidence = self.evidence(digest, certificates, seen)
        with self.steps.timed("write"):
            self.draft.write(proved, evidence, lock)
        tell("")
        _transcript.warn_of_connections([one.name for one in proved], seen)

    def prove(
        self, tell: Callable[[str], None]
    ) -> tuple[list[QueryFunction], list[dict[str, Any]], list[dict[str, Any]]]:
        """The functions with the output that a clean process gave, their certificates, what it noted."""
        runner = self.start(tell)
        try:
            proved, seen = [], []
            with self.steps.timed("proof"):
                for function in self.functions:
                    output = _prove.reproduce(runner, function.name, function.sample, function.output)
                    proved.append(replace(function, output=output))
                    seen.append(json.loads(runner.observed()))
            certificates = []
            with self.steps.timed("trials"):
                for index, one in enumerate(proved):
                    certificate, output = _prove.certify(runner, one.name, one.sample, one.output, tell)
                    certificates.append(certificate)
                    proved[index] = replace(one, output=output)
            return proved, certificates, seen
        finally:
            runner.close()

    def start(self, tell: Callable[[str], None]) -> _native.Runner:
        """A worker that can open what is captured and what every machine has, and notes what it does."""
        quick = self.draft.proof == "quick"
        with self.steps.timed("start"):
            try:
                runner = _native.Runner.start(
                    self.draft.path,
                    self.chosen.places,
                    1,
                    tell,
                    trusted=True,
                    observed=self.installed.editable_folders() if quick else [],
                    current=Path(sys.executable) if quick else None,
                )
            except NotServable as error:
                raise _prove.explained(error, {}) from None
        self.steps.add("environment", runner.realise_seconds)
        self.steps.add("start", -runner.realise_seconds)
        return runner

    def evidence(
        self, digest: str, certificates: list[dict[str, Any]], seen: list[dict[str, Any]]
    ) -> list[Evidence]:
        """The certificates and transcripts; `digest` is that of the envelope without them."""
        measured = [_transcript.seconds_of(noted, self.steps) for noted in seen]
        kept = _transcript.remembered(self.chosen.cache, digest, measured)
        return [
            Evidence(certificate, _transcript.text(noted, self.draft.proof, seconds))
            for certificate, noted, seconds in zip(certificates, seen, kept, strict=True)
        ]

    # === what only a run can show

    def more_is_reached(self, error: EnvelopeError) -> bool:
        """Captures what the proof run has missed; raises when that is not here, says if there was any."""
        found = re.search(r"No module named '([^']+)'", f"{error.message} {error.details}")
        if found and self.add({found[1]}):
            return True
        if self.add(self.run_here()):
            return True
        if found:
            top = found[1].partition(".")[0]
            if top == "model_envelope":
                raise _capture.uses_ourselves() from None
            if self.draft.proof == "quick" and self.installed.distributions([top]):
                raise NotServable(
                    f"`{top}` is installed in a folder that only this process has on its path",
                    hint='use prove="full", or install it in the environment of this interpreter',
                ) from None
            raise NotServable(
                f"the function imports `{found[1]}`, which was not captured",
                hint=f'pass it as modules=["{top}"] if it is your own, else as requirements=["{top}"]',
                details=error.details,
            ) from None
        return False

    def add(self, modules: set[str]) -> bool:
        if not _capture.capture_more(modules, self.draft.captured, self.installed):
            return False
        self.needed |= self.installed.distributions(self.draft.captured.installed)
        return True

    def run_here(self) -> set[str]:
        """Names of the modules that run when the functions are called, those of conversions left out."""
        rows, found = _native.conversions(), set()
        for function in self.functions:
            given = rows.decode(function.sample, function.takes)
            call = functools.partial(rows.apply, function.callable, given, function.takes)
            found |= _trace.modules_run(call)
        return found


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
