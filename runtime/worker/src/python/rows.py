"""Rows between the Python objects that query functions take and give, and Arrow batches.

`describe` says what an object is, `encode` turns it into a batch, `decode` turns a batch back
into the same kind of object. The three share one table of shapes, so that what can be described
can be encoded and decoded.
"""

import inspect
import traceback

import _envelope_columns as columns
from _envelope_batch import Batch
from _envelope_columns import Column, Unsupported


class BadOutput(TypeError):
    """A function gave something else than its signature says."""


HINT = (
    "use a pandas, polars or pyarrow table, a numpy array of one or two dimensions, "
    "a dict of columns, a list of dicts, a list of values, a dict of values, or one value"
)
ARROW = ("polars.DataFrame", "polars.Series", "pyarrow.Table", "pyarrow.RecordBatch", "pyarrow.Array")
ONE_ROW = ("keywords", "scalar")
MAX_COLUMNS = 10_000
# Arrow types that hold the same as a plain one, in another layout.
LAYOUTS = ("large_string", "string_view", "large_binary", "binary_view")


def describe(value, name, *, output=False):
    """`(rows, batch)`: the shape and fields of `value`, and its rows.

    `name` is the name of the column when the object itself has none.
    Raises `Unsupported`, with a hint, for anything that has no exact counterpart.
    """
    shape, found = _columns(value, name, output)
    _check_names(found)
    # An output may be missing for other rows than the sample's; an input only if it was in the sample.
    fields = [column.as_field(nullable=output or column.missing) for column in found]
    return {"shape": shape, "fields": fields}, _batch(shape, value, found).renamed(fields)


def encode(value, rows, name):
    """The batch of an output; raises `BadOutput` unless it is what `rows` says."""
    if isinstance(value, list) and not value and rows["shape"] == "records":
        return _nothing(rows["fields"])
    shape, found = _columns(value, name, True)
    if shape != rows["shape"]:
        raise BadOutput(f"it is a {shape}, the signature says {rows['shape']}")
    _check_same_columns(found, rows["fields"])
    try:
        return _batch(shape, value, found).fitted(rows["fields"])
    except TypeError as error:
        raise BadOutput(str(error)) from None


def _check_same_columns(found, fields):
    given, known = {column.name: column for column in found}, {field["name"] for field in fields}
    if given.keys() != known:
        name = min(given.keys() ^ known)
        raise BadOutput(
            f"it has {'no' if name in known else 'a'} column `{name}`, unlike the sample's output"
        )
    for field in fields:
        if "categories" in field:
            values = given[field["name"]].data
            try:
                columns.check_categories(values if isinstance(values, list) else values.pylist(0), field)
            except Unsupported as error:
                raise BadOutput(str(error)) from None


def encode_input(value, rows, name):
    """The batch of an input given in any shape, with the columns that `rows` says."""
    if isinstance(value, list) and not value:
        return _nothing(rows["fields"])
    shape, found = _columns(value, name, False)
    known = [field["name"] for field in rows["fields"]]
    batch = _batch(shape, value, found)
    if len(found) == len(known) == 1:
        batch = batch.renamed([{"name": known[0], "nullable": True}])
    there = batch.names()
    missing = ", ".join(f"`{name}`" for name in known if name not in there)
    if missing:
        raise Unsupported(
            f"the input has no column {missing}; it has "
            + (", ".join(f"`{name}`" for name in there[:20]) or "none")
        )
    try:
        return batch.fitted(rows["fields"])
    except TypeError as error:
        raise Unsupported(str(error)) from None


def _nothing(fields):
    """No rows: an empty list does not say of what."""
    return Batch.from_columns(0, [(field["name"], "null", True, [], None) for field in fields]).fitted(fields)


def decode(batch, rows):
    """The Python object that `rows` describes."""
    if rows["shape"] in ONE_ROW and batch.num_rows != 1:
        raise Unsupported(f"the function takes one row at a time, not {batch.num_rows}")
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
    if (library == "pandas" or _has_base(value, "pandas")) and hasattr(value, "iloc"):
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
    if not columns.is_value(value):
        raise Unsupported(f"a {type(value).__module__}.{kind} is not a kind of rows; {HINT}")
    return "scalar", [columns.from_scalar(name, value)]


def _has_base(value, library):
    return any(base.__module__.partition(".")[0] == library for base in type(value).__mro__)


def _pandas_columns(value, name):
    _check_index(value)
    if value.ndim == 1:
        return "pandas.Series", [columns.from_pandas(name, value)]
    for label in value.columns:
        if not isinstance(label, str):
            raise Unsupported(
                f"the column label {label!r} is not text; use `df.columns = df.columns.astype(str)`"
            )
    if not value.columns.is_unique:
        twice = value.columns[value.columns.duplicated()][0]
        raise Unsupported(f"two columns have the same name `{twice}`; rename one")
    return "pandas.DataFrame", [columns.from_pandas(label, series) for label, series in value.items()]


