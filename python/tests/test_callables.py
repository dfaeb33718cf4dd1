"""Any callable is carried: it gives the same in a worker, and loaded into a clean process."""

import dataclasses
import enum
import functools
import json
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

import model_envelope as me

FRAME = pd.DataFrame({"a": [1.0, 2.5, -3.0], "b": [0.5, 0.0, 2.0]})
WEIGHTS = pd.DataFrame({"a": [2.0], "b": [-1.0]})

FILES = {
    "localmod.py": """
        import localbase

        def double(frame):
            return frame["a"] * localbase.FACTOR

        def plain(value):
            return value * 2
        """,
    "localbase.py": "FACTOR = 2",
    "locallazy.py": "def shift(column):\n    return column + 1",
    "localpack/__init__.py": """
        from pathlib import Path

        from .inner import read

        def offset():
            return read(Path(__file__).parent)
        """,
    "localpack/inner.py": "def read(folder):\n    return float((folder / 'data' / 'offset.txt').read_text())",
    "localpack/data/offset.txt": "40.5",
    "localpack/.env": "SECRET=1",
    "localpack/relative.py": """
        def predict(frame):
            from .inner import read
            from . import offset
            return frame["a"] + offset()
        """,
    "localspace/part.py": "def negate(column):\n    return -column",
}


@pytest.fixture(scope="module", autouse=True)
def local(tmp_path_factory):
    """Modules beside the program, that nobody has installed."""
    folder = tmp_path_factory.mktemp("local")
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    sys.path.insert(0, str(folder))
    yield folder
    sys.path.remove(str(folder))
    for name in [name for name in sys.modules if name.startswith("local")]:
        del sys.modules[name]


class Scorer:
    """A model with state: 100 kB of it."""

    def __init__(self):
        self.table = np.arange(12_800) / 7

    def score(self, frame):
        return frame["a"] * self.table[1000]

    def __call__(self, frame):
        return self.score(frame) + self.table[-1]

    @staticmethod
    def fixed(frame):
        return frame["a"] - frame["b"]

    @classmethod
    def made(cls, frame):
        return frame["a"] * cls().table[7]


@dataclasses.dataclass
class Settings:
    colour: "Colour"
    factor: float = 3.0


class Colour(enum.Enum):
    RED = 2.0


def traced(function):
    @functools.wraps(function)
    def inner(*arguments):
        return function(*arguments) * 10

    return inner


@functools.lru_cache(maxsize=7)
def power(base):
    return base**3


def plain_function(frame):
    return frame["a"] * 2 + frame["b"]


def of_global_frame(frame):
    return frame["a"] * WEIGHTS["a"].iloc[0] + frame["b"] * WEIGHTS["b"].iloc[0]


def with_cached_helper(frame):
    return frame["a"] * power(2)


def of_lazy_module(frame):
    import locallazy

    return locallazy.shift(frame["a"])


def of_module_with_data(frame):
    import localpack

    return frame["a"] + localpack.offset()


def pure(values):
    return [value**2 for value in values if value is not None]


@traced
def decorated(frame):
    """Ten times."""
    return frame["a"]


def closure():
    table = np.arange(12_800) / 3
    names = {"b", "a", "c"}
    return lambda frame: frame[min(names)] * table[100]


def pipeline():
    from sklearn.linear_model import LinearRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LinearRegression()).fit(FRAME, [1.0, 2.0, 4.0]).predict


def boosted():
    lightgbm = pytest.importorskip("lightgbm")
    model = lightgbm.LGBMRegressor(n_estimators=3, min_child_samples=1, verbose=-1)
    return model.fit(FRAME, [1.0, 2.0, 4.0]).predict


def imported():
    import localmod

    return localmod.double


def of_imported():
    import localmod

    return lambda frame: localmod.double(frame) + 1


def of_namespace():
    import localspace.part

    return lambda frame: localspace.part.negate(frame["a"])


def relative():
    from localpack.relative import predict

    return predict


def of_settings():
    settings = Settings(Colour.RED)
    return lambda frame: frame["a"] * settings.factor * settings.colour.value * isinstance(settings, Settings)


