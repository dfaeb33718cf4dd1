"""Whole programs: as a script, through a pipe, in a notebook; interrupted, in parallel, twice."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import model_envelope as me

# The source post's, but for the data and a body.
BEFORE = """
training_data = pd.DataFrame({"orders": [1, 5, 2], "spent": [10.0, 300.0, 45.5]})
"""
SNIPPET = """
import model_envelope as me
import pandas as pd

def predict_ltv(features: pd.DataFrame) -> float:
    # DS code to predict client lifetime revenue from a set of features
    # Some DS code, perhaps storing state, perhaps part of a class
    return features["spent"] * 1.5 + features["orders"]
"""
SAVE = """
me.save_model(
    query_function=predict_ltv,
    name="client_ltv_model",
    description="Predicts client LTV from a set of features",
    tags={
        "business_line" : "womens",
        "region" : "US",
        "canonical_name" : "client_ltv"
    },
    api_input=training_data # Loaded earlier, a pd.DataFrame
)
"""
AFTER = '\nprint(me.get("client_ltv_model").predict(training_data).tolist())\n'
EXPECTED = [16.0, 455.0, 70.25]


def test_in_a_script(python, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SNIPPET + BEFORE + SAVE + AFTER)
    assert json.loads(python(script)) == EXPECTED
    saved = me.get("canonical_name=client_ltv,region=US")
    assert saved.description == "Predicts client LTV from a set of features"
    assert saved.load()(saved_sample()).tolist() == EXPECTED


def saved_sample():
    import pandas as pd

    return pd.DataFrame({"orders": [1, 5, 2], "spent": [10.0, 300.0, 45.5]})


def test_through_a_pipe(python):
    assert json.loads(python(Path("-"), stdin=SNIPPET + BEFORE + SAVE + AFTER)) == EXPECTED


def test_in_a_notebook():
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    cells = [SNIPPET, BEFORE, SAVE, AFTER]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell.strip()) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    shown = notebook.cells[2].outputs[0]["data"]
    assert "client_ltv_model:1" in shown["text/html"]
    assert shown["text/plain"].startswith("<Envelope client_ltv_model:1")
    assert json.loads(notebook.cells[3].outputs[0]["text"]) == EXPECTED


TWICE = """
import functools, sys
sys.path.insert(0, sys.argv[1] if len(sys.argv) > 1 else ".")
import model_envelope as me
import beside

WORDS = {"one", "two", "three", "four"}

class Model:
    kinds = frozenset({"x", "y", "z"})

    def __init__(self):
        self.table = list(range(10))
        self.seen = {"r", "s", "t", "u"}

    @functools.cache
    def one(self):
        return 1

    def predict(self, values):
        letters = {"a", "b", "c", "d", "e"}
        return [
            value + (str(value) in {"p", "q", "r", "s"}) + len(WORDS) + len(letters) + beside.ONE
            for value in values
        ]

print(me.save_model(query_function=Model().predict, name="twice", api_input=[1.0, 2.0]).digest)
"""


def test_the_same_program_gives_the_same_envelope(python, tmp_path):
    digests = set()
    for folder in ("here", "there"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.py").write_text(TWICE)
        (tmp_path / folder / "beside.py").write_text("ONE = 1\n")
        script = tmp_path / folder / "train.py"
        digests.add(python(script, PYTHONHASHSEED=str(len(folder)), cwd=tmp_path / folder).strip())
    assert len(digests) == 1
    assert me.get("twice").version == 1


def test_nothing_of_this_machine_is_carried(python, tmp_path):
    (tmp_path / "train.py").write_text(SNIPPET + BEFORE + SAVE)
    python(tmp_path / "train.py")
    archive = zipfile.ZipFile(me.get("client_ltv_model").path)
    everything = b"".join(archive.read(name) for name in archive.namelist())
    for place in (tmp_path, Path.home(), Path(sys.prefix), Path.cwd(), Path(__file__).parent):
        assert bytes(place) not in everything, place
    assert b"file:/" not in everything


INTERRUPTED = """
import os, pathlib, sys, time
import model_envelope as me

def waiting(values):
    if "train" not in os.environ:
        pathlib.Path("marker").write_text(f"{os.getpid()} ")
        time.sleep(600)
    return values

os.environ["train"] = "1"
me.save_model(query_function=waiting, name="model", api_input=[1.0, 2.0])
"""


def test_an_interrupted_save_leaves_nothing(tmp_path, store, scratch):
    script = tmp_path / "train.py"
    script.write_text(INTERRUPTED)
    saving = subprocess.Popen([sys.executable, script], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not (worker := "".join(marker.read_text() for marker in scratch.glob("*/marker"))).endswith(" "):
        assert saving.poll() is None, saving.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    saving.send_signal(signal.SIGINT)
    _, errors = saving.communicate(timeout=30)
    assert saving.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert not [*store.rglob("*.envelope")]
    assert not [*scratch.iterdir()]
    assert not is_alive(int(worker))


def is_alive(process):
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


PARALLEL = """
import sys
import model_envelope as me

me.save_model(query_function=lambda value: value * {factor}, name="model", api_input=1.0)
"""


@pytest.mark.parametrize(("factors", "versions"), [((2, 3), [1, 2]), ((2, 2), [1])])
def test_saves_at_once_are_versions(factors, versions):
    programs = [PARALLEL.replace("{factor}", str(factor)) for factor in factors]
    saving = [subprocess.Popen([sys.executable, "-c", program], env=os.environ) for program in programs]
    assert [process.wait(timeout=60) for process in saving] == [0, 0]
    assert sorted(envelope.version for envelope in me.find("name=model")) == versions


IMPORTED = """
import sys
import model_envelope as me
print([name for name in ("pandas", "numpy", "pyarrow", "polars", "cloudpickle") if name in sys.modules])
print({getattr(me, name).__module__ for name in me.__all__})
"""


def test_importing_is_light(python):
    assert python(IMPORTED).splitlines() == ["[]", "{'model_envelope'}"]


def test_how_long_an_import_takes(capsys):
    command = [sys.executable, "-X", "importtime", "-c", "import model_envelope"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    total = next(line for line in report.splitlines() if line.endswith("| model_envelope"))
    with capsys.disabled():
        print(f"\nimport model_envelope: {int(total.split('|')[1]) / 1000:.0f} ms")
