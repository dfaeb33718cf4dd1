"""One function for each of the frameworks that people make models with: `python tests/frameworks.py NAME FILE`."""

import sys

import numpy as np
import pandas as pd
from envelopes import put, save

COLUMNS = ["x", "y"]
X = pd.DataFrame({"x": [index / 7 for index in range(60)], "y": [float(index % 5) for index in range(60)]})
TARGET = np.sin(X["x"]) + X["y"]


def numpy():
    return lambda rows: rows @ np.array([0.5, -1.0]), X.to_numpy()


def pandas():
    return lambda rows: rows["x"].clip(upper=3.0) * rows["y"], X


def polars():
    import polars

    return lambda rows: rows["x"] * 2 + rows["y"], polars.DataFrame(X.to_dict("list"))


def pyarrow():
    import pyarrow
    import pyarrow.compute

    return lambda rows: pyarrow.compute.add(rows["x"], rows["y"]), pyarrow.table(X)


def sklearn():
    from sklearn.ensemble import RandomForestRegressor

    return RandomForestRegressor(10, random_state=0).fit(X, TARGET).predict, X


def lightgbm():
    from lightgbm import LGBMRegressor

    return LGBMRegressor(n_estimators=10, n_jobs=1, verbose=-1).fit(X, TARGET).predict, X


def xgboost():
    from xgboost import XGBRegressor

    return XGBRegressor(n_estimators=10).fit(X, TARGET).predict, X


def torch():
    import torch

    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 1).eval()

    def predict(rows):
        with torch.no_grad():
            return layer(torch.tensor(rows.to_numpy(), dtype=torch.float32)).numpy()[:, 0]

    return predict, X


def statsmodels():
    from statsmodels import api

    model = api.GLM(TARGET, api.add_constant(X)).fit()
    return lambda rows: model.predict(api.add_constant(rows, has_constant="add")), X


def scipy():
    from scipy.interpolate import CubicSpline

    spline = CubicSpline(X["x"], TARGET)
    return lambda rows: spline(rows["x"]) + rows["y"], X


def plain():
    return lambda rows: [row["x"] - row["y"] for row in rows], X.to_dict("records")


if __name__ == "__main__":
    predict, sample = globals()[sys.argv[1]]()

    def query(rows):
        return predict(rows)

    put(save(query, sample, name="model"), sys.argv[2])
