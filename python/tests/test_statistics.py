"""The statistics of a sample agree with what pandas and numpy say of it."""

import json
from datetime import datetime, timezone

import numpy as np
import pandas as pd
import pytest

from model_envelope import BadEnvelope, _native
from model_envelope._statistics import Statistics

RNG = np.random.default_rng(7)
MANY = 300_000


def table(frame):
    """The statistics of a frame."""
    conversions = _native.conversions()
    _, rows = conversions.describe(frame, "x")
    return json.loads(_native.statistics(rows, rows))["input"]


def column(values, **more):
    """The statistics of one column."""
    return table(pd.DataFrame({"x": pd.Series(values, **more)}))["columns"][0]


NUMBERS = {
    "constant": np.full(1000, 3.25),
    "one row": np.array([2.5]),
    "normal": RNG.normal(size=MANY),
    "far from zero": RNG.normal(1e9, 1.0, MANY),
    "heavy tail": RNG.pareto(0.7, MANY),
    "tiny": RNG.random(5000) * 1e-300,
    "minus zero": np.array([-0.0, 0.0, -0.0, 1.0]),
    "infinities and NaN": np.array([np.inf, -np.inf, np.nan, 1.0, 2.0, np.nan]),
    "no finite one": np.array([np.inf, np.nan]),
    "float32": RNG.random(MANY, dtype=np.float32),
    "int8": RNG.integers(-128, 128, MANY).astype(np.int8),
    "few": RNG.integers(0, 7, MANY),
    "int64": RNG.integers(-(2**62), 2**62, MANY),
    "ends of int64": np.array([-(2**63), 2**63 - 1, 0]),
    "uint64": RNG.integers(0, 2**64, MANY, dtype=np.uint64),
    "end of uint64": np.array([0, 2**64 - 1], dtype=np.uint64),
    "sorted": np.arange(MANY),
}


@pytest.fixture(params=NUMBERS, scope="module")
def numbers(request):
    values = NUMBERS[request.param]
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return values, finite, column(values)


def test_counts_are_exact(numbers):
    values, finite, found = numbers
    seen = found["numbers"]
    assert (found["count"], found["nulls"]) == (len(values), 0)
    if values.dtype.kind == "f":
        assert seen["nans"] == np.isnan(values).sum()
        assert seen["positive_infinities"] == np.isposinf(values).sum()
        assert seen["negative_infinities"] == np.isneginf(values).sum()
    assert seen["zeros"] == (finite == 0).sum()
    assert seen["negatives"] == (finite < 0).sum()


def test_bounds_are_exact(numbers):
    _, finite, found = numbers
    if len(finite) == 0:
        assert found["numbers"]["min"] is found["numbers"]["max"] is None
    else:
        assert found["numbers"]["min"] == finite.min().item()
        assert found["numbers"]["max"] == finite.max().item()


def test_mean_and_variance_are_those_of_numpy(numbers):
    _, finite, found = numbers
    if len(finite) == 0:
        return
    exact = finite.astype(np.longdouble)
    scale = float(np.abs(exact).max())
    assert found["numbers"]["mean"] == pytest.approx(float(exact.mean()), rel=1e-12, abs=1e-15 * scale)
    assert found["numbers"]["variance"] == pytest.approx(float(exact.var()), rel=1e-12)
    assert found["numbers"]["std"] == pytest.approx(float(exact.std()), rel=1e-12)


def test_quantiles_are_within_the_stated_error(numbers):
    _, finite, found = numbers
    if len(finite) == 0:
        return
    ordered = np.sort(finite)
    quantiles = found["numbers"]["quantiles"]
    slack = quantiles["rank_error"] + 1 / len(ordered)
    for share, value in quantiles["values"]:
        key = finite.dtype.type(value)
        below = np.searchsorted(ordered, key, "left") / len(ordered)
        not_above = np.searchsorted(ordered, key, "right") / len(ordered)
        assert below - slack <= share <= not_above + slack


