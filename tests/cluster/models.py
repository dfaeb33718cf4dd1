"""Saves the envelopes that the tests of clusters use in the store that `ENVELOPE_URL` names."""

import ctypes
import time

import model_envelope as me
import numpy as np
import pandas as pd

SAMPLE = pd.DataFrame({"x": [float(value) for value in range(20)], "y": [1.5] * 20})


def score(features: pd.DataFrame) -> pd.DataFrame:
    """Vectorised; numbers and a text."""
    root = np.sqrt(features["x"]) * features["y"]
    return pd.DataFrame({"root": root, "label": np.where(root > 100, "high", "low")})


def slow(features: pd.DataFrame) -> pd.Series:
    """Takes its time for each call, whatever the rows."""
    time.sleep(1.0)
    return features["x"] * 2


def poison(features: pd.DataFrame) -> pd.Series:
    """One row raises, one ends its process."""
    if (features["x"] == 731.0).any():
        ctypes.string_at(0)
    if (features["x"] == 5137.0).any():
        raise ValueError("x is 5137")
    return features["x"] / 2


if __name__ == "__main__":
    for function in (score, slow, poison):
        me.save_model(query_function=function, name=function.__name__, api_input=SAMPLE)
