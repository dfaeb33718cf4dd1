"""Columns between Python objects and Arrow, exactly or not at all.

A `Column` is what both sides have in common: a name, an Arrow type written as text (`int64`,
`timestamp[us, UTC]`, `list<float64>`), the Python type where one Arrow type has several, and the
values: bytes (fixed width, with a mask of missing ones), a list (`None` is missing), or a batch.

pandas, numpy and zoneinfo are imported only when an object of theirs is met: a function that takes
and gives plain Python values runs in an environment without them.
"""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import _envelope_kinds as kinds
from _envelope_batch import Batch
from _envelope_kinds import NUMBERS, Unsupported, is_numpy_scalar

INT64 = range(-(2**63), 2**63)
UINT64 = range(2**64)
# Every integer up to here is a 64-bit float, exactly.
EXACT_FLOAT = 2**53

PLAIN = {
    bool: "bool",
    float: "float64",
    str: "utf8",
    bytes: "binary",
    dt.date: "date",
    dt.time: "time[us]",
    dt.timedelta: "duration[us]",
}
# pandas types of numbers with a mask of missing ones, and what is under the mask.
MASKED = {f"{kind}{bits}": f"{kind.lower()}{bits}" for kind in ("Int", "UInt") for bits in (8, 16, 32, 64)}
MASKED |= {"Float32": "float32", "Float64": "float64", "boolean": "bool"}
# Names of the types of numpy and torch that are arrays.
ARRAYS = ("ndarray", "Tensor", "Parameter")
# What to do about pandas types that have no counterpart.
INSTEAD = {
    "period": "use `.dt.to_timestamp()`, or `.astype(str)`",
    "interval": "use two columns, `.array.left` and `.array.right`, or `.astype(str)`",
    "Sparse": "use `.sparse.to_dense()`",
}


@dataclass
class Column:
    name: str
    type: str
    # Bytes, a list, or a batch of this column; `None` when an Arrow library holds the whole table.
    data: Any
    # One byte for each item, 1 where it is missing; only beside bytes.
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

    numpy scalars become plain values, except that a list of one kind of them stays one; so do
    small arrays.
    """
    types = set(map(type, values))
    if dtype == "list" and types and (first := _kept(values, types)) is not None:
        return _from_scalars(name, values, first)
    if any(kind.__module__ == "numpy" for kind in types):
        if _are_arrays(types):
            return _from_arrays(name, values, dtype)
        values = [value.item() if is_numpy_scalar(value) else value for value in values]
        types = set(map(type, values))
    kind = _common_type(name, values, types)
    convert = kinds.to_plain(kind)
    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    return Column(name, kind, values, dtype=dtype, missing=type(None) in types)


def from_scalar(name, value):
    """A column of one value."""
    if is_kept(value):
        return _from_scalars(name, [value], value)
    if _is_nat(value):
        value = None  # of whatever type the other values have
    if getattr(value, "ndim", None) == 0:
        return _from_point(name, value)
    return from_list(name, [value], "list" if type(value).__name__ == "ndarray" else type(value).__name__)


def is_value(value):
    """Whether it is one value, of a type that columns know."""
    kind = type(value)
    if kind in PLAIN or kind in (int, dt.datetime, type(None), Decimal):
        return True
    return is_kept(value) or _is_nat(value) or (is_array(value) and value.ndim == 0)


def is_array(value):
    """A numpy array or a torch tensor."""
    return type(value).__name__ in ARRAYS and hasattr(value, "ndim")


def is_kept(value):
    """Whether a library's own type of one value comes back as that type."""
    return is_numpy_scalar(value) or _is_pandas_scalar(value)


def _kept(values, types):
    """A value of the one type of a library that all are of, missing ones aside."""
    types = types - {type(None)}
    if len(types) != 1 or next(iter(types)).__module__ in ("builtins", "datetime"):
        return None
    first = next(value for value in values if value is not None)
    return first if is_kept(first) else None


def _is_nat(value):
    return type(value).__name__ == "NaTType"


def _is_pandas_scalar(value):
    kind = type(value)
    return kind.__module__.partition(".")[0] == "pandas" and kind.__name__ in ("Timestamp", "Timedelta")


def _from_scalars(name, values, first):
    """A column from values of one type of numpy or pandas."""
    if is_numpy_scalar(first):
        return _from_numpy_scalars(name, values, first)
    import pandas as pd

    series = pd.Series(values)
    if series.dtype == object:
        raise Unsupported(f"`{name}` mixes time zones; use `.tz_convert(...)` to have one")
    column = from_pandas(name, series)
    column.dtype = f"pandas.{type(first).__name__}"
    return column