CALLABLES = {
    "plain function": lambda: plain_function,
    "lambda": lambda: lambda frame: frame["a"] + 1,
    "closure": closure,
    "bound method": lambda: Scorer().score,
    "instance": Scorer,
    "static method": lambda: Scorer.fixed,
    "class method": lambda: Scorer.made,
    "partial": lambda: functools.partial(lambda factor, frame, power: frame["a"] * factor**power, 3, power=2),
    "pure Python": lambda: pure,
    "decorated": lambda: decorated,
    "cached helper": lambda: with_cached_helper,
    "global frame": lambda: of_global_frame,
    "dataclass and enum": lambda: of_settings(),
    "pipeline": pipeline,
    "LightGBM": boosted,
    "function of a module": imported,
    "function that uses a module": of_imported,
    "lazily imported module": lambda: of_lazy_module,
    "package with data": lambda: of_module_with_data,
    "relative imports": relative,
    "package in parts": of_namespace,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory, local):
    """Each callable with its envelope and its input."""
    patch = pytest.MonkeyPatch()
    patch.setenv("ENVELOPE_URL", str(tmp_path_factory.mktemp("store")))
    found = {}
    for kind, make in CALLABLES.items():
        try:
            function = make()
        except pytest.skip.Exception:
            continue
        sample = [1.0, 2.0] if kind == "pure Python" else FRAME
        name = kind.replace(" ", "_")
        found[kind] = function, sample, me.save_model(query_function=function, name=name, api_input=sample)
    yield found
    patch.undo()


LOAD = """
import json, sys
import pandas as pd
import model_envelope as me
frame = pd.DataFrame({"a": [1.0, 2.5, -3.0], "b": [0.5, 0.0, 2.0]})
found = {}
for kind, path in json.load(sys.stdin).items():
    function = me.get(path).load()
    found[kind] = list(function([1.0, 2.0] if kind == "pure Python" else frame))
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def reloaded(saved):
    """What each gives after `.load()` in a process that has never seen it."""
    import subprocess

    paths = json.dumps({kind: str(envelope.path) for kind, (_, _, envelope) in saved.items()})
    done = subprocess.run(
        [sys.executable, "-c", LOAD], input=paths, cwd="/", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_there_are_enough_kinds(saved):
    assert len(saved) >= len(CALLABLES) - 1


@pytest.mark.parametrize("kind", CALLABLES)
def test_it_gives_the_same_in_a_worker_and_loaded(kind, saved, reloaded):
    if kind not in saved:
        pytest.skip("not installed")
    function, sample, envelope = saved[kind]
    expected = list(function(sample))
    assert list(envelope.predict(sample)) == expected
    assert reloaded[kind] == expected


def test_names_are_the_functions(saved):
    names = {kind: envelope.functions for kind, (_, _, envelope) in saved.items()}
    assert names["plain function"] == ["plain_function"]
    assert names["bound method"] == ["score"]
    assert names["instance"] == ["Scorer"]
    assert names["lambda"] == names["closure"] == names["partial"] == ["predict"]
    assert names["decorated"] == ["decorated"]
    assert saved["decorated"][2].manifest["functions"][0]["doc"] == "Ten times."


def test_large_arrays_stay_out_of_the_pickle(saved):
    for kind in ("bound method", "instance", "closure"):
        state = saved[kind][2].manifest["state"]
        assert len(state["buffers"]) == 1
        assert len(me._native.read_member(saved[kind][2].path, state["pickle"])) < 10_000


def test_only_modules_that_are_used_are_carried(saved):
    def modules(kind):
        return saved[kind][2].manifest["source"]["modules"]

    assert modules("plain function") == modules("pipeline") == modules("relative imports")[:0] == []
    assert modules("function of a module") == ["modules/localbase.py"]
    assert modules("function that uses a module") == ["modules/localbase.py", "modules/localmod.py"]
    assert modules("lazily imported module") == ["modules/locallazy.py"]
    assert modules("package in parts") == ["modules/localspace/part.py"]
    assert "modules/localpack/data/offset.txt" in modules("package with data")
    assert not any(".env" in name for name in modules("package with data"))


def test_only_packages_that_are_used_are_locked(saved):
    def packages(kind):
        return {
            line for line in saved[kind][2].environment["lock"].splitlines() if line.startswith("name = ")
        }

    assert packages("pure Python") == {'name = "cloudpickle"'}
    assert 'name = "scikit-learn"' in packages("pipeline")
    assert 'name = "scikit-learn"' not in packages("plain function")
    assert not any("pytest" in name for kind in saved for name in packages(kind))


def test_a_model_is_not_a_function(save):
    from sklearn.linear_model import LinearRegression

    with pytest.raises(me.InvalidInput, match="LinearRegression, which cannot be called") as refused:
        save(LinearRegression().fit(FRAME, [1, 2, 3]), FRAME)
    assert ".predict" in refused.value.hint
