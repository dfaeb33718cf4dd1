"""What can go wrong, as exceptions that say what to do."""

from __future__ import annotations

from typing import Any


class EnvelopeError(Exception):
    """Something went wrong: `message` says what in one line, `hint` what to do about it.

    `code` is stable, for programs; `details` holds long texts, such as the function's traceback.
    """

    code = "failed"

    def __init__(self, message: str, *, hint: str = "", details: str = "") -> None:
        self.message = "; ".join(line.strip() for line in message.splitlines() if line.strip())
        self.hint, self.details = hint, details
        super().__init__(f"{self.message}\n  hint: {hint}" if hint else self.message)
        if details:
            # Notes are shown below the message, in notebooks too.
            self.__notes__ = [f"  {line}" for line in details.splitlines()]


class NotFound(EnvelopeError):
    """There is no such envelope; the hint names near ones."""

    code = "not_found"


class Conflict(EnvelopeError):
    """Something else is there already."""

    code = "conflict"


class InvalidInput(EnvelopeError):
    """An argument, or rows, are not what is needed."""

    code = "invalid_input"


class NotServable(EnvelopeError):
    """The function cannot run outside of this process; nothing was saved."""

    code = "not_servable"


class BadEnvelope(EnvelopeError):
    """A file is not an envelope, or was damaged. `code` says which rule of the format it breaks."""

    code = "bad_envelope"


class EnvironmentMismatch(EnvelopeError):
    """The envelope needs another interpreter, or packages that are not here."""

    code = "environment_mismatch"


class PredictionFailed(EnvelopeError):
    """The function raised, or gave something else than its signature says."""

    code = "prediction_failed"


class NotAllowed(EnvelopeError):
    """This user may not read or write that, or nobody vouches for the envelope."""

    code = "not_allowed"


class Unreachable(EnvelopeError):
    """Something on another machine does not answer; later it may."""

    code = "unreachable"


class JobCancelled(EnvelopeError):
    """The job was ended before it was done; the output is as it was."""

    code = "interrupted"


_BY_CODE: dict[str, type[EnvelopeError]] = {
    kind.code: kind
    for kind in (
        NotFound,
        Conflict,
        InvalidInput,
        NotServable,
        BadEnvelope,
        EnvironmentMismatch,
        PredictionFailed,
    )
}


def from_code(
    code: str, message: str, *, hint: str = "", details: str = "", exactly: str = ""
) -> EnvelopeError:
    """The exception for a code of the native module.

    `exactly` is the rule of the format that an envelope breaks, which becomes the code.
    """
    error = _BY_CODE.get(code, EnvelopeError)(message, hint=hint, details=details)
    error.code = exactly or code
    return error


_BY_STATUS: dict[int, type[EnvelopeError]] = {
    2: InvalidInput,
    3: NotFound,
    4: NotAllowed,
    5: Conflict,
    6: Unreachable,
    7: PredictionFailed,
    130: JobCancelled,
    143: JobCancelled,
}
"""Exit codes of the program `envelope` that say what kind of error it was."""

_BY_PROBLEM: dict[str, type[EnvelopeError]] = {
    "function_failed": PredictionFailed,
    "bad_output": PredictionFailed,
    "worker_crashed": PredictionFailed,
    "rows_do_not_fit": InvalidInput,
    "no_such_column": InvalidInput,
    "wrong_type": InvalidInput,
    "missing_value": InvalidInput,
    "bad_groups": InvalidInput,
    "group_too_large": InvalidInput,
    "bad_merge_columns": InvalidInput,
    "bad_partition_columns": InvalidInput,
    "environment_failed": EnvironmentMismatch,
    "wrong_interpreter": EnvironmentMismatch,
    "bad_envelope": BadEnvelope,
}
"""Those whose exit code says only that it failed, or says less."""


def from_program(status: int, problem: dict[str, Any], said: str) -> EnvelopeError:
    """The exception for the end of the program `envelope` with an exit code, and the error it has told.

    `said` is all that it has written, for when it has told none.
    """
    if not problem:
        return EnvelopeError(f"`envelope` ended with exit code {status}", details=said)
    code = problem["code"]
    kind = _BY_PROBLEM.get(code) or _BY_STATUS.get(status, EnvelopeError)
    message = ": ".join([problem["message"], *problem.get("causes", [])])
    error = kind(message, hint=problem.get("hint") or "", details=problem.get("details") or "")
    error.code = code
    return error
