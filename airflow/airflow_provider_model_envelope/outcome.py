"""How jobs end, as values that Airflow keeps: results as XComs, failures with or without a retry."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import model_envelope as me
from airflow.sdk.exceptions import AirflowException, AirflowFailException

LASTING = {
    "function_failed",
    "bad_output",
    "not_row_wise",
    "no_such_function",
    "table_exists",
    "not_that_table",
    "schema_mismatch",
    "other_job",
    "unwritable",
    "unsupported_table",
}
"""Codes of errors that come again with every retry, beside all that is wrong with arguments and envelopes."""


def outcome(result: me.BatchResult | me.EnvelopeError) -> dict[str, Any]:
    """The result of a job, or its error, as JSON."""
    if isinstance(result, me.BatchResult):
        return {"result": asdict(result)}
    lasts = isinstance(result, me.InvalidInput | me.BadEnvelope) or result.code in LASTING
    return {"error": str(result), "details": result.details, "lasts": lasts}


def unwrap(told: dict[str, Any]) -> dict[str, Any]:
    """The result; raises what failed."""
    if "result" not in told:
        raise failure(told)
    result: dict[str, Any] = told["result"]
    return result


def failure(told: dict[str, Any]) -> AirflowException:
    """The exception for an error: one that is not retried where that would not help."""
    kind = AirflowFailException if told["lasts"] else AirflowException
    return kind("\n".join(filter(None, (told["error"], told["details"]))))
