"""What the definition of a function says about its parameters: for people, never for the machine."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

LONGEST = 200
"""Characters of an annotation or a default that are worth reading."""

PLAIN = (int, float, str, bytes, bool, type(None))
STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def parameters(function: Callable[..., Any]) -> list[dict[str, str]]:
    """Name, annotation and default of each parameter, as text; nothing for what has no signature."""
    try:
        found = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [_described(parameter) for parameter in found]


def _described(parameter: inspect.Parameter) -> dict[str, str]:
    described = {"name": STARS.get(parameter.kind, "") + parameter.name}
    if parameter.annotation is not parameter.empty:
        described["annotation"] = _annotation(parameter.annotation)
    if parameter.default is not parameter.empty:
        described["default"] = _default(parameter.default)
    return described


def _annotation(annotation: Any) -> str:
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return text[:LONGEST]


def _default(value: Any) -> str:
    """Plain values only: the text of another object may name an address, or be a secret's."""
    text = repr(value) if _is_plain(value) else "..."
    return text if len(text) <= LONGEST else "..."


def _is_plain(value: Any) -> bool:
    if type(value) in (tuple, list):
        return all(map(_is_plain, value))
    return type(value) in PLAIN
