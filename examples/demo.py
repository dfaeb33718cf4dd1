"""The main job, end to end: train, save, show, call, serve, ask, map, read back.

`make demo` runs it; it needs `target/release/envelope` and the package in `.venv`.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import model_envelope as me
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_diabetes
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROOT = Path(__file__).resolve().parent.parent
ENVELOPE = ROOT / "target" / "release" / "envelope"
OUT = ROOT / "demo-out"
ROWS = 1_000_000
FILES = 8
REF = "disease_progression"


@contextmanager
def step(title):
    """Names a step, and says how long it took."""
    print(f"\n\033[1m{title}\033[0m", flush=True)
    began = time.monotonic()
    yield
    print(f"  ({time.monotonic() - began:.1f} s)", flush=True)


def run(*arguments):
    """Shows a command and runs it."""
    shown = " ".join(str(argument) for argument in arguments)
    print(f"  $ envelope {shown}".replace(f"{ROOT}/", ""), flush=True)
    subprocess.run([ENVELOPE, *map(str, arguments)], check=True)


def training_data():
    """442 patients, ten measurements; ships inside scikit-learn."""
    data = load_diabetes(as_frame=True)
    features = data.data.drop(columns="sex")
    features["sex"] = np.where(data.data["sex"] > 0, "f", "m")
    return features, data.target


def train(features, target):
    numbers = [name for name in features.columns if name != "sex"]
    columns = make_column_transformer((StandardScaler(), numbers), (OneHotEncoder(), ["sex"]))
    return make_pipeline(columns, HistGradientBoostingRegressor(max_iter=100)).fit(features, target)


def save(model, features):
    def predict_progression(patients: pd.DataFrame) -> np.ndarray:
        """Disease progression one year after baseline."""
        return model.predict(patients)

    return me.save_model(
        query_function=predict_progression,
        name=REF,
        description="Predicts diabetes progression from ten baseline measurements",
        tags={"team": "health", "region": "US", "stage": "demo"},
        api_input=features,
    )


def make_table(features):
    """A table of patients: the training data, resampled and jittered."""
    folder = OUT / "patients"
    folder.mkdir(parents=True)
    chance = np.random.default_rng(0)
    per_file = ROWS // FILES
    for number in range(FILES):
        rows = features.sample(per_file, replace=True, random_state=number).reset_index(drop=True)
        numeric = rows.select_dtypes("number").columns
        rows[numeric] += chance.normal(0, 0.005, rows[numeric].shape)
        rows.insert(0, "patient_id", np.arange(number * per_file, (number + 1) * per_file))
        rows["ward"] = chance.integers(0, 50, per_file)
        pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), folder / f"part-{number}.parquet")
    return folder


@contextmanager
def served():
    """The service, on a free port of this machine."""
    command = [ENVELOPE, "serve", REF, "--port", "0"]
    print(f"  $ envelope serve {REF} --port 0", flush=True)
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield ready_url(process)
    finally:
        process.terminate()
        process.wait(30)


def ready_url(process):
    lines = []
    for line in process.stdout:
        lines.append(line)
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            return found.group()
    raise SystemExit("the service did not start:\n" + "".join(lines))


def ask(url, rows):
    body = json.dumps({"data": rows}).encode()
    request = urllib.request.Request(f"{url}/predict", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


def main():
    if not ENVELOPE.exists():
        sys.exit("target/release/envelope is not there: run `make build`, or `make demo` for all of it")
    shutil.rmtree(OUT, ignore_errors=True)
    features, target = training_data()

    with step("1. Train a scikit-learn pipeline"):
        model = train(features, target)
        print(
            f"  {len(features)} patients, {features.shape[1]} columns, R² {model.score(features, target):.2f}"
        )
    with step(
        "2. Save it: signature, statistics, packages and code are derived, and proved in a clean process"
    ):
        envelope = save(model, features)
        print(f"  {envelope}")
    with step("3. Look at the envelope"):
        run("show", REF)
    with step("4. Call it, isolated in its own environment"):
        print("  >>> me.get('disease_progression').predict(patients.head(3))")
        print(" ", me.get(REF).predict(features.head(3)))
    with step("5. Serve it, and ask over HTTP"), served() as url:
        answer = ask(url, features.head(2).to_dict("records"))
        print(f"  POST {url}/predict\n  {answer}")
        assert np.allclose(answer["predictions"], model.predict(features.head(2)))
    with step(f"6. Make a table of {ROWS:,} patients in {FILES} Parquet files"):
        table = make_table(features)
    with step("7. Map the function over the table, into a Delta table"):
        run("batch", REF, "--input", table, "--output", OUT / "predictions", "--keep", "patient_id")
    with step("8. Read the result back, and compare with the function itself"):
        compare(model, table)
    print(NEXT)


def compare(model, table):
    result = DeltaTable(str(OUT / "predictions")).to_pyarrow_table().to_pandas()
    print(result.head(3).to_string(index=False).replace("\n", "\n  ").join(["  ", ""]))
    first = pq.read_table(table / "part-0.parquet").to_pandas()
    expected = pd.Series(model.predict(first.drop(columns=["patient_id", "ward"])), index=first["patient_id"])
    found = result.set_index("patient_id")["prediction"]
    assert len(found) == ROWS
    assert found.index.is_unique
    assert (found.loc[expected.index] == expected).all()
    print(
        f"  {len(result):,} rows, each patient once; the first {len(first):,} equal the function's own answers bit for bit"
    )


NEXT = f"""
\033[1mWhat to try next\033[0m
  target/release/envelope ls
  target/release/envelope show {REF} --stats
  target/release/envelope serve {REF} --port 8080        and open http://127.0.0.1:8080
  target/release/envelope build {REF} -o svc && ./svc --port 8081
  .venv/bin/python -c "import model_envelope as me; print(me.find('team=health'))"
"""

if __name__ == "__main__":
    os.environ.setdefault("ENVELOPE_PROGRESS", "1")
    main()
