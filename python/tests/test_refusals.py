"""What cannot be served is refused before anything is kept, in one line that names it, with a hint."""

import datetime as dt
import importlib
import random
import socket
import sys
import threading
import time
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import model_envelope as me

SAMPLE = pd.DataFrame({"a": [1.0, 2.0, 3.0]})
LOCK = threading.Lock()


class Client:
    def __init__(self):
        self.connection = {"socket": socket.socket()}

    def score(self, frame):
        return frame["a"]


def helper_with_lock(value):
    with LOCK:
        return value


def with_generator():
    numbers = (number for number in range(3))
    return lambda frame: frame["a"] + next(numbers)


def with_open_file(path):
    file = path.open()
    return lambda frame: frame["a"] + len(file.name)


def with_default(frame, lock=LOCK):
    return frame["a"]


def failing(frame):
    return frame["missing"]


def drawing(frame):
    return [random.random() for _ in range(len(frame))]


def telling_the_time(frame):
    return frame["a"] + time.time()


def of_hidden_module(frame):
    return importlib.import_module("hid" + "den").double(frame["a"])


def reading_a_file(frame):
    with open(PATH) as file:
        return frame["a"] + len(file.read())


PATH = "missing.txt"


@pytest.fixture
def refused(store, scratch):
    """Saves what must be refused; gives the error after looking that nothing is left."""

    def refused(kind, function=lambda frame: frame["a"], **arguments):
        given = {"name": "model", "api_input": SAMPLE} | arguments
        with pytest.raises(kind) as raised:
            me.save_model(query_function=function, **given)
        error = raised.value
        assert type(error) is kind
        assert "\n" not in error.message
        assert not store.exists() or not [*store.rglob("*.envelope")]
        assert not [*scratch.iterdir()]
        return error

    return refused


def test_locks(refused):
    error = refused(me.NotServable, lambda frame: helper_with_lock(frame["a"]))
    assert "it uses `helper_with_lock.LOCK`, a _thread.lock" in error.message
    assert "create `helper_with_lock.LOCK` inside the function" in error.hint


def test_sockets(refused):
    client = Client()
    error = refused(me.NotServable, client.score)
    client.connection["socket"].close()
    assert "`score` cannot be carried" in error.message
    assert "`self.connection.socket`, a socket.socket" in error.message


def test_generators(refused):
    error = refused(me.NotServable, with_generator())
    assert "it uses `numbers`, a generator" in error.message


def test_open_files(refused, tmp_path):
    (tmp_path / "open.txt").write_text("text")
    error = refused(me.NotServable, with_open_file(tmp_path / "open.txt"))
    assert "it uses `file`, a _io.TextIOWrapper" in error.message


def test_defaults(refused):
    assert "it uses `lock`, a _thread.lock" in refused(me.NotServable, with_default).message


def test_a_function_that_fails_on_its_own_sample(refused):
    error = refused(me.NotServable, failing)
    assert "`failing` fails on its own sample: KeyError: 'missing'" in error.message
    assert 'test_refusals.py", line' in error.details
    assert "in failing" in error.details
    assert "model_envelope" not in error.details
    assert "_envelope" not in error.details.replace("model_envelope", "")


def test_random_numbers(refused):
    error = refused(me.NotServable, drawing)
    assert (
        "`drawing` gives another output in a clean process: column `prediction` differs in row 0"
        in error.message
    )
    assert "random" in error.hint


def test_the_time(refused):
    error = refused(me.NotServable, lambda frame: frame["a"] + time.time_ns() % 10**9)
    assert "differs in row 0" in error.message


def test_files_of_this_machine(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / PATH).write_text("here only")
    error = refused(me.NotServable, reading_a_file)
    assert "in a clean process, `reading_a_file` raised FileNotFoundError" in error.message
    assert 'test_refusals.py", line' in error.details


