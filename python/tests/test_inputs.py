"""What a function receives in a worker is what it would receive in the process that saved it."""

import datetime as dt
import zoneinfo
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from exactly import look

import model_envelope as me

MOMENT = dt.datetime(2026, 7, 1, 12, 30, 15, 123456)
LONDON = zoneinfo.ZoneInfo("Europe/London")
DAY = dt.date(2026, 7, 1)
EXTREMES = [2**63 - 1, -(2**63), 0]

INPUTS = {
    "pandas numbers": pd.DataFrame(
        {
            "f64": [1.5, np.nan, -0.0],
            "f32": np.array([0.1, 2, 3], "float32"),
            "i8": np.array([-128, 0, 127], "int8"),
            "i64": EXTREMES,
            "u64": np.array([2**64 - 1, 0, 1], "uint64"),
            "bool": [True, False, True],
        }
    ),
    "pandas nullable": pd.DataFrame(
        {
            "Int64": pd.array([2**63 - 1, None, -(2**63)], "Int64"),
            "UInt8": pd.array([255, None, 0], "UInt8"),
            "Float32": pd.array([0.1, None, 2], "Float32"),
            "boolean": pd.array([True, None, False], "boolean"),
        }
    ),
    "pandas text": pd.DataFrame(
        {
            "str": pd.Series(["a", None, "ü\0"], dtype="str"),
            "string": pd.array(["a", None, ""], "string"),
            "object": pd.Series(["a", "b", "c"], dtype=object),
            "none": pd.Series(["a", None, "c"], dtype=object),
            "nan": pd.Series(["a", np.nan, "c"], dtype=object),
        }
    ),
    "pandas categories": pd.DataFrame(
        {
            "text": pd.Categorical(["x", None, "y"], categories=["y", "x", "never"]),
            "number": pd.Categorical([3, 1, 2], categories=[1, 2, 3, 4], ordered=True),
            "object": pd.Categorical(["x", "x", None], categories=pd.Index(["x"], dtype=object)),
        }
    ),
    "pandas time": pd.DataFrame(
        {
            "ns": pd.to_datetime(["2026-01-01 00:00:00.123456789", None, "1900-01-01"], format="ISO8601"),
            "us": pd.Series([MOMENT, None, MOMENT]).astype("datetime64[us]"),
            "london": pd.to_datetime(["2026-01-01", "2026-07-01", None]).tz_localize("Europe/London"),
            "fixed": pd.to_datetime(["2026-01-01"] * 3).tz_localize("-03:30"),
            "span": pd.to_timedelta(["1 day", None, "-1 us"]),
        }
    ),
    "pandas objects": pd.DataFrame(
        {
            "date": pd.Series([DAY, None, dt.date(1900, 1, 1)], dtype=object),
            "moment": pd.Series([MOMENT] * 3, dtype=object),
            "bytes": pd.Series([b"a\0", b"", None], dtype=object),
            "large": pd.Series([2**63 - 1, -1, 0], dtype=object),
            "larger": pd.Series([2**64 - 1, 1, 0], dtype=object),
            "lists": pd.Series([[1, 2], [3, 4], []]),
        }
    ),
    "pandas series": pd.Series([1.5, np.nan]),
    "pandas filtered": pd.DataFrame({"a": [1, 2, 3]}).iloc[[0, 2]].reset_index(drop=True),
    "numpy vector": np.array(EXTREMES),
    "numpy text": np.array(["a", "longer"]),
    "numpy time": np.array(["2026-01-01", "NaT"], "datetime64[ms]"),
    "numpy matrix": np.arange(6, dtype="float32").reshape(2, 3),
    "numpy bool matrix": np.array([[True, False], [False, True]]),
    "polars frame": pl.DataFrame(
        {
            "i": [2**63 - 1, None],
            "f": [1.5, float("nan")],
            "s": ["x", None],
            "t": [MOMENT, None],
            "d": [DAY, None],
            "l": [[1], None],
            "b": [b"x", None],
        },
        schema_overrides={"f": pl.Float32},
    ),
    "polars series": pl.Series([1, 2], dtype=pl.Int8),
    "pyarrow table": pa.table(
        {
            "i": [2**63 - 1, None],
            "s": pa.array(["x", None], pa.large_string()),
            "t": pa.array([MOMENT, None], pa.timestamp("us", "UTC")),
            "d": [DAY, None],
        }
    ),
    "pyarrow batch": pa.record_batch({"a": [1, 2], "b": pa.array(["x", "y"], pa.string_view())}),
    "pyarrow array": pa.array([1.5, None]),
    "pyarrow chunks": pa.chunked_array([[1], [2]]),
    "columns": {"a": [1, 2], "b": np.array([0.1, 0.2], "float32"), "c": ["x", None]},
    "records": [{"a": 1, "b": "x", "c": None}, {"a": 2, "b": None, "c": 1.5}],
    "list": [1.5, None, float("nan")],
    "list of lists": [[1, 2], [3], []],
    "list of moments": [MOMENT.replace(tzinfo=LONDON), None],
    "list of dates": [DAY, None],
    "list of bytes": [b"", b"\0"],
    "list of spans": [dt.timedelta(days=-1, microseconds=1)],
    "list of numpy": [np.float32(0.1), np.float32(2)],
    "list of large": [2**64 - 1, 0],
    "text": "one text",
    "integer": -(2**63),
    "numpy scalar": np.int8(5),
    "pandas moment": pd.Timestamp("2026-07-01 00:00:00.123456", tz="Europe/London"),
    "cube": np.arange(24, dtype="float32").reshape(2, 3, 4),
    "cube of moments": np.array([[["2026-01-01", "NaT"]]], "datetime64[ms]"),
    "halves": np.array([0.5, np.nan], "float16"),
    "point": np.array(1.5),
    "structs": [
        {"user": {"age": 7, "tags": ["a", None]}, "at": dt.time(1, 2, 3, 4)},
        {"user": None, "at": None},
    ],
    "decimals": [Decimal("1.10"), None, Decimal("-20.05")],
    "small arrays": [np.array([1, 2], "int8"), np.array([], "int8"), None],
    "numpy with missing": [np.float32(0.1), None, np.float32("nan")],
    "tuple": ([1, 2], np.ones((2, 3), "float32")),
    "keywords of all kinds": {"a": Decimal("2"), "b": {"x": 1}, "c": [1, 2], "d": np.eye(2)},
    "pandas cells": pd.DataFrame(
        {
            "array": pd.Series([np.array([1.0, 2.0]), None], dtype=object),
            "dict": pd.Series([{"a": 1}, {"a": None}], dtype=object),
            "decimal": pd.Series([Decimal("1.5"), None], dtype=object),
            "time": pd.Series([dt.time(1), None], dtype=object),
        }
    ),
    "pandas in Arrow": pd.DataFrame(
        {
            "i": pd.array([1, None], "int64[pyarrow]"),
            "s": pd.array(["a", None], dtype=pd.ArrowDtype(pa.large_string())),
            "d": pd.array([Decimal("1.5"), None], dtype=pd.ArrowDtype(pa.decimal128(5, 1))),
            "c": pd.array(["a", None], dtype=pd.ArrowDtype(pa.dictionary(pa.int8(), pa.string()))),
        }
    ),
    "polars of all kinds": pl.DataFrame(
        {
            "category": pl.Series(["a", None, "b"], dtype=pl.Categorical),
            "enum": pl.Series(["a", None, "b"], dtype=pl.Enum(["b", "a", "never"])),
            "struct": [{"x": 1, "y": "q"}, None, {"x": 2, "y": None}],
            "decimal": pl.Series([Decimal("1.50"), None, Decimal(2)], dtype=pl.Decimal(10, 2)),
            "time": [dt.time(1, 2, 3), None, dt.time(0)],
            "array": pl.Series([[[1, 2]], None, [[3, 4]]], dtype=pl.Array(pl.Int8, (1, 2))),
        }
    ),
    "pyarrow of all kinds": pa.table(
        {
            "dictionary": pa.array(["a", None, "b"]).dictionary_encode(),
            "large": pa.array([["a"], None, []], pa.large_list(pa.large_string())),
            "fixed": pa.array([[1, 2], None, [2, 3]], pa.list_(pa.int8(), 2)),
            "struct": pa.array([{"a": "x"}, None, {"a": None}], pa.struct([("a", pa.string_view())])),
            "decimal": pa.array([Decimal("1.5"), None, Decimal(2)], pa.decimal256(10, 2)),
            "time": pa.array([1, None, 2], pa.time32("s")),
            "bytes": pa.array([b"ab", None, b"cd"], pa.binary(2)),
            "half": pa.array([1.5, None, 2], pa.float16()),
        }
    ),
}


