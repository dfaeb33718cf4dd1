"""polars and pyarrow tables: both are Arrow already, and keep some types in layouts of their own.

A layout is a short text that says by how much a pyarrow type differs from the plain one of the same
values: `_` for not at all, `large_string`, `large_list<_>`, `dictionary[int32]<large_string>`,
`struct<_, string_view!>`; a `!` marks what may not be missing.
"""

import re

from _envelope_batch import Batch
from _envelope_columns import Column
from _envelope_kinds import Unsupported

TABLES = ("polars.DataFrame", "polars.Series", "pyarrow.Table", "pyarrow.RecordBatch", "pyarrow.Array")
# Types of pyarrow that hold the same as a plain one, in another layout.
LEAVES = ("large_string", "string_view", "large_binary", "binary_view")
LISTS = ("large_list_view", "list_view", "large_list", "fixed_size_list", "list")
TOKEN = re.compile(r"(\w+)(?:\[([^\]]*)\])?")


def columns_of(value, name, shape):
    """`(shape, columns)` of a table of polars or pyarrow; its values stay where they are."""
    shape = _shape(value, shape)
    polars = shape.startswith("polars")
    dtypes = _polars_dtypes(value) if polars else _pyarrow_dtypes(value)
    try:
        batch = Batch.from_arrow(framed(value, shape, name))
        types = batch.types()
    except (TypeError, ValueError) as error:
        raise Unsupported(str(error)) from None
    found = zip(batch.names(), types, batch.null_counts(), dtypes, strict=True)
    columns = [
        Column(label, kind, None, dtype=str(dtype) if polars else dtype, missing=nulls > 0)
        for label, kind, nulls, dtype in found
    ]
    if polars:
        for column, dtype in zip(columns, dtypes, strict=True):
            if type(dtype).__name__ == "Enum":
                column.dtype, column.categories = "Enum", dtype.categories.to_list()
    return shape, columns


def _shape(value, shape):
    if shape == "pyarrow.ChunkedArray" or (shape.startswith("pyarrow.") and shape.endswith("Array")):
        return "pyarrow.Array"
    if shape not in TABLES:
        hint = "use `.as_py()`" if shape.endswith("Scalar") else "collect it into a DataFrame or Table"
        raise Unsupported(f"a {shape} is not a kind of rows; {hint} first")
    return shape


def framed(value, shape, name="value"):
    """The value as a table: the interface for rows wants columns with names."""
    if shape == "polars.Series":
        return value.alias(name).to_frame()
    if shape == "pyarrow.Array":
        import pyarrow as pa

        return pa.table({name: value})
    return value


# === polars


def _polars_dtypes(value):
    dtypes = [value.dtype] if value.__class__.__name__ == "Series" else value.dtypes
    for dtype in dtypes:
        kind = type(dtype).__name__ if not isinstance(dtype, type) else dtype.__name__
        if kind in ("Object", "Unknown", "Int128", "UInt128"):
            raise Unsupported(f"a polars column of type {dtype} has no exact type; cast it first")
    return dtypes


def to_polars(batch, fields):
    """A polars DataFrame."""
    import polars as pl

    frame = pl.DataFrame(batch)
    for field in fields:
        dtype = field.get("dtype")
        if dtype in ("Enum", "Categorical"):
            wanted = pl.Enum(field["categories"]) if dtype == "Enum" else pl.Categorical
            try:
                frame = frame.with_columns(frame[field["name"]].cast(wanted))
            except pl.exceptions.PolarsError as error:
                raise Unsupported(f"column `{field['name']}` is not one of its categories: {error}") from None
    return frame


# === pyarrow


def _pyarrow_dtypes(value):
    """The layout; `chunked` before it for an array in chunks; `None` for what needs no word."""
    chunked = "chunked " if type(value).__name__ == "ChunkedArray" else ""
    fields = list(value.schema) if hasattr(value, "schema") else None
    found = [_field_layout(field) for field in fields] if fields is not None else [layout(value.type)]
    return [f"{chunked}{word}" if chunked or word != "_" else None for word in found]


def _field_layout(field):
    return layout(field.type) + ("" if field.nullable else "!")


