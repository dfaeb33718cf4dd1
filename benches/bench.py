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
import offline
import online
import pandas as pd
from models import NUMBERS, TEXTS, train
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


# === which parts


PARTS = ("saving", "large", "runtime", "online", "batch", "scale")


@dataclass
class Options:
    parts: list
    models: list
    maps: list
    peers: list
    engines: list
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
    for flag, known, note in (
        ("--only", PARTS, ""),
        ("--models", online.MODELS, "; served online"),
        ("--peers", contestants.NAMES, ""),
        ("--maps", offline.MODELS, "; mapped over a table"),
        ("--engines", offline.NAMES, ""),
    ):
        parser.add_argument(flag, type=words(*known), default="", help=f"of {', '.join(known)}{note}")
    parser.add_argument("--json", metavar="FILE", help="what was measured with peers, round by round")
    told = parser.parse_args()
    where = Path(told.json) if told.json else None
    return Options(told.only, told.models, told.maps, told.peers, told.engines, ROUNDS, where)


def main():
    options = read_options()
    with tempfile.TemporaryDirectory(prefix="envelope-bench-") as name:
        folder = Path(name)
        os.environ["ENVELOPE_URL"] = str(folder / "store")
        print(f"{ROUNDS} rounds, medians; {os.cpu_count()} cores")
        model, sample = train()
        told = {part: run(part, model, sample, folder, options) for part in options.parts}
        if options.json:
            options.json.write_text(json.dumps({part: what for part, what in told.items() if what}, indent=1))


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
            return online.bench_online(model, sample, folder, options)
        case "batch":
            columns = len(NUMBERS + TEXTS) + 2
            print(f"\nBatch, {offline.ROWS:,} rows × {columns} columns in {offline.FILES} Parquet files")
            return offline.bench_offline(model, sample, folder, options)
        case "scale":
            print("\nThe same job over more rows")
            offline.bench_scale(folder)
    return None


if __name__ == "__main__":
    main()
