"""Whether an object came back as it was.

Types, units, zones, categories and bits count. Not counted is what rows do not have: the index of pandas,
names of series and of indexes, the order of bytes and of memory. A number may come back as another
Python number of the same value (an integer among floats is a float), a decimal with more zeros.
"""

import math
import numbers

from _envelope_batch import Batch

# Python types whose `==` tells everything.
PLAIN = {int, bool, str, bytes, type(None)}


def difference(one, other):
    """Where the second differs from the first, in words; `None` when it is the same."""
    if type(one) is not type(other) and not _is_scalar_pair(one, other):
        return f"it would come back as a {_kind(other)} and not as a {_kind(one)}"
    if isinstance(one, dict):
        return _inner(one, other, one)
    if isinstance(one, tuple):
        return _inner(one, other, range(len(one)))
    if isinstance(one, list):
        return _lists(one, other)
    return COMPARED.get(_kind(one), _scalars)(one, other)


def _kind(value):
    return f"{type(value).__module__.partition('.')[0]}.{type(value).__name__}"


def _is_scalar_pair(one, other):
    return not any(
        isinstance(value, (dict, tuple, list)) or hasattr(value, "shape") for value in (one, other)
    )


def _inner(one, other, keys):
    for key in keys:
        if (found := difference(one[key], other[key])) is not None:
            return f"in `{key}` {found}"
    return None


def _lists(one, other):
    if len(one) != len(other):
        return f"{len(one)} values would come back as {len(other)}"
    types = set(map(type, one))
    if types <= PLAIN and one == other and types == set(map(type, other)):
        return None
    pairs = enumerate(zip(one, other, strict=True))
    row = next((row for row, (a, b) in pairs if not same_value(a, b)), None)
    return None if row is None else _changed(row, one[row], other[row])


def _changed(row, one, other):
    one, other = (f"{str(value)[:60]!r} ({type(value).__name__})" for value in (one, other))
    return f"{one} in row {row} would come back as {other}"


def _scalars(one, other):
    return None if same_value(one, other) else _changed(0, one, other)


def same_value(one, other):
    """Whether two values in a cell are the same."""
    if type(one) is not type(other):
        return _same_number(one, other)
    if isinstance(one, float):
        return _same_float(one, other)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_value(one[key], other[key]) for key in one)
    if hasattr(one, "dtype"):
        return _arrays(one, other) is None
    if hasattr(one, "tzinfo"):
        return _same_moment(one, other)
    if hasattr(one, "as_tuple"):  # a decimal: its zeros are the column's
        return one == other and one.is_signed() == other.is_signed()
    return one is other or bool(one == other)


def _same_float(one, other):
    if math.isnan(one):
        return math.isnan(other)
    return one == other and math.copysign(1.0, one) == math.copysign(1.0, other)


def _same_number(one, other):
    """A number of numpy's, and the same of Python's; never a bool."""
    one, other = (value.item() if hasattr(value, "item") else value for value in (one, other))
    if type(one) is type(other):
        return same_value(one, other)
    plain = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in (one, other))
    return plain and isinstance(one, numbers.Real) and one == other


def _same_moment(one, other):
    """The zone counts by its distance: every library has objects of its own for it. With one, that
    says all there is about the hour that comes twice a year; without, only `fold` does."""
    offsets = [value.utcoffset() for value in (one, other)]
    units = [getattr(value, "unit", None) for value in (one, other)]
    if one != other or offsets[0] != offsets[1] or units[0] != units[1]:
        return False
    return offsets[0] is not None or getattr(one, "fold", 0) == getattr(other, "fold", 0)


# === arrays and tables


