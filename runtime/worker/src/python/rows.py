"""Rows between the Python objects that query functions take and give, and Arrow batches.

`describe` says what an object is, `encode` turns it into a batch, `decode` turns a batch back
into the same kind of object. The three share one table of shapes, so that what can be described
can be encoded and decoded; `describe` tries, and refuses what does not come back as it was.
"""

import dataclasses
import inspect
import traceback

import _envelope_columns as columns
import _envelope_kinds as kinds
import _envelope_objects as objects
import _envelope_same as same
import _envelope_tables as tables
from _envelope_batch import Batch
from _envelope_kinds import Unsupported
from _envelope_tables import TABLES


class BadOutput(TypeError):
    """A function gave something else than its signature says."""


HINT = (
    "use a pandas, polars or pyarrow table, a numpy array or a torch tensor, a dict of columns, "
    "a list of dicts, a list of values, a dict of values, or one value"
)
ONE_ROW = ("keywords", "positional", "scalar")
ARGUMENTS = ("arguments", "positional")
UNNAMED = ("pandas.Series", "polars.Series", "pyarrow.Array", "numpy.vector", "numpy.matrix")
UNNAMED += ("numpy.ndarray", "torch.vector", "torch.matrix", "torch.Tensor", "list", "tuple", "scalar")
UNNAMED += ARGUMENTS
MAX_COLUMNS = 10_000


def describe(value, name, *, output=False, names=()):
    """`(rows, batch)`: the shape and fields of `value`, and its rows.

    `name` is the name of the column when the object itself has none, `names` are those of several
    arguments. Raises `Unsupported`, with a hint, for anything that has no exact counterpart.
    """
    value = _as_dicts(value) if output else value
    try:
        shape, found = _columns(value, name, output)
        _name_arguments(shape, found, names)
        _check_names(found)
        # An output may be missing for other rows than the sample's; an input only if it was in the sample.
        fields = [column.as_field(nullable=output or column.missing) for column in found]
        rows, batch = {"shape": shape, "fields": fields}, _batch(shape, value, found).renamed(fields)
        if batch.num_rows and not any(kinds.is_unknown(field["type"]) for field in fields):
            _check_survives(value, rows, batch, output)
    except Unsupported:
        raise
    except Exception as error:  # of whatever library: it cannot be given over, and this is why
        raise Unsupported(f"it has a value without an exact counterpart: {error}") from error
    return rows, batch


def _check_survives(value, rows, batch, output):
    """Whatever the conversions know of: what comes back must be what was given."""
    if rows["shape"] in ARGUMENTS:
        value = value[1:]
    elif not output and getattr(value, "requires_grad", False):
        raise Unsupported("a tensor that requires a gradient cannot be given over; use `.detach()`")
    changed = same.difference(value, decode(batch, rows))
    if changed is not None:
        raise Unsupported(f"{changed}; give it in another type, one that comes back as it was")


def _name_arguments(shape, found, names):
    """Arguments are called as the function calls them."""
    if shape in ARGUMENTS and len(names) >= len(found):
        for column, name in zip(found, names, strict=False):
            column.name = name


def _as_dicts(value):
    """An output that is a dataclass or a named tuple is the dict of its fields; so are its rows."""
    if isinstance(value, list) and value and _has_fields(value[0]):
        return [_as_dict(item) for item in value]
    return _as_dict(value)


def _has_fields(value):
    kind = type(value)  # asking the object itself is slow where it makes up attributes
    return hasattr(kind, "__dataclass_fields__") or (isinstance(value, tuple) and hasattr(kind, "_asdict"))


def _as_dict(value):
    if not _has_fields(value):
        return value
    if isinstance(value, tuple):
        return value._asdict()
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def encode(value, rows, name):
    """The batch of an output; raises `BadOutput` unless it is what `rows` says."""
    if isinstance(value, list) and not value and rows["shape"] == "records":
        return _nothing(rows["fields"])
    value = _as_dicts(value)
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
            _check_categories(given[field["name"]], field)