def test_modules_that_cannot_be_seen(refused, tmp_path, monkeypatch, save):
    (tmp_path / "hidden.py").write_text("def double(column):\n    return column * 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    hidden, source = importlib.import_module("hidden"), tmp_path / "hidden.py"
    text = source.read_text()
    source.unlink()
    error = refused(me.NotServable, of_hidden_module)
    assert "hidden.py` was imported, but its file is gone" in error.message
    assert error.hint == "put the file back, and save again"
    source.write_text(text)
    for modules in ([], ["hidden"], [source], [hidden]):
        saved = save(of_hidden_module, SAMPLE, modules=modules)
        assert saved.manifest["source"]["modules"] == ["modules/hidden.py"]
        assert saved.predict(SAMPLE).tolist() == [2.0, 4.0, 6.0]
    del sys.modules["hidden"]


def test_the_package_itself(refused):
    assert (
        "uses `model_envelope` itself"
        in refused(me.NotServable, lambda frame: frame["a"] * len(me.__name__)).message
    )


@pytest.mark.parametrize("name", ["", "a b", "it's", "a/b", "-a", ".a", "ü", "a" * 129, None, 7])
def test_names(refused, name):
    assert "is not a model name" in refused(me.InvalidInput, name=name).message


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        ({"passes": True}, "'passes': True is not text to text"),
        ({1: "a"}, "1: 'a' is not text to text"),
        ({"a b": "c"}, "'a b' is not a tag key"),
        ({"": "c"}, "'' is not a tag key"),
        ({"name": "c"}, "'name' is not a tag key"),
        ({"a": "ü" * 513}, "has 1026 bytes"),
        (["a=b"], "the tags are a list"),
    ],
)
def test_tags(refused, tags, reason):
    assert reason in refused(me.InvalidInput, tags=tags).message


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        (None, "`api_input` is missing"),
        (SAMPLE[:0], "`api_input` has no rows"),
        ([], "`api_input` has no rows"),
        ({}, "it has no columns"),
        (np.ones(2, "complex64"), "numpy array of complex64"),
        (
            pd.DataFrame({"a": pd.period_range("2026", periods=2, freq="M")}),
            "column `a` has the pandas type period",
        ),
        (SAMPLE.set_index(pd.MultiIndex.from_product([[1], [1, 2, 3]])), "the index holds data"),
        (SAMPLE.set_index("a"), "the index holds data"),
        (pd.DataFrame({0: [1.0]}), "the column label 0 is not text"),
        (pd.DataFrame([[1, 2]], columns=["a", "a"]), "two columns have the same name `a`"),
        (pd.DataFrame({"": [1]}), "a column has an empty name"),
        (pd.DataFrame({"a": [1, "x"]}), "`a` mixes int ('1'), str ('x')"),
        (
            pd.DataFrame({"a": [None, np.nan, "x"]}, dtype=object),
            "marks missing values in 2 ways (NoneType, float)",
        ),
        (pd.DataFrame({"a": [None, None]}, dtype=object), "all values of `a` are missing"),
        ([{"a": None}], "all values of `a` are missing"),
        ([{"a": 1}, {"b": 1}], "record 1 has the keys ['b']"),
        ([2**70], "do not fit 64 bits"),
        ({1, 2}, "a builtins.set is not a kind of rows"),
        ((1, 2), "a tuple is carried when it holds equally long lists or arrays"),
        (("args", 1, [1]), 'several arguments of a function as ("args", first, second)'),
        ([np.array([1]), np.array(["a"])], "holds arrays of"),
        ([{"a": {}}], "an empty dict"),
        ([dt.datetime(2026, 1, 1), dt.datetime(2026, 1, 1, tzinfo=dt.timezone.utc)], "mixes the time zones"),
        (pd.DataFrame({"a": pd.interval_range(0, 2)}), "`.array.left` and `.array.right`"),
        (pl.Series([["a"]], dtype=pl.List(pl.Categorical)), "would come back as List(String)"),
        (
            pa.table({"a": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64()))}),
            "column `a` has the type Map",
        ),
        ([Decimal(10) ** 40], "more than 38 digits"),
    ],
)
def test_samples(refused, sample, reason):
    assert reason in refused(me.InvalidInput, api_input=sample).message


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"function": 7}, "is a int, which cannot be called"),
        ({"function": drawing, "description": 7}, "the description is a int"),
        ({"modules": "localmod"}, "`modules` is one str"),
        ({"modules": ["nowhere"]}, "there is no module `nowhere`"),
        ({"modules": ["./nowhere.py"]}, "there is no module at `nowhere.py`"),
        ({"modules": [7]}, "7 is not a module"),
        ({"requirements": "numpy"}, "`requirements` is one str"),
        ({"api_output": [1.0, 2.0, 4.0]}, "it is a list, the signature says pandas.Series"),
        ({"api_output": pd.Series([1.0, 2.0, 4.0])}, "`prediction` differs in row 2"),
    ],
)
def test_other_arguments(refused, arguments, reason):
    assert reason in refused(me.InvalidInput, **arguments).message


async def later(frame):
    return frame


def test_coroutines(refused):
    assert "later, as a coroutine" in refused(me.InvalidInput, later).message


def test_packages_that_no_index_has(refused):
    error = refused(me.NotServable, requirements=["no-such-package-of-model-envelope==1.0"])
    assert "the environment cannot be locked" in error.message
    assert "no-such-package-of-model-envelope" in error.message


def test_without_uv(refused, monkeypatch):
    monkeypatch.setenv("ENVELOPE_UV", "/nonexistent")
    error = refused(me.EnvironmentMismatch)
    assert "`uv`, which locks the environment, was not found" in error.message
    assert "pip install uv" in error.hint


def test_an_output_that_is_right_is_taken(save):
    assert save(lambda frame: frame["a"].rank(), SAMPLE, api_output=SAMPLE["a"].rank()).version == 1


FULL_DISK = """
import resource, signal
import numpy as np
import model_envelope as me
me.save_model(query_function=lambda values: [value + 1 for value in values], name="small", api_input=[1.0])
weights = np.ones(1 << 20)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    me.save_model(lambda values: [value + weights[0] for value in values], name="big", api_input=[1.0])
except OSError as error:
    print(error)
print([envelope.id for envelope in me.find()])
"""


def test_a_disk_that_takes_no_more(python, store):
    told, found = python(FULL_DISK).splitlines()
    assert told.startswith("cannot write the envelope: File too large")
    assert found == "['small:1']"
    assert len([*store.rglob("*.envelope")]) == 1
    assert not [*(store / "staging").iterdir()]
