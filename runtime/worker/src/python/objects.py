"""Columns of a batch as Python objects: the way back from `columns.py`."""

import functools
import sys

import _envelope_kinds as kinds
from _envelope_columns import MASKED, as_objects
from _envelope_kinds import Unsupported

# Rows up to which handing over by objects is faster than by Arrow.
FEW = 256
TIMES = {"timestamp": "datetime64", "duration": "timedelta64"}


def to_list(batch, index, field):
    """Plain Python values, or the scalars or arrays of the library that the field names; missing
    ones are `None`."""
    library, _, dtype = (field.get("dtype") or "").partition(".")
    if library in OF_LIBRARY:
        return OF_LIBRARY[library](batch, index, field, dtype)
    return kinds.objects(batch.pylist(index), field["type"])


def _numpy_list(batch, index, field, dtype):
    import numpy as np

    if dtype.startswith(("list.", "object.")):
        return _small_arrays(batch, index, dtype.partition(".")[2])
    if dtype.startswith("point."):
        return [np.array(value) for value in to_numpy(batch, index, {**field, "dtype": ""})]
    if kinds.is_number(field["type"]):
        values, mask = batch.values(index)
        found = list(np.frombuffer(values, field["type"]))
        if mask is None:
            return found
        return [None if gone else value for value, gone in zip(found, mask, strict=True)]
    return list(to_numpy(batch, index, {**field, "dtype": dtype}))


def _small_arrays(batch, index, dtype):
    import numpy as np

    return [None if value is None else np.array(value, dtype=dtype) for value in batch.pylist(index)]


OF_LIBRARY = {
    "numpy": _numpy_list,
    "pandas": lambda batch, index, field, dtype: list(to_series(batch, index, {**field, "dtype": ""})),
    "torch": lambda batch, index, field, dtype: list(to_torch(batch, index, field)),
}


def to_torch(batch, index, field):
    """A torch tensor that shares its memory with nothing."""
    import torch

    return torch.from_numpy(to_numpy(batch, index, {**field, "dtype": ""}))


def to_numpy(batch, index, field):
    """A numpy array that may be written to: of one dimension, or of more where a row is an array."""
    import numpy as np

    kind = field["type"]
    dtype = field.get("dtype") or ""
    item, lengths = kinds.array_of(kind) if kinds.is_list(kind) else (kind, ())
    prefix = TIMES.get(item.partition("[")[0])
    if dtype != "object" and (prefix or kinds.is_number(item)):
        values, mask = batch.values(index)
        array = np.frombuffer(values, f"{prefix}[{kinds.unit_of(item)}]" if prefix else item)
        if mask is not None:
            _mark_missing(array, np.frombuffer(mask, "bool"), field)
        return array.reshape(batch.num_rows, *lengths) if lengths else array
    if dtype.startswith("numpy.object."):
        return as_objects(_small_arrays(batch, index, dtype.rpartition(".")[2]))
    values = to_list(batch, index, field)
    if dtype in ("str", "bytes"):
        return (
            np.array(values, dtype=dtype) if values else np.empty(0, dtype="U1" if dtype == "str" else "S1")
        )
    return as_objects(values)


def _mark_missing(array, missing, field):
    if array.dtype.kind not in "fmM":
        item = int(missing.argmax())
        raise Unsupported(
            f"`{field['name']}` has no value in its item {item}, and an array of {array.dtype} cannot say so"
        )
    array[missing] = "NaT" if array.dtype.kind in "mM" else float("nan")


def to_pandas(batch, index, field):
    """The array of a pandas column: its dtype is exactly what the column is to have."""
    import pandas as pd

    kind = field["type"]
    dtype = field.get("dtype") or ""
    if dtype.startswith("category"):
        return _to_categorical(batch, index, field)
    if dtype in MASKED:
        return _to_masked(batch, index, dtype)
    if dtype.startswith("pyarrow."):
        return _to_arrow_array(batch, index, dtype.partition(".")[2])
    if kind.startswith(("timestamp", "duration")) and dtype != "object":
        moments = to_numpy(batch, index, {**field, "dtype": ""})
        zone = kinds.zone_of(kind)
        made = (pd.DatetimeIndex if kind.startswith("timestamp") else pd.TimedeltaIndex)(moments)
        # A copy, for what is in an index may not be written to.
        return (made.tz_localize("UTC").tz_convert(zone) if zone else made).array.copy()
    if kind == "utf8" and dtype and not dtype.startswith("object"):
        return _to_text(batch, index, dtype)
    if dtype == "object:nan":
        return as_objects([float("nan") if value is None else value for value in batch.pylist(index)])
    return to_numpy(batch, index, field)


def _to_text(batch, index, dtype):
    import pandas as pd

    dtype = pd.api.types.pandas_dtype(dtype)
    # Text that pandas keeps in Arrow's layout need not become objects in between.
    if batch.num_rows > FEW and "pyarrow" in sys.modules and hasattr(dtype, "__from_arrow__"):
        import pyarrow as pa

        return dtype.__from_arrow__(pa.table(batch).column(index))
    return pd.array(as_objects(batch.pylist(index)), dtype=dtype)


def _to_arrow_array(batch, index, layout):
    import _envelope_tables as tables
    import pandas as pd
    import pyarrow as pa

    column = pa.table(batch).column(index)
    return pd.arrays.ArrowExtensionArray(tables.cast(column, tables.laid_out(layout, column.type)))


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

    arrays = [np.ones(2), np.ones(2), as_objects(["a", None]), pd.array([1, None], "Int8")]
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
