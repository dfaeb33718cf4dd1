"""Saves the envelopes that the tests of clusters use in the store that `ENVELOPE_URL` names.

`python models.py [PART PARTS]`: all, or one part of so many that can be saved side by side.
"""

import base64
import ctypes
import hashlib
import sys
import tempfile
import time
import zipfile
from functools import partial
from pathlib import Path

import model_envelope as me
import numpy as np
import pandas as pd

SAMPLE = pd.DataFrame({"x": [float(value) for value in range(20)], "y": [1.5] * 20})


def score(features: pd.DataFrame) -> pd.DataFrame:
    """Vectorised; numbers and a text."""
    root = np.sqrt(features["x"]) * features["y"]
    return pd.DataFrame({"root": root, "label": np.where(root > 100, "high", "low")})


def slow(features: pd.DataFrame) -> pd.Series:
    """Takes its time for each call, unless it is tried on a few rows."""
    if len(features) > 1000:
        time.sleep(1.0)
    return features["x"] * 2


def poison(features: pd.DataFrame) -> pd.Series:
    """One row raises, one ends its process."""
    if (features["x"] == 731.0).any():
        ctypes.string_at(0)
    if (features["x"] == 5137.0).any():
        raise ValueError("x is 5137")
    return features["x"] / 2


def total(features: pd.DataFrame) -> float:
    """One number for all rows of a call; it depends on their order."""
    return float(np.add.accumulate(features["x"].to_numpy())[-1])


def slow_total(features: pd.DataFrame) -> float:
    """One row for all rows of a call, which takes its time."""
    if len(features) > 50:
        time.sleep(0.02)
    return float(features["x"].sum())


def demean(features: pd.DataFrame) -> pd.Series:
    """Takes the mean of all rows of a call from each."""
    return features["x"] - features["x"].mean()


def angry(features: pd.DataFrame) -> float:
    """Does not like more than the rows that it is tried with."""
    if len(features) > 1000:
        raise ValueError("no")
    return 0.0


def edition(features: pd.DataFrame) -> pd.Series:
    """The version of a package that no environment can hold twice."""
    package = __import__("clash" + "pack")
    return features["x"] * 0 + package.EDITION


def wheel(folder: Path, number: int) -> Path:
    """The package `clashpack` in this version."""
    path = folder / f"clashpack-{number}.0-py3-none-any.whl"
    about = f"clashpack-{number}.0.dist-info"
    members = {
        "clashpack.py": f"EDITION = {number}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: clashpack\nVersion: {number}.0\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = [f"{name},{digest(text)},{len(text)}\n" for name, text in members.items()]
    members[f"{about}/RECORD"] = "".join([*listed, f"{about}/RECORD,,\n"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return path


def digest(text: str) -> str:
    """As wheels list it."""
    encoded = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
    return f"sha256={encoded.decode().rstrip('=')}"


def save_editions():
    """The same function in two envelopes, whose environments cannot be one."""
    with tempfile.TemporaryDirectory() as folder:
        for number in (1, 2):
            package = wheel(Path(folder), number)
            sys.path.insert(0, str(package))
            me.save_model(
                query_function=edition,
                name=f"edition_{number}",
                api_input=SAMPLE,
                requirements=[str(package)],
            )
            sys.path.remove(str(package))
            sys.modules.pop("clashpack")


if __name__ == "__main__":
    part, parts = map(int, sys.argv[1:] or (0, 1))
    functions = (score, slow, poison, total, slow_total, demean, angry)
    saves = [partial(me.save_model, one, name=one.__name__, api_input=SAMPLE) for one in functions]
    for save in [*saves, save_editions][part::parts]:
        save()
