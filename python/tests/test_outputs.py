"""`.predict` gives back what the function gave: kind, types, values, and each way to be missing."""

import datetime as dt
from collections import namedtuple
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from exactly import look
from test_inputs import output_of_proof

import model_envelope as me

MOMENT = dt.datetime(2026, 7, 1, 12, 30, 15, 123456)
ROWS = [1.0, 2.0, 4.0]

OUTPUTS = {
    "float": lambda rows: sum(rows) / 7,
    "integer": lambda rows: 2**63 - 1,
    "text": lambda rows: "ü",
    "boolean": lambda rows: True,
    "bytes": lambda rows: b"\0\xff",
    "moment": lambda rows: MOMENT,
    "date": lambda rows: MOMENT.date(),
    "nan": lambda rows: float("nan"),
    "numpy float": lambda rows: np.float32(0.1),
    "numpy integer": lambda rows: np.int64(-1),
    "numpy moment": lambda rows: np.datetime64("2026-01-01T00:00:00", "s"),
    "pandas moment": lambda rows: pd.Timestamp("2026-01-01 00:00:00.123456789"),
    "series of floats": lambda rows: pd.Series([0.1, np.nan, -0.0]),
    "series of text": lambda rows: pd.Series(["a", None, ""], dtype="str"),
    "series of nullable integers": lambda rows: pd.Series([2**63 - 1, None, 0], dtype="Int64"),
    "series of categories": lambda rows: pd.Series(
        pd.Categorical(["b", None, "a"], ["a", "b", "c"], ordered=True)
    ),
    "series of moments": lambda rows: pd.Series(
        pd.to_datetime(["2026-01-01", None, "2026-07-01"]).tz_localize("Europe/London")
    ),
    "vector": lambda rows: np.array(rows, "float32") / 3,
    "vector of text": lambda rows: np.array(["a", "bb", "ccc"]),
    "vector of booleans": lambda rows: np.array(rows) > 1,
    "matrix": lambda rows: np.array([rows, rows], "float32").T,
    "matrix of one column": lambda rows: np.array([rows]).T,
    "frame": lambda rows: pd.DataFrame(
        {"low": rows, "label": ["a", None, "c"], "n": pd.array([1, None, 3], "Int8")}
    ),
    "list": lambda rows: [row / 3 for row in rows],
    "list with missing": lambda rows: [None, float("nan"), 1.0],
    "list of text": lambda rows: ["a", None, ""],
    "list of lists": lambda rows: [[0.5, None], [], None],
    "list of numpy": lambda rows: list(np.array(rows, "float32")),
    "records": lambda rows: [{"score": row, "label": "x" if row > 1 else None} for row in rows],
    "columns": lambda rows: {"score": rows, "rank": np.argsort(rows), "label": ["a", "b", None]},
    "record": lambda rows: {"mean": sum(rows) / 3, "n": len(rows), "best": np.float32(4), "at": MOMENT},
    "tuple": lambda rows: (np.array(rows), np.array(rows) > 1, ["a", "b", "c"]),
    "polars frame": lambda rows: pl.DataFrame(
        {"a": rows, "b": ["x", None, "z"]}, schema_overrides={"a": pl.Float32}
    ),
    "polars series": lambda rows: pl.Series([1, None, 3], dtype=pl.UInt16),
    "pyarrow table": lambda rows: pa.table({"a": rows, "b": pa.array(["x", None, "z"], pa.large_string())}),
    "pyarrow array": lambda rows: pa.array([1, None, 3], pa.int8()),
    "cube": lambda rows: np.ones((3, 2, 2)) * np.array(rows).reshape(3, 1, 1),
    "point": lambda rows: np.array(rows).sum(keepdims=False).reshape(()),
    "probabilities": lambda rows: (np.ones((3, 2), "float32"), ["a", "b", "c"]),
    "structs": lambda rows: [{"best": {"label": "a", "score": row}, "all": [row]} for row in rows],
    "record of lists": lambda rows: {"label": "a", "scores": rows, "box": np.array([[1, 2]])},
    "decimals": lambda rows: [Decimal("1.50"), None, Decimal("-0.25")],
    "decimal": lambda rows: Decimal("12.30"),
    "times": lambda rows: pd.Series([dt.time(1, 2), None, dt.time(23, 59, 59, 1)], dtype=object),
    "polars structs": lambda rows: pl.DataFrame({"s": [{"x": 1}, None, {"x": 2}]}),
    "enum": lambda rows: pl.Series(["a", None, "b"], dtype=pl.Enum(["b", "a"])),
    "dictionary": lambda rows: pa.array(["a", None, "a"]).dictionary_encode(),
}
CALLED = (
    "float",
    "series of nullable integers",
    "matrix",
    "records",
    "tuple",
    "polars frame",
    "pyarrow table",
    "cube",
    "structs",
    "record of lists",
)