def _from_numpy_scalars(name, values, first):
    import numpy as np

    missing = [value is None for value in values]
    some = any(missing)
    column = from_numpy(name, np.array([first if value is None else value for value in values]))
    if some and isinstance(column.data, bytes) and column.mask is None:
        column.mask = bytes(missing)
    elif some:
        return from_list(name, [None if value is None else value.item() for value in values], "object")
    column.dtype = f"numpy.{column.dtype}"
    column.missing = column.missing or some
    return column


def _from_point(name, value):
    """A column of one value from an array of no dimension."""
    column = from_array(name, value.reshape(1))
    if not isinstance(column.data, bytes):
        raise Unsupported(f"`{name}` is an array of no dimension that holds {column.type}; use `.item()`")
    library = type(value).__module__.partition(".")[0]
    column.dtype = f"{library}.point.{column.dtype.rpartition('.')[2]}"
    return column


def _are_arrays(types):
    return {kind.__name__ for kind in types if kind is not type(None)} == {"ndarray"}


def _from_arrays(name, values, dtype):
    """A column of small arrays, which may differ in length."""
    some = [value for value in values if value is not None]
    found = {(value.dtype.name, value.ndim) for value in some}
    if len(found) > 1 or not kinds.is_number(some[0].dtype.name) or not some[0].ndim:
        shown = ", ".join(f"{dtype} in {ndim} dimensions" for dtype, ndim in sorted(found)[:3])
        raise Unsupported(f"`{name}` holds arrays of {shown}; use numbers of one type, or `.tolist()`")
    item, ndim = found.pop()
    kind = "list<" * ndim + item + ">" * ndim
    lists = [None if value is None else value.tolist() for value in values]
    holder = "object" if dtype == "object" else "list"
    missing = len(some) < len(values)
    return Column(name, kind, lists, dtype=f"numpy.{holder}.{item}", missing=missing)


def from_array(name, array):
    """A column from a numpy array or a torch tensor: one row for each index of its first dimension."""
    if type(array).__name__ == "ndarray":
        return from_numpy(name, array)
    column = from_numpy(name, _of_tensor(name, array))
    column.dtype = f"torch.{column.dtype}"
    return column


def _of_tensor(name, tensor):
    """The values of a tensor; a gradient is not one of them."""
    if tensor.device.type != "cpu":
        raise Unsupported(f"`{name}` is a tensor on {tensor.device}; use `.cpu()`")
    if str(tensor.layout) != "torch.strided":
        raise Unsupported(f"`{name}` is a tensor of the layout {tensor.layout}; use `.to_dense()`")
    if tensor.is_complex() or tensor.is_quantized or str(tensor.dtype) == "torch.bfloat16":
        raise Unsupported(f"`{name}` is a tensor of {tensor.dtype}, which has no exact type; use `.float()`")
    try:
        return tensor.detach().numpy()
    except (TypeError, RuntimeError) as error:
        raise Unsupported(f"`{name}` is a tensor that cannot be read: {error}") from None


def from_numpy(name, array):
    """A column from a numpy array: one row for each index of its first dimension."""
    import numpy as np

    kind = array.dtype.kind
    if array.ndim > 1:
        return _from_grid(name, array)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    dtype = array.dtype.name
    if kind in "biuf" and dtype in NUMBERS:
        missing = kind == "f" and bool(np.isnan(array).any())
        return Column(name, dtype, array.tobytes(), dtype=dtype, missing=missing)
    if kind in "mM":
        return _from_times(name, array, dtype)
    if kind in "US":
        return from_list(name, array.tolist(), "str" if kind == "U" else "bytes")
    if kind == "O":
        return from_list(name, array.tolist(), "object")
    raise Unsupported(
        f"`{name}` is a numpy array of {array.dtype}, which has no exact Arrow type; "
        "use bool, int, float16, float32, float64, datetime64 or str"
    )


def _from_times(name, array, dtype):
    import numpy as np

    unit, count = np.datetime_data(array.dtype)
    if unit not in ("s", "ms", "us", "ns") or count != 1:
        raise Unsupported(f"`{name}` counts time in {count} {unit}; use s, ms, us or ns")
    prefix = "timestamp" if array.dtype.kind == "M" else "duration"
    integers = np.ascontiguousarray(array).view("int64")
    return _masked(name, f"{prefix}[{unit}]", integers, np.isnat(array), dtype)


