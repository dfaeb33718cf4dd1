"""The proof run: a clean process must give the same answers; then the row-wise trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ._errors import EnvelopeError, InvalidInput, NotServable, PredictionFailed
from ._native import Batch, Runner
from ._transcript import advice, files_missed, variable_missed

TOLERANCE = 1e-6
"""Relative difference below which two floats count as close."""

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


def certify(
    runner: Runner, function: str, sample: Batch, output: Batch, tell: Callable[[str], None]
) -> tuple[dict[str, Any], Batch]:
    """The certificate, and the sample's output as it is given when calls are made as it says."""
    certificate, certified = runner.certify(function, sample, tell)
    return json.loads(certificate), output if certified is None else certified
