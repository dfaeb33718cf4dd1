"""Several query functions in one envelope share its state, and a large state is never copied."""

import os
import resource
import zipfile

import numpy as np
import pandas as pd
import pytest

import model_envelope as me

WEIGHTS = np.arange(40_000, dtype=float)
FRAME = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [10.0, 20.0, 30.0]})


def predict(frame):
    return frame["a"] * WEIGHTS[-1]


def explain(frame):
    """Shows what the prediction is made of."""
    return pd.DataFrame({"share": frame["a"] / WEIGHTS[-1]})


@pytest.fixture
def envelope(save):
    return save(predict, FRAME, name="ltv", tags={"region": "US"}, description="client value")


def test_a_function_is_added_as_a_new_version(envelope):
    before = envelope.path.read_bytes()
    both = envelope.add_query_function(explain, api_input=FRAME)
    assert (both.name, both.version, both.functions) == ("ltv", 2, ["predict", "explain"])
    assert (both.tags, both.description) == (envelope.tags, envelope.description)
    assert envelope.path.read_bytes() == before
    assert both.digest != envelope.digest
    assert both.predict(FRAME).equals(predict(FRAME))
    assert both.predict(FRAME, function="explain").equals(explain(FRAME))
    described = both.manifest["functions"][1]
    assert described["doc"] == "Shows what the prediction is made of."
    assert described["certificate"]["row_wise"]


def test_functions_of_an_envelope_share_what_they_reach(envelope):
    both = envelope.add_query_function(explain, api_input=FRAME)
    assert len(both.manifest["state"]["buffers"]) == 1
    loaded = me.get("ltv").callables()
    assert loaded["predict"].__globals__["WEIGHTS"] is loaded["explain"].__globals__["WEIGHTS"]


def test_functions_that_are_loaded_to_add_another_go_on_sharing(envelope):
    envelope.add_query_function(explain, api_input=FRAME)
    third = me.get("ltv").add_query_function(lambda frame: frame["b"] + 1, name="more", api_input=FRAME)
    assert third.functions == ["predict", "explain", "more"]
    assert len(third.manifest["state"]["buffers"]) == 1


def test_a_function_is_added_to_what_another_process_saved(python, store):
    python(
        "import model_envelope as me, numpy as np\n"
        "weights = np.arange(40_000.0)\n"
        "fn = lambda values: [x * weights[2] for x in values]\n"
        "me.save_model(query_function=fn, name='other', api_input=[1.0, 2.0])"
    )
    fetched = me.get("other")
    first = fetched.load()
    both = fetched.add_query_function(
        lambda values: [first([value])[0] + 1 for value in values], name="more", api_input=[1.0, 2.0]
    )
    assert both.predict([3.0], function="more") == [7.0]
    assert both.predict([3.0]) == [6.0]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("predict", "has a function `predict` already"), ("not a name", "is not a function name")],
)
def test_a_name_is_used_once(envelope, name, reason):
    with pytest.raises(me.InvalidInput, match=reason):
        envelope.add_query_function(explain, name=name, api_input=FRAME)


def test_a_function_that_fails_leaves_no_version(envelope, store):
    def broken(frame):
        return os.environ["ENVELOPE_URL"] and frame["a"]

    with pytest.raises(me.NotServable):
        envelope.add_query_function(broken, api_input=FRAME)
    assert me.get("ltv").version == 1
    assert list((store / "staging").iterdir()) == []


# === large state


@pytest.fixture(scope="module")
def matrix():
    return np.random.default_rng(1).normal(size=(2**23, 4))  # 256 MiB


def test_a_large_state_is_saved_without_a_copy_of_it(save, matrix):
    def total(frame):
        return frame["a"] * matrix[-1, 0]

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    envelope = save(total, FRAME)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 0.3 * matrix.nbytes
    assert envelope.predict(FRAME).equals(total(FRAME))
    assert envelope.path.stat().st_size < matrix.nbytes + 2**20
    with zipfile.ZipFile(envelope.path) as archive:
        assert archive.infolist()[0].header_offset == 0
        assert archive.infolist()[0].file_size == matrix.nbytes


def test_a_large_state_is_mapped_when_it_is_loaded(save, matrix):
    def total(frame):
        return frame["a"] * matrix[-1, 0]

    envelope = save(total, FRAME, name="mapped")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    loaded = envelope.load()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < 0.3 * matrix.nbytes
    assert loaded(FRAME).equals(total(FRAME))
    mapped = loaded.__closure__[0].cell_contents
    mapped[0, 0] = 7.0  # estimators write through their arrays: it is this process's own page
    with zipfile.ZipFile(envelope.path) as archive:
        assert archive.testzip() is None


def test_a_flipped_bit_of_a_large_array_is_noticed(envelope, tmp_path):
    copy = tmp_path / "copy.envelope"
    copy.write_bytes(envelope.path.read_bytes())
    assert me.get(copy).predict(FRAME).equals(predict(FRAME))
    with copy.open("r+b") as file:
        file.seek(4096 + 80_000)
        byte = file.read(1)[0]
        file.seek(4096 + 80_000)
        file.write(bytes([byte ^ 1]))
    me._workers._close()
    for use in (lambda: me.get(copy).predict(FRAME), lambda: me.get(copy).load()):
        with pytest.raises(me.BadEnvelope, match="state/buffers/00000"):
            use()