@pytest.mark.parametrize("kind", OUTPUTS)
def test_outputs_come_back(kind, save):
    function = OUTPUTS[kind]
    envelope = save(function, ROWS)
    assert look(output_of_proof(envelope)) == look(function(ROWS))
    if kind in CALLED:
        assert look(envelope.predict(ROWS)) == look(function(ROWS))


REFUSED = {
    "None": (lambda rows: None, "gives None for its sample"),
    "complex": (lambda rows: 1j, "a builtins.complex is not a kind of rows"),
    "set": (lambda rows: {1}, "a builtins.set is not a kind of rows"),
    "object": (lambda rows: [object()], "holds a builtins.object"),
    "generator": (lambda rows: (row for row in rows), "a builtins.generator is not a kind of rows"),
    "index": (lambda rows: pd.Series(rows, index=list("abc")), "the index holds data"),
    "lengths": (lambda rows: {"a": [1], "b": [1, 2]}, "different lengths"),
    "complex array": (lambda rows: np.ones((2, 2, 2), "complex64"), "numpy array of complex64"),
    "nothing in rows": (lambda rows: np.ones((2, 0, 2)), "whose rows hold nothing"),
    "tuples": (lambda rows: [(1, "a")], "holds a builtins.tuple"),
    "fold": (lambda rows: dt.datetime(2026, 10, 25, 1, fold=1), "would come back as"),
    "zoned time": (lambda rows: dt.time(1, tzinfo=dt.timezone.utc), "would come back as"),
    "negative zero": (lambda rows: Decimal("-0.0"), "would come back as"),
    "keys that differ": (lambda rows: [[{"a": 1}], [{"b": 1}]], "give all of them the same keys"),
    "surrogate": (lambda rows: "\ud800", "surrogates not allowed"),
    "nothing": (lambda rows: [None for _ in rows], "gives no value in `prediction`"),
    "no columns": (lambda rows: pd.DataFrame(index=range(3)), "it has no columns"),
    "series in a dict": (lambda rows: {"a": pd.Series(rows)}, "`a` is a pandas object in a dict"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_outputs_without_a_counterpart_are_refused(kind, save, store):
    function, reason = REFUSED[kind]
    with pytest.raises(me.NotServable) as refused:
        save(function, ROWS)
    assert reason in refused.value.message
    assert not store.exists()


Point = namedtuple("Point", "x y")


@dataclass
class Answer:
    label: str
    scores: list


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (lambda rows: Point(1, 2.5), {"x": 1, "y": 2.5}),
        (lambda rows: [Point(row, "a") for row in rows], [{"x": row, "y": "a"} for row in ROWS]),
        (lambda rows: Answer("a", [1.5]), {"label": "a", "scores": [1.5]}),
        (
            lambda rows: [Answer("a", [row]) for row in rows],
            [{"label": "a", "scores": [row]} for row in ROWS],
        ),
    ],
)
def test_named_fields_come_back_as_dicts(function, given, save):
    assert save(function, ROWS).predict(ROWS) == given


def test_arrays_of_another_shape_are_refused(save):
    envelope = save(lambda rows: np.ones((len(rows), 2, len(rows))), ROWS)
    assert envelope.predict(ROWS).shape == (3, 2, 3)
    with pytest.raises(me.PredictionFailed, match="list<list<float64, 2>, 2>, the signature says list<list"):
        envelope.predict(ROWS[:2])


def test_no_rows_of_any_kind_are_given(save):
    def chosen(rows):
        return [{"a": row, "b": "x"} for row in rows if row > 0]

    envelope = save(chosen, ROWS)
    assert envelope.predict([-1.0]) == envelope.predict([]) == []
    assert envelope.predict([2.0]) == [{"a": 2.0, "b": "x"}]


def test_another_output_than_the_samples_is_refused(save):
    def moody(rows):
        return {0.0: rows, 1.0: "text", 2.0: [str(row) for row in rows], 3.0: [0.1 for _ in rows]}[rows[0]]

    envelope = save(moody, [0.0, 1.0])
    assert envelope.predict([3.0]) == [0.1]
    for rows, reason in (
        ([1.0], "it is a scalar"),
        ([2.0], "`prediction` is utf8, the signature says float64"),
    ):
        with pytest.raises(me.PredictionFailed) as refused:
            envelope.predict(rows)
        assert reason in refused.value.message
