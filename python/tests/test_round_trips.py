"""Whatever is described comes back: object → batch → object, for every shape and type."""

import datetime as dt
import string
import zoneinfo
from decimal import Decimal

import hypothesis
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from exactly import look
from hypothesis import given, settings
from hypothesis import strategies as st

import model_envelope as me

CONVERSIONS = me._native.conversions()
NUMBERS = [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
NUMBERS += ["bool", "float16", "float32", "float64"]
MOMENTS = st.datetimes(dt.datetime(1700, 1, 1), dt.datetime(2200, 1, 1))
LONDON = zoneinfo.ZoneInfo("Europe/London")
NAMES = st.text(string.printable, min_size=1, max_size=5)

settings.register_profile(
    "here",
    deadline=None,
    max_examples=60,
    # Of many rows nothing is learned, for all values are missing.
    suppress_health_check=[hypothesis.HealthCheck.filter_too_much, hypothesis.HealthCheck.too_slow],
)
settings.load_profile("here")


def numbers(dtype):
    """Values of a numpy type, its extremes among them."""
    if dtype == "bool":
        return st.booleans()
    if dtype.startswith("float"):
        return st.floats(width=int(dtype[5:]))
    limits = np.iinfo(dtype)
    return st.integers(int(limits.min), int(limits.max))


VALUES = {
    "int": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(),
    "bool": st.booleans(),
    "text": st.text(),
    "bytes": st.binary(),
    "date": st.dates(),
    # `fold` means nothing without a zone that has it, and is refused or lost.
    "moment": MOMENTS.map(lambda moment: moment.replace(fold=0)),
    "zoned": MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.timezone.utc, fold=0)),
    # By way of UTC: so that `fold` is set where it means something, and only there.
    "london": MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.timezone.utc).astimezone(LONDON)),
    "span": st.timedeltas(dt.timedelta(days=-100_000_000), dt.timedelta(days=100_000_000)),
    "time": st.times().map(lambda time: time.replace(fold=0)),
    "decimal": st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=0, max_value=10**12),
}


@st.composite
def cells(draw):
    """A strategy for values of one type, plain or nested."""
    leaf = st.sampled_from(sorted(VALUES)).map(VALUES.get)

    def nest(inner):
        lists = inner.map(lambda item: st.lists(st.none() | item, max_size=3))
        dicts = st.dictionaries(NAMES, inner, min_size=1, max_size=3).map(
            lambda fields: st.fixed_dictionaries({name: st.none() | item for name, item in fields.items()})
        )
        return lists | dicts

    return draw(st.recursive(leaf, nest, max_leaves=4))


def comes_back(value, *, output=False):
    """Describes, and compares to the last bit; decimals may gain zeros, keys have the first row's order."""
    rows, batch = CONVERSIONS.describe(value, "x", output=output)
    hypothesis.assume(not CONVERSIONS.unlearned(rows))
    assert look(zeroless(CONVERSIONS.decode(batch, rows))) == look(zeroless(value))
    again = me._native.Batch.from_bytes(batch.to_bytes())
    assert again.difference(batch) is None
    assert look(CONVERSIONS.decode(again, rows)) == look(CONVERSIONS.decode(batch, rows))
    return rows, batch


def zeroless(value):
    if isinstance(value, Decimal):
        return value.normalize()
    if isinstance(value, dict):
        return {key: zeroless(value[key]) for key in sorted(value)}
    return [zeroless(item) for item in value] if isinstance(value, list) else value


@given(cells().flatmap(lambda cell: st.lists(st.none() | cell, min_size=1, max_size=8)))
def test_lists_come_back(values):
    comes_back(values)


@given(cells().flatmap(lambda cell: st.lists(st.none() | cell, min_size=1, max_size=8)))
def test_outputs_encode_as_they_were_described(values):
    rows, batch = comes_back(values, output=True)
    assert CONVERSIONS.encode(values, rows, "x").difference(batch) is None


@given(
    st.dictionaries(NAMES, cells(), min_size=1, max_size=4).flatmap(
        lambda fields: st.lists(
            st.fixed_dictionaries({name: st.none() | cell for name, cell in fields.items()}),
            min_size=1,
            max_size=5,
        )
    )
)
def test_records_come_back(rows):
    comes_back(rows)


