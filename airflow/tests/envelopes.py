"""Makes the envelopes and the table of the tests: `python envelopes.py FOLDER`, with `ENVELOPE_URL` set."""

import sys
import time
from pathlib import Path

import model_envelope as me
import pandas as pd

ROWS = 400_000
FILES = 8


def score(clients: pd.DataFrame) -> pd.Series:
    return clients["x"] * 2


def newer(clients: pd.DataFrame) -> pd.Series:
    return clients["x"] * 3


def slow(clients: pd.DataFrame) -> pd.Series:
    """Takes three seconds for each call with rows of the table, which are none of the sample's."""
    if len(clients) > 1000 and (clients["x"] % 1 == 0.25).all():
        time.sleep(3)
    return clients["x"] * 2


def total(clients: pd.DataFrame) -> float:
    """One number for all clients of a call."""
    return float(clients["x"].sum())


def wrong(clients: pd.DataFrame) -> pd.Series:
    if (clients["x"] == 7.25).any():
        raise ValueError("seven")
    return clients["x"]


def main(folder: Path) -> None:
    sample = pd.DataFrame({"x": [0.5, 1.0, 2.5]})
    for function, name in (
        (score, "score"),
        (newer, "score"),
        (slow, "slow"),
        (wrong, "wrong"),
        (total, "total"),
    ):
        me.save_model(function, name=name, api_input=sample)
    table = folder / "clients"
    table.mkdir(parents=True, exist_ok=True)
    rows = pd.DataFrame({"id": range(ROWS), "x": [index + 0.25 for index in range(ROWS)]})
    rows["part"] = rows["id"] % 4
    for number in range(FILES):
        rows[number::FILES].to_parquet(table / f"{number}.parquet")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