def test_histograms_are_within_the_stated_error(numbers):
    _, finite, found = numbers
    if len(finite) == 0:
        return
    histogram, error = found["numbers"]["histogram"], found["numbers"]["quantiles"]["rank_error"]
    edges = histogram["edges"]
    exact = [len(finite)] if len(edges) == 2 else np.histogram(finite.astype(float), edges)[0]
    assert np.abs(np.array(histogram["counts"]) - exact).max() <= 2 * error * len(finite)


def test_distinct_values_are_within_three_standard_errors(numbers):
    _, finite, found = numbers
    exact, distinct = len(np.unique(finite)), found["distinct"]
    assert abs(distinct["estimate"] - exact) <= 3 * distinct["relative_error"] * exact


def test_few_values_are_counted_exactly(numbers):
    _, finite, found = numbers
    exact = pd.Series(finite).value_counts()
    frequent = found["numbers"]["frequent"]
    assert (frequent["error"] == 0) == (len(exact) <= frequent["counters"])
    for value, count in frequent["values"]:
        assert count <= exact[value] <= count + frequent["error"]
    if frequent["error"] == 0:
        assert len(frequent["values"]) == len(exact)


def test_missing_is_not_nan():
    found = column([1, None, 3], dtype="Int64")
    assert (found["nulls"], found["numbers"]["nans"], found["numbers"]["max"]) == (1, 0, 3)
    found = column([1.0, np.nan])
    assert (found["nulls"], found["numbers"]["nans"]) == (0, 1)


def test_without_values_nothing_is_said_of_them():
    found = column([None, None], dtype="Int64")
    assert (found["nulls"], found["numbers"]["min"], found["numbers"]["quantiles"]) == (2, None, None)
    found = column([None, None], dtype="string")
    assert (found["nulls"], found["texts"]["min"], found["distinct"]["estimate"]) == (2, None, 0)


def test_a_million_distinct_texts_are_counted_within_the_stated_error():
    texts = pd.Series([f"user-{number:07}" for number in range(10**6)])
    found = column(texts)
    assert found["distinct"]["estimate"] == pytest.approx(10**6, rel=3 * found["distinct"]["relative_error"])
    assert (found["texts"]["min"], found["texts"]["max"]) == ("user-0000000", "user-0999999")
    assert found["texts"]["frequent"]["error"] <= 10**6 / found["texts"]["frequent"]["counters"]
    assert (found["lengths"]["min"], found["lengths"]["max"]) == (12, 12)


def test_heavy_texts_are_found_among_many_rare_ones():
    texts = [f"rare {number}" for number in range(200_000)] + ["often"] * 30_000 + ["second"] * 20_000
    shuffled = pd.Series(texts).sample(frac=1, random_state=1).reset_index(drop=True)
    frequent = column(shuffled)["texts"]["frequent"]
    for (value, count), (expected, exact) in zip(
        frequent["values"], [("often", 30_000), ("second", 20_000)], strict=False
    ):
        assert (value, exact - frequent["error"] <= count <= exact) == (expected, True)


def test_texts_have_bounds_and_lengths_in_characters():
    texts = ["", "größe", "名前", "a" * 300, "größe", None]
    found = column(texts, dtype="string")
    lengths = pd.Series(texts, dtype="string").str.len().dropna()
    assert (found["nulls"], found["texts"]["min"], found["texts"]["max"]) == (1, "", "名前")
    assert (found["lengths"]["min"], found["lengths"]["max"]) == (lengths.min(), lengths.max())
    assert found["lengths"]["mean"] == pytest.approx(lengths.mean(), rel=1e-12)
    assert found["texts"]["long"] == 1
    assert found["texts"]["frequent"]["values"][0] == ["größe", 2]


def test_categories_are_counted_as_texts():
    values = pd.Categorical(["b", "a", "b", None], categories=["a", "b", "unused"])
    found = column(values)
    assert found["texts"]["frequent"]["values"] == [["b", 2], ["a", 1]]
    assert (found["nulls"], found["distinct"]["estimate"]) == (1, 2)


