"""Whose envelopes are run: with `ENVELOPE_TRUST`, only those that a key in that file vouches for."""

from __future__ import annotations

import time
from functools import lru_cache
from pathlib import Path

from . import _native
from ._errors import BadEnvelope, InvalidInput
from ._settings import settings


def check_trust(path: Path) -> None:
    """Raises `BadEnvelope` where trust is asked for and nobody vouches for this file."""
    keys = settings().trust
    if keys is not None:
        _check(path, _state(path), _state(_beside(path)), keys, _state(keys))


@lru_cache(maxsize=256)
def _check(path: Path, _path: object, _attestation: object, keys: Path, _keys: object) -> None:
    """Reads every byte, so not again while no file has changed."""
    if _attestation is None:
        raise BadEnvelope(
            f"nobody vouches for `{path}`: it has no attestation beside it",
            hint="`envelope sign REF --key FILE` makes one, by a key that ENVELOPE_TRUST lists",
        )
    try:
        _native.check_trust(path, keys, int(time.time()))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"ENVELOPE_TRUST is `{keys}`, which cannot be read: {error}") from None


def _beside(path: Path) -> Path:
    return path.with_name(f"{path.name}.attestation")


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
