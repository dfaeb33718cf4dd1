"""The two models that everybody serves and maps, and rows for them."""

import numpy as np
import pandas as pd
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

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
