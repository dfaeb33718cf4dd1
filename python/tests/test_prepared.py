"""A prepared conversion gives what the general one gives, to the last part; and quickly where it can."""

import importlib

import numpy as np
import pandas as pd
import pytest
from exactly import look
from hypothesis import given
from hypothesis import strategies as st
from test_inputs import INPUTS
from test_outputs import OUTPUTS, ROWS
from test_round_trips import CONVERSIONS, NAMES, NUMBERS, numbers

import model_envelope as me

# Made when the conversions are first asked for.
frames, prepared = map(importlib.import_module, ("_envelope_frames", "_envelope_prepared"))
MANY = 65_536
NULLABLE = ["Int8", "UInt64", "Float32", "boolean"]
TEXTS = ["str", "string", "string[python]", "category", "object"]
MOMENTS = ["datetime64[ns]", "datetime64[s]", "datetime64[ms, Europe/London]", "timedelta64[us]"]


def decoders(described):
    """The general way, and the quick way alone."""

    def general(batch):
        return CONVERSIONS.decode(batch, described)

    return general, prepared.DECODERS[described["shape"]](described["fields"], general)


def parts(value):
    return frames._parts(value) if hasattr(value, "iloc") else flags(value)


def flags(value):
    if isinstance(value, dict):
        return [flags(item) for item in value.values()]
    if isinstance(value, tuple):
        return [flags(item) for item in value]
    return (value.flags, value.strides, value.dtype) if isinstance(value, np.ndarray) else None


def same(value):
    """Decodes the rows of `value` in both ways; all, one, and none of them."""
    described, batch = CONVERSIONS.describe(value, "x")
    general, quick = decoders(described)
    slices = (
        [batch]
        if described["shape"] in CONVERSIONS.ONE_ROW
        else [batch, batch.slice(0, 1), batch.slice(0, 0)]
    )
    for rows in slices:
        one, other = general(rows), quick(rows)
        assert look(other) == look(one)
        assert str(parts(other)) == str(parts(one))


def same_output(value):
    """Encodes in both ways; `None` where the quick one leaves it to the other."""
    described, _ = CONVERSIONS.describe(value, "prediction", output=True)
    encode = prepared.ENCODERS[described["shape"]](described["fields"], None)
    made = encode(value)
    if made is not None:
        expected = CONVERSIONS.encode(value, described, "prediction")
        assert made.to_bytes() == expected.to_bytes()
    return made


@pytest.mark.parametrize("kind", INPUTS)
def test_every_input_is_decoded_as_in_general(kind):
    described, batch = CONVERSIONS.describe(INPUTS[kind], "x")
    made = prepared.decoder(described)(batch)
    expected = CONVERSIONS.decode(batch, described)
    assert look(made) == look(expected)
    assert str(parts(made)) == str(parts(expected))


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_output_is_encoded_as_in_general(kind):
    value = OUTPUTS[kind](ROWS)
    described, _ = CONVERSIONS.describe(value, "prediction", output=True)
    expected = CONVERSIONS.encode(value, described, "prediction")
    assert prepared.encoder(described, "prediction")(value).to_bytes() == expected.to_bytes()


@pytest.mark.parametrize(
    "kind", [kind for kind in INPUTS if kind.startswith("pandas ") and "moment" not in kind]
)
def test_frames_are_put_together_quickly(kind):
    same(INPUTS[kind])


@pytest.mark.parametrize("dtype", NUMBERS)
def test_numbers_of_all_types_keep_every_bit(dtype):
    @given(st.lists(st.tuples(numbers(dtype), numbers(dtype)), min_size=1, max_size=8))
    def check(rows):
        matrix = np.array(rows, dtype)
        frame = pd.DataFrame(matrix, columns=["b", "a"]).assign(other=1.5)
        columns = {"b": matrix[:, 0], "a": matrix[:, 1]}
        for value in (frame, matrix, matrix[:, 1], frame["a"], columns, tuple(columns.values())):
            same(value)
        for value in (frame, matrix, matrix[:, 1], frame["a"], columns, matrix[0, 0]):
            assert same_output(value) is not None

    check()


