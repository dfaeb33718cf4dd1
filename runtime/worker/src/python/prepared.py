"""The conversions of one function, with everything that its signature says settled beforehand.

Each quick way covers what is usual and gives `None`, or raises, for anything else; the general
conversions of `rows.py` then decide, and have the words for what is wrong. So a quick way may only
ever give what they give.
"""

import functools

import _envelope_frames as frames
import _envelope_kinds as kinds
import _envelope_objects as objects
import _envelope_rows as rows
from _envelope_batch import Columns


def prepare(function, input_rows, output_rows, name):
    """`(decode, call, encode)`; `name` is the name of an output's column when it has none itself."""
    return decoder(input_rows), _caller(function, input_rows["shape"]), encoder(output_rows, name)


def decoder(described):
    """What makes the argument of a batch."""
    general = functools.partial(_decode, described)
    return _with(general, _quick(DECODERS, described, general))


def encoder(described, name):
    """What makes the batch of an output."""

    def general(value):
        return rows.encode(value, described, name)

    if described["shape"] in rows.UNNAMED and not _is_named(described, name):
        return general
    return _with(general, _quick(ENCODERS, described, general))


def _decode(described, batch):
    return rows.decode(batch, described)


def _quick(ways, described, general):
    way = ways.get(described["shape"])
    try:
        return way and way(described["fields"], general)
    except Exception:  # of whatever library: the general way is there, and fails when it is called
        return None


def _with(general, quick):
    if quick is None:
        return general

    def convert(value):
        try:
            made = quick(value)
        except Exception:
            made = None
        return general(value) if made is None else made

    return convert


def _caller(function, shape):
    if shape == "keywords":
        return lambda argument: function(**argument)
    if shape in rows.ARGUMENTS:
        return lambda argument: function(*argument)
    return function


def _is_named(described, name):
    """Whether the fields are called as those of an output without names are."""
    names = [field["name"] for field in described["fields"]]
    if described["shape"].endswith("matrix"):
        return names == [f"{name}{index}" for index in range(len(names))]
    return names == [name]


def _are_plain(fields):
    """Whether values are just what a batch gives: of no library, and no times or decimals."""
    return all(
        (field.get("dtype") or "").partition(".")[0] not in objects.OF_LIBRARY
        and kinds.to_object(field["type"]) is None
        for field in fields
    )


# === batches → objects


def _row(fields, general):
    return Columns(fields).row if _are_plain(fields) else None


def _positional(fields, general):
    row = _row(fields, general)
    return row and (lambda batch: tuple(row(batch).values()))


def _records(fields, general):
    return Columns(fields).records if _are_plain(fields) else None


def _list(fields, general):
    return (lambda batch: batch.pylist(0)) if _are_plain(fields) else None


def _vector(fields, general):
    import numpy as np

    dtype = _number(fields)
    if dtype is None:
        return None
    read, array = Columns(fields, [([0], False)]).read, np.ndarray
    return lambda batch: array(batch.num_rows, dtype, read(batch)[0])


def _matrix(fields, general):
    import numpy as np

    dtype, count = _number(fields), len(fields)
    if dtype is None:
        return None
    read, array = Columns(fields, [([*range(count)], False)]).read, np.ndarray
    return lambda batch: array((count, batch.num_rows), dtype, read(batch)[0]).T.copy()


def _number(fields):
    """The one numpy type of all fields, where it is one of numbers."""
    import numpy as np

    kind = fields[0]["type"]
    if not kinds.is_number(kind) or any((f["type"], f.get("dtype")) != (kind, kind) for f in fields):
        return None
    return np.dtype(kind)


def _columns(fields, general):
    dtypes = [_number([field]) for field in fields]
    if any(dtype is None for dtype in dtypes):
        return None
    import numpy as np

    read, array = Columns(fields, [([place], False) for place in range(len(fields))]).read, np.ndarray
    settled = [(field["name"], dtype) for field, dtype in zip(fields, dtypes, strict=True)]

    def decode(batch):
        count = batch.num_rows
        found = zip(settled, read(batch), strict=True)
        return {name: array(count, dtype, data) for (name, dtype), data in found}

    return decode


def _tuple(fields, general):
    columns = _columns(fields, general)
    return columns and (lambda batch: tuple(columns(batch).values()))


def _pandas(fields, general):
    return frames.quick(general, fields)


DECODERS = {
    "pandas.DataFrame": _pandas,
    "pandas.Series": _pandas,
    "numpy.vector": _vector,
    "numpy.matrix": _matrix,
    "columns": _columns,
    "tuple": _tuple,
    "arguments": _tuple,
    "records": _records,
    "list": _list,
    "keywords": _row,
    "positional": _positional,
}


