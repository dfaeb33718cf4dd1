"""Types of columns, as a signature writes them, and the values of each.

A type is text: `int64`, `timestamp[us, UTC]`, `list<float64>`, `list<list<float32, 4>, 3>`,
`struct<"age": int64, "names": list<utf8>>`. Between Python and Arrow go numbers, texts, bytes, and lists
and dicts of these: times and decimals as the integers that Arrow keeps.
"""

import datetime as dt
import functools
import json
import re
from decimal import Decimal


class Unsupported(TypeError):
    """A value that has no exact counterpart. The message says which and what to do."""


EPOCH = dt.datetime(1970, 1, 1)
EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
MICROSECOND = dt.timedelta(microseconds=1)
MICROSECONDS = {"s": 10**6, "ms": 1000, "us": 1}
NUMBERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
NUMBERS |= {"bool", "float16", "float32", "float64"}
WIDTHS = {"bool": 1, "date": 4, "time[s]": 4, "time[ms]": 4}
WORD = re.compile(r"[a-z0-9]+(\[[^\]]*\])?")
NAMES = json.JSONDecoder()
MAX_DIGITS = 38


# === the text


def _end(kind, start):
    """Where the type that begins at `start` ends."""
    if kind.startswith("list<", start):
        return kind.index(">", _end(kind, start + 5)) + 1
    if kind.startswith("struct<", start):
        return _fields(kind, start)[1]
    return WORD.match(kind, start).end()


def _fields(kind, start):
    """Names and types of the `struct` that begins at `start`, and where it ends."""
    found, at = [], start + len("struct<")
    while True:
        name, at = NAMES.raw_decode(kind, at)
        end = _end(kind, at + 2)
        found.append((name, kind[at + 2 : end]))
        if kind[end] == ">":
            return tuple(found), end + 1
        at = end + 2


@functools.lru_cache(maxsize=1024)
def fields_of(kind):
    """Names and types of a `struct`."""
    return _fields(kind, 0)[0]


@functools.lru_cache(maxsize=1024)
def item_of(kind):
    """The type of the items of a list."""
    return kind[5 : _end(kind, 5)]


@functools.lru_cache(maxsize=1024)
def array_of(kind):
    """`(type, lengths)` of the items of an array: `list<list<int8, 4>, 3>` is `int8` and `(3, 4)`."""
    lengths = []
    while kind.startswith("list<"):
        item = item_of(kind)
        length = kind[5 + len(item) : -1].removeprefix(", ")
        if not length:
            break
        lengths.append(int(length))
        kind = item
    return kind, tuple(lengths)


def array(kind, lengths):
    """The type of a row of an array."""
    for length in reversed(lengths):
        kind = f"list<{kind}, {length}>"
    return kind


def struct(fields):
    """The type of dicts."""
    return f"struct<{', '.join(f'{json.dumps(name, ensure_ascii=False)}: {kind}' for name, kind in fields)}>"


def is_list(kind):
    return kind.startswith("list<")


def is_struct(kind):
    return kind.startswith("struct<")


def is_unknown(kind):
    """Whether there is nothing but missing values somewhere in it."""
    if is_list(kind):
        return is_unknown(item_of(kind))
    if is_struct(kind):
        return any(is_unknown(field) for _, field in fields_of(kind))
    return kind == "null"


def is_number(kind):
    return kind in NUMBERS


def unit_of(kind):
    return kind.partition("[")[2].rstrip("]").partition(", ")[0]


def zone_of(kind):
    return kind.partition(", ")[2].rstrip("]")


def decimal_of(kind):
    """Precision and scale."""
    return tuple(map(int, kind[len("decimal[") : -1].split(", ")))


@functools.lru_cache(maxsize=1024)
def width_of(kind):
    """Bytes of one row, as `Batch` takes and gives them."""
    item, lengths = array_of(kind)
    width = WIDTHS.get(item) or int("".join(filter(str.isdigit, item.partition("[")[0])) or 64) // 8
    for length in lengths:
        width *= length
    return width


# === values → what Arrow keeps


