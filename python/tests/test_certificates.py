"""Row-wise is what was tested, not what was promised."""

import numpy as np
import pandas as pd
import pytest

SAMPLE = pd.DataFrame({"a": [3.0, 1.0, 4.0, 1.5, 9.0], "b": [1.0, 0.0, 1.0, 0.0, 1.0]})


def shuffled(frame):
    return frame["a"].to_numpy()[np.random.default_rng(7).permutation(len(frame))]


def alone_only(frame):
    if len(frame) != 5:
        raise ValueError(f"five rows, please, not {len(frame)}")
    return frame["a"]


NOT_ROW_WISE = {
    "rank": (lambda frame: frame["a"].rank(), "column `prediction` differs"),
    "cumulative sum": (lambda frame: frame["a"].cumsum(), "column `prediction` differs"),
    "centred": (lambda frame: frame["a"] - frame["a"].mean(), "column `prediction` differs"),
    "shuffled": (shuffled, "column `prediction` differs"),
    "previous row": (lambda frame: frame["a"].shift(1, fill_value=0.0), "column `prediction` differs"),
    "particular": (alone_only, "five rows, please, not 1"),
    "one value": (lambda frame: float(frame["a"].sum()), "one row for all the rows of a call"),
    "fewer rows": (lambda frame: frame[frame["b"] > 0].reset_index(drop=True), "it gave 3 rows for 5"),
}
ROW_WISE = {
    "arithmetic": (lambda frame: frame["a"] * 2 + frame["b"], "bitwise"),
    "loop": (lambda frame: [row.a if row.b else None for row in frame.itertuples()], "bitwise"),
    "two columns": (lambda frame: frame.assign(c=np.sqrt(frame["a"]))[["c", "b"]], "bitwise"),
    "cancelling": (lambda frame: (frame["a"] + 0.1 * (1 + 1e-15 * len(frame))) - frame["a"] - 0.1, "close"),
}


@pytest.mark.parametrize("kind", NOT_ROW_WISE)
def test_a_row_that_depends_on_others_is_found(kind, save):
    function, reason = NOT_ROW_WISE[kind]
    certificate = next(iter(save(function, SAMPLE).certificate.values()))
    assert not certificate["row_wise"]
    assert certificate["equality"] == "none"
    assert reason in certificate["reason"]


@pytest.mark.parametrize("kind", ROW_WISE)
def test_rows_that_depend_on_nothing_else_are_certified(kind, save):
    function, equality = ROW_WISE[kind]
    certificate = next(iter(save(function, SAMPLE).certificate.values()))
    assert certificate["row_wise"], certificate
    assert certificate["equality"] == equality
    assert certificate["trials"] > 10


@pytest.mark.parametrize("rows", [1, 3])
def test_equal_rows_prove_nothing(rows, save):
    certificate = save(lambda frame: frame["a"] - frame["a"].mean(), SAMPLE.iloc[[0] * rows]).certificate[
        "predict"
    ]
    assert not certificate["row_wise"]
    assert "only one row" in certificate["reason"]
