"""What was seen while functions were proved, and how long each step took."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ._settings import Settings


@dataclass
class Steps:
    """How long the steps of a save took, in seconds; a step that is repeated counts as one."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Adds the time of a `with` block to a step."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(step, time.perf_counter() - began)

    def add(self, step: str, seconds: float) -> None:
        """Adds to the time of a step."""
        self.seconds[step] = self.seconds.get(step, 0.0) + seconds

    def log(self, name: str, settings: Settings) -> None:
        """Tells them in one line on standard error, where `ENVELOPE_LOG` asks for it."""
        if settings.log:
            told = {step: round(seconds, 4) for step, seconds in self.seconds.items()}
            print(f"saved {json.dumps({'name': name, 'seconds': told})}", file=sys.stderr)


def text(seen: dict[str, Any], proof: str, seconds: dict[str, float]) -> bytes:
    """The member of a function: what its worker noted, and how long it took."""
    told = {key: value for key, value in seen.items() if not key.endswith("_seconds")}
    return json.dumps({"proof": proof, **told, "seconds": seconds}, indent=2).encode()


def seconds_of(seen: dict[str, Any], steps: Steps) -> dict[str, float]:
    """How long the steps took for a function that a worker noted this of."""
    told = {
        "lock": steps.seconds.get("lock", 0.0),
        "environment": steps.seconds.get("environment", 0.0),
        "load": seen["load_seconds"],
        "call": seen["call_seconds"],
        "trials": steps.seconds.get("trials", 0.0),
    }
    return {step: round(seconds, 6) for step, seconds in told.items()}


def remembered(cache: Path, digest: str, measured: list[dict[str, float]]) -> list[dict[str, float]]:
    """What was measured when an envelope of this content was first proved on this machine.

    A function that is saved again gives the same envelope: no duration of its second proof, which
    is another, makes it a new version.
    """
    path = cache / "proofs" / f"{digest.removeprefix('sha256:')[:32]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".new") as file:
        json.dump(measured, file)
        file.flush()
        try:
            os.link(file.name, path)  # whole, and only by the first of those that save at once
        except FileExistsError:
            known: list[dict[str, float]] = json.loads(path.read_text())
            return known if len(known) == len(measured) else measured
    return measured


# === what to say of what only this machine has, or only a proof


def warn_of_connections(functions: list[str], seen: list[dict[str, Any]]) -> None:
    """Warns of functions that have used the network: it is open to a proof, and to little else."""
    for function, noted in zip(functions, seen, strict=True):
        if hosts := noted.get("connections"):
            warnings.warn(
                f"`{function}` connected to {', '.join(hosts)}. Workers have no network unless they are "
                "started with `--grant network` (docs/sandbox.md)",
                stacklevel=2,
            )


def files_missed(error: str, seen: dict[str, Any]) -> list[str]:
    """The files that a function opened and that it will not have, by its error and by what was noted."""
    noted = [*seen.get("denied", ()), *seen.get("missing", ())]
    if not re.search(
        r"Permission denied|No such file|not found|unable to open|does not exist|Failed to open", error
    ):
        return noted
    named = re.findall(r"[`'\"]([^`'\"\s]*[./][^`'\"]*)[`'\"]|os error \d+\)[^:]*: (\S+)", error)
    return noted or [next(filter(None, groups)) for groups in named][-1:]


def advice(path: str) -> str:
    """What to do about a file that a function opens."""
    return (
        f"load what is in `{path}` before the save and let the function use that variable; or put the file "
        'into the folder of a package of yours, and pass that as modules=["…"]'
    )


def variable_missed(error: str) -> str | None:
    """The environment variable of this process that a function asked for in vain."""
    found = re.search(r"KeyError: '([^']+)'", error)
    return found[1] if found and found[1] in os.environ else None