def _check_index(value):
    """An index of plain integers says only where rows once were; any other holds data."""
    index = value.index
    numbers = index.nlevels == 1 and index.name is None and index.dtype.kind in "iu"
    if not numbers and len(index):
        raise Unsupported(
            "the index holds data, and rows have no index when they are served; "
            "use `.reset_index()` to make it a column or `.reset_index(drop=True)` to drop it"
        )


def _numpy_columns(value, name):
    if value.ndim == 1:
        return "numpy.vector", [columns.from_numpy(name, value)]
    if value.ndim == 2:
        return "numpy.matrix", [columns.from_numpy(f"{name}{i}", value[:, i]) for i in range(value.shape[1])]
    if value.ndim == 0:
        raise Unsupported("a numpy array of no dimension is not carried; use `.item()`")
    raise Unsupported(f"a numpy array of {value.ndim} dimensions is not carried yet; use one or two")


def _arrow_columns(value, name, shape):
    shape = _arrow_shape(value, shape)
    dtypes = _polars_dtypes(value) if shape.startswith("polars") else _pyarrow_dtypes(value)
    try:
        batch = Batch.from_arrow(_framed(value, shape, name))
        types = batch.types()
    except (TypeError, ValueError) as error:
        raise Unsupported(str(error)) from None
    return shape, [
        Column(label, kind, None, dtype=dtype, missing=nulls > 0)
        for label, kind, nulls, dtype in zip(batch.names(), types, batch.null_counts(), dtypes, strict=True)
    ]


def _arrow_shape(value, shape):
    if shape == "pyarrow.ChunkedArray" or (shape.startswith("pyarrow.") and shape.endswith("Array")):
        return "pyarrow.Array"
    if shape not in ARROW:
        hint = "use `.as_py()`" if shape.endswith("Scalar") else "collect it into a DataFrame or Table"
        raise Unsupported(f"a {shape} is not a kind of rows; {hint} first")
    return shape


def _framed(value, shape, name="value"):
    """The value as a table: the interface for rows wants columns with names."""
    if shape == "polars.Series":
        return value.alias(name).to_frame()
    if shape == "pyarrow.Array":
        import pyarrow as pa

        return pa.table({name: value})
    return value


POLARS = ("Categorical", "Enum", "Struct", "Object", "Decimal", "Array", "Time,", "Int128", "Float16", "Null")


def _polars_dtypes(value):
    dtypes = [value.dtype] if value.__class__.__name__ == "Series" else value.dtypes
    for dtype in dtypes:
        if any(kind in f"{dtype}," for kind in POLARS):
            raise Unsupported(f"a polars column of type {dtype} is not carried yet; cast it first")
    return [str(dtype) for dtype in dtypes]


def _pyarrow_dtypes(value):
    """`large_string` and the like; `chunked` for an array in chunks; `None` for what needs no word."""
    chunked = type(value).__name__ == "ChunkedArray"
    types = [field.type for field in value.schema] if hasattr(value, "schema") else [value.type]
    found = [f"chunked {kind}" if chunked else str(kind) if str(kind) in LAYOUTS else None for kind in types]
    for kind in map(str, types):
        if kind.startswith(("dictionary", "large_list", "list_view")) or any(
            f"<item: {k}" in kind for k in LAYOUTS
        ):
            raise Unsupported(f"a pyarrow column of type {kind} is not carried yet; cast it first")
    return found


def _dict_columns(value, output):
    _check_keys(value)
    sized = [key for key, item in value.items() if _is_column(item)]
    if sized and len(sized) == len(value):
        found = [_inner_column(key, item) for key, item in value.items()]
        _check_lengths(value)
        return "columns", found
    if sized:
        raise Unsupported(f"the dict mixes columns (`{sized[0]}`) and single values; use one or the other")
    for key, item in value.items():
        if _has_base(item, "pandas") and hasattr(item, "iloc"):
            raise Unsupported(f"`{key}` is a pandas object in a dict; use a DataFrame, or `.to_numpy()`")
    return "record" if output else "keywords", [columns.from_scalar(key, item) for key, item in value.items()]


def _list_columns(value, name):
    if not value or not all(isinstance(item, dict) for item in value):
        return "list", [columns.from_list(name, value)]
    keys = list(value[0])
    known = set(keys)
    for number, item in enumerate(value):
        if item.keys() != known:
            raise Unsupported(f"record {number} has the keys {sorted(item)}, record 0 has {sorted(keys)}")
    _check_keys(value[0])
    return "records", [columns.from_list(key, [item[key] for item in value]) for key in keys]


