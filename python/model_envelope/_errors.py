"""What can go wrong, as exceptions that say what to do."""

from __future__ import annotations


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