def seen(value):
    return look(value)


def output_of_proof(envelope):
    """What the clean process gave for the sample."""
    function = envelope.manifest["functions"][0]
    rows = me._native.Batch.from_bytes(me._native.read_member(envelope.path, function["sample"]["output"]))
    return me._native.conversions().decode(rows, function["signature"]["output"])


@pytest.mark.parametrize("kind", INPUTS)
def test_a_worker_receives_the_same(kind, save):
    function = (lambda **values: look(values)) if kind.startswith("keywords") else seen
    assert output_of_proof(save(function, INPUTS[kind])) == look(INPUTS[kind])


def test_keywords_are_arguments(save):
    def seen(price, *, colour, at):
        return look([price, colour, at])

    envelope = save(seen, {"price": 1.5, "colour": "red", "at": MOMENT})
    assert envelope.predict({"at": MOMENT, "colour": "blue", "price": 2.5}) == look([2.5, "blue", MOMENT])


def test_several_arguments_are_given_by_position(save):
    def seen(prices, images):
        return look((prices, images))

    sample = ("args", [1.0, 2.0], np.ones((2, 2, 2), "uint8"))
    envelope = save(seen, sample)
    assert output_of_proof(envelope) == look(sample[1:])
    names = [field["name"] for field in envelope.manifest["functions"][0]["signature"]["input"]["fields"]]
    assert names == ["prices", "images"]
    assert envelope.predict(sample) == look(sample[1:])


