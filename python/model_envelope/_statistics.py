"""The stored statistics of a function's input and output: a plain dict that can be looked at."""

from __future__ import annotations

import html
from collections.abc import Iterator
from datetime import date, datetime, timedelta, timezone
from typing import Any

SPARKS = " ▁▂▃▄▅▆▇█"
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
TOP = 3
LONGEST = 24
BAR = "display:inline-block;width:5px;background:currentColor;opacity:.6;vertical-align:bottom"
CELL = "text-align:left;white-space:nowrap;padding:.1em .8em .1em 0"


class Statistics(dict[str, Any]):
    """`{"version": 1, "input": {"rows": …, "columns": […]}, "output": …}`, as it is stored.

    Of a column there are `count`, `nulls`, and by its type `numbers`, `booleans`, `texts`, `lengths`
    and `distinct`. Numbers have counts of what is not finite, `min`, `max`, `mean`, `variance`, `std`,
    `quantiles`, a `histogram` and the most `frequent` values. Dates, timestamps and durations are
    numbers of what they count.
    """

    def __repr__(self) -> str:
        return "\n".join(line for part in ("input", "output") for line in _lines(part, self[part]))

    def _repr_html_(self) -> str:
        return "".join(_table(part, self[part]) for part in ("input", "output"))


def _lines(part: str, table: dict[str, Any]) -> Iterator[str]:
    yield f"{part}, {table['rows']:,} rows"
    rows = [_cells(column) for column in table["columns"]]
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    for row in rows:
        yield "  " + "  ".join(map(str.ljust, row, widths)).rstrip()


def _cells(column: dict[str, Any]) -> tuple[str, str, str, str]:
    counts = _numbers(column).get("histogram") or {"counts": []}
    return _short(column["name"]), column["type"], _spark(counts["counts"]), ", ".join(_facts(column))


def _table(part: str, table: dict[str, Any]) -> str:
    rows = "".join(_row(column) for column in table["columns"])
    return f"<div><b>{part}</b>, {table['rows']:,} rows</div><table>{rows}</table>"


def _row(column: dict[str, Any]) -> str:
    name, kind, _, facts = map(html.escape, _cells(column))
    counts = (_numbers(column).get("histogram") or {"counts": []})["counts"]
    most = max(counts, default=0)
    bars = "".join(f"<span style='{BAR};height:{24 * count // most or 1}px'></span>" for count in counts)
    cells = (f"<code>{name}</code>", kind, bars, facts)
    return "<tr>" + "".join(f"<td style='{CELL}'>{cell}</td>" for cell in cells) + "</tr>"


def _numbers(column: dict[str, Any]) -> dict[str, Any]:
    """What a picture can be drawn of: the numbers, or else the lengths."""
    numbers: dict[str, Any] = column.get("numbers") or column.get("lengths") or {}
    return numbers


def _facts(column: dict[str, Any]) -> Iterator[str]:
    numbers, kind = _numbers(column), column["type"] if "numbers" in column else "int64"
    if numbers.get("min") is not None:
        what = "" if "numbers" in column else " long"
        yield f"{_value(numbers['min'], kind)} to {_value(numbers['max'], kind)}{what}"
    if "numbers" in column and numbers["mean"] is not None:
        yield f"mean {_value(numbers['mean'], kind)}"
    for count, what in ((column["nulls"], "missing"), (numbers.get("nans"), "NaN")):
        if count:
            yield f"{count:,} {what}"
    if "distinct" in column:
        about = "about " if column["distinct"]["relative_error"] else ""
        yield f"{about}{column['distinct']['estimate']:,} distinct"
    yield from _shares(column)


def _shares(column: dict[str, Any]) -> Iterator[str]:
    present = column["count"] - column["nulls"]
    counts = (
        column.get("booleans", {}).items()
        or column.get("texts", {}).get("frequent", {"values": []})["values"]
    )
    for value, count in list(counts)[:TOP]:
        if count > 1:
            yield f"{_short(str(value))!r} {count / present:.0%}"


def _spark(counts: list[int]) -> str:
    most = max(counts, default=0)
    return "".join(SPARKS[-(-count * 8 // most)] for count in counts)


def _value(value: float, kind: str) -> str:
    """A number of a column of that type, as people write it."""
    name, _, inside = kind.rstrip("]").partition("[")
    seconds = value / PER_SECOND.get(inside.partition(",")[0], 1)
    try:
        if name == "date":
            return str(date(1970, 1, 1) + timedelta(days=round(value)))
        if name == "timestamp":
            moment = EPOCH + timedelta(seconds=seconds)
            return f"{moment:%Y-%m-%d %H:%M:%S}{'Z' if ',' in inside else ''}"
    except OverflowError:
        return str(value)
    if name == "duration":
        return f"{seconds:g} s"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _short(text: str) -> str:
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)
    return printable if len(printable) <= LONGEST else printable[: LONGEST - 1] + "…"
