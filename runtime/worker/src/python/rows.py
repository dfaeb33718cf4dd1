"""Rows between the Python objects that query functions take and give, and Arrow batches.

`describe` says what an object is, `encode` turns it into a batch, `decode` turns a batch back
into the same kind of object. The three share one table of shapes, so that what can be described
can be encoded and decoded. `Batch` is provided by the native module that loads this source.
"""

import inspect
import traceback

import _envelope_columns as columns
from _envelope_columns import Column, Unsupported


class BadOutput(TypeError):
    """A function gave something else than its signature says."""


HINT = ("use a pandas, polars or pyarrow table, a numpy array of one or two dimensions, "
        "a dict of columns, a list of dicts, a list of values, a dict of values, or one value")


def describe(value, name, *, output=False):
    """`(rows, batch)`: the shape and fields of `value`, and its rows.

    `name` is the name of the column when the object itself has none.
    Raises `Unsupported`, with a hint, for anything that has no exact counterpart.
    """
    shape, found = _columns(value, name, output)
    # An output may be missing for other rows than the sample's; an input only if it was in the sample.
    fields = [column.as_field(nullable=output or column.missing) for column in found]
    rows = {"shape": shape, "fields": fields}
    return rows, _batch(shape, value, found, fields)


def encode(value, rows, name):
    """The batch of an output; raises `BadOutput` unless it is what `rows` says."""
    shape, found = _columns(value, name, True)
    if shape != rows["shape"]:
        raise BadOutput(f"it is a {shape}, the signature says {rows['shape']}")
    return _batch(shape, value, _fitted(found, rows["fields"]), rows["fields"])


def encode_input(value, rows, name):
    """The batch of an input given in any shape; columns are matched by name, later, by the host."""
    shape, found = _columns(value, name, False)
    known = {field["name"]: field for field in rows["fields"]}
    if len(found) == len(known) == 1:
        found[0].name = next(iter(known))
    fitted = [_widened(column, known[column.name]) for column in found if column.name in known]
    if len(fitted) < len(known):
        there = {column.name for column in fitted}
        missing = ", ".join(f"`{name}`" for name in known if name not in there)
        raise Unsupported(f"the input has no column {missing}; it has "
                          + ", ".join(f"`{column.name}`" for column in found[:20]))
    fields = [column.as_field(nullable=True) for column in fitted]
    if shape in ARROW:
        return Batch.from_arrow(_framed(value, shape, found[0].name)).select([field["name"] for field in fields])
    return _batch(shape, value, fitted, fields)


def decode(batch, rows):
    """The Python object that `rows` describes."""
    return SHAPES[rows["shape"]](batch, rows["fields"])


def apply(function, argument, input_rows):
    """Calls the function as the shape of its input asks for."""
    return function(**argument) if input_rows["shape"] == "keywords" else function(argument)


