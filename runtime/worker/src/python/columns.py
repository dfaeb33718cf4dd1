"""Columns between Python objects and Arrow, exactly or not at all.

A `Column` is what both sides have in common: a name, an Arrow type written as text (`int64`,
`timestamp[us, UTC]`, `list<float64>`), the Python type where one Arrow type has several, and the
values: bytes (fixed width, with a mask of missing ones), a list (`None` is missing), or a batch.

pandas, numpy and zoneinfo are imported only when an object of theirs is met: a function that takes
and gives plain Python values runs in an environment without them.
"""

import datetime as dt
import functools
import sys
from dataclasses import dataclass
from typing import Any

from _envelope_batch import Batch

EPOCH = dt.datetime(1970, 1, 1)
EPOCH_UTC = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
MICROSECOND = dt.timedelta(microseconds=1)
INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)
# Rows up to which handing over by objects is faster than by Arrow.
FEW = 256
# Every integer up to here is a 64-bit float, exactly.
EXACT_FLOAT = 2**53

PLAIN = {
    bool: "bool",
    float: "float64",
    str: "utf8",
    bytes: "binary",
    dt.date: "date",
    dt.timedelta: "duration[us]",
}
NUMBERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)} | {
    "bool",
    "float32",
    "float64",
}
# pandas types of numbers with a mask of missing ones, and what is under the mask.
MASKED = {f"{kind}{bits}": f"{kind.lower()}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)}
MASKED |= {"Float32": "float32", "Float64": "float64", "boolean": "bool"}


class Unsupported(TypeError):
    """A value that has no exact counterpart. The message says which and what to do."""


@dataclass
class Column:
    name: str
    type: str
    # Bytes, a list, or a batch of this column; `None` when an Arrow library holds the whole table.
    data: Any
    # One byte for each row, 1 where the value is missing; only beside bytes.
    mask: Any = None
    dtype: str | None = None
    categories: list | None = None
    ordered: bool = False
    missing: bool = False

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
    """A column from plain Python values; `None` is missing.

    numpy scalars become plain values, except that a list of one kind of them stays one.
    """
    types = set(map(type, values))
    if dtype == "list" and len(types) == 1 and _is_kept(value := next(iter(values))):
        return _from_scalars(name, values, value)
    if any(kind.__module__ == "numpy" for kind in types):
        values = [value.item() if _is_numpy_scalar(value) else value for value in values]
        types = set(map(type, values))
    kind = _common_type(name, values, types)
    if _is_time(kind) or kind.startswith("list<") or (kind == "float64" and int in types):
        values = [_plain(value, kind) for value in values]
    return Column(name, kind, values, dtype=dtype, missing=type(None) in types)


def from_scalar(name, value):
    """A column of one value."""
    if _is_kept(value):
        return _from_scalars(name, [value], value)
    if _is_nat(value):
        value = None  # of whatever type the other values have
    return from_list(name, [value], type(value).__name__)


def is_value(value):
    """Whether it is one value, of a type that columns know."""
    return type(value) in (*PLAIN, int, dt.datetime, type(None)) or _is_kept(value) or _is_nat(value)


def _is_nat(value):
    return type(value).__name__ == "NaTType"


def _is_kept(value):
    """Whether a library's own type of one value comes back as that type."""
    return _is_numpy_scalar(value) or _is_pandas_scalar(value)


def _is_numpy_scalar(value):
    return type(value).__module__ == "numpy" and hasattr(value, "dtype") and type(value).__name__ != "ndarray"


def _is_pandas_scalar(value):
    kind = type(value)
    return kind.__module__.partition(".")[0] == "pandas" and kind.__name__ in ("Timestamp", "Timedelta")


def _from_scalars(name, values, first):
    """A column from values of one type of numpy or pandas."""
    if _is_numpy_scalar(first):
        import numpy as np

        column = from_numpy(name, np.array(values))
        column.dtype = f"numpy.{column.dtype}"
        return column
    import pandas as pd

    series = pd.Series(values)
    if series.dtype == object:
        raise Unsupported(f"`{name}` mixes time zones")
    column = from_pandas(name, series)
    column.dtype = f"pandas.{type(first).__name__}"
    return column


def from_numpy(name, array):
    """A column from a numpy array of one dimension."""
    import numpy as np

    kind = array.dtype.kind
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    dtype = array.dtype.name
    if kind in "biuf" and dtype in NUMBERS:
        missing = kind == "f" and bool(np.isnan(array).any())
        return Column(name, dtype, array.tobytes(), dtype=dtype, missing=missing)
    if kind in "mM":
        unit = _unit(name, np.datetime_data(array.dtype))
        prefix = "timestamp" if kind == "M" else "duration"
        integers = np.ascontiguousarray(array).view("int64")
        return _masked(name, f"{prefix}[{unit}]", integers, np.isnat(array), dtype)
    if kind in "US":
        return from_list(name, array.tolist(), "str" if kind == "U" else "bytes")
    if kind == "O":
        return from_list(name, array.tolist(), "object")
    raise Unsupported(
        f"`{name}` is a numpy array of {array.dtype}, which has no exact Arrow type; "
        "use bool, int, float32, float64, datetime64 or str"
    )


def from_pandas(name, series):
    """A column from a pandas Series; neither its index nor its name is kept."""
    import numpy as np
    import pandas as pd

    dtype = series.dtype
    if isinstance(dtype, np.dtype):
        return _from_objects(name, series) if dtype.kind == "O" else from_numpy(name, series.to_numpy())
    if isinstance(dtype, pd.CategoricalDtype):
        return _from_categorical(name, series)
    if isinstance(dtype, pd.DatetimeTZDtype):
        integers = series.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy().view("int64")
        zone = _zone(name, dtype.tz)
        return _masked(
            name, f"timestamp[{dtype.unit}, {zone}]", integers, series.isna().to_numpy(), str(dtype)
        )
    if isinstance(dtype, pd.StringDtype):
        return _from_text(name, series)
    if dtype.name in MASKED:
        kind = MASKED[dtype.name]
        values = series.to_numpy(dtype=kind, na_value=0)
        return _masked(name, kind, values, series.isna().to_numpy(), dtype.name)
    raise Unsupported(
        f"column `{name}` has the pandas type {dtype}, which is not carried; "
        "convert it with `.astype(...)` first"
    )


def _masked(name, kind, values, missing, dtype):
    some = bool(missing.any())
    return Column(name, kind, values.tobytes(), missing.tobytes() if some else None, dtype, missing=some)


def _from_text(name, series):
    dtype = series.dtype
    if dtype.storage.startswith("pyarrow"):
        import pyarrow as pa

        data = Batch.from_arrow(pa.table({name: series.array.__arrow_array__()}))
        return Column(name, "utf8", data, dtype=str(dtype), missing=data.null_counts()[0] > 0)
    missing = bool(series.isna().any())
    values = series.to_numpy(dtype=object, na_value=None) if missing else series.to_numpy(dtype=object)
    return Column(name, "utf8", values.tolist(), dtype=str(dtype), missing=missing)


def _from_categorical(name, series):
    import numpy as np
    import pandas as pd

    categories = series.cat.categories
    labels = from_list(name, categories.tolist(), "categories")
    if labels.type not in ("utf8", "int64") or (labels.type == "int64" and categories.dtype != np.int64):
        found = f"type {categories.dtype}" if len(categories) else "no type, for there are none"
        raise Unsupported(f"column `{name}` has categories of {found}; use text or 64-bit integers")
    usual = pd.Index(labels.data).dtype == categories.dtype
    codes = series.cat.codes.to_numpy()
    values = _objects([*labels.data, None])[codes].tolist()
    column = Column(name, labels.type, values, categories=labels.data)
    column.dtype = "category" if usual else f"category:{categories.dtype}"
    column.ordered = bool(series.cat.ordered)
    column.missing = bool((codes < 0).any())
    return column


def _from_objects(name, series):
    """A column of any Python objects; one way to mark missing values is kept: `None`, or NaN among text."""
    from pandas.api.types import infer_dtype

    if infer_dtype(series, skipna=False) == "string":
        return Column(name, "utf8", series.tolist(), dtype="object")
    missing = series.isna().to_numpy()
    markers = sorted({type(value).__name__ for value in series[missing]})
    if len(markers) > 1:
        raise Unsupported(
            f"column `{name}` marks missing values in {len(markers)} ways ({', '.join(markers)}); "
            f"use one, for example `df[{name!r}] = df[{name!r}].where(df[{name!r}].notna(), None)`"
        )
    if markers == ["float"] and infer_dtype(series[~missing], skipna=False) == "string":
        values = [None if gone else value for value, gone in zip(series, missing, strict=True)]
        return Column(name, "utf8", values, dtype="object:nan", missing=True)
    if markers in (["NAType"], ["NaTType"]):
        raise Unsupported(
            f"column `{name}` marks missing values with {markers[0]} but has no type; "
            f"use `df[{name!r}] = df[{name!r}].convert_dtypes()`"
        )
    return from_list(name, series.tolist(), "object")


def _unit(name, data):
    unit, count = data
    if unit not in ("s", "ms", "us", "ns") or count != 1:
        raise Unsupported(f"`{name}` counts time in {count} {unit}; use s, ms, us or ns")
    return unit


def _common_type(name, values, types):
    """The one Arrow type of all values; `types` are their Python types."""
    types = types - {type(None)}
    if len(types) == 1 and (only := next(iter(types))) in PLAIN:
        return PLAIN[only]
    if types == {int}:
        return _integral(name, [value for value in values if value is not None])
    kinds = {}
    for value in values:
        if value is not None:
            kinds.setdefault(_type_of(name, value), value)
    if len(kinds) < 2:
        return next(iter(kinds), "null")
    if set(kinds) == {"int64", "float64"}:
        return _floating(name, values)
    if all(kind.startswith("list<") for kind in kinds):
        flat = [item for value in values if value is not None for item in value]
        return f"list<{_common_type(name, flat, set(map(type, flat)))}>"
    found = ", ".join(f"{type(value).__name__} ({str(value)[:40]!r})" for value in list(kinds.values())[:3])
    raise Unsupported(f"`{name}` mixes {found}; all values of a column have one type")


def _integral(name, values):
    least, most = min(values), max(values)
    if least in INT64 and most in INT64:
        return "int64"
    if least >= 0 and most in UINT64:
        return "uint64"
    raise Unsupported(
        f"`{name}` holds integers from {str(least)[:40]} to {str(most)[:40]}, which do not fit 64 bits"
    )


def _floating(name, values):
    inexact = next((value for value in values if type(value) is int and abs(value) > EXACT_FLOAT), None)
    if inexact is not None:
        raise Unsupported(f"`{name}` mixes floats with the integer {inexact}, which is not a float exactly")
    return "float64"


def _type_of(name, value):
    kind = type(value)
    if kind in PLAIN:
        return PLAIN[kind]
    if kind is int:
        return "int64"
    if kind is dt.datetime:
        return "timestamp[us]" if value.tzinfo is None else f"timestamp[us, {_zone(name, value.tzinfo)}]"
    if kind is list:
        items = [item.item() if _is_numpy_scalar(item) else item for item in value]
        return f"list<{_common_type(name, items, set(map(type, items)))}>"
    raise Unsupported(
        f"`{name}` holds a {kind.__module__}.{kind.__qualname__}, which has no exact Arrow type; "
        "use numbers, text, bytes, dates, or lists of these"
    )


def _zone(name, zone):
    """Name of a time zone, or its constant distance from UTC as Arrow writes it: `+05:30`."""
    named = getattr(zone, "key", None) or getattr(zone, "zone", None)
    if named:
        return named
    distance = zone.utcoffset(None)
    if distance is None:
        raise Unsupported(f"`{name}` has a time zone without a name ({zone}); use zoneinfo.ZoneInfo or UTC")
    minutes, rest = divmod(distance, dt.timedelta(minutes=1))
    if rest:
        raise Unsupported(f"`{name}` has a time zone that is {distance} from UTC; use whole minutes")
    if not minutes:
        return "UTC"
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"


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
        return (value - EPOCH) // MICROSECOND
    if kind.startswith("timestamp["):
        return (value - EPOCH_UTC) // MICROSECOND
    return value


# === columns → Python objects


def to_list(batch, index, field):
    """Plain Python values, or the scalars of the library that the field names; missing ones are `None`."""
    library, _, dtype = (field.get("dtype") or "").partition(".")
    if library == "numpy":
        return list(to_numpy(batch, index, {**field, "dtype": dtype}))
    if library == "pandas":
        return list(to_series(batch, index, {**field, "dtype": ""}))
    values = batch.pylist(index)
    kind = field["type"]
    return [_object(value, kind) for value in values] if _is_time(kind) else values


def to_numpy(batch, index, field):
    """A numpy array of one dimension that may be written to."""
    import numpy as np

    kind = field["type"]
    dtype = field.get("dtype") or ""
    if dtype != "object" and (kind.startswith(("timestamp", "duration")) or _is_fixed(kind)):
        values, mask = batch.values(index)
        prefix = {"t": "datetime64", "d": "timedelta64"}.get(kind[0])
        array = np.frombuffer(values, f"{prefix}[{_unit_of(kind)}]" if prefix else kind)
        if mask is not None:
            array[np.frombuffer(mask, "bool")] = "NaT" if prefix else np.nan
        return array
    values = to_list(batch, index, field)
    if dtype in ("str", "bytes"):
        return (
            np.array(values, dtype=dtype) if values else np.empty(0, dtype="U1" if dtype == "str" else "S1")
        )
    return _objects(values)


def to_pandas(batch, index, field):
    """The array of a pandas column: its dtype is exactly what the column is to have."""
    import pandas as pd

    kind = field["type"]
    dtype = field.get("dtype") or ""
    if dtype.startswith("category"):
        return _to_categorical(batch, index, field)
    if dtype in MASKED:
        return _to_masked(batch, index, dtype)
    if kind.startswith(("timestamp", "duration")) and dtype != "object":
        moments = to_numpy(batch, index, {**field, "dtype": ""})
        zone = kind.partition(", ")[2].rstrip("]")
        made = (pd.DatetimeIndex if kind.startswith("timestamp") else pd.TimedeltaIndex)(moments)
        return (made.tz_localize("UTC").tz_convert(zone) if zone else made).array
    if kind == "utf8" and dtype and not dtype.startswith("object"):
        return _to_text(batch, index, dtype)
    if dtype == "object:nan":
        return _objects([float("nan") if value is None else value for value in batch.pylist(index)])
    return to_numpy(batch, index, field)


def _to_text(batch, index, dtype):
    import pandas as pd

    dtype = pd.api.types.pandas_dtype(dtype)
    # Text that pandas keeps in Arrow's layout need not become objects in between.
    if batch.num_rows > FEW and "pyarrow" in sys.modules and hasattr(dtype, "__from_arrow__"):
        import pyarrow as pa

        return dtype.__from_arrow__(pa.table(batch).column(index))
    return pd.array(_objects(batch.pylist(index)), dtype=dtype)


def _to_masked(batch, index, dtype):
    import numpy as np
    import pandas as pd

    values, mask = batch.values(index)
    array = np.frombuffer(values, MASKED[dtype])
    missing = np.zeros(len(array), "bool") if mask is None else np.frombuffer(mask, "bool")
    made = {"b": pd.arrays.BooleanArray, "f": pd.arrays.FloatingArray}
    return made.get(array.dtype.kind, pd.arrays.IntegerArray)(array, missing)


def _to_categorical(batch, index, field):
    import pandas as pd

    values = batch.pylist(index)
    check_categories(values, field)
    categories = pd.Index(categories_of(field), dtype=field["dtype"].partition(":")[2] or None)
    return pd.Categorical(values, categories=categories, ordered=field.get("ordered", False))


def categories_of(field):
    """The categories as values: a signature writes them as text."""
    return (
        [int(category) for category in field["categories"]]
        if field["type"] == "int64"
        else field["categories"]
    )


def check_categories(values, field):
    """Raises `Unsupported` when a value is in none of the field's categories."""
    unknown = set(values) - set(categories_of(field)) - {None}
    if unknown:
        raise Unsupported(
            f"column `{field['name']}` has the category {min(unknown)!r}, which the sample did not have; "
            f"it had {', '.join(field['categories'][:5])}"
        )


def to_frame(batch, fields):
    """A pandas DataFrame."""
    arrays = [to_pandas(batch, index, field) for index, field in enumerate(fields)]
    return _frames()(arrays, tuple(field["name"] for field in fields), batch.num_rows)


def to_series(batch, index, field):
    """A pandas Series without a name."""
    import pandas as pd

    array = to_pandas(batch, index, field)
    # Left alone, pandas would guess a type for objects.
    return pd.Series(array, dtype=array.dtype, copy=False)


@functools.cache
def _frames():
    """How frames are put together: as pandas does it inside, if this pandas still does it so.

    The public way takes five times as long for one row, which is what services are asked for.
    """
    import numpy as np
    import pandas as pd

    def public(arrays, names, rows):
        series = {
            name: pd.Series(array, dtype=array.dtype) for name, array in zip(names, arrays, strict=True)
        }
        return pd.DataFrame(series, index=pd.RangeIndex(rows), columns=_labels(names), copy=False)

    def direct(arrays, names, rows):
        return pd.DataFrame._from_arrays(arrays, _labels(names), pd.RangeIndex(rows), verify_integrity=False)

    arrays = [np.ones(2), np.ones(2), _objects(["a", None]), pd.array([1, None], "Int8")]
    arrays += [pd.Categorical(["a", "b"]), pd.DatetimeIndex(["2026", "2027"]).array]
    expected = public(arrays, tuple("abcdef"), 2)
    try:
        found = direct(arrays, tuple("abcdef"), 2)
    except Exception:
        return public
    return direct if found.equals(expected) and found.dtypes.equals(expected.dtypes) else public


@functools.lru_cache(maxsize=64)
def _labels(names):
    import pandas as pd

    return pd.Index(names) if names else pd.RangeIndex(0)


def _objects(values):
    """An array of objects. (Assigning to one would take equally long lists for a matrix.)"""
    import numpy as np

    return np.fromiter(values, dtype=object, count=len(values))


def _object(value, kind):
    """The Python object for the integer (or the list) that Arrow holds."""
    if value is None:
        return None
    if kind.startswith("list<"):
        return [_object(item, kind[5:-1]) for item in value]
    if kind == "date":
        return EPOCH.date() + dt.timedelta(days=value)
    span = _span(value, _unit_of(kind))
    if kind.startswith("duration"):
        return span
    zone = kind.partition(", ")[2].rstrip("]")
    return (EPOCH_UTC + span).astimezone(_zone_object(zone)) if zone else EPOCH + span


def _span(value, unit):
    if unit == "ns" and value % 1000:
        raise Unsupported(f"{value} ns is not a Python datetime exactly; use microseconds")
    return dt.timedelta(
        microseconds=value // 1000 if unit == "ns" else value * {"s": 10**6, "ms": 1000, "us": 1}[unit]
    )


def _zone_object(zone):
    if zone == "UTC":
        return dt.timezone.utc
    if zone[0] in "+-":
        distance = dt.timedelta(hours=int(zone[1:3]), minutes=int(zone[4:6]))
        return dt.timezone(-distance if zone[0] == "-" else distance)
    import zoneinfo

    return zoneinfo.ZoneInfo(zone)


def _unit_of(kind):
    return kind.partition("[")[2].rstrip("]").partition(", ")[0]


def _is_time(kind):
    return kind.replace("list<", "").startswith(("timestamp", "duration", "date"))


def _is_fixed(kind):
    return kind == "bool" or kind.startswith(("int", "uint", "float"))
