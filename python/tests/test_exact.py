"""Values change their type only where they stay what they are."""

import datetime as dt

import pyarrow as pa
import pytest

from model_envelope._native import Batch

HALF = dt.datetime(2026, 7, 1, 12, 0, 0, 500_000)

SAME = [
    (pa.array([2**53, None]), "float64"),
    (pa.array([127, -128]), "int8"),
    (pa.array([2**63], pa.uint64()), "uint64"),
    (pa.array([1, None], pa.uint8()), "int64"),
    (pa.array([0.5, float("nan"), float("inf")]), "float32"),
    (pa.array([0.1], pa.float32()), "float64"),
    (pa.array([HALF], pa.timestamp("us")), "timestamp[ns]"),
    (pa.array([HALF], pa.timestamp("us")), "timestamp[ms]"),
    (pa.array([HALF], pa.timestamp("us", "UTC")), "timestamp[us, Europe/London]"),
    (pa.array([dt.timedelta(1)], pa.duration("s")), "duration[us]"),
    (pa.nulls(2), "utf8"),
    (pa.nulls(2), "list<float64>"),
    (pa.array([[1, None], None]), "list<float64>"),
    (pa.array([[], None], pa.list_(pa.null())), "list<utf8>"),
]
OTHER = [
    (pa.array([2**53 + 1]), "float64"),
    (pa.array([2**63 - 1]), "float64"),
    (pa.array([128]), "int8"),
    (pa.array([-1]), "uint64"),
    (pa.array([0.1]), "float32"),
    (pa.array([1.0]), "int64"),
    (pa.array([True]), "int64"),
    (pa.array([1]), "bool"),
    (pa.array([1]), "utf8"),
    (pa.array(["1"]), "int64"),
    (pa.array([b"a"]), "utf8"),
    (pa.array([1]), "timestamp[us]"),
    (pa.array([HALF], pa.timestamp("us")), "timestamp[s]"),
    (pa.array([HALF], pa.timestamp("us")), "timestamp[us, UTC]"),
    (pa.array([dt.datetime(9999, 1, 1)], pa.timestamp("us")), "timestamp[ns]"),
    (pa.array([HALF.date()]), "timestamp[us]"),
    (pa.array([[2**53 + 1]]), "list<float64>"),
    (pa.array([[1]]), "int64"),
]


def fitted(column, kind):
    batch = Batch.from_arrow(pa.table({"x": column, "other": column}))
    return pa.table(batch.fitted([{"name": "x", "type": kind}]))


@pytest.mark.parametrize(("column", "kind"), SAME)
def test_the_same_values_fit(column, kind):
    table = fitted(column, kind)
    assert table.column_names == ["x"]
    there = table["x"] if "null" in str(column.type) else table["x"].cast(column.type)
    assert repr(there.to_pylist()) == repr(column.to_pylist())


@pytest.mark.parametrize(("column", "kind"), OTHER)
def test_other_values_are_refused(column, kind):
    with pytest.raises(TypeError, match=r"`x` (is|has)"):
        fitted(column, kind)


def test_a_column_that_is_not_there_is_named():
    with pytest.raises(TypeError, match="there is no column `y`"):
        Batch.from_arrow(pa.table({"x": [1]})).fitted([{"name": "y", "type": "int64"}])
