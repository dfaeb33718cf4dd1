"""pandas frames and series from batches as pandas itself puts them together inside, for one signature.

The public way takes some hundred times as long for one row. What a frame consists of is learned from
one that the general conversion made, so whatever pandas is installed, the quick frame is built of the
same parts; where the two are not the same to the last part, there is no quick way.
"""

import sys

import _envelope_kinds as kinds
import _envelope_objects as objects
from _envelope_batch import Batch, Columns
from _envelope_columns import MASKED, as_objects

# Of each type the values of two rows: those that a conversion is most likely to change.
EXTREMES = {"utf8": ["é", ""], "bool": [True, False], "float16": [-0.0, 0.1], "binary": [b"\0", b""]}
EXTREMES |= {"float32": [-0.0, 0.1], "float64": [-0.0, 0.1]}


def quick(general, fields):
    """What makes the frame or series of a batch, or gives `None` or raises where a batch is unusual.

    `None` at once where this pandas is not put together as expected. `general` makes it in any case.
    """
    try:
        sample = _sample(fields)
        whole = general(sample)
        make = _builder(whole, fields)
        one, none = sample.slice(0, 1), sample.slice(1, 0)
        pairs = ((whole, sample), (general(one), one), (general(none), none))
        return make if all(_parts(known) == _parts(make(rows)) for known, rows in pairs) else None
    except Exception:  # of whatever pandas: the general way is there
        return None


# === what is learned


def _sample(fields):
    """Three rows: two of values, one in which all is missing that may be."""
    columns = []
    for field in fields:
        kind, dtype = field["type"], field.get("dtype") or ""
        values = _values(field)
        gone = kind.startswith(("float", "timestamp", "duration")) or dtype in MASKED
        gone = gone or not (kinds.is_number(kind) or kinds.is_list(kind))
        columns.append((field["name"], kind, True, [*values, None if gone else values[0]], None))
    return Batch.from_columns(3, columns)


def _values(field):
    kind = field["type"]
    if "categories" in field:
        known = objects.categories_of(field)
        return [known[-1], known[0]]
    if kinds.is_number(kind) and "int" in kind:
        bits = int(kind.rpartition("int")[2])
        return [2**bits - 1, 0] if kind.startswith("u") else [2 ** (bits - 1) - 1, -(2 ** (bits - 1))]
    if kind in EXTREMES:
        return EXTREMES[kind]
    return [None, None] if kinds.is_list(kind) or kinds.is_struct(kind) else [1, 0]


def _parts(value):
    """All that is inside: two objects with the same parts are the same to whoever has them."""
    manager = value._mgr
    blocks = [(list(block.mgr_locs), type(block), *_held(block.values)) for block in manager.blocks]
    axes = [(type(axis), axis.dtype, axis.name, axis.tolist()) for axis in manager.axes]
    return sorted(blocks, key=lambda block: block[0]), axes, type(value), getattr(value, "name", None)


def _held(values):
    """As text: there `-0.0`, `nan`, `None`, `NaT` and `<NA>` are five things, and each equals itself."""
    items = values.ravel().tolist() if hasattr(values, "ravel") and values.ndim == 2 else list(values)
    return type(values), repr(values.dtype), values.shape, [repr(item) for item in items], _is_open(values)


def _is_open(values):
    """Whether it may be written to, and where it counts time the step that pandas believes to be in it."""
    inside = [getattr(values, name, None) for name in ("_ndarray", "_data", "_mask")]
    arrays = [array.flags.writeable for array in (values, *inside) if hasattr(array, "flags")]
    return arrays, getattr(values, "_readonly", False), getattr(values, "freq", None)


# === how it is built


def _builder(whole, fields):
    """What makes of a batch something that has the parts of `whole`."""
    return (_frame_builder if whole.ndim == 2 else _series_builder)(whole, fields)


def _frame_builder(whole, fields):
    import pandas as pd

    together, alone, groups = [], [], []
    for block in whole._mgr.blocks:
        places, part = list(block.mgr_locs), (type(block), block.mgr_locs)
        found = _together(block.values, [fields[place] for place in places])
        if found is None:
            alone.append((*part, _alone(block.values, places, fields)))
        else:
            fill, masked = found
            together.append((*part, fill))
            groups.append((places, masked))
    read, new_index = Columns(fields, groups).read, pd.RangeIndex._simple_new
    frame_of, manager, labels = type(whole)._from_mgr, type(whole._mgr), whole.columns

    def build(batch):
        found = read(batch)
        if found is None:
            return None
        rows = batch.num_rows
        blocks = [
            kind(fill(rows, data), place, 2)
            for (kind, place, fill), data in zip(together, found, strict=True)
        ]
        for kind, place, fill in alone:
            blocks.append(kind(fill(rows, batch), place, 2))
        # Labels have a name, which whoever has the frame may change: they are not shared.
        axes = [labels._view(), new_index(range(rows))]
        return frame_of(manager(blocks, axes, False), axes)

    return build