def _check_categories(column, field):
    values = column.data
    if values is None:  # a polars table, whose own type lists them
        values = column.categories
        if values is None:
            raise BadOutput(f"`{field['name']}` has no categories, unlike the sample's output")
    try:
        objects.check_categories(values if isinstance(values, list) else values.pylist(0), field)
    except Unsupported as error:
        raise BadOutput(str(error)) from None


def encode_input(value, rows):
    """The batch of an input given in any shape, with the columns that `rows` says.

    Columns are matched by name, or by position where the shape has no names.
    """
    known = [field["name"] for field in rows["fields"]]
    if isinstance(value, list) and not value:
        return _nothing(rows["fields"])
    value = _pruned(value, set(known))
    shape, found = _columns(value, known[0], False)
    batch = _batch(shape, value, found)
    if shape in UNNAMED:
        if len(found) != len(known):
            raise Unsupported(
                f"the input has {len(found)} columns without names, the function takes {len(known)}"
            )
        batch = batch.renamed([{"name": name, "nullable": True} for name in known])
    missing = ", ".join(f"`{name}`" for name in known if name not in batch.names())
    if missing:
        raise Unsupported(f"the input has no column {missing}")
    try:
        return batch.fitted(rows["fields"])
    except TypeError as error:
        raise Unsupported(str(error)) from None


def _pruned(value, known):
    """Without the columns that the function does not take: they may be of any type."""
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if key in known}
    if isinstance(value, list) and isinstance(value[0], dict) and value[0].keys() - known:
        return [_pruned(row, known) for row in value]
    names = getattr(value, "column_names", None)  # pyarrow
    if names is None and getattr(value, "ndim", 2) == 2:
        names = getattr(value, "columns", None)  # pandas, polars
    if names is None or all(name in known for name in names):
        return value
    kept = [name for name in names if name in known]
    return value[kept] if hasattr(value, "iloc") else value.select(kept)


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
    shape = input_rows["shape"]
    if shape == "keywords":
        return function(**argument)
    return function(*argument) if shape in ARGUMENTS else function(argument)


def unlearned(rows):
    """The fields of which some type is not known, for there are only missing values."""
    return [field["name"] for field in rows["fields"] if kinds.is_unknown(field["type"])]


def traceback_text(exception):
    """The traceback without the frames of the machinery around the function."""
    frames = traceback.extract_tb(exception.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith("<_envelope")]
    head = ["Traceback (most recent call last):\n"] if own else []
    return "".join(head + traceback.format_list(own) + traceback.format_exception_only(exception)).rstrip()


def parameter_name(function):
    """The name of the function's first parameter: what a column without a name is called."""
    return next(iter(parameter_names(function)), "value")


