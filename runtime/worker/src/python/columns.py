"""Columns between Python objects and Arrow, exactly or not at all.

A `Column` is what both sides have in common: a name, an Arrow type written as text (`int64`,
`timestamp[us, UTC]`, `list<float64>`), the Python type where one Arrow type has several, and the
values, either as bytes (fixed width, with a mask of missing ones) or as a list (`None` is missing).

pandas, numpy and zoneinfo are imported only when an object of theirs is met: a function that takes
and gives plain Python values runs in an environment without them.
"""

import datetime as dt
from dataclasses import dataclass, field
from typing import Any

EPOCH = dt.datetime(1970, 1, 1)
EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
MICROSECOND = dt.timedelta(microseconds=1)
INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)
# Every integer up to here is a 64-bit float, exactly.
EXACT_FLOAT = 2**53


class Unsupported(TypeError):
    """A value that has no exact counterpart. The message says which and what to do."""


@dataclass
class Column:
    name: str
    type: str
    data: Any
    mask: Any = None
    dtype: str | None = None
    categories: list | None = None
    ordered: bool = False
    missing: bool = field(default=False)

    def as_field(self, *, nullable):
        """The column as a signature describes it."""
        described = {"name": self.name, "type": self.type, "nullable": nullable}
        if self.dtype is not None:
            described["dtype"] = self.dtype
        if self.categories is not None:
            described["categories"] = [str(category) for category in self.categories]
        if self.ordered:
            described["ordered"] = True
        return described


# === Python objects → columns


def from_list(name, values, dtype="list"):
    """A column from plain Python values; `None` is missing."""
    values = [value.item() if _is_numpy_scalar(value) else value for value in values]
    kind = _common_type(name, values)
    return Column(name, kind, [_plain(value, kind) for value in values], dtype=dtype,
                  missing=any(value is None for value in values))


def from_scalar(name, value):
    """A column of one value."""
    dtype = str(value.dtype) if _is_numpy_scalar(value) else type(value).__name__
    if _is_numpy_scalar(value):
        return _narrowed(from_numpy(name, value.reshape(1)), dtype)
    return from_list(name, [value], dtype)


def _narrowed(column, dtype):
    column.dtype = f"numpy.{dtype}"
    return column


def from_numpy(name, array):
    """A column from a numpy array of one dimension."""
    import numpy as np

    kind = array.dtype.kind
    array = np.ascontiguousarray(array)
    if kind in "biuf" and array.dtype.itemsize <= 8 and array.dtype.name != "float16":
        native = array.astype(array.dtype.newbyteorder("="), copy=False)
        missing = bool(np.isnan(native).any()) if kind == "f" else False
        return Column(name, array.dtype.name, native.tobytes(), dtype=array.dtype.name, missing=missing)
    if kind in "mM":
        unit = _unit(name, np.datetime_data(array.dtype))
        mask = np.isnat(array)
        return Column(name, f"{'timestamp' if kind == 'M' else 'duration'}[{unit}]",
                      array.view("int64").tobytes(), _mask(mask), str(array.dtype), missing=bool(mask.any()))
    if kind in "US":
        return from_list(name, array.tolist(), "str" if kind == "U" else "bytes")
    if kind == "O":
        return from_list(name, array.tolist(), "object")
    raise Unsupported(f"`{name}` is a numpy array of {array.dtype}, which has no exact Arrow type; "
                      "use bool, int, float32, float64, datetime64 or str")


def from_pandas(name, series):
    """A column from a pandas Series; the index is not kept."""
    import numpy as np
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _from_categorical(name, series)
    if isinstance(dtype, pd.DatetimeTZDtype):
        missing = series.isna().to_numpy()
        integers = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().view("int64")
        return Column(name, f"timestamp[{dtype.unit}, {dtype.tz}]", integers.tobytes(), _mask(missing),
                      str(dtype), missing=bool(missing.any()))
    if isinstance(dtype, pd.StringDtype):
        missing = series.isna().to_numpy()
        values = series.to_numpy(dtype=object)
        values = [None if gone else value for value, gone in zip(values, missing)]
        return Column(name, "utf8", values, dtype=str(dtype), missing=bool(missing.any()))
    if dtype.name in MASKED:
        return _from_masked(name, series)
    if dtype == object:
        return _from_objects(name, series)
    if isinstance(dtype, np.dtype):
        return from_numpy(name, series.to_numpy())
    raise Unsupported(f"column `{name}` has the pandas type {dtype}, which is not carried; "
                      "convert it with `.astype(...)` first")