def _tuple_columns(value, name, output):
    if not output or not value or not all(map(_is_column, value)) or type(value) is not tuple:
        raise Unsupported(
            "a tuple is carried when it is an output of equally long lists or arrays; "
            "give several values as a dict"
        )
    _check_lengths(dict(enumerate(value)))
    return "tuple", [_inner_column(f"{name}_{index}", item) for index, item in enumerate(value)]


def _inner_column(name, item):
    return columns.from_list(name, item) if isinstance(item, list) else columns.from_numpy(name, item)


def _is_column(item):
    return isinstance(item, list) or (type(item).__module__ == "numpy" and getattr(item, "ndim", 0) == 1)


def _check_keys(value):
    for key in value:
        if not isinstance(key, str):
            raise Unsupported(f"the key {key!r} is not text")


def _check_lengths(value):
    lengths = {key: len(item) for key, item in value.items()}
    if len(set(lengths.values())) > 1:
        raise Unsupported(f"the columns have different lengths: {lengths}")


def _check_names(found):
    if not found:
        raise Unsupported("it has no columns")
    if len(found) > MAX_COLUMNS:
        raise Unsupported(f"it has {len(found)} columns, the most is {MAX_COLUMNS}")
    if any(not column.name for column in found):
        raise Unsupported("a column has an empty name")


def _batch(shape, value, found):
    """The columns as they are; all may be missing, which whoever takes the batch decides about."""
    if shape in ARROW:
        framed = _framed(value, shape, found[0].name if found else "value")
        batch = Batch.from_arrow(framed)
        return batch.renamed([{"name": column.name, "nullable": True} for column in found])
    rows = _length(found[0]) if found else 0
    return Batch.from_columns(rows, [(c.name, c.type, True, c.data, c.mask) for c in found])


SIZES = {"bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "float32": 4}


def _length(column):
    width = SIZES.get(column.type, 8) if isinstance(column.data, bytes) else 1
    return len(column.data) // width


# === columns → objects


def _to_matrix(batch, fields):
    import numpy as np

    return np.column_stack([columns.to_numpy(batch, i, field) for i, field in enumerate(fields)])


def _to_polars(batch, fields):
    import polars as pl

    return pl.DataFrame(batch)


def _to_pyarrow_table(batch, fields):
    import pyarrow as pa

    table = pa.table(batch)
    wanted = [
        pa.field(field["name"], _pyarrow_type(field, there.type))
        for field, there in zip(fields, table.schema, strict=True)
    ]
    return table.cast(pa.schema(wanted))


def _to_pyarrow_batch(batch, fields):
    import pyarrow as pa

    table = _to_pyarrow_table(batch, fields)
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def _pyarrow_type(field, there):
    import pyarrow as pa

    layout = (field.get("dtype") or "").removeprefix("chunked ")
    return getattr(pa, layout)() if layout in LAYOUTS else there


def _to_pyarrow_array(batch, fields):
    column = _to_pyarrow_table(batch, fields).column(0)
    return column if (fields[0].get("dtype") or "").startswith("chunked ") else column.combine_chunks()


def _to_columns(batch, fields):
    return {field["name"]: _to_inner(batch, i, field) for i, field in enumerate(fields)}


def _to_inner(batch, index, field):
    dtype = field.get("dtype") or "list"
    plain = dtype == "list" or "." in dtype
    return columns.to_list(batch, index, field) if plain else columns.to_numpy(batch, index, field)


def _to_records(batch, fields):
    names = [field["name"] for field in fields]
    values = [columns.to_list(batch, i, field) for i, field in enumerate(fields)]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _to_record(batch, fields):
    return {field["name"]: columns.to_list(batch, i, field)[0] for i, field in enumerate(fields)}


SHAPES = {
    "pandas.DataFrame": columns.to_frame,
    "pandas.Series": lambda batch, fields: columns.to_series(batch, 0, fields[0]),
    "polars.DataFrame": _to_polars,
    "polars.Series": lambda batch, fields: _to_polars(batch, fields).to_series(0),
    "pyarrow.Table": _to_pyarrow_table,
    "pyarrow.RecordBatch": _to_pyarrow_batch,
    "pyarrow.Array": _to_pyarrow_array,
    "numpy.vector": lambda batch, fields: columns.to_numpy(batch, 0, fields[0]),
    "numpy.matrix": _to_matrix,
    "columns": _to_columns,
    "records": _to_records,
    "list": lambda batch, fields: columns.to_list(batch, 0, fields[0]),
    "tuple": lambda batch, fields: tuple(_to_columns(batch, fields).values()),
    "keywords": _to_record,
    "record": _to_record,
    "scalar": lambda batch, fields: columns.to_list(batch, 0, fields[0])[0],
}