@pytest.mark.parametrize(
    "dtype",
    [*NULLABLE, *TEXTS, *MOMENTS],
)
def test_pandas_types_keep_what_is_missing(dtype):
    plain = {"boolean": "bool", "Float32": "float32"}.get(dtype, dtype.lower())
    values = numbers(plain) if plain in NUMBERS else st.text()
    if "64[" in dtype:
        values = st.integers(0, 10**9)
    values = values.filter(lambda value: value == value)

    @given(st.lists(values, min_size=1, max_size=5), st.lists(st.none() | values, max_size=5))
    def check(some, more):
        series = pd.Series(pd.array([*some, *more], dtype=dtype))
        same(series)
        same(pd.DataFrame({"a": series, "n": 1, "b": series[::-1].reset_index(drop=True)}))
        same_output(series)

    check()


PLAIN = {
    "float": st.floats(),
    "int": st.integers(-(2**63), 2**63 - 1),
    "text": st.text(),
    "bool": st.booleans(),
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_values_are_the_same(kind):
    @given(st.lists(st.tuples(PLAIN[kind], st.none() | PLAIN[kind]), min_size=1, max_size=5), NAMES)
    def check(pairs, name):
        first, second = ([pair[place] for pair in pairs] for place in (0, 1))
        records = [{name: one, f"{name} 2": one} for one in first]
        for value in (first, records, records[0], ("args", first[0], first[0])):
            same(value)
        for value in (first, [*first, *second], records, records[0], first[0], {"a": first, "b": first}):
            assert same_output(value) is not None

    check()


@pytest.mark.parametrize(
    "value", [2**63 - 1, -(2**63), float("nan"), -0.0, np.uint64(2**64 - 1), np.float32(0.1)]
)
def test_extremes_are_encoded_quickly(value):
    assert same_output(value) is not None
    assert same_output({"a": value, "b": 1.5}) is not None


def test_many_rows_are_the_same():
    texts = pd.Series([None if n % 7 == 0 else f"row {n}" for n in range(MANY)], dtype="str")
    frame = pd.DataFrame(
        {"f": np.arange(MANY) / 3, "i": np.arange(MANY), "s": texts, "c": texts.astype("category")}
    )
    same(frame)
    assert same_output(frame[["f", "i"]]) is not None
    assert same_output(frame["f"].tolist()) is not None


def test_a_float_that_is_missing_is_nan_and_an_integer_that_is_missing_is_refused():
    described, _ = CONVERSIONS.describe(pd.DataFrame({"f": [1.5], "i": [1]}), "x")
    decode = prepared.decoder(described)
    some = me._native.Batch.from_columns(
        1, [("f", "float64", True, [None], None), ("i", "int64", True, [1], None)]
    )
    assert look(decode(some)) == look(pd.DataFrame({"f": [np.nan], "i": [1]}))
    none = me._native.Batch.from_columns(
        1, [("f", "float64", True, [1.5], None), ("i", "int64", True, [None], None)]
    )
    with pytest.raises(CONVERSIONS.Unsupported, match="`i` has no value in its item 0"):
        decode(none)


def test_what_a_function_does_to_its_input_is_not_seen_by_the_next_call():
    frame = pd.DataFrame({"a": [1.5, 2.5], "i": [1, 2], "c": pd.Categorical(["x", "y"]), "s": ["p", "q"]})
    frame["m"] = pd.array([1, None], "Int64")
    described, batch = CONVERSIONS.describe(frame, "x")
    decode, before = prepared.decoder(described), batch.to_bytes()
    expected = look(decode(batch)), str(parts(decode(batch)))
    seen = decode(batch)
    seen.columns.name = "changed"
    seen.index.name = "changed"
    seen["c"].cat.categories.name = "changed"
    seen.loc[0, ["a", "i", "s", "m"]] = [9.5, 9, "changed", 9]
    seen["a"] *= 2
    seen["new"] = 1
    del seen["i"]
    seen["s"].array[0] = "changed"
    assert (look(decode(batch)), str(parts(decode(batch)))) == expected
    assert batch.to_bytes() == before
    matrix = np.ones((2, 2))
    described, batch = CONVERSIONS.describe(matrix, "x")
    prepared.decoder(described)(batch)[:] = 7
    assert prepared.decoder(described)(batch).tolist() == matrix.tolist()


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        (np.ones(2), np.ones((2, 2))),
        (np.ones(2), np.array([1 + 2j])),
        (np.ones((2, 2)), np.ones((2, 3))),
        (pd.DataFrame({"a": [1.5]}), pd.DataFrame({"b": [1.5]})),
        (pd.DataFrame({"a": [1.5]}), pd.DataFrame({"a": [1.5]}, index=["x"])),
        (pd.DataFrame({"a": [1.5]}), pd.DataFrame({"a": ["x"]})),
        (pd.Series([1]), pd.Series([2**63], dtype="uint64")),
        (pd.Series(pd.Categorical(["a"])), pd.Series(["b"], dtype=object)),
        ([1.5], [1.5, "x"]),
        ([1.5], [[1.5]]),
        ([1], [2**63]),
        ([1], [True, 1]),
        ("x", 1),
        ({"a": 1.5, "b": "x"}, {"a": 1.5}),
        ({"a": 1.5, "b": "x"}, {"a": 1.5, "b": "x", "c": 1}),
        ([{"a": 1.5}], [{"a": 1.5}, {"b": 1.5}]),
        ({"a": [1.5], "b": [1]}, {"a": [1.5], "b": [1, 2]}),
    ],
)
def test_an_unusual_output_is_refused_in_the_same_words(sample, value):
    described, _ = CONVERSIONS.describe(sample, "prediction", output=True)
    with pytest.raises(TypeError) as expected:
        CONVERSIONS.encode(value, described, "prediction")
    with pytest.raises(type(expected.value)) as refused:
        prepared.encoder(described, "prediction")(value)
    assert str(refused.value) == str(expected.value)


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        (np.ones(2), np.array([1, 2**53])),
        (np.ones(2), np.arange(6.0)[::-2]),
        (np.ones(2), np.arange(3.0).astype(">f8")),
        (np.ones((2, 2)), np.arange(8.0).reshape(2, 4)[:, ::2]),
        (np.ones((2, 2)), np.empty((0, 2))),
        (pd.DataFrame({"a": [1.5], "b": [1]}), pd.DataFrame({"b": [1], "a": [2.5]})),
        (pd.DataFrame({"a": [1.5], "b": [1]}), pd.DataFrame({"a": [1.5], "b": [1]}, index=[7])),
        (pd.Series([1.5]), pd.Series([1, 2])),
        (pd.Series([1.5]), pd.Series([1.5, None], dtype="Float64")),
        ([1.5], [1, 2.5, None, np.float64(3)]),
        ([1.5], []),
        ([{"a": 1.5, "b": 1}], []),
        ([{"a": 1.5, "b": 1}], [{"b": 2, "a": None}]),
        ({"a": 1.5, "b": "x"}, {"b": None, "a": np.float64(1)}),
        ({"a": [1.5], "b": [1]}, {"b": np.array([1]), "a": [None]}),
        (1.5, None),
        (1.5, np.array(2.5)),
    ],
)
def test_other_ways_to_give_the_same_output_are_encoded_as_in_general(sample, value):
    described, _ = CONVERSIONS.describe(sample, "prediction", output=True)
    expected = CONVERSIONS.encode(value, described, "prediction")
    assert prepared.encoder(described, "prediction")(value).to_bytes() == expected.to_bytes()


def test_another_pandas_is_left_to_the_general_conversion(monkeypatch):
    described, batch = CONVERSIONS.describe(pd.DataFrame({"a": [1.5], "s": ["x"]}), "x")
    expected = look(CONVERSIONS.decode(batch, described))
    right = pd.RangeIndex._simple_new
    monkeypatch.setattr(pd.RangeIndex, "_simple_new", lambda values, name="other": right(values, name=name))
    assert decoders(described)[1] is None
    assert look(prepared.decoder(described)(batch)) == expected