def _arrays(one, other):
    """numpy arrays; an array of objects is a list of them."""
    if one.shape != other.shape:
        return f"the shape {one.shape} would come back as {other.shape}"
    if one.dtype.kind in "USO":
        if one.dtype.kind != other.dtype.kind:
            return f"the type {one.dtype} would come back as {other.dtype}"
        return _lists(one.ravel().tolist(), other.ravel().tolist())
    if one.dtype.newbyteorder("=") != other.dtype:
        return f"the type {one.dtype} would come back as {other.dtype}"
    return _bytes(one.astype(other.dtype, copy=False).reshape(-1), other.reshape(-1))


def _bytes(one, other):
    """Bit for bit, but a NaN is a NaN."""
    a, b = memoryview(one.tobytes()), memoryview(other.tobytes())
    if a == b:
        return None
    width = one.dtype.itemsize
    for row in range(len(one)):
        cell = slice(row * width, (row + 1) * width)
        if a[cell] != b[cell] and not (one[row] != one[row] and other[row] != other[row]):
            return _changed(row, one[row], other[row])
    return None


def _tensors(one, other):
    if one.dtype != other.dtype:
        return f"the type {one.dtype} would come back as {other.dtype}"
    return _arrays(one.detach().numpy(), other.numpy())


def _series(one, other):
    if _dtype(one.dtype) != _dtype(other.dtype):
        return f"the type {one.dtype} would come back as {other.dtype}"
    if one.dtype.kind in "biufmM" and not hasattr(one.dtype, "na_value"):
        return _arrays(one.to_numpy(), other.to_numpy())
    if one.dtype == object:
        return _lists(one.tolist(), other.tolist())
    missing = one.isna().to_numpy()
    if (missing != other.isna().to_numpy()).any():
        return "other values would be missing"
    return _lists(one[~missing].tolist(), other[~missing].tolist())


def _dtype(dtype):
    """pandas keeps text in Arrow's layout where pyarrow is installed; that is no other type."""
    return f"{dtype} {dtype.na_value}" if str(dtype) in ("str", "string") else dtype


def _frames(one, other):
    for place, name in enumerate(one.columns):
        found = _series(one.iloc[:, place].reset_index(drop=True), other.iloc[:, place])
        if found is not None:
            return f"in column `{name}` {found}"
    return None


def _polars(one, other):
    kinds = [value.schema if hasattr(value, "schema") else value.dtype for value in (one, other)]
    if kinds[0] != kinds[1]:
        return f"the type {_first_other(*kinds)} would come back as {_first_other(*reversed(kinds))}"
    return None if one.equals(other) else _by_batch(one, other)


def _pyarrow(one, other):
    kinds = [
        value.schema.remove_metadata() if hasattr(value, "schema") else value.type for value in (one, other)
    ]
    if kinds[0] != kinds[1]:
        return f"the type {_first_other(*kinds)} would come back as {_first_other(*reversed(kinds))}"
    return None if one.equals(other) else _by_batch(one, other)


def _first_other(one, other):
    """Of two schemas the first field of one that the other has not; of two types the one."""
    if hasattr(one, "items"):
        return next((f"{kind} of `{name}`" for name, kind in one.items() if other.get(name) != kind), one)
    if hasattr(one, "names"):
        return next((str(a) for a, b in zip(one, other, strict=False) if a != b), one)
    return one


def _by_batch(one, other):
    """NaN equals itself here."""
    tables = [value if hasattr(value, "__arrow_c_stream__") else None for value in (one, other)]
    if None in tables or not hasattr(one, "columns"):
        return _lists(*(value.to_list() for value in (one, other)))
    return Batch.from_arrow(one).difference(Batch.from_arrow(other))


COMPARED = {
    "numpy.ndarray": _arrays,
    "torch.Tensor": _tensors,
    "pandas.DataFrame": _frames,
    "pandas.Series": lambda one, other: _series(one.reset_index(drop=True), other),
    "polars.DataFrame": _polars,
    "polars.Series": _polars,
    "pyarrow.Table": _pyarrow,
    "pyarrow.RecordBatch": _pyarrow,
    "pyarrow.ChunkedArray": _pyarrow,
}
