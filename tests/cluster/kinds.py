"""Six kinds of functions, saved in the store that `ENVELOPE_URL` names: `python kinds.py FOLDER [NAME…]`.

What is fitted is fitted once. The functions are kept in FOLDER, too, for a process that calls them
on a whole table, without any of our programs.
"""

import pickle
import sys
from pathlib import Path

import cloudpickle
import model_envelope as me
import numpy as np
import pandas as pd

NUMBERS = ["f0", "f1", "f2", "f3"]
COLOURS = ["red", "green", "blue"]


def features(rows, seed):
    chance = np.random.default_rng(seed)
    frame = pd.DataFrame({name: chance.normal(size=rows) for name in NUMBERS})
    frame["colour"] = chance.choice(COLOURS, rows)
    return frame


def target(sample):
    return sample["f0"] * 2 + np.sin(sample["f1"]) * sample["f2"]


def pandas():
    """Arithmetic of columns."""

    def pandas(rows):
        return rows["f0"].clip(lower=-1.0) * rows["f1"] + rows["f2"].abs() ** 1.5 / (1.0 + rows["f3"] ** 2)

    return pandas, features(500, 1)[NUMBERS]


def numpy():
    """Products of matrices, whose bits may depend on how many rows there are, and where a row is."""
    chance = np.random.default_rng(2)
    first, second = chance.normal(size=(4, 16)), chance.normal(size=16)

    def numpy(rows):
        return np.tanh(rows.to_numpy() @ first) @ second

    return numpy, features(500, 2)[NUMBERS]


def polars():
    """Expressions of another library of frames."""
    import polars as pl

    def polars(rows):
        return rows.select((pl.col("f0") * 2 + pl.col("f1").sin()).exp() / (1 + pl.col("f2").abs()))["f0"]

    return polars, pl.DataFrame(features(500, 3)[NUMBERS].to_dict("list"))


def lightgbm():
    """Boosted trees."""
    from lightgbm import LGBMRegressor

    sample = features(20_000, 4)[NUMBERS]
    model = LGBMRegressor(n_estimators=50, n_jobs=1, verbose=-1).fit(sample, target(sample))

    def lightgbm(rows):
        return model.predict(rows)

    return lightgbm, sample[:500]


def sklearn():
    """A pipeline: scaled numbers and encoded texts into boosted trees."""
    from sklearn.compose import make_column_transformer
    from sklearn.ensemble import HistGradientBoostingRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    sample = features(20_000, 5)
    columns = make_column_transformer((StandardScaler(), NUMBERS), (OneHotEncoder(), ["colour"]))
    model = make_pipeline(columns, HistGradientBoostingRegressor(max_iter=50))
    model.fit(sample, target(sample))

    def sklearn(rows):
        return model.predict(rows)

    return sklearn, sample[:500]


def loop():
    """No library: a list of dicts in, a list out."""

    def loop(rows):
        return [row["f0"] * 0.1 + len(row["colour"]) ** 0.5 for row in rows]

    return loop, features(500, 6)[["f0", "colour"]].to_dict("records")


KINDS = {kind.__name__: kind for kind in (pandas, numpy, polars, lightgbm, sklearn, loop)}


def save(name, folder):
    function, sample = KINDS[name]()
    (folder / f"{name}.pkl").write_bytes(cloudpickle.dumps(function))
    me.save_model(query_function=function, name=f"kind_{name}", api_input=sample)


def call(name, folder, table):
    """The function over all rows of a table at once. Gives keys and results."""
    function = pickle.loads((folder / f"{name}.pkl").read_bytes())
    columns = {"loop": ["f0", "colour"], "sklearn": [*NUMBERS, "colour"]}.get(name, NUMBERS)
    if name == "polars":
        import polars as pl

        rows = pl.read_parquet(table)
        return rows["id"].to_numpy(), function(rows.select(columns)).to_numpy()
    rows = pd.read_parquet(table, columns=["id", *columns])
    given = rows[columns].to_dict("records") if name == "loop" else rows[columns]
    return rows["id"].to_numpy(), np.asarray(function(given))


if __name__ == "__main__":
    for chosen in sys.argv[2:] or KINDS:
        save(chosen, Path(sys.argv[1]))
