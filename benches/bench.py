"""`make bench`: our speed against peers on this machine, as ratios within one run.

Rounds are interleaved (ours, theirs, ours, theirs …) and medians printed with the spread, because a
shared machine drifts. Nothing is asserted about time.
"""

import json
import multiprocessing
import os
import pickle
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the peers: more is slower here; ours sets it itself

import model_envelope as me
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from saving import bench_large, bench_save
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

ROOT = Path(__file__).resolve().parent.parent
ENVELOPE = ROOT / "target/release/envelope"
LOAD = ROOT / "target/release/examples/load"
FIGURES = ROOT / "target/release/examples/runtime_figures"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
SECONDS = os.environ.get("BENCH_SECONDS", "4")
LARGE_MB = int(os.environ.get("BENCH_LARGE_MB", "1024"))
ROWS = int(os.environ.get("BENCH_ROWS", "2000000"))
FILES = 16
FOREST_ROWS = int(os.environ.get("BENCH_FOREST_ROWS", "40000"))
"""As many as make a forest of 364 MB."""
NUMBERS = [f"f{index}" for index in range(8)]
TEXTS = ["colour", "size"]


def features(rows, seed):
    chance = np.random.default_rng(seed)
    frame = pd.DataFrame({name: chance.normal(size=rows) for name in NUMBERS})
    frame["colour"] = chance.choice(["red", "green", "blue"], rows)
    frame["size"] = chance.choice(["s", "m", "l", "xl"], rows)
    return frame


def train():
    """The `sk` model: scaled numbers and encoded texts into 100 boosted trees."""
    sample = features(20_000, 1)
    columns = make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(), TEXTS))
    model = make_pipeline(columns, HistGradientBoostingRegressor(max_iter=100))
    return model.fit(sample, sample["f0"] * 2 + np.sin(sample["f1"])), sample


def save(model, sample, folder):
    def sk(rows):
        return model.predict(rows)

    def cheap(rows):
        return rows["f0"] * 2 + rows["f1"]

    bench_save(sk, sample, folder, ROUNDS)
    me.save_model(cheap, name="bench_cheap", api_input=sample[["f0", "f1"]])


def save_large(folder):
    matrix = np.random.default_rng(0).normal(size=(LARGE_MB << 17) // 1024 * 1024).reshape(-1, 1024)

    def large(frame):
        return frame["a"] * matrix[-1, -1]

    bench_large(large, pd.DataFrame({"a": [1.0, 2.0]}), folder, ROUNDS)


# === the runtime


def bench_runtime(cache):
    """What a call costs beside the function, and a worker beside the first: `runtime.rs` measures."""
    sample = pd.DataFrame({name: np.linspace(0.0, 1.0, 64) for name in ("a", "b")})
    wide = pd.DataFrame(np.random.default_rng(2).normal(size=(FOREST_ROWS, 10)))
    wide.columns = [f"x{index}" for index in range(10)]
    model = RandomForestRegressor(n_estimators=100, n_jobs=1).fit(wide, wide.sum(axis=1))

    def quick(frame):
        return frame["a"] * 2 + frame["b"]

    def busy(frame):
        total = 0
        for number in range(500_000):
            total += number & 7
        return frame["a"] + total

    def forest(frame):
        return model.predict(frame)

    envelopes = {
        "quick": me.save_model(quick, name="bench_quick", api_input=sample, prove="quick"),
        "busy": me.save_model(busy, name="bench_busy", api_input=sample, prove="quick"),
        "forest": me.save_model(forest, name="bench_forest", api_input=wide.head(16), prove="quick"),
    }
    print(f"  the forest has {len(pickle.dumps(model)) / 1e6:.0f} MB")
    uv = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    files = [f"{name}={envelope.path}" for name, envelope in envelopes.items()]
    subprocess.run([FIGURES, cache, sys.executable, uv, *files], check=True)
    bare_scaling(busy, sample)


def bare_scaling(function, frame):
    """What two processes that do nothing else do in the time of one: more cannot be had here."""
    ratios = []
    for _ in range(5):
        single, double = (bare_calls(function, frame, processes) for processes in (1, 2))
        ratios.append(double / single)
    ratios.sort()
    print(f"  2 bare processes against 1, calls/s  {ratios[0]:.2f}, {ratios[2]:.2f}, {ratios[4]:.2f} ×")


def bare_calls(function, frame, processes, seconds=3):
    """Calls per second of so many forked processes together."""
    began = time.perf_counter()

    def count(pipe):
        calls = 0
        while time.perf_counter() - began < seconds:
            function(frame)
            calls += 1
        pipe.send(calls)

    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe(duplex=False) for _ in range(processes)]
    started = [fork.Process(target=count, args=(sends,)) for _, sends in pipes]
    for process in started:
        process.start()
    calls = sum(receives.recv() for receives, _ in pipes)
    took = time.perf_counter() - began
    for process in started:
        process.join()
    return calls / took


