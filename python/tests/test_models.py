"""Kinds of models: one row online, gathered calls online, and a job give the same, in their class.

`make test` maps few rows and has the kinds whose libraries it needs anyway; `make models` has all
kinds and maps 100,000 rows (`MODELS_ROWS`).
"""

import json
import os
import re
import subprocess
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

ENVELOPE = Path(__file__).resolve().parents[2] / "target" / "release" / "envelope"
ROWS = int(os.environ.get("MODELS_ROWS", "3000"))
COLUMNS = ["w", "x", "y", "z"]
ALONE = 12
CALLS = 160
ROUNDS = 20


def table(rows, seed):
    chance = np.random.default_rng(seed)
    frame = pd.DataFrame({name: chance.normal(scale=3.0, size=rows) for name in COLUMNS})
    frame["target"] = np.sin(frame["w"]) * frame["x"] + frame["y"] ** 2 / 5
    frame["kind"] = (frame["target"] > frame["target"].median()).astype(int)
    return frame


TRAINING = table(600, 1)
X, TARGET, KIND = TRAINING[COLUMNS], TRAINING["target"], TRAINING["kind"]


# === kinds


def linear():
    from sklearn.linear_model import Ridge

    return Ridge().fit(X, TARGET).predict


def logistic():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, KIND)
    return lambda rows: model.predict_proba(rows)[:, 1]


def forest():
    from sklearn.ensemble import RandomForestClassifier

    model = RandomForestClassifier(30, random_state=0).fit(X, KIND)
    return lambda rows: model.predict_proba(rows)


def boosting():
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(max_iter=50).fit(X, TARGET).predict


def support_vectors():
    from sklearn.svm import SVR

    return SVR().fit(X, TARGET).predict


def network():
    from sklearn.neural_network import MLPRegressor

    return MLPRegressor(hidden_layer_sizes=(32, 32), max_iter=200, random_state=0).fit(X, TARGET).predict


def lightgbm():
    model = pytest.importorskip("lightgbm").LGBMRegressor(n_estimators=50, n_jobs=1, verbose=-1)
    return model.fit(X, TARGET).predict


def xgboost():
    return pytest.importorskip("xgboost").XGBRegressor(n_estimators=50).fit(X, TARGET).predict


def torch():
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    layers = [torch.nn.Linear(4, 32), torch.nn.BatchNorm1d(32), torch.nn.ReLU(), torch.nn.Linear(32, 1)]
    model = torch.nn.Sequential(*layers).eval()

    def predict(rows):
        with torch.no_grad():
            return model(torch.tensor(rows.to_numpy(), dtype=torch.float32)).numpy()[:, 0]

    return predict


def statsmodels():
    api = pytest.importorskip("statsmodels.api")
    model = api.GLM(TARGET, api.add_constant(X)).fit()
    return lambda rows: model.predict(api.add_constant(rows, has_constant="add"))


def plain():
    weights = dict(zip(COLUMNS, (0.5, -1.0, 2.0, 0.25), strict=True))
    return lambda rows: [sum(row[name] * weight for name, weight in weights.items()) for row in rows]


def arrays():
    chance = np.random.default_rng(0)
    inner, outer = chance.normal(size=(4, 16)), chance.normal(size=16)
    return lambda rows: np.tanh(rows @ inner) @ outer


KINDS = [
    linear,
    logistic,
    forest,
    boosting,
    support_vectors,
    network,
    lightgbm,
    xgboost,
    torch,
    statsmodels,
    plain,
    arrays,
]


def sample_for(kind):
    if kind is plain:
        return X.head(100).to_dict("records")
    return X.head(100).to_numpy() if kind is arrays else X.head(100)


# === ways to call


@contextmanager
def served(reference):
    """The address of a service with one worker, so that calls that come together must wait."""
    command = [ENVELOPE, "serve", reference, "--port", "0", "--workers", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        lines = iter(process.stdout.readline, "")
        found = (re.search(r"http://127\.0\.0\.1:\d+", line) for line in lines)
        yield next(match.group() for match in found if match)
    finally:
        process.terminate()
        process.communicate(timeout=30)


def ask(url, rows):
    request = urllib.request.Request(
        f"{url}/predict", json.dumps({"data": rows}).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


def calls_to_workers(url):
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as answer:
        return sum(
            float(line.rpartition(b" ")[2]) for line in answer if re.match(rb"\w*batch_rows_count", line)
        )


def asked_together(url, calls):
    """The answers to calls that are sent at the same moment, and by how many fewer calls they were made."""
    before = calls_to_workers(url)
    start = threading.Barrier(len(calls))

    def one(rows):
        start.wait()
        return ask(url, rows)

    with ThreadPoolExecutor(len(calls)) as pool:
        answers = list(pool.map(one, calls))
    return answers, len(calls) - (calls_to_workers(url) - before)


def mapped(reference, rows, folder):
    """The rows' predictions, by a job, in the order of `rows`."""
    pq.write_table(pa.Table.from_pandas(rows.reset_index(names="id")), folder / "rows.parquet")
    command = [ENVELOPE, "batch", reference, "--input", folder / "rows.parquet"]
    command += ["--output", folder / "out", "--keep", "id", "--quiet"]
    subprocess.run(command, check=True)
    from deltalake import DeltaTable

    found = DeltaTable(str(folder / "out")).to_pyarrow_table().to_pandas().sort_values("id")
    assert found["id"].tolist() == list(range(len(rows)))
    return found.drop(columns="id").to_numpy()


def matrix(predictions, like):
    """JSON's predictions as a job gives them: one row each, in the same type."""
    values = [list(row.values()) if isinstance(row, dict) else row for row in predictions]
    return np.array(values, dtype=like.dtype).reshape(len(predictions), -1)


def assert_in_class(found, expected, certificate):
    if certificate["equality"] == "bitwise":
        assert np.array_equal(found, expected)
    else:
        scale = np.maximum(np.abs(expected), np.median(np.abs(expected), axis=0))
        assert (np.abs(found - expected) <= certificate["tolerance"] * scale).all()


# === the rule


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_online_alone_online_gathered_and_a_job_give_the_same(kind, save, tmp_path):
    assert ENVELOPE.exists(), "the program is not there: run `make build`"
    predict = kind()

    def query(rows):
        return predict(rows)

    envelope = save(query, sample_for(kind), name=kind.__name__)
    certificate = envelope.certificate["query"]
    print(kind.__name__, certificate)
    assert certificate["row_wise"], certificate["reason"]
    fields = [field["name"] for field in envelope.manifest["functions"][0]["signature"]["input"]["fields"]]
    rows = table(ROWS, 2)[COLUMNS].set_axis(fields, axis=1)
    expected = mapped(envelope.id, rows, tmp_path)
    records = rows.head(CALLS).to_dict("records")
    with served(envelope.id) as url:
        alone = [ask(url, [record])[0] for record in records[:ALONE]]
        assert_in_class(matrix(alone, expected), expected[:ALONE], certificate)
        for _ in range(ROUNDS):
            answers, saved = asked_together(url, [[record] for record in records])
            found = matrix([answer[0] for answer in answers], expected)
            assert_in_class(found, expected[:CALLS], certificate)
            if saved > 0 or certificate["equality"] != "bitwise":
                break
        # What must not be seen in the answers has happened.
        assert (saved > 0) == (certificate["equality"] == "bitwise")
