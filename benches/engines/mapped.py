"""What every engine maps, over which table, and how its job is timed: as the bench says in variables."""

import json
import os
import time
from contextlib import contextmanager

import cloudpickle
import numpy as np

KEY = "id"
COLUMNS = os.environ["READ_COLUMNS"].split(",")
"""What the function reads."""
INPUT = os.environ["INPUT"]
"""A folder of Parquet files."""
OUTPUT = os.environ["OUTPUT"]
"""A folder of Parquet files that is not there yet: the key and `prediction`."""
MODEL = os.environ["MODEL"]
CORES = len(os.sched_getaffinity(0))
BATCH_ROWS = 65_536
"""Where an engine lets one choose; small enough to be even, large enough for pandas."""

_function = None


def function():
    """Unpickled once in each process: a DataFrame in, one number per row out."""
    global _function
    if _function is None:
        with open(MODEL, "rb") as file:
            _function = cloudpickle.load(file)
    return _function


def predictions(frame):
    return np.asarray(function()(frame[COLUMNS]), float)


def files():
    return sorted(os.path.join(INPUT, name) for name in os.listdir(INPUT) if name.endswith(".parquet"))


@contextmanager
def job():
    """Prints how long the job itself took, without imports, the load of the model and the start of the engine."""
    function()
    began = time.monotonic()
    yield
    print(json.dumps({"job_s": time.monotonic() - began}), flush=True)