def test_several_values_are_given_by_position(save):
    envelope = save(lambda price, colour, /: f"{price} {colour}", ("args", 1.5, "red"))
    assert envelope.predict(("args", 2.5, "blue")) == "2.5 blue"
    assert envelope.predict({"colour": "blue", "price": 2.5}) == "2.5 blue"


def test_an_integer_index_says_nothing(save):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]}).iloc[[2, 0]]
    envelope = save(lambda rows: look(rows) + look(list(rows.index)), frame)
    assert output_of_proof(envelope) == look(frame.reset_index(drop=True)) + look([0, 1])


def test_predictions_row_by_row_have_the_index_of_their_rows(save):
    frame = pd.DataFrame({"a": [1.0, 2.0, 3.0]}, index=[7, 5, 9])
    doubled = save(lambda rows: rows["a"] * 2, frame)
    assert doubled.predict(frame).to_dict() == {7: 2.0, 5: 4.0, 9: 6.0}
    assert doubled.predict(frame[frame["a"] > 1]).index.tolist() == [5, 9]
    shares = save(lambda rows: rows / rows.sum(), frame)
    assert shares.predict(frame).index.tolist() == [0, 1, 2]


def test_columns_in_a_tuple_are_matched_by_position(save):
    envelope = save(lambda columns: columns[0] + columns[1], (np.arange(3.0), np.ones(3)))
    assert envelope.predict((np.array([5.0]), np.array([2.0]))).tolist() == [7.0]


@pytest.fixture(scope="module")
def total(tmp_path_factory):
    """Tells what rows it was given; saved once for all that look at what it takes."""
    sample = pd.DataFrame({"a": [1.0, 2.0], "b": pd.array([1, None], "Int64"), "c": ["x", None]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ENVELOPE_URL", str(tmp_path_factory.mktemp("store")))
        return me.save_model(lambda rows: look(rows), name="total", api_input=sample)


def test_other_tables_are_taken_as_the_samples_kind(total):
    frame = pd.DataFrame({"a": [3.0, 4.0], "b": pd.array([2, None], "Int64"), "c": ["y", None]})
    plain = {"a": [3, 4], "b": [2, None], "c": ["y", None]}
    same = [
        frame[["c", "a", "b"]].assign(other=1),
        frame.astype({"c": object, "b": "Int8", "a": "float32"}),
        plain,
        [dict(zip(plain, row, strict=True)) for row in zip(*plain.values(), strict=True)],
        pl.DataFrame(plain),
        pa.table(plain),
        pa.table(frame),
        pa.record_batch(plain),
    ]
    assert [total.predict(rows) for rows in same] == [look(frame)] * len(same)


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ({"a": [1.5], "b": [1]}, "the input has no column `c`"),
        (np.ones((2, 2)), "the input has 2 columns without names, the function takes 3"),
        ([1.5], "the input has 1 columns without names, the function takes 3"),
        ({"a": ["1"], "b": [1], "c": ["x"]}, "`a` is utf8, the signature says float64"),
        ({"a": [2**53 + 1], "b": [1], "c": ["x"]}, "`a` has int64 values that float64 does not hold exactly"),
        ({"a": [1.5], "b": [1.0], "c": ["x"]}, "`b` is float64, the signature says int64"),
        ({"a": [None], "b": [1], "c": ["x"]}, "column `a` has no value in row 0"),
        (pd.DataFrame({"a": [1.5]}, index=["x"]), "the index holds data"),
        (object(), "a builtins.object is not a kind of rows"),
        (pl.DataFrame({"a": [{"x": 1}], "b": [1], "c": ["x"]}), '`a` is struct<"x": int64>'),
        (pl.DataFrame(), "the input has no column `a`, `b`, `c`"),
    ],
)
def test_rows_that_do_not_fit_are_refused(total, rows, reason):
    with pytest.raises(me.InvalidInput) as refused:
        total.predict(rows)
    assert reason in refused.value.message


