"""The proof run: a clean process must give the same answers, and the row-wise trials."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from typing import Any

from ._errors import EnvelopeError, InvalidInput, NotServable, PredictionFailed
from ._native import Batch, Runner
from ._transcript import advice, files_missed, variable_missed

TOLERANCE = 1e-6
"""Relative difference below which two floats count as close."""

SEED = 20210701
"""Seed of the trials' choices. Fixed, so that the same function gives the same envelope."""

TRIALS_SECONDS = 60.0
"""Slow functions get fewer trials; the certificate says how many were done."""

CALL_SECONDS = 600.0

UNPROVED: dict[str, Any] = {"row_wise": False, "equality": "none", "tile": None, "trials": 0, "seed": 0}
"""A certificate that certifies nothing."""


def reproduce(runner: Runner, function: str, sample: Batch, expected: Batch) -> Batch:
    """Runs the sample in the clean process; raises `NotServable` unless it gives what it gave here."""
    try:
        found = runner.call(function, sample, CALL_SECONDS)
    except (InvalidInput, PredictionFailed) as error:
        raise explained(error, _noted(runner)) from None
    difference = expected.difference(found, TOLERANCE)
    if difference is not None:
        raise _different(function, difference, _noted(runner))
    return found


def _noted(runner: Runner) -> dict[str, Any]:
    """What the worker has noted, if it still can tell."""
    try:
        return json.loads(runner.observed()) or {}
    except EnvelopeError:
        return {}


def explained(error: EnvelopeError, seen: dict[str, Any]) -> NotServable:
    """Why a function fails in a clean process that does not fail here."""
    text = f"{error.message} {error.details}"
    files, variable = files_missed(text, seen), variable_missed(text)
    missed, hint = (
        "",
        (
            "does it read files or variables that only this machine or this process has? "
            "Keep what it needs in the function's closure or in an object's attributes"
        ),
    )
    if files:
        missed, hint = f"; it opens `{files[0]}`, which is not in the envelope", advice(files[0])
    elif variable:
        missed = f"; `{variable}` is an environment variable of this process"
        hint = f'read os.environ["{variable}"] before the save and let the function use that variable'
    return NotServable(f"in a clean process, {error.message}{missed}", hint=hint, details=error.details)


def _different(function: str, difference: str, seen: dict[str, Any]) -> NotServable:
    files = files_missed("", seen)
    return NotServable(
        f"`{function}` gives another output in a clean process: {difference}"
        + (f"; it opens `{files[0]}`, which is not in the envelope" if files else ""),
        hint=advice(files[0])
        if files
        else "does it depend on random numbers, the time, or state that changed after an import? "
        "Keep such state in the function's closure or in an object's attributes",
    )


def certify(runner: Runner, function: str, sample: Batch, output: Batch, shape: str) -> dict[str, Any]:
    """Tests whether the output for a row depends on the other rows."""
    certificate: dict[str, Any] = {
        "row_wise": False,
        "equality": "none",
        "tile": None,
        "trials": 0,
        "seed": SEED,
    }
    rows = sample.num_rows
    if shape in ("scalar", "record"):
        return certificate | {"reason": "it gives one row for all the rows of a call"}
    if output.num_rows != rows:
        return certificate | {"reason": f"it gave {output.num_rows} rows for {rows}"}
    if all(sample.take([0]).difference(sample.take([row])) is None for row in range(1, rows)):
        return certificate | {"reason": "the sample has only one row, or equal ones: nothing can be mixed"}
    equality = "bitwise"
    began = time.monotonic()
    done = 0
    for indices in _trials(rows):
        try:
            found = runner.call(function, sample.take(indices), CALL_SECONDS)
        except (InvalidInput, PredictionFailed) as error:
            return certificate | {"reason": f"with {_choice(indices)}, {error.message}", "trials": done + 1}
        expected = output.take(indices)
        if expected.difference(found) is not None:
            equality = "close"
            difference = expected.difference(found, TOLERANCE)
            if difference is not None:
                reason = f"with {_choice(indices)}: {difference}"
                return certificate | {"reason": reason, "trials": done + 1}
        done += 1
        if time.monotonic() - began > TRIALS_SECONDS:
            break
    return certificate | {"row_wise": True, "equality": equality, "trials": done}


def _choice(indices: list[int]) -> str:
    count = len(indices)
    return (
        "one of the sample's rows alone" if count == 1 else f"{count} of the sample's rows in another order"
    )


def _trials(rows: int) -> Iterator[list[int]]:
    """Choices of rows, the most telling first: alone, reordered, split, repeated, mixed."""
    if rows == 0:
        return
    chance = random.Random(SEED)
    everything = list(range(rows))
    yield [0]
    yield everything[::-1]
    yield everything[: max(1, rows // 2)]
    yield everything[rows // 2 :]
    yield [chance.randrange(rows) for _ in range(rows)]
    yield everything * 2
    yield chance.sample(everything, rows)
    for _ in range(4):
        yield [chance.randrange(rows)]
    for size in (2, 3, 5, 8, 9, 17, 64):
        yield [chance.randrange(rows) for _ in range(size)]
    yield [rows - 1] * 33
