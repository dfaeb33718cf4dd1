"""Does what models and their libraries do, and writes a table of what works."""

import importlib.util
import os
import sys
import traceback

ACTIONS = []


def action(name, *modules):
    def add(function):
        ACTIONS.append((name, modules, function))
        return function

    return add


@action("numpy", "numpy")
def _():
    import numpy as np

    assert np.linalg.solve(np.eye(300), np.ones(300)).sum() == 300
    np.memmap("array", dtype="f8", mode="w+", shape=(1000,)).flush()


@action("pandas", "pandas")
def _():
    import pandas as pd

    frame = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=3, tz="Europe/Berlin")})
    frame.to_csv("frame.csv")
    assert len(pd.read_csv("frame.csv")) == 3


@action("scikit-learn with OpenMP", "sklearn")
def _():
    import numpy as np
    from sklearn.ensemble import HistGradientBoostingRegressor

    rows = np.random.default_rng(0).random((500, 4))
    HistGradientBoostingRegressor(max_iter=5).fit(rows, rows[:, 0]).predict(rows)


@action("joblib with threads", "joblib")
def _():
    import math

    import joblib

    with joblib.parallel_config("threading", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(math.sqrt)(4) for _ in range(4)) == [2.0] * 4


@action("joblib with processes", "joblib")
def _():
    import math

    import joblib

    with joblib.parallel_config("loky", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(math.sqrt)(4) for _ in range(4)) == [2.0] * 4


@action("joblib with arrays in shared files", "joblib", "numpy")
def _():
    import joblib
    import numpy as np

    array = np.ones(200_000)
    sums = joblib.Parallel(n_jobs=2, max_nbytes=1000)(joblib.delayed(np.sum)(array) for _ in range(4))
    assert sums == [200_000.0] * 4


@action("LightGBM", "lightgbm")
def _():
    import lightgbm as lgb
    import numpy as np

    rows = np.random.default_rng(0).random((500, 4))
    data = lgb.Dataset(rows, rows[:, 0])
    model = lgb.train({"verbose": -1, "num_threads": 2}, data, num_boost_round=3)
    model.save_model("model.txt")
    lgb.Booster(model_file="model.txt").predict(rows)


@action("torch", "torch")
def _():
    import torch

    assert torch.ones(64, 64).matmul(torch.ones(64, 64)).sum() == 64**3
    torch.save(torch.ones(3), "tensor.pt")
    assert torch.load("tensor.pt").share_memory_().is_shared()


@action("matplotlib", "matplotlib")
def _():
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    pyplot.plot([1, 2])
    pyplot.savefig("figure.png")


def pool(method):
    import math
    import multiprocessing

    with multiprocessing.get_context(method).Pool(2) as workers:
        assert workers.map(math.sqrt, [4, 9]) == [2, 3]


@action("multiprocessing by fork")
def _():
    pool("fork")


@action("multiprocessing by spawn")
def _():
    pool("spawn")


@action("multiprocessing by a fork server")
def _():
    pool("forkserver")


@action("multiprocessing: manager, queue, lock")
def _():
    import multiprocessing

    with multiprocessing.Manager() as manager:
        assert manager.dict(a=1)["a"] == 1
    queue = multiprocessing.Queue()
    queue.put(1)
    assert queue.get(timeout=20) == 1
    with multiprocessing.Lock():
        pass


@action("multiprocessing: shared memory")
def _():
    from multiprocessing import shared_memory

    block = shared_memory.SharedMemory(create=True, size=1000)
    block.close()
    block.unlink()


@action("asyncio with a program")
def _():
    import asyncio

    async def run():
        program = await asyncio.create_subprocess_exec(sys.executable, "-c", "")
        assert await program.wait() == 0

    asyncio.run(run())


@action("the interpreter as a program")
def _():
    import subprocess

    code = "import sys, json; print(sys.prefix)"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert printed.stdout.strip() == sys.prefix


@action("programs of the system")
def _():
    assert os.system("ls / > /dev/null 2>&1; echo a | cat > /dev/null") == 0


@action("temporary files")
def _():
    import tempfile

    with tempfile.NamedTemporaryFile() as named, tempfile.TemporaryDirectory() as folder:
        assert named.name.startswith(os.getcwd())
        assert os.path.isdir(folder)


@action("the cache of a user")
def _():
    os.makedirs(os.path.expanduser("~/.cache/library"))


@action("zones")
def _():
    import zoneinfo

    assert str(zoneinfo.ZoneInfo("Europe/Zurich")) == "Europe/Zurich"


@action("languages")
def _():
    import locale

    locale.setlocale(locale.LC_ALL, "")
    assert locale.getpreferredencoding().lower() == "utf-8"


@action("random numbers, hashes, secrets")
def _():
    import hashlib
    import secrets
    import ssl

    ssl.create_default_context()
    assert len(hashlib.sha256(secrets.token_bytes(8)).digest()) == 32


@action("the name of the user and the machine")
def _():
    import getpass
    import platform
    import socket

    assert getpass.getuser() or True
    assert platform.platform()
    assert socket.gethostname()


@action("what this machine has")
def _():
    assert os.cpu_count()
    assert len(os.sched_getaffinity(0))
    with open("/proc/meminfo") as file:
        assert "MemTotal" in file.read()
    with open("/proc/self/status") as file:
        assert file.read()


@action("compiled code of Python's own", "sqlite3")
def _():
    import sqlite3

    connection = sqlite3.connect("data.db")
    connection.execute("create table t (x)")
    connection.commit()


def main(descriptor, view):
    lines = []
    for name, modules, function in ACTIONS:
        if any(importlib.util.find_spec(module) is None for module in modules):
            lines.append(f"{name}\tabsent\n")
            continue
        try:
            function()
            lines.append(f"{name}\tworks\n")
        except BaseException as error:
            traceback.print_exc()
            lines.append(f"{name}\t{type(error).__name__}: {error}\n")
    with open("result", "w") as file:
        file.writelines(lines)