@pytest.mark.parametrize("dtype", NUMBERS)
def test_arrays_of_any_dimensions_come_back(dtype):
    @given(st.data(), st.lists(st.integers(1, 4), min_size=0, max_size=3), st.integers(1, 5))
    def check(data, lengths, rows):
        size = rows * int(np.prod(lengths))
        values = data.draw(st.lists(numbers(dtype), min_size=size, max_size=size))
        comes_back(np.array(values, dtype).reshape(rows, *lengths))

    check()


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("kind", ["datetime64", "timedelta64"])
def test_times_in_any_unit_come_back(unit, kind):
    @given(st.lists(st.integers(-(2**63) + 1, 2**63 - 1) | st.just(-(2**63)), min_size=1, max_size=6))
    def check(counts):
        array = np.array(counts, "int64").view(f"{kind}[{unit}]")
        rows, batch = CONVERSIONS.describe(array, "x")
        assert CONVERSIONS.decode(batch, rows).tobytes() == array.tobytes()

    check()


@pytest.mark.parametrize("dtype", ["Int8", "UInt64", "Float32", "boolean", "str", "string", "category"])
def test_pandas_types_come_back(dtype):
    plain = {"boolean": "bool", "Float32": "float32"}.get(dtype, dtype.lower())
    values = st.text() if dtype in ("str", "string", "category") else numbers(plain)
    values = values.filter(lambda value: value == value)

    @given(st.lists(values, min_size=1), st.lists(st.none() | values))
    def check(some, more):
        comes_back(pd.Series([*some, *more], dtype=dtype))

    check()


@given(st.data())
def test_polars_and_pyarrow_tables_come_back(data):
    kinds = [pl.Int8, pl.UInt64, pl.Float32, pl.String, pl.Binary, pl.Date, pl.Time, pl.Boolean]
    kinds += [pl.Datetime("ms", "Europe/London"), pl.Duration("us"), pl.List(pl.Int16), pl.Categorical]
    kinds += [
        pl.Array(pl.Float64, (2, 2)),
        pl.Struct({"a": pl.Int8, "b": pl.List(pl.String)}),
        pl.Decimal(9, 2),
    ]
    kind = data.draw(st.sampled_from(kinds))
    strategy = polars_values(kind)
    series = pl.Series("x", data.draw(st.lists(st.none() | strategy, min_size=1, max_size=6)), dtype=kind)
    comes_back(series)
    comes_back(series.to_frame())
    table = series.to_frame().to_arrow()
    rows, batch = CONVERSIONS.describe(table, "x")
    back = CONVERSIONS.decode(batch, rows)
    assert (back.schema, look(back.to_pylist())) == (table.schema, look(table.to_pylist()))


def polars_values(kind):
    if isinstance(kind, pl.List):
        return st.lists(st.none() | polars_values(kind.inner), max_size=3)
    if isinstance(kind, pl.Array):
        return st.lists(st.floats(), min_size=4, max_size=4).map(lambda v: [v[:2], v[2:]])
    if isinstance(kind, pl.Struct):
        return st.fixed_dictionaries({f.name: st.none() | polars_values(f.dtype) for f in kind.fields})
    plain = {
        pl.Int8: numbers("int8"),
        pl.Int16: numbers("int16"),
        pl.UInt64: numbers("uint64"),
        pl.Float32: numbers("float32"),
        pl.String: st.text(),
        pl.Categorical: st.text(),
        pl.Binary: st.binary(),
        pl.Date: st.dates(),
        pl.Time: st.times(),
        pl.Boolean: st.booleans(),
        pl.Duration: st.timedeltas(dt.timedelta(-1000), dt.timedelta(1000)),
        pl.Decimal: st.decimals(places=2, min_value=-(10**6), max_value=10**6),
        pl.Datetime: MOMENTS.map(lambda moment: moment.replace(microsecond=0, tzinfo=dt.timezone.utc)),
    }
    return next(strategy for found, strategy in plain.items() if kind == found)


def test_a_conversion_that_changes_a_value_is_noticed(monkeypatch):
    """The check does not depend on which conversion is wrong: here one of them is made so."""
    changed = []
    right = CONVERSIONS.SHAPES["numpy.vector"]

    def wrong(batch, fields):
        changed.append(True)
        return right(batch, fields) + np.float64(1e-9)

    monkeypatch.setitem(CONVERSIONS.SHAPES, "numpy.vector", wrong)
    with pytest.raises(CONVERSIONS.Unsupported, match="in row 0 would come back as"):
        CONVERSIONS.describe(np.array([1.0, 2.0]), "x")
    assert changed


def test_pyarrow_columns_that_may_not_be_missing_stay_so():
    schema = pa.schema([pa.field("a", pa.list_(pa.field("item", pa.int8(), nullable=False)), nullable=False)])
    table = pa.table([pa.array([[1], []], schema[0].type)], schema=schema)
    rows, batch = CONVERSIONS.describe(table, "x")
    assert CONVERSIONS.decode(batch, rows).schema == schema