# === batch


def make_table(folder):
    folder.mkdir()
    for number in range(FILES):
        rows = ROWS // FILES
        frame = features(rows, number)
        frame.insert(0, "id", np.arange(number * rows, (number + 1) * rows))
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / f"{number:02}.parquet")


def ours(ref, table, out):
    command = [
        ENVELOPE,
        "batch",
        ref,
        "--input",
        table,
        "--output",
        out,
        "--keep",
        "id",
        "--format",
        "parquet",
    ]
    subprocess.run(
        [*map(str, command), "-q"], check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )


_FUNCTION = None


def _load(pickled):
    global _FUNCTION
    import cloudpickle

    _FUNCTION = cloudpickle.loads(pickled)


def _map_file(paths):
    source, target, columns = paths
    table = pq.read_table(source, columns=["id", *columns])
    frame = table.select(columns).to_pandas()
    result = pa.table({"id": table["id"], "prediction": pa.array(np.asarray(_FUNCTION(frame)))})
    pq.write_table(result, target, compression="zstd")


def by_hand(function, columns, table, out):
    """What a good engineer writes: one process per core, one file at a time."""
    import cloudpickle

    out.mkdir()
    work = [(path, out / path.name, columns) for path in sorted(table.iterdir())]
    context = multiprocessing.get_context("spawn")
    with context.Pool(os.cpu_count(), _load, (cloudpickle.dumps(function),)) as pool:
        pool.map(_map_file, work, chunksize=1)


def limit(function, columns, table):
    """The function alone, on data in memory, times rows over cores."""
    frame = pq.read_table(next(table.iterdir()), columns=columns).to_pandas()
    began = time.monotonic()
    for start in range(0, len(frame), 65_536):
        function(frame.iloc[start : start + 65_536])
    return (time.monotonic() - began) * FILES / os.cpu_count()


def timed(work, out):
    shutil.rmtree(out, ignore_errors=True)
    began = time.monotonic()
    work()
    return time.monotonic() - began


def bench_batch(model, table, folder):
    def sk(rows):
        return model.predict(rows)

    def cheap(rows):
        return rows["f0"] * 2 + rows["f1"]

    for name, function, columns in (("sk", sk, NUMBERS + TEXTS), ("cheap", cheap, ["f0", "f1"])):
        seconds = {"limit": [], "ours": [], "hand": []}
        for _ in range(ROUNDS):
            seconds["limit"].append(limit(function, columns, table))
            out = folder / "ours"
            seconds["ours"].append(timed(lambda n=name, o=out: ours(f"bench_{n}", table, o), out))
            out = folder / "hand"
            seconds["hand"].append(timed(lambda f=function, c=columns, o=out: by_hand(f, c, table, o), out))
        check(folder, name)
        mine = statistics.median(seconds["ours"])
        for who, label in (
            ("ours", "envelope batch"),
            ("hand", "pyarrow + multiprocessing"),
            ("limit", "limit: fn on both cores"),
        ):
            median = statistics.median(seconds[who])
            spread = f"{min(seconds[who]):.2f}–{max(seconds[who]):.2f}"
            print(
                f"  {name:6} {label:28} {median:7.2f} s ({spread})  {ROWS / median:12,.0f} rows/s  ours/it {mine / median:5.2f}"
            )


def check(folder, name):
    """Both wrote the same rows."""
    read = [pq.read_table(folder / who).sort_by("id").to_pandas() for who in ("ours", "hand")]
    assert len(read[0]) == len(read[1]) == ROWS // FILES * FILES, (name, len(read[0]), len(read[1]))
    assert np.allclose(read[0]["prediction"], read[1]["prediction"]), name


# === online

FASTAPI = """
import cloudpickle, pandas as pd, sys
from fastapi import FastAPI, Request
import numpy as np
function = cloudpickle.load(open({pickle!r}, "rb"))
app = FastAPI()

@app.post("/predict")
def predict(body: dict):
    return {{"predictions": np.asarray(function(pd.DataFrame(body["data"]))).tolist()}}
"""


