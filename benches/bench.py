"""`make bench`: our speed against peers on this machine, as ratios within one run.

Rounds are interleaved (ours, theirs, ours, theirs …) and medians printed with the spread, because a
shared machine drifts. Goals are printed as met or not; nothing is asserted about time.
"""

import argparse
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
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the peers: more is slower here; ours sets it itself

import contestants
import model_envelope as me
import numpy as np
import online
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from models import NUMBERS, TEXTS, features, train
from saving import bench_large, bench_save
from sklearn.ensemble import RandomForestRegressor

ROOT = Path(__file__).resolve().parent.parent
ENVELOPE = ROOT / "target/release/envelope"
FIGURES = ROOT / "target/release/examples/runtime_figures"
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "3"))
LARGE_MB = int(os.environ.get("BENCH_LARGE_MB", "1024"))
ROWS = int(os.environ.get("BENCH_ROWS", "2000000"))
FILES = 16
FOREST_ROWS = int(os.environ.get("BENCH_FOREST_ROWS", "40000"))
"""As many as make a forest of 364 MB."""


def save(model, sample, folder):
    def sk(rows):
        return model.predict(rows)

    bench_save(sk, sample, folder, ROUNDS)


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


def bench_batch(model, sample, table, folder):
    def sk(rows):
        return model.predict(rows)

    def cheap(rows):
        return rows["f0"] * 2 + rows["f1"]

    for name, function, columns in (("sk", sk, NUMBERS + TEXTS), ("cheap", cheap, ["f0", "f1"])):
        me.save_model(function, name=f"batch_{name}", api_input=sample[columns])
        seconds = {"limit": [], "ours": [], "hand": []}
        for _ in range(ROUNDS):
            seconds["limit"].append(limit(function, columns, table))
            out = folder / "ours"
            seconds["ours"].append(timed(lambda n=name, o=out: ours(f"batch_{n}", table, o), out))
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


# === which parts


PARTS = ("saving", "large", "runtime", "online", "batch")


@dataclass
class Options:
    parts: list
    models: list
    peers: list
    rounds: int
    json: Path | None


def words(*allowed):
    """Reads a list of words, with spaces or commas between them; nothing means all."""

    def read(text):
        found = re.split(r"[\s,]+", text.strip()) if text.strip() else list(allowed)
        if unknown := set(found) - set(allowed):
            raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not one of {', '.join(allowed)}")
        return found

    return read


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", type=words(*PARTS), default="", help=f"of {', '.join(PARTS)}")
    parser.add_argument(
        "--models",
        type=words(*online.MODELS),
        default="",
        help=f"of {', '.join(online.MODELS)}; served online",
    )
    parser.add_argument(
        "--peers", type=words(*contestants.NAMES), default="", help=f"of {', '.join(contestants.NAMES)}"
    )
    parser.add_argument("--json", metavar="FILE", help="what was measured online, round by round")
    told = parser.parse_args()
    return Options(told.only, told.models, told.peers, ROUNDS, Path(told.json) if told.json else None)


def main():
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="envelope-bench-") as name:
        folder = Path(name)
        os.environ["ENVELOPE_URL"] = str(folder / "store")
        print(f"{ROUNDS} rounds, medians; {os.cpu_count()} cores")
        model, sample = train()
        for part in options.parts:
            run(part, model, sample, folder, options)


def run(part, model, sample, folder, options):
    match part:
        case "saving":
            print("\nSave")
            save(model, sample, folder)
        case "large":
            print(f"\nA state of {LARGE_MB} MB")
            save_large(folder)
        case "runtime":
            print("\nThe runtime")
            bench_runtime(folder / "cache")
        case "online":
            print(f"\nOnline, {online.SECONDS} s for each figure")
            told = online.bench_online(model, sample, folder, options)
            if options.json:
                options.json.write_text(json.dumps(told, indent=1))
        case "batch":
            print(f"\nBatch, {ROWS:,} rows × {1 + len(NUMBERS + TEXTS)} columns in {FILES} Parquet files")
            make_table(folder / "table")
            bench_batch(model, sample, folder / "table", folder)


if __name__ == "__main__":
    main()