def traceback_text(exception):
    """The traceback without the frames of the machinery around the function."""
    frames = traceback.extract_tb(exception.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<_envelope")]
    head = ["Traceback (most recent call last):\n"] if own else []
    return "".join(head + traceback.format_list(own) + traceback.format_exception_only(exception)).rstrip()


def parameter_name(function):
    """The name of the function's first parameter: what a column without a name is called."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):
        return "value"
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return named[0] if named else "value"


# === objects → columns


def _columns(value, name, output):
    """`(shape, columns)` of any supported object. Only the library of the object is imported."""
    library = type(value).__module__.partition(".")[0]
    kind = type(value).__name__
    if library == "pandas" or _has_base(value, "pandas"):
        return _pandas_columns(value, name)
    if library in ("polars", "pyarrow"):
        return _arrow_columns(value, name, f"{library}.{kind}")
    if library == "numpy" and kind == "ndarray":
        return _numpy_columns(value, name)
    if library == "torch":
        raise Unsupported("a torch.Tensor is not carried yet; convert it with `.numpy()` in the function")
    if isinstance(value, dict):
        return _dict_columns(value, output)
    if isinstance(value, list):
        return _list_columns(value, name)
    if isinstance(value, tuple):
        return _tuple_columns(value, name, output)
    try:
        return "scalar", [columns.from_scalar(name, value)]
    except Unsupported:
        raise Unsupported(f"a {library}.{kind} is not a kind of rows; {HINT}") from None


def _has_base(value, library):
    bases = (base.__module__.partition(".")[0] for base in type(value).__mro__)
    return library in bases and hasattr(value, "iloc")


def _pandas_columns(value, name):
    _check_index(value)
    if value.ndim == 1:
        return "pandas.Series", [columns.from_pandas(name, value)]
    for label in value.columns:
        if not isinstance(label, str):
            raise Unsupported(f"the column label {label!r} is not text; use `df.columns = df.columns.astype(str)`")
    if not value.columns.is_unique:
        raise Unsupported("two columns have the same name")
    return "pandas.DataFrame", [columns.from_pandas(label, value[label]) for label in value.columns]


def _check_index(value):
    index = value.index
    if index.nlevels > 1 or index.name is not None or index.dtype.kind not in "iuO" or (
        index.dtype.kind == "O" and len(index)
    ):
        raise Unsupported("the index holds data, and rows have no index when they are served; "
                          "use `.reset_index()` to make it a column or `.reset_index(drop=True)` to drop it")


def _numpy_columns(value, name):
    if value.ndim == 1:
        return "numpy.vector", [columns.from_numpy(name, value)]
    if value.ndim == 2:
        labels = [f"{name}{index}" for index in range(value.shape[1])]
        return "numpy.matrix", [columns.from_numpy(label, value[:, i]) for i, label in enumerate(labels)]
    raise Unsupported(f"a numpy array of {value.ndim} dimensions is not carried yet; use one or two")


def _arrow_columns(value, name, shape):
    if shape in ("polars.Series", "pyarrow.ChunkedArray") or hasattr(value, "__arrow_c_array__") and not hasattr(
        value, "schema"
    ):
        shape = "polars.Series" if shape.startswith("polars") else "pyarrow.Array"
    if shape not in ARROW:
        raise Unsupported(f"a {shape} is not a kind of rows; collect it into a DataFrame or Table first")
    batch = Batch.from_arrow(_framed(value, shape))
    names = [name] if shape in ("polars.Series", "pyarrow.Array") else batch.names()
    dtypes = _polars_dtypes(value) if shape.startswith("polars") else [None] * len(names)
    return shape, [
        Column(label, kind, None, dtype=dtype, missing=nulls > 0)
        for label, kind, nulls, dtype in zip(names, batch.types(), batch.null_counts(), dtypes)
    ]


def _framed(value, shape, name="value"):
    """The value as a table: the interface for rows wants columns with names."""
    if shape == "polars.Series":
        return value.alias(name).to_frame()
    if shape == "pyarrow.Array":
        import pyarrow as pa

        return pa.table({name: value})
    return value


def _polars_dtypes(value):
    dtypes = [value.dtype] if value.__class__.__name__ == "Series" else value.dtypes
    for dtype in dtypes:
        if str(dtype).startswith(("Categorical", "Enum", "Struct", "Object", "Decimal", "Array", "Time")):
            raise Unsupported(f"a polars column of type {dtype} is not carried yet; cast it first")
    return [str(dtype) for dtype in dtypes]


def _dict_columns(value, output):
    _check_keys(value)
    sized = [item for item in value.values() if isinstance(item, list) or _is_array(item)]
    if sized and len(sized) == len(value):
        found = [_inner_column(key, item) for key, item in value.items()]
        _check_lengths(value)
        return "columns", found
    if sized:
        raise Unsupported("the dict mixes columns and single values; use one or the other")
    shape = "record" if output else "keywords"
    return shape, [columns.from_scalar(key, item) for key, item in value.items()]


def _list_columns(value, name):
    if value and all(isinstance(item, dict) for item in value):
        keys = list(value[0])
        for number, item in enumerate(value):
            _check_keys(item)
            if list(item) != keys and set(item) != set(keys):
                raise Unsupported(f"record {number} has the keys {sorted(item)}, record 0 has {sorted(keys)}")
        return "records", [columns.from_list(key, [item[key] for item in value]) for key in keys]
    return "list", [columns.from_list(name, value)]


def _tuple_columns(value, name, output):
    if not output or not value or not all(isinstance(item, list) or _is_array(item) for item in value):
        raise Unsupported("a tuple is carried when it is an output of equally long lists or arrays; "
                          "give several values as a dict")
    _check_lengths(dict(enumerate(value)))
    return "tuple", [_inner_column(f"{name}_{index}", item) for index, item in enumerate(value)]


def _inner_column(name, item):
    return columns.from_list(name, item) if isinstance(item, list) else columns.from_numpy(name, item)


def _is_array(item):
    return type(item).__module__ == "numpy" and getattr(item, "ndim", 0) == 1


def _check_keys(value):
    for key in value:
        if not isinstance(key, str):
            raise Unsupported(f"the key {key!r} is not text")


def _check_lengths(value):
    lengths = {key: len(item) for key, item in value.items()}
    if len(set(lengths.values())) > 1:
        raise Unsupported(f"the columns have different lengths: {lengths}")


def _batch(shape, value, found, fields):
    if shape in ARROW:
        return Batch.from_arrow(_framed(value, shape)).renamed(fields)
    width = [_length(column) for column in found]
    return Batch.from_columns(
        width[0] if width else len(value),
        [(c.name, c.type, f["nullable"], c.data, c.mask) for c, f in zip(found, fields)],
    )


SIZES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float32": 4}


def _length(column):
    return len(column.data) if isinstance(column.data, list) else len(column.data) // SIZES.get(column.type, 8)


def _fitted(found, fields):
    """The columns in the order of `fields`, or `BadOutput`."""
    by_name = {column.name: column for column in found}
    names = [field["name"] for field in fields]
    if set(by_name) != set(names):
        raise BadOutput(f"it has the columns {sorted(by_name)}, the signature says {sorted(names)}")
    return [_checked(_widened(by_name[field["name"]], field), field) for field in fields]


def _widened(column, field):
    """Integers as floats, and a column of missing values as any type: both exact."""
    if column.type == field["type"]:
        return column
    if column.type == "null" and column.data is not None:
        column.type = field["type"]
    elif field["type"] == "float64" and column.type.startswith(("int", "uint")):
        column = _floats(column)
    elif field["type"].startswith("list<") and column.type == "list<null>":
        column.type = field["type"]
    return column


def _floats(column):
    if isinstance(column.data, list):
        exact = all(value is None or abs(value) <= columns.EXACT_FLOAT for value in column.data)
        data = [None if value is None else float(value) for value in column.data] if exact else None
    elif column.data is not None:
        import numpy as np

        integers = np.frombuffer(column.data, column.type)
        exact = not len(integers) or int(abs(integers.astype("float64")).max()) <= columns.EXACT_FLOAT
        data = integers.astype("float64").tobytes() if exact else None
    else:
        exact = False
    return Column(column.name, "float64", data, column.mask, missing=column.missing) if exact else column


def _checked(column, field):
    if column.type != field["type"]:
        raise BadOutput(f"`{column.name}` is {column.type}, the signature says {field['type']}")
    return column


# === columns → objects


def _to_frame(batch, fields):
    import pandas as pd

    data = {field["name"]: columns.to_pandas(batch, i, field) for i, field in enumerate(fields)}
    return pd.DataFrame(data, index=pd.RangeIndex(batch.num_rows), copy=False)


def _to_series(batch, fields):
    import pandas as pd

    return pd.Series(columns.to_pandas(batch, 0, fields[0]), copy=False)


def _to_matrix(batch, fields):
    import numpy as np

    if not fields:
        return np.empty((batch.num_rows, 0))
    return np.column_stack([columns.to_numpy(batch, i, field) for i, field in enumerate(fields)])


def _to_polars(batch, fields):
    import polars as pl

    return pl.DataFrame(batch)


def _to_pyarrow_table(batch, fields):
    import pyarrow as pa

    return pa.table(batch)


def _to_pyarrow_batch(batch, fields):
    import pyarrow as pa

    return pa.RecordBatchReader.from_stream(batch).read_next_batch()


def _to_columns(batch, fields):
    return {field["name"]: _to_inner(batch, i, field) for i, field in enumerate(fields)}


def _to_inner(batch, index, field):
    plain = (field.get("dtype") or "list") == "list"
    return columns.to_list(batch, index, field) if plain else columns.to_numpy(batch, index, field)


def _to_records(batch, fields):
    names = [field["name"] for field in fields]
    values = [columns.to_list(batch, i, field) for i, field in enumerate(fields)]
    return [dict(zip(names, row)) for row in zip(*values)]


def _to_record(batch, fields):
    return {field["name"]: columns.to_scalar(batch, i, field) for i, field in enumerate(fields)}


SHAPES = {
    "pandas.DataFrame": _to_frame,
    "pandas.Series": _to_series,
    "polars.DataFrame": _to_polars,
    "polars.Series": lambda batch, fields: _to_polars(batch, fields).to_series(0),
    "pyarrow.Table": _to_pyarrow_table,
    "pyarrow.RecordBatch": _to_pyarrow_batch,
    "pyarrow.Array": lambda batch, fields: _to_pyarrow_batch(batch, fields).column(0),
    "numpy.vector": lambda batch, fields: columns.to_numpy(batch, 0, fields[0]),
    "numpy.matrix": _to_matrix,
    "columns": _to_columns,
    "records": _to_records,
    "list": lambda batch, fields: columns.to_list(batch, 0, fields[0]),
    "tuple": lambda batch, fields: tuple(_to_columns(batch, fields).values()),
    "keywords": _to_record,
    "record": _to_record,
    "scalar": lambda batch, fields: columns.to_scalar(batch, 0, fields[0]),
}
ARROW = ("polars.DataFrame", "polars.Series", "pyarrow.Table", "pyarrow.RecordBatch", "pyarrow.Array")