def test_a_category_that_the_sample_lacks_is_refused(save):
    envelope = save(lambda rows: rows["c"].cat.codes, pd.DataFrame({"c": pd.Categorical(["x", "y"])}))
    assert envelope.predict(pd.DataFrame({"c": ["y", "x"]})).tolist() == [1, 0]
    with pytest.raises(me.InvalidInput, match="the category 'z', which the sample did not have"):
        envelope.predict(pd.DataFrame({"c": ["z"]}))


def test_columns_that_are_not_taken_may_be_anything(total):
    frame = pd.DataFrame({"a": [3.0], "b": pd.array([2], "Int64"), "c": ["y"]})
    expected = total.predict(frame)
    other = pd.period_range("2026", periods=1, freq="M")
    assert total.predict(frame.assign(other=other, **{"": 1})) == expected
    assert total.predict(frame.assign(other=1).rename(columns={"other": 7})) == expected
    assert total.predict(pl.DataFrame({"a": [3.0], "b": [2], "c": ["y"], "other": [{"x": 1}]})) == expected
    assert total.predict(pa.table({"a": [3.0], "b": [2], "c": ["y"], "other": [{"x": 1}]})) == expected
    assert total.predict([{"a": 3.0, "b": 2, "c": "y", "other": object()}]) == expected
    assert total.predict({"a": 3.0, "b": 2, "c": "y", "other": object()}) == expected


def test_a_name_is_not_taken_for_another(save):
    envelope = save(lambda frame: frame["a"], pd.DataFrame({"a": [1.0, 2.0]}))
    assert envelope.predict(pd.Series([3.0], name="b")).tolist() == envelope.predict([3.0]).tolist() == [3.0]
    with pytest.raises(me.InvalidInput, match="no column `a`"):
        envelope.predict(pd.DataFrame({"b": [3.0]}))


def test_a_matrix_is_taken_by_position(save):
    envelope = save(lambda matrix: matrix @ np.array([1.0, 10.0]), np.arange(6.0).reshape(3, 2))
    assert envelope.predict(np.array([[1.0, 2.0]])).tolist() == [21.0]
    assert envelope.predict(np.array([[1, 2]])).tolist() == [21.0]
    with pytest.raises(me.InvalidInput, match="3 columns without names, the function takes 2"):
        envelope.predict(np.ones((1, 3)))


def test_no_rows_have_the_types_of_some():
    conversions = me._native.conversions()
    for value in INPUTS.values():
        rows, batch = conversions.describe(value, "x")
        if rows["shape"] in ("scalar", "keywords"):
            continue
        nothing = conversions.decode(batch.slice(0, 0), rows)
        if isinstance(nothing, list | tuple):
            assert not [*nothing] or {len(column) for column in nothing} == {0}
            continue
        again, _ = conversions.describe(nothing, "x")
        assert again["shape"] == rows["shape"]
        if rows["shape"].startswith(("pandas", "polars", "pyarrow", "numpy")):
            assert dtypes(nothing) == dtypes(value)


def dtypes(value):
    if isinstance(value, np.ndarray):
        return value.dtype.kind
    if isinstance(value, pd.DataFrame):
        return value.dtypes.map(repr).tolist()
    found = getattr(value, "schema", None) or getattr(value, "dtype", None) or value.type
    return str(found)