MASKED = {f"{kind}{bits}": f"{kind.lower()}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)}
MASKED |= {"Float32": "float32", "Float64": "float64", "boolean": "bool"}


def _from_masked(name, series):
    kind = MASKED[series.dtype.name]
    missing = series.isna().to_numpy()
    values = series.to_numpy(dtype=kind, na_value=0)
    return Column(name, kind, values.tobytes(), _mask(missing), series.dtype.name,
                  missing=bool(missing.any()))


def _from_categorical(name, series):
    categories = series.cat.categories
    labels = from_list(name, categories.tolist())
    if labels.type not in ("utf8", "int64"):
        raise Unsupported(f"column `{name}` has categories of type {labels.type}; use text or integers")
    codes = series.cat.codes.tolist()
    values = [None if code < 0 else labels.data[code] for code in codes]
    return Column(name, labels.type, values, dtype="category", categories=labels.data,
                  ordered=bool(series.cat.ordered), missing=-1 in codes)


def _from_objects(name, series):
    values = series.tolist()
    gone = {type(value).__name__ for value in values if value is None or value is _na() or value != value}
    if len(gone) > 1:
        raise Unsupported(f"column `{name}` marks missing values in {len(gone)} ways ({', '.join(sorted(gone))}); "
                          f"use one, for example `df[{name!r}] = df[{name!r}].where(df[{name!r}].notna(), None)`")
    texts = all(isinstance(value, str) or value is None or value != value for value in values)
    if gone == {"float"} and texts:
        column = from_list(name, [value if isinstance(value, str) else None for value in values], "object:nan")
    else:
        column = from_list(name, values, "object")
    return column


def _na():
    import pandas as pd

    return pd.NA


def _mask(missing):
    return missing.tobytes() if missing.any() else None


def _is_numpy_scalar(value):
    return type(value).__module__ == "numpy" and hasattr(value, "dtype") and hasattr(value, "item")


def _unit(name, data):
    unit, count = data
    if unit not in ("s", "ms", "us", "ns") or count != 1:
        raise Unsupported(f"`{name}` counts time in {count} {unit}; use s, ms, us or ns")
    return unit


def _common_type(name, values):
    kinds = {}
    for value in values:
        if value is not None:
            kinds.setdefault(_scalar_type(name, value), value)
    if set(kinds) == {"int64", "uint64"}:
        return "uint64" if all(value is None or value >= 0 for value in values) else _mixed(name, kinds)
    if "float64" in kinds and set(kinds) <= {"int64", "float64"}:
        inexact = next((v for v in values if type(v) is int and abs(v) > EXACT_FLOAT), None)
        if inexact is not None:
            raise Unsupported(f"`{name}` mixes floats with the integer {inexact}, which is not a float exactly")
        return "float64"
    if len(kinds) > 1:
        lists = [kind for kind in kinds if kind.startswith("list<")]
        return _common_list(name, values) if len(lists) == len(kinds) else _mixed(name, kinds)
    return next(iter(kinds), "null")


def _common_list(name, values):
    flat = [item for value in values if value is not None for item in value]
    return f"list<{_common_type(name, flat)}>"


def _mixed(name, kinds):
    found = ", ".join(f"{type(value).__name__} ({str(value)[:40]!r})" for value in list(kinds.values())[:3])
    raise Unsupported(f"`{name}` mixes {found}; all values of a column have one type")


def _scalar_type(name, value):
    plain = {bool: "bool", float: "float64", str: "utf8", bytes: "binary", dt.timedelta: "duration[us]",
             dt.date: "date"}
    kind = type(value)
    if kind in plain:
        return plain[kind]
    if kind is int:
        if value in INT64:
            return "int64"
        if value in UINT64:
            return "uint64"
        raise Unsupported(f"`{name}` holds the integer {str(value)[:40]}, which does not fit 64 bits")
    if isinstance(value, dt.datetime):
        return "timestamp[us]" if value.tzinfo is None else f"timestamp[us, {_zone(name, value)}]"
    if kind in (list, tuple):
        return f"list<{_common_type(name, [v.item() if _is_numpy_scalar(v) else v for v in value])}>"
    if isinstance(value, str):
        return "utf8"
    raise Unsupported(f"`{name}` holds a {kind.__module__}.{kind.__qualname__}, which has no exact Arrow type; "
                      "use numbers, text, bytes, dates, or lists of these")


def _zone(name, value):
    zone = value.tzinfo
    if zone is dt.timezone.utc:
        return "UTC"
    key = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if key is None:
        raise Unsupported(f"`{name}` has a time zone without a name ({zone}); use zoneinfo.ZoneInfo or UTC")
    return key


def _plain(value, kind):
    """The value as what Rust reads for `kind`: int, float, bool, str, bytes or a list of these."""
    if value is None:
        return None
    if kind == "float64":
        return float(value)
    if kind.startswith("list<"):
        return [_plain(item.item() if _is_numpy_scalar(item) else item, kind[5:-1]) for item in value]
    if kind == "date":
        return (value - EPOCH.date()).days
    if kind == "duration[us]":
        return value // MICROSECOND
    if kind == "timestamp[us]":
        return (value.replace(tzinfo=None) - EPOCH) // MICROSECOND
    if kind.startswith("timestamp["):
        return (value - EPOCH_UTC) // MICROSECOND
    return value


# === columns → Python objects


def to_list(batch, index, field):
    """Plain Python values; missing ones are `None`."""
    kind = field["type"]
    values = batch.pylist(index)
    return [_object(value, kind) for value in values] if _is_time(kind) else values


def to_scalar(batch, index, field):
    """The only value of a column."""
    dtype = field.get("dtype") or ""
    if dtype.startswith("numpy.") and not batch.is_null(index, 0):
        return to_numpy(batch, index, {**field, "dtype": dtype.removeprefix("numpy.")})[0]
    return to_list(batch, index, field)[0]


def to_numpy(batch, index, field):
    """A numpy array of one dimension that may be written to."""
    import numpy as np

    kind = field["type"]
    dtype = field.get("dtype") or ""
    if kind.startswith(("timestamp", "duration")) and dtype != "object":
        prefix = "datetime64" if kind.startswith("timestamp") else "timedelta64"
        values, mask = batch.values(index)
        array = np.frombuffer(values, "int64").view(f"{prefix}[{_unit_of(kind)}]")
        if mask is not None:
            array[np.frombuffer(mask, "bool")] = "NaT"
        return array
    if _is_fixed(kind) and dtype != "object":
        values, mask = batch.values(index)
        array = np.frombuffer(values, kind)
        if mask is not None:
            array[np.frombuffer(mask, "bool")] = np.nan
        return array
    values = to_list(batch, index, field)
    if dtype in ("str", "bytes"):
        return np.array(values, dtype=dtype) if values else np.empty(0, dtype="U1" if dtype == "str" else "S1")
    return _objects(values)


def to_pandas(batch, index, field):
    """What a pandas column of the field's dtype is made from."""
    import numpy as np
    import pandas as pd

    kind = field["type"]
    dtype = field.get("dtype") or "object"
    if dtype == "category":
        return _to_categorical(batch, index, field)
    if dtype in MASKED:
        values, mask = batch.values(index)
        array = np.frombuffer(values, MASKED[dtype])
        missing = np.zeros(len(array), "bool") if mask is None else np.frombuffer(mask, "bool")
        made = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
        return made.get(array.dtype.kind, pd.arrays.IntegerArray)(array, missing)
    if kind.startswith("timestamp[") and ", " in kind and dtype != "object":
        plain = to_numpy(batch, index, {**field, "dtype": ""})
        return pd.DatetimeIndex(plain).tz_localize("UTC").tz_convert(kind.split(", ")[1][:-1])
    if kind == "utf8" and not dtype.startswith("object"):
        return pd.array(_objects(batch.pylist(index)), dtype=dtype)
    if dtype == "object:nan":
        values = batch.pylist(index)
        return _objects([np.nan if value is None else value for value in values])
    return to_numpy(batch, index, field)


def _to_categorical(batch, index, field):
    import pandas as pd

    integers = field["type"] == "int64"
    categories = [int(c) for c in field["categories"]] if integers else field["categories"]
    values = batch.pylist(index)
    known = set(categories)
    unknown = next((value for value in values if value is not None and value not in known), None)
    if unknown is not None:
        raise Unsupported(f"column `{field['name']}` has the category {unknown!r}, which the sample did not have; "
                          f"it had {', '.join(map(str, categories[:5]))}")
    return pd.Categorical(values, categories=categories, ordered=field.get("ordered", False))


def _objects(values):
    import numpy as np

    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _object(value, kind):
    """The Python object for the integer (or the list) that Arrow holds."""
    if value is None:
        return None
    if kind.startswith("list<"):
        return [_object(item, kind[5:-1]) for item in value]
    if kind == "date":
        return EPOCH.date() + dt.timedelta(days=value)
    scale = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 0.001}[_unit_of(kind)]
    if scale < 1 and value % 1000:
        raise Unsupported(f"{value} ns is not a Python datetime exactly; use microseconds")
    span = dt.timedelta(microseconds=value // 1000 if scale < 1 else value * scale)
    if kind.startswith("duration"):
        return span
    if ", " not in kind:
        return EPOCH + span
    zone = kind.split(", ")[1][:-1]
    if zone == "UTC":
        return EPOCH_UTC + span
    import zoneinfo

    return (EPOCH_UTC + span).astimezone(zoneinfo.ZoneInfo(zone))


def _unit_of(kind):
    return kind.split("[")[1].rstrip("]").split(", ")[0]


def _is_time(kind):
    innermost = kind.replace("list<", "")
    return innermost.startswith(("timestamp", "duration", "date"))


def _is_fixed(kind):
    return kind == "bool" or kind.startswith(("int", "uint", "float"))