def test_truth_values_are_counted():
    found = column([True, False, True, None], dtype="boolean")
    assert (found["booleans"], found["nulls"]) == ({"false": 1, "true": 2}, 1)


def test_timestamps_are_kept_to_the_last_unit():
    moments = pd.date_range("2024-03-01", periods=1000, freq="7h13min", tz="Europe/London").as_unit("ns")
    found = column(moments + pd.Timedelta(1, "ns"))
    assert found["type"] == "timestamp[ns, Europe/London]"
    assert found["numbers"]["min"] == moments.min().value + 1
    assert found["numbers"]["max"] == moments.max().value + 1


def test_bytes_and_lists_have_lengths():
    found = column([b"", b"abc", b"abc", None])
    assert (found["lengths"]["max"], found["lengths"]["zeros"], found["nulls"]) == (3, 1, 1)
    assert found["distinct"]["estimate"] == 2
    found = column([[1, 2], [], [3]])
    assert (found["lengths"]["min"], found["lengths"]["max"], found["lengths"]["mean"]) == (0, 2, 1.0)


def test_the_same_rows_give_the_same_bytes():
    frame = pd.DataFrame({"x": RNG.normal(size=MANY), "t": RNG.integers(0, 10**6, MANY).astype(str)})
    _, rows = _native.conversions().describe(frame, "x")
    assert _native.statistics(rows, rows) == _native.statistics(rows, rows)


def test_parts_can_be_merged():
    values = RNG.normal(1e6, 3.0, 100_000)
    one, other = (table(pd.DataFrame({"x": part})) for part in (values[:60_001], values[60_001:]))
    merged = json.loads(_native.merge_statistics(json.dumps(one), json.dumps(other)))
    found = merged["columns"][0]["numbers"]
    assert (merged["rows"], found["min"], found["max"]) == (100_000, values.min(), values.max())
    assert found["mean"] == pytest.approx(values.mean(), rel=1e-12)
    assert found["variance"] == pytest.approx(values.var(), rel=1e-12)
    median = dict(map(tuple, found["quantiles"]["values"]))[0.5]
    assert abs((values < median).mean() - 0.5) <= found["quantiles"]["rank_error"]


def test_parts_of_other_columns_are_not_merged():
    one, other = (json.dumps(table(pd.DataFrame({name: [1.0]}))) for name in "ab")
    with pytest.raises(BadEnvelope, match="column `a` cannot be merged"):
        _native.merge_statistics(one, other)


def test_an_envelope_has_the_statistics_of_all_rows_that_it_was_saved_with(save):
    frame = pd.DataFrame({"x": np.arange(5000.0), "when": pd.Timestamp("2024-01-01", tz="UTC")})
    stats = save(lambda frame: frame["x"] * 2, frame).stats
    assert (stats["version"], stats["input"]["rows"]) == (1, 5000)
    assert stats["input"]["columns"][0]["numbers"]["max"] == 4999.0
    assert stats["output"]["columns"][0]["name"] == "prediction"
    assert isinstance(stats, dict)
    assert "2024-01-01 00:00:00Z to 2024-01-01 00:00:00Z" in repr(stats)


def test_they_can_be_looked_at():
    moment = datetime(2024, 5, 1, tzinfo=timezone.utc)
    frame = pd.DataFrame(
        {
            "<b>": [1, 2, 4],
            "text": ["a\x1b[31m", "a\x1b[31m", "<i>"],
            "at": [moment] * 3,
            "yes": [True, True, False],
        }
    )
    stats = Statistics(version=1, input=table(frame), output=table(frame[["yes"]]))
    drawn = repr(stats)
    assert drawn.splitlines()[:2] == [
        "input, 3 rows",
        "  <b>   int64               ██ █  1 to 4, mean 2.33333, 3 distinct",
    ]
    assert "\x1b" not in drawn
    card = stats._repr_html_()
    assert "<b>" not in card.replace("<b>input</b>", "").replace("<b>output</b>", "")
    assert not any(part in card for part in ("<i>", "<script", "http"))