def layout(kind):
    """How a pyarrow type differs from the plain one."""
    import pyarrow as pa

    word = str(kind).partition("<")[0].partition("[")[0]
    if pa.types.is_dictionary(kind):
        ordered = ", ordered" if kind.ordered else ""
        return f"dictionary[{kind.index_type}{ordered}]<{layout(kind.value_type)}>"
    if word in LISTS:
        inner = _field_layout(kind.value_field)
        return "_" if inner == "_" and word in ("list", "fixed_size_list") else f"{word}<{inner}>"
    if pa.types.is_struct(kind):
        inner = [_field_layout(kind.field(index)) for index in range(kind.num_fields)]
        return "_" if set(inner) == {"_"} else f"struct<{', '.join(inner)}>"
    if pa.types.is_fixed_size_binary(kind) and not pa.types.is_decimal(kind):
        return f"fixed_size_binary[{kind.byte_width}]"
    if pa.types.is_decimal(kind) and not pa.types.is_decimal128(kind):
        return f"decimal{kind.bit_width}"
    return str(kind) if str(kind) in LEAVES else "_"


def laid_out(text, plain):
    """The pyarrow type of that layout."""
    return _laid_out(text, 0, plain)[0]


def _laid_out(text, at, plain):
    """`(type, whether values may be missing, where the text goes on)`."""
    import pyarrow as pa

    token = TOKEN.match(text, at)
    word, inside, at = token[1], token[2], token.end()
    if text[at : at + 1] != "<":
        made = _leaf(pa, word, inside, plain)
    elif word == "struct":
        made, at = _struct(pa, text, at, plain)
    else:
        inner = plain if word == "dictionary" else plain.value_type
        item, nullable, at = _laid_out(text, at + 1, inner)
        made, at = _nested(pa, word, inside, pa.field("item", item, nullable), plain), at + 1
    required = text[at : at + 1] == "!"
    return made, not required, at + required


def _leaf(pa, word, inside, plain):
    if word in LEAVES:
        return getattr(pa, word)()
    if word == "fixed_size_binary":
        return pa.binary(int(inside))
    if word.startswith("decimal"):
        return getattr(pa, word)(plain.precision, plain.scale)
    return plain


def _nested(pa, word, inside, item, plain):
    if word == "dictionary":
        index, _, ordered = inside.partition(", ")
        return pa.dictionary(pa.type_for_alias(index), item.type, ordered=bool(ordered))
    if word == "fixed_size_list":
        return pa.list_(item, plain.list_size)
    return getattr(pa, "list_" if word == "list" else word)(item)


def _struct(pa, text, at, plain):
    fields = []
    for index in range(plain.num_fields):
        kind, nullable, at = _laid_out(text, at + (1 if index == 0 else 2), plain.field(index).type)
        fields.append(pa.field(plain.field(index).name, kind, nullable))
    return pa.struct(fields), at + 1


def to_table(batch, fields):
    """A pyarrow Table."""
    import pyarrow as pa

    table = pa.table(batch)
    wanted = pa.schema(
        [_wanted(pa, field, there.type) for field, there in zip(fields, table.schema, strict=True)]
    )
    if wanted.equals(table.schema):
        return table
    columns = [cast(column, field.type) for column, field in zip(table.columns, wanted, strict=True)]
    return pa.Table.from_arrays(columns, schema=wanted)


def cast(column, kind):
    """The same values in another layout; pyarrow itself makes dictionaries of text only."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type).dictionary_encode()
    return column.cast(kind)


def _wanted(pa, field, plain):
    words = (field.get("dtype") or "_").removeprefix("chunked ")
    kind, nullable, _ = _laid_out(words, 0, plain)
    return pa.field(field["name"], kind, nullable)


def to_record_batch(batch, fields):
    """A pyarrow RecordBatch."""
    import pyarrow as pa

    table = to_table(batch, fields)
    columns = [column.combine_chunks() for column in table.columns]
    return pa.RecordBatch.from_arrays(columns, schema=table.schema)


def to_arrow_array(batch, fields):
    """A pyarrow Array, or a ChunkedArray where it was one."""
    column = to_table(batch, fields).column(0)
    return column if (fields[0].get("dtype") or "").startswith("chunked") else column.combine_chunks()