def _series_builder(whole, fields):
    import pandas as pd

    (block,) = whole._mgr.blocks
    kind, place = type(block), type(block.mgr_locs)
    found = _together(block.values, fields)
    fill, masked = found or (_alone(block.values, [0], fields), False)
    read, new_index = Columns(fields, [([0], masked)] if found else []).read, pd.RangeIndex._simple_new
    series_of, manager = type(whole)._from_mgr, type(whole._mgr)

    def build(batch):
        data = read(batch)
        if data is None:
            return None
        rows = batch.num_rows
        index = new_index(range(rows))
        values = fill(rows, data[0] if found else batch)
        made = series_of(manager(kind(values, place(slice(0, rows)), 1), index, False), [index])
        made._name = None
        return made

    return build


# === blocks whose bytes are read at once


def _together(values, fields):
    """`(what makes the values of a block from bytes, whether from those of a mask too)`."""
    import numpy as np

    kind = fields[0]["type"]
    if any(field["type"] != kind for field in fields):
        return None
    if type(values) is np.ndarray:
        known = kinds.is_number(kind) and values.dtype.name == kind
        return (_array(values.dtype, len(fields), values.ndim), False) if known else None
    if MASKED.get(values.dtype.name) == kind and hasattr(values, "_mask"):
        return _masked(values), True
    inside = getattr(values, "_ndarray", None)
    if inside is None or inside.dtype.kind not in "mM":
        return None
    array, wrap = _array(inside.dtype, len(fields), inside.ndim), values._from_backing_data
    return (lambda rows, data: wrap(array(rows, data))), False


def _array(dtype, count, ndim):
    import numpy as np

    array = np.ndarray
    if ndim == 1:
        return lambda rows, data: array(rows, dtype, data)
    return lambda rows, data: array((count, rows), dtype, data)


def _masked(values):
    import numpy as np

    array, dtype, new = np.ndarray, values._data.dtype, type(values)._simple_new

    def fill(rows, data):
        found, missing = data
        return new(array(rows, dtype, found), array(rows, bool, missing))

    return fill


# === blocks that are made one by one


def _alone(values, places, fields):
    """What makes the values of the block with the columns at `places` from a batch."""
    import numpy as np
    import pandas as pd

    if type(values) is np.ndarray and values.dtype == object:
        return _of_objects(values, places, fields)
    if values.ndim != 1:
        raise TypeError("columns side by side of a type that is not known here")
    (place,) = places
    field = fields[place]
    if isinstance(values, pd.Categorical):
        return _categorical(values, place, field)
    if isinstance(values.dtype, pd.StringDtype):
        return _text(values, place, field)
    return lambda rows, batch: objects.to_pandas(batch, place, field)


def _of_objects(values, places, fields):
    import numpy as np

    getters = [_objects(place, fields[place]) for place in places]

    def fill(rows, batch):
        made = np.empty((len(getters), rows), object)
        for row, get in enumerate(getters):
            made[row] = get(batch)
        return made if values.ndim == 2 else made[0]

    return fill


def _objects(place, field):
    if field["type"] == "utf8" and field.get("dtype") == "object":
        return lambda batch: batch.pylist(place)
    return lambda batch: objects.to_pandas(batch, place, field)


def _text(values, place, field):
    """Text as pyarrow keeps it is taken over as it is; as Python keeps it, it is objects."""
    arrow = sys.modules.get("pyarrow")
    if values.dtype.storage == "pyarrow" and arrow is not None:
        take, chunked, kind = arrow.Array._import_from_c, arrow.chunked_array, arrow.large_string()
        wrap = values._from_pyarrow_array
        return lambda rows, batch: wrap(chunked([batch.large_text(place, take, kind)]))
    if values.dtype.storage == "python":
        wrap, missing = values._from_backing_data, values.dtype.na_value

        def fill(rows, batch):
            texts = batch.pylist(place)
            if batch.has_nulls(place):
                texts = [missing if text is None else text for text in texts]
            return wrap(as_objects(texts))

        return fill
    return lambda rows, batch: objects.to_pandas(batch, place, field)


def _categorical(values, place, field):
    """A value that is no category is a `KeyError`: the general conversion says which."""
    import numpy as np

    code_of = {category: code for code, category in enumerate(objects.categories_of(field))}
    code_of[None] = -1
    codes, new, dtype = values.codes.dtype, type(values)._simple_new, values.dtype

    def fill(rows, batch):
        found = np.fromiter(map(code_of.__getitem__, batch.pylist(place)), codes, rows)
        # The categories have a name, which whoever has the column may change: they are not shared.
        return new(found, type(dtype)._from_fastpath(dtype.categories._view(), dtype.ordered))

    return fill