def _from_grid(name, array):
    """A column of which each row is an array, all of the same lengths."""
    import numpy as np

    lengths = array.shape[1:]
    if 0 in lengths:
        raise Unsupported(f"`{name}` is an array of the shape {array.shape}, whose rows hold nothing")
    column = from_numpy(name, np.ascontiguousarray(array).reshape(-1))
    if not isinstance(column.data, bytes):
        raise Unsupported(f"`{name}` is an array of {column.type} in {array.ndim} dimensions; use lists")
    column.type = kinds.array(column.type, lengths)
    return column


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
    if isinstance(dtype, getattr(pd, "ArrowDtype", ())):
        return _from_arrow_array(name, series)
    instead = next((hint for word, hint in INSTEAD.items() if dtype.name.startswith(word)), None)
    raise Unsupported(
        f"column `{name}` has the pandas type {dtype}, which is not carried; "
        + (instead or "convert it with `.astype(...)` first")
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


def _from_arrow_array(name, series):
    """A column that pandas keeps as pyarrow does."""
    import _envelope_tables as tables
    import pyarrow as pa

    table = pa.table({name: series.array.__arrow_array__()})
    data = Batch.from_arrow(table)
    layout = tables.layout(table.schema.field(0).type)
    return Column(name, data.types()[0], data, dtype=f"pyarrow.{layout}", missing=data.null_counts()[0] > 0)


def as_objects(values):
    """An array of objects. (Assigning to one would take equally long lists for a matrix.)"""
    import numpy as np

    return np.fromiter(values, dtype=object, count=len(values))


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
    values = as_objects([*labels.data, None])[codes].tolist()
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


def _common_type(name, values, types):
    """The one Arrow type of all values; `types` are their Python types."""
    types = types - {type(None)}
    if len(types) == 1:
        only = next(iter(types))
        return PLAIN.get(only) or _type_of_all(name, only, [value for value in values if value is not None])
    if types == {int, float}:
        return _floating(name, values)
    if not types:
        return "null"
    firsts = {}
    for value in values:
        if value is not None:
            firsts.setdefault(type(value), value)
    found = ", ".join(f"{kind.__name__} ({str(value)[:40]!r})" for kind, value in [*firsts.items()][:3])
    raise Unsupported(f"`{name}` mixes {found}; all values of a column have one type")


def _type_of_all(name, kind, values):
    """The Arrow type of values of one Python type that alone does not say it."""
    if kind in BY_VALUES:
        return BY_VALUES[kind](name, values)
    raise Unsupported(
        f"`{name}` holds a {kind.__module__}.{kind.__qualname__}, which has no exact Arrow type; "
        "use numbers, text, bytes, dates, or lists and dicts of these"
    )


def _listed(name, values):
    items = [item.item() if is_numpy_scalar(item) else item for value in values for item in value]
    return f"list<{_common_type(name, items, set(map(type, items)))}>"


def _structured(name, values):
    keys = list(values[0])
    if not keys:
        raise Unsupported(f"`{name}` holds an empty dict; give it a key")
    other = next((value for value in values if value.keys() != values[0].keys()), None)
    if other is not None:
        raise Unsupported(
            f"`{name}` holds dicts with the keys {sorted(map(str, keys))} and {sorted(map(str, other))}; "
            "give all of them the same keys, with `None` for what is missing"
        )
    for key in keys:
        if type(key) is not str:
            raise Unsupported(f"`{name}` holds a dict with the key {key!r}, which is not text")
    return kinds.struct([(key, _field(f"{name}.{key}", [value[key] for value in values])) for key in keys])


def _field(name, values):
    values = [value.item() if is_numpy_scalar(value) else value for value in values]
    return _common_type(name, values, set(map(type, values)))


def _decimal(name, values):
    """As many digits after the point as any value has."""
    scale = 0
    for value in values:
        exponent = value.as_tuple().exponent
        if not isinstance(exponent, int):
            raise Unsupported(f"`{name}` holds the decimal {value}; use `None` for what is missing")
        scale = max(scale, -exponent)
    most = max(len(str(abs(int(value)))) for value in values)
    if scale + most > kinds.MAX_DIGITS:
        raise Unsupported(f"`{name}` holds decimals of more than {kinds.MAX_DIGITS} digits; use text")
    return f"decimal[{kinds.MAX_DIGITS}, {scale}]"


def _moment(name, values):
    zones = {None if value.tzinfo is None else _zone(name, value.tzinfo) for value in values}
    if len(zones) > 1:
        shown = ", ".join(sorted(str(zone or "none") for zone in zones)[:3])
        raise Unsupported(f"`{name}` mixes the time zones {shown}; use `.astimezone(...)` to have one")
    zone = zones.pop()
    return "timestamp[us]" if zone is None else f"timestamp[us, {zone}]"


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


BY_VALUES = {
    int: _integral,
    list: _listed,
    dict: _structured,
    Decimal: _decimal,
    dt.datetime: _moment,
}
