"""What a save costs: its parts, against MLflow's save of the same function; and a large state."""

import contextlib
import io
import json
import logging
import os
import resource
import shutil
import statistics
import time
import warnings

import model_envelope as me
import numpy as np

PARTS = ("capture", "lock", "environment", "start", "proof", "trials", "write")


def timed_save(function, sample, **arguments):
    """Seconds of a whole save, and of its parts as `ENVELOPE_LOG` tells them."""
    told = io.StringIO()
    began = time.monotonic()
    with contextlib.redirect_stderr(told):
        me.save_model(function, api_input=sample, **arguments)
    seconds = time.monotonic() - began
    line = next(line for line in told.getvalue().splitlines() if line.startswith("saved "))
    return seconds, json.loads(line.removeprefix("saved "))["seconds"]


def timed_mlflow(function, sample, folder):
    """Seconds of `mlflow.pyfunc.save_model` with an input example: it records, and proves nothing."""
    import mlflow

    class Model(mlflow.pyfunc.PythonModel):
        def predict(self, context, model_input, params=None):
            return function(model_input)

    shutil.rmtree(folder, ignore_errors=True)
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    began = time.monotonic()
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(str(folder), python_model=Model(), input_example=sample.head(5))
    return time.monotonic() - began


def bench_save(function, sample, folder, rounds):
    os.environ["ENVELOPE_LOG"] = "info"
    cold, _ = timed_save(function, sample, name="bench_sk")
    quick, full, peer, parts = [], [], [], []
    for number in range(rounds):
        seconds, told = timed_save(function, sample, name="bench_sk", tags={"round": str(number)})
        full.append(seconds)
        parts.append(told)
        quick.append(timed_save(function, sample, name="bench_quick", prove="quick")[0])
        peer.append(timed_mlflow(function, sample, folder / "mlflow"))
    os.environ.pop("ENVELOPE_LOG")
    base = statistics.median(peer)
    print(f"  first save, environment as the cache has it          {cold:6.2f} s")
    for label, seconds in (
        ("full proof, environment realised before", full),
        ('prove="quick"', quick),
        ("mlflow.pyfunc.save_model, input example, no proof", peer),
    ):
        median = statistics.median(seconds)
        spread = f"{min(seconds):.2f}–{max(seconds):.2f}"
        print(f"  {label:50} {median:8.2f} s ({spread})  ×{median / base:.2f} of MLflow's")
    medians = {part: statistics.median(told.get(part, 0.0) for told in parts) for part in PARTS}
    print("  parts: " + "  ".join(f"{part} {seconds:.2f}" for part, seconds in medians.items()))


# === a large state


def bench_large(function, frame, folder, rounds):
    """Saving and loading the matrix in `function`'s closure, against writing and reading its bytes."""
    matrix = state(function)
    me.save_model(lambda frame: frame["a"], name="bench_small", api_input=frame)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    save(function, frame, "first")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / matrix.nbytes
    writes, saves, reads, loads, again = [], [], [], [], []
    for number in range(rounds):
        # Files of their own, on both sides: a disk is quicker where something was a moment ago.
        path = folder / f"matrix{number}.bin"
        writes.append(seconds_of(lambda path=path: write(path, matrix)))
        saves.append(seconds_of(lambda n=number: save(function, frame, str(n))))
        envelope = me.get("bench_large")
        reads.append(seconds_of(lambda path=path: np.frombuffer(path.read_bytes()).sum()))
        loads.append(seconds_of(lambda e=envelope: state(e.load()).sum()))
        again.append(seconds_of(lambda e=envelope: state(e.load()).sum()))
    report("save", saves, "write and fsync of the bytes", writes)
    report("first load, and a sum over it", loads, "read of the bytes, and a sum", reads)
    report("second load, and a sum over it", again, "read of the bytes, and a sum", reads)
    print(f"  peak memory of a save: {1 + grown:.3f} × the object")


def state(function):
    return function.__closure__[0].cell_contents


def save(function, frame, number):
    me.save_model(function, name="bench_large", api_input=frame, tags={"round": number})


def seconds_of(work):
    began = time.monotonic()
    work()
    return time.monotonic() - began


def write(path, matrix):
    with path.open("wb") as file:
        file.write(memoryview(matrix).cast("B"))
        file.flush()
        os.fsync(file.fileno())


def report(label, seconds, against, base):
    median, least = statistics.median(seconds), statistics.median(base)
    spread = f"{min(seconds):.2f}–{max(seconds):.2f}"
    print(f"  {label:32} {median:6.2f} s ({spread})   {against:30} {least:6.2f} s   ×{median / least:.2f}")
