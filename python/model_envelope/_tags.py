"""What a tag may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ._errors import InvalidInput

MAX_BYTES = 1024


def check_tags(tags: Any) -> None:
    """Raises `InvalidInput` for the first tag that cannot be kept."""
    if not isinstance(tags, Mapping):
        raise InvalidInput(f"the tags are a {type(tags).__name__}", hint='write {"region": "US"}')
    for key, value in tags.items():
        _check_tag(key, value)


def check_changes(tags: Mapping[str, Any]) -> None:
    """As `check_tags`, where `None` removes a tag."""
    check_tags({key: "" if value is None else value for key, value in tags.items()})


def check_text(what: str, text: str) -> None:
    """Half of a surrogate pair is no character, and cannot be stored."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(
            f"{what} is not valid Unicode: character {error.start} is half of a surrogate pair",
            hint="was it decoded with another encoding than it was written in?",
        ) from None


def _check_tag(key: Any, value: Any) -> None:
    if not isinstance(key, str) or not isinstance(value, str):
        raise InvalidInput(
            f"the tag {key!r}: {value!r} is not text to text",
            hint=f"write {{{str(key)!r}: {str(value)!r}}}",
        )
    if not re.fullmatch(r"[A-Za-z0-9_.\-/]{1,63}", key) or key == "name":
        raise InvalidInput(
            f"{key!r} is not a tag key",
            hint="use 1 to 63 letters, digits, `.`, `_`, `-`, `/`; `name` is the model's name",
        )
    check_text(f"the value of tag {key!r}", value)
    if len(value.encode()) > MAX_BYTES:
        raise InvalidInput(
            f"the value of tag {key!r} has {len(value.encode())} bytes, the most is {MAX_BYTES}"
        )