@contextmanager
def serving(command, pattern, environment=None):
    began = time.monotonic()
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        for line in process.stdout:
            found = re.search(pattern, line)
            if found:
                wait_ready(found.group(1))
                yield found.group(1), time.monotonic() - began
                return
        raise SystemExit(f"{command[0]} did not start")
    finally:
        process.terminate()
        process.wait(20)


def wait_ready(address):
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://{address}/readyz").read()
            return
        except urllib.error.HTTPError:
            return  # it answers
        except OSError:
            time.sleep(0.05)


def load(address, body, connections):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(body)
        file.flush()
        command = [LOAD, address, "/predict", file.name, str(connections), SECONDS]
        return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def bench_online(model, sample, folder):
    import cloudpickle

    def sk(rows):
        return model.predict(rows)

    def cheap(rows):
        return rows["f0"] * 2 + rows["f1"]

    for name, function, columns in (("sk", sk, NUMBERS + TEXTS), ("cheap", cheap, ["f0", "f1"])):
        one = sample[columns].head(1)
        body = json.dumps({"data": one.to_dict("records")})
        pickle = folder / f"{name}.pkl"
        pickle.write_bytes(cloudpickle.dumps(function))
        (folder / f"app_{name}.py").write_text(FASTAPI.format(pickle=str(pickle)))
        bare = in_process(function, one)
        print(f"  {name:6} {'the call itself, in process':30} p50 {bare:7.3f} ms")
        mine = [ENVELOPE, "serve", f"bench_{name}", "--port", "0"]
        peer = [
            sys.executable,
            "-m",
            "uvicorn",
            f"app_{name}:app",
            "--port",
            "18431",
            "--app-dir",
            folder,
            "--no-access-log",
        ]
        results = {}
        starts = {"ours": [], "fastapi": []}
        for _ in range(ROUNDS):
            for who, command, pattern in (
                ("ours", mine, r"http://(127\.0\.0\.1:\d+)"),
                ("fastapi", peer, r"http://(127\.0\.0\.1:\d+)"),
            ):
                with serving(command, pattern) as (address, started):
                    starts[who].append(started)
                    load(address, body, 4)  # warm up
                    for connections in (1, 16, 64):
                        results.setdefault((who, connections), []).append(load(address, body, connections))
        report_online(name, results, starts)


def in_process(function, one):
    times = []
    for _ in range(300):
        began = time.perf_counter()
        function(one)
        times.append(time.perf_counter() - began)
    return statistics.median(times[50:]) * 1e3


def report_online(name, results, starts):
    for connections in (1, 16, 64):
        base = statistics.median(r["per_second"] for r in results["fastapi", connections])
        for who, label in (("ours", "envelope serve"), ("fastapi", "FastAPI + uvicorn")):
            rounds = results[who, connections]
            rate, p50, p99 = (
                statistics.median(r[key] for r in rounds) for key in ("per_second", "p50_ms", "p99_ms")
            )
            failed = sum(r["failed"] for r in rounds)
            print(
                f"  {name:6} {label:22} c={connections:<3} {rate:9,.0f}/s  p50 {p50:8.2f} ms  p99 {p99:8.2f} ms  "
                f"×{rate / base:5.1f}{f'  {failed} FAILED' if failed else ''}"
            )
    for who in starts:
        print(f"  {name:6} {who:22} start to ready {statistics.median(starts[who]):.2f} s")


def main():
    for package, example in (("acceptance", "load"), ("runtime", "runtime_figures")):
        build = ["cargo", "build", "--release", "-p", package, "--example", example, "--quiet"]
        subprocess.run(build, cwd=ROOT, check=True)
    with tempfile.TemporaryDirectory(prefix="envelope-bench-") as name:
        folder = Path(name)
        os.environ["ENVELOPE_URL"] = str(folder / "store")
        print(
            f"{ROUNDS} rounds, medians; {os.cpu_count()} cores; {SECONDS} s per online figure; {ROWS:,} rows"
        )
        model, sample = train()
        print("\nSave")
        save(model, sample, folder)
        print(f"\nA state of {LARGE_MB} MB")
        save_large(folder)
        print("\nThe runtime")
        bench_runtime(folder / "cache")
        print("\nOnline, one row per request (× is the ratio of answers per second to FastAPI's)")
        bench_online(model, sample, folder)
        print(f"\nBatch, {ROWS:,} rows × {1 + len(NUMBERS + TEXTS)} columns in {FILES} Parquet files")
        make_table(folder / "table")
        bench_batch(model, folder / "table", folder)


if __name__ == "__main__":
    main()
