"""What an object is, to the last bit, as text: it runs in workers too, so it imports nothing."""


def look(value):
    """Type, type of the values, and values; `nan`, `None`, `NaT` and `<NA>` are four things."""
    library = type(value).__module__.partition(".")[0]
    kind = type(value).__name__
    seen = LOOKS.get(f"{library}.{kind}")
    if seen is not None:
        return f"{library}.{kind}{seen(value)}"
    if library == "pyarrow" and hasattr(value, "to_pylist"):
        return f"{library}.{kind} {value.type} {look(value.to_pylist())}"
    if isinstance(value, dict):
        return f"{kind}({', '.join(f'{key!r}: {look(item)}' for key, item in value.items())})"
    if isinstance(value, (list, tuple)):
        return f"{kind}({', '.join(map(look, value))})"
    return f"{library}.{kind} {value!r}"


def dtype(found):
    """pandas keeps text in Arrow's layout where pyarrow is installed; that is no other type."""
    return f"{found} {found.na_value}" if hasattr(found, "storage") else repr(found)


LOOKS = {
    "pandas.DataFrame": lambda frame: [(name, look(frame[name])) for name in frame.columns],
    "pandas.Series": lambda series: f" {dtype(series.dtype)} {look(series.tolist())}",
    "numpy.ndarray": lambda array: f" {array.dtype} {array.shape} {look(array.tolist())}",
    "polars.DataFrame": lambda frame: f" {frame.schema} {frame.rows()!r}",
    "polars.Series": lambda series: f" {series.dtype} {series.to_list()!r}",
    "pyarrow.Table": lambda table: f" {table.schema} {table.to_pylist()!r}",
    "pyarrow.RecordBatch": lambda batch: f" {batch.schema} {batch.to_pylist()!r}",
}