def parameter_names(function):
    """The names of the parameters that may be given by position."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


# === objects → columns


def _columns(value, name, output):
    """`(shape, columns)` of any supported object. Only the library of the object is imported."""
    library = type(value).__module__.partition(".")[0]
    kind = type(value).__name__
    if (library == "pandas" or _has_base(value, "pandas")) and hasattr(value, "iloc"):
        return _pandas_columns(value, name)
    if library in ("polars", "pyarrow"):
        return tables.columns_of(value, name, f"{library}.{kind}")
    if kind in columns.ARRAYS and library in ("numpy", "torch") and value.ndim:
        return _array_columns(value, name, library)
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


def _array_columns(value, name, library):
    """A matrix is a table of columns; an array of more dimensions has an array in each row."""
    if value.ndim == 2:
        found = [columns.from_array(f"{name}{i}", value[:, i]) for i in range(value.shape[1])]
        return f"{library}.matrix", found
    if value.ndim == 1:
        return f"{library}.vector", [columns.from_array(name, value)]
    return ("numpy.ndarray" if library == "numpy" else "torch.Tensor"), [columns.from_array(name, value)]


def _dict_columns(value, output):
    _check_keys(value)
    sized = [key for key, item in value.items() if _is_column(item)]
    if sized and len(sized) == len(value):
        found = [_inner_column(key, item) for key, item in value.items()]
        _check_lengths(value)
        return "columns", found
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
    several = not output and len(value) > 1 and isinstance(value[0], str) and value[0] == "args"
    items = value[1:] if several else value
    if not items or type(value) is not tuple or not all(map(_is_column, items)):
        if several and all(map(columns.is_value, items)):
            return "positional", [columns.from_scalar(f"{name}_{i}", item) for i, item in enumerate(items)]
        raise Unsupported(
            "a tuple is carried when it holds equally long lists or arrays; give several values as a dict, "
            'and several arguments of a function as ("args", first, second)'
        )
    _check_lengths(dict(enumerate(items)))
    found = [_inner_column(f"{name}_{index}", item) for index, item in enumerate(items)]
    return "arguments" if several else "tuple", found


def _inner_column(name, item):
    return columns.from_list(name, item) if isinstance(item, list) else columns.from_array(name, item)


def _is_column(item):
    return isinstance(item, list) or (columns.is_array(item) and item.ndim > 0)


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
    if shape in TABLES:
        framed = tables.framed(value, shape, found[0].name if found else "value")
        batch = Batch.from_arrow(framed)
        return batch.renamed([{"name": column.name, "nullable": True} for column in found])
    rows = _length(found[0]) if found else 0
    return Batch.from_columns(rows, [(c.name, c.type, True, c.data, c.mask) for c in found])


def _length(column):
    width = kinds.width_of(column.type) if isinstance(column.data, bytes) else 1
    return len(column.data) // width


# === columns → objects


def _to_matrix(batch, fields):
    import numpy as np

    return np.column_stack([objects.to_numpy(batch, i, field) for i, field in enumerate(fields)])


def _to_torch_matrix(batch, fields):
    import torch

    return torch.from_numpy(_to_matrix(batch, [{**field, "dtype": ""} for field in fields]))


def _to_columns(batch, fields):
    return {field["name"]: _to_inner(batch, i, field) for i, field in enumerate(fields)}


def _to_inner(batch, index, field):
    dtype = field.get("dtype") or "list"
    if dtype == "list" or dtype.startswith(("numpy.", "pandas.")):
        return objects.to_list(batch, index, field)
    return (objects.to_torch if dtype.startswith("torch.") else objects.to_numpy)(batch, index, field)


def _to_tuple(batch, fields):
    return tuple(_to_columns(batch, fields).values())


def _to_records(batch, fields):
    names = [field["name"] for field in fields]
    values = [objects.to_list(batch, i, field) for i, field in enumerate(fields)]
    return [dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)]


def _to_record(batch, fields):
    return {field["name"]: objects.to_list(batch, i, field)[0] for i, field in enumerate(fields)}


def _first(convert):
    """Of the one column that there is."""
    return lambda batch, fields: convert(batch, 0, fields[0])


SHAPES = {
    "pandas.DataFrame": objects.to_frame,
    "pandas.Series": _first(objects.to_series),
    "polars.DataFrame": tables.to_polars,
    "polars.Series": lambda batch, fields: tables.to_polars(batch, fields).to_series(0),
    "pyarrow.Table": tables.to_table,
    "pyarrow.RecordBatch": tables.to_record_batch,
    "pyarrow.Array": tables.to_arrow_array,
    "numpy.vector": _first(objects.to_numpy),
    "numpy.matrix": _to_matrix,
    "numpy.ndarray": _first(objects.to_numpy),
    "torch.vector": _first(objects.to_torch),
    "torch.matrix": _to_torch_matrix,
    "torch.Tensor": _first(objects.to_torch),
    "columns": _to_columns,
    "records": _to_records,
    "list": _first(objects.to_list),
    "tuple": _to_tuple,
    "arguments": _to_tuple,
    "positional": lambda batch, fields: tuple(_to_record(batch, fields).values()),
    "keywords": _to_record,
    "record": _to_record,
    "scalar": lambda batch, fields: objects.to_list(batch, 0, fields[0])[0],
}
