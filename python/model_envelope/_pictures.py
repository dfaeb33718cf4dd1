"""Envelopes as text, and as HTML for notebooks, light or dark, without scripts or outside files."""

from __future__ import annotations

import html
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._envelope import Envelope

CHIP = (
    "display:inline-block;border:1px solid currentColor;border-radius:1em;"
    "padding:0 .6em;margin:0 .3em .3em 0;opacity:.75"
)
CARD = "border:1px solid currentColor;border-radius:.5em;padding:.8em 1em;max-width:46em"
MOST_FIELDS = 20


def line(function: dict[str, Any]) -> str:
    """`predict(pandas.DataFrame: a, b) → pandas.Series`."""
    takes, gives = function["signature"]["input"], function["signature"]["output"]
    columns = ", ".join(field["name"] for field in takes["fields"][:4])
    more = ", …" if len(takes["fields"]) > 4 else ""
    return f"{function['name']}({takes['shape']}: {columns}{more}) → {gives['shape']}"


def text(envelope: Envelope) -> str:
    """One line."""
    functions = ", ".join(line(function) for function in envelope.manifest["functions"])
    tags = ",".join(f"{key}={value}" for key, value in envelope.tags.items())
    return f"<Envelope {envelope.id} {envelope.digest[:19]}… {functions}{f' [{tags}]' if tags else ''}>"


def card(envelope: Envelope) -> str:
    """A box with everything that fits on a screen."""
    tags = "".join(
        f"<span style='{CHIP}'>{html.escape(f'{key}={value}')}</span>" for key, value in envelope.tags.items()
    )
    functions = "".join(map(_function, envelope.manifest["functions"]))
    return (
        f"<div style='{CARD}'>"
        f"<b>{html.escape(envelope.id)}</b> <code style='opacity:.6'>{envelope.digest[:19]}…</code>"
        f"<div>{html.escape(envelope.description)}</div>"
        f"<div style='margin:.4em 0'>{tags}</div>{functions}</div>"
    )


def table(envelopes: Iterable[Envelope]) -> str:
    """A row for each envelope."""
    names = ("envelope", "tags", "created", "digest")
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in names)
    body = "".join(
        f"<tr><td>{html.escape(envelope.id)}</td>"
        f"<td>{html.escape(', '.join(f'{key}={value}' for key, value in envelope.tags.items()))}</td>"
        f"<td>{html.escape(envelope.created_at or '')}</td><td><code>{envelope.digest[7:19]}</code></td></tr>"
        for envelope in envelopes
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _function(function: dict[str, Any]) -> str:
    certificate = function["certificate"]
    tested = f"tested row-wise, {certificate['trials']} trials" if certificate["row_wise"] else "not row-wise"
    if function.get("proof") == "quick":
        tested += ", quick proof"
    rows = "".join(
        f"<tr><td>{way}</td><td><code>{html.escape(field['name'])}</code></td><td>{html.escape(field['type'])}"
        f"{'?' if field['nullable'] else ''}</td></tr>"
        for way, side in (("in", "input"), ("out", "output"))
        for field in function["signature"][side]["fields"][:MOST_FIELDS]
    )
    summary = f"<code>{html.escape(line(function))}</code> · {tested}"
    return f"<details><summary>{summary}</summary><table>{rows}</table></details>"
