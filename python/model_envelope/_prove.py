"""The proof run: a clean process must give the same answers; then the row-wise trials."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from ._errors import InvalidInput, NotServable, PredictionFailed
from ._native import Batch, Runner

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
        raise NotServable(
            f"in a clean process, {error.message}",
            hint="does it read files or variables that only this machine or this process has? "
            "Keep what it needs in the function's closure or in an object's attributes",
            details=error.details,
        ) from None
    difference = expected.difference(found, TOLERANCE)
    if difference is not None:
        raise NotServable(
            f"`{function}` gives another output in a clean process: {difference}",
            hint="does it depend on random numbers, the time, or state that changed after an import? "
            "Keep such state in the function's closure or in an object's attributes",
        )
    return found


def certify(
    runner: Runner, function: str, sample: Batch, output: Batch, tell: Callable[[str], None]
) -> tuple[dict[str, Any], Batch]:
    """The certificate, and the sample's output as it is given when calls are made as it says."""
    certificate, certified = runner.certify(function, sample, tell)
    return json.loads(certificate), output if certified is None else certified