# === objects → batches


def _of_list(fields, general):
    batch = Columns(fields).batch
    return lambda value: batch(len(value), [value]) if type(value) is list else None


def _of_records(fields, general):
    batch = Columns(fields).batch_of_records
    return lambda value: batch(value) if type(value) is list else None


def _of_record(fields, general):
    columns, kind_of = Columns(fields), {field["name"]: field["type"] for field in fields}
    batch, of_records = columns.batch, columns.batch_of_records

    def encode(value):
        if type(value) is not dict or value.keys() != kind_of.keys():
            return None
        made = of_records([value])
        if made is not None:
            return made
        return batch(1, [_scalar(value[name], kind) for name, kind in kind_of.items()])

    return encode


def _of_scalar(fields, general):
    batch, kind = Columns(fields).batch, fields[0]["type"]
    return lambda value: batch(1, [_scalar(value, kind)])


def _scalar(value, kind):
    """Bytes where it is a number of numpy's of this type, or a list of it, which has to be plain."""
    found = type(value)
    if found.__module__ == "numpy" and found.__name__ == kind and kinds.is_number(kind):
        return value.tobytes()
    return [value]


def _of_vector(fields, general):
    import numpy as np

    batch, values_of, kind = Columns(fields).batch, _values(fields[0]), np.ndarray

    def encode(value):
        if type(value) is not kind or value.ndim != 1:
            return None
        return batch(len(value), [values_of(value)])

    return encode


def _of_matrix(fields, general):
    import numpy as np

    batch, wanted, count, kind = Columns(fields).batch, np.dtype(fields[0]["type"]), len(fields), np.ndarray
    if any(field["type"] != wanted.name for field in fields):
        return None

    def encode(value):
        if type(value) is not kind or value.ndim != 2 or value.shape[1] != count or value.dtype != wanted:
            return None
        return batch(len(value), value.T.tobytes())

    return encode


def _of_columns(fields, general):
    batch, values_of = Columns(fields).batch, {field["name"]: _values(field) for field in fields}

    def encode(value):
        if type(value) is not dict or value.keys() != values_of.keys():
            return None
        return batch(len(value[fields[0]["name"]]), [read(value[name]) for name, read in values_of.items()])

    return encode


def _of_series(fields, general):
    batch, values_of = Columns(fields).batch, _values(fields[0])
    import pandas as pd

    kind = pd.Series

    def encode(value):
        if type(value) is not kind or not _has_no_index(value.index):
            return None
        values = value._values
        return batch(len(values), [values_of(values)])

    return encode


def _of_frame(fields, general):
    import pandas as pd

    batch, readers, kind = Columns(fields).batch, [_values(field) for field in fields], pd.DataFrame
    known = [[field["name"] for field in fields], None]

    def encode(value):
        if type(value) is not kind or not _has_no_index(value.index):
            return None
        labels = value.columns
        if labels is not known[1]:
            if labels.tolist() != known[0]:
                return None
            known[1] = labels
        columns = zip(readers, value._iter_column_arrays(), strict=True)
        return batch(len(value), [read(column) for read, column in columns])

    return encode


def _has_no_index(index):
    """Whether it is one of plain integers without a name."""
    return type(index).__name__ in ("RangeIndex", "Index") and index.dtype.kind in "iu" and index.name is None


def _values(field):
    """What gives of an array its bytes, or of text the list, where it is of the field's type.

    Many texts that pyarrow holds are taken over as they are, which the general conversion does.
    """
    if "categories" in field:  # with which values are compared
        return lambda column: None
    kind, dtype = field["type"], _dtype(field)

    def values(column):
        if type(column) is list:
            return column
        if kind == "utf8" and hasattr(column, "_pa_array") and len(column) <= objects.FEW:
            return column._pa_array.to_pylist()
        if type(column).__name__ != "ndarray" or column.ndim != 1:
            return None
        if dtype is not None and column.dtype == dtype:  # `None` would equal float64
            return column.tobytes()
        return column.tolist() if kind == "utf8" and column.dtype.kind in "OU" else None

    return values


def _dtype(field):
    """That of arrays that are the field's column as they are. `numpy` is not imported for lists."""
    if not kinds.is_number(field["type"]) or field.get("dtype") == "list":
        return None
    import numpy as np

    return np.dtype(field["type"])


ENCODERS = {
    "pandas.DataFrame": _of_frame,
    "pandas.Series": _of_series,
    "numpy.vector": _of_vector,
    "numpy.matrix": _of_matrix,
    "columns": _of_columns,
    "records": _of_records,
    "list": _of_list,
    "record": _of_record,
    "scalar": _of_scalar,
}