@functools.lru_cache(maxsize=1024)
def to_plain(kind):
    """What makes of a value what `Batch` takes; `None` where that is the value itself."""
    if is_list(kind):
        return _list_with(to_plain(item_of(kind)))
    if is_struct(kind):
        return _dict_with({name: to_plain(field) for name, field in fields_of(kind)})
    if kind.startswith("decimal["):
        return functools.partial(_digits, scale=decimal_of(kind)[1])
    if kind.startswith("timestamp[us, "):
        return lambda value: (value - EPOCH_UTC) // MICROSECOND
    return TO_PLAIN.get(kind)


def _list_with(convert):
    def converted(values):
        values = [item.item() if is_numpy_scalar(item) else item for item in values]
        if convert is None:
            return values
        return [None if item is None else convert(item) for item in values]

    return converted


def _dict_with(converters):
    def converted(values):
        return {name: _one(values[name], convert) for name, convert in converters.items()}

    return converted


def _one(value, convert):
    if is_numpy_scalar(value):
        value = value.item()
    return value if value is None or convert is None else convert(value)


def _digits(value, scale):
    """A decimal as its digits; one that has more of them than the type is refused by Arrow."""
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits)))
    if exponent + scale < 0:
        number, rest = divmod(number, 10 ** -(exponent + scale))
        if rest:
            raise ValueError(f"{value} has more than {scale} digits after the point")
    else:
        number *= 10 ** (exponent + scale)
    return -number if sign else number


def _since_midnight(value):
    return ((value.hour * 60 + value.minute) * 60 + value.second) * 10**6 + value.microsecond


TO_PLAIN = {
    "date": lambda value: (value - EPOCH.date()).days,
    "duration[us]": lambda value: value // MICROSECOND,
    "timestamp[us]": lambda value: (value - EPOCH) // MICROSECOND,
    "time[us]": _since_midnight,
}


# === what Arrow keeps → values


@functools.lru_cache(maxsize=1024)
def to_object(kind):
    """What makes the Python object of what `Batch` gives; `None` where that is the object itself."""
    if is_list(kind):
        convert = to_object(item_of(kind))
        return convert and (lambda values: [None if item is None else convert(item) for item in values])
    if is_struct(kind):
        converters = {name: to_object(field) for name, field in fields_of(kind)}
        return _dict_with(converters) if any(converters.values()) else None
    if kind == "date":
        return lambda days: EPOCH.date() + dt.timedelta(days=days)
    if kind.startswith("decimal["):
        return functools.partial(_decimal, scale=decimal_of(kind)[1])
    word = kind.partition("[")[0]
    if word not in ("duration", "time", "timestamp"):
        return None
    span = functools.partial(_span, unit=unit_of(kind))
    return {"duration": lambda: span, "time": lambda: _time(span), "timestamp": lambda: _moment(span, kind)}[
        word
    ]()


def objects(values, kind):
    """The Python objects of a column; missing ones are `None`."""
    convert = to_object(kind)
    return values if convert is None else [None if value is None else convert(value) for value in values]


def _span(value, unit):
    if unit == "ns" and value % 1000:
        raise Unsupported(f"{value} ns is not a Python datetime exactly; use microseconds")
    return dt.timedelta(microseconds=value // 1000 if unit == "ns" else value * MICROSECONDS[unit])


def _time(span):
    return lambda value: (EPOCH + span(value)).time()


def _moment(span, kind):
    zone = zone_of(kind)
    if not zone:
        return lambda value: EPOCH + span(value)
    zone = _zone_object(zone)
    return lambda value: (EPOCH_UTC + span(value)).astimezone(zone)


def _decimal(value, scale):
    return Decimal((int(value < 0), tuple(map(int, str(abs(value)))), -scale))


def _zone_object(zone):
    if zone == "UTC":
        return dt.timezone.utc
    if zone[0] in "+-":
        distance = dt.timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        return dt.timezone(-distance if zone[0] == "-" else distance)
    import zoneinfo

    return zoneinfo.ZoneInfo(zone)


def is_numpy_scalar(value):
    return type(value).__module__ == "numpy" and hasattr(value, "dtype") and type(value).__name__ != "ndarray"
