"""Several models in one pass over a table, as it was at some time."""

import json
import subprocess

import deltalake
import numpy as np
import pandas as pd
from support import PROGRAM, checksum, rows_of


def compared(table, output, *more):
    """A job of two models."""
    models = ("--model", "score", "--as", "first", "--model", "slow", "--as", "second")
    tables = ("--input", table, "--output", output, "--keep", "id,x")
    command = [PROGRAM, "batch", *models, *tables, "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_two_models_over_a_table_as_it_was_are_held_against_what_came_true(tmp_path):
    rows = pd.DataFrame({"id": np.arange(2_000), "x": np.linspace(0, 9, 2_000), "y": 1.5})
    clients, now, before = (str(tmp_path / name) for name in ("clients", "now", "before"))
    deltalake.write_deltalake(clients, rows)
    deltalake.write_deltalake(clients, rows.assign(x=rows["x"] + 100), mode="overwrite")

    assert compared(clients, now)["rows"] == compared(clients, before, "--as-of", "0")["rows"] == 2_000
    seen = rows_of(before)
    assert list(seen.columns)[:2] == ["id", "x"] and np.array_equal(seen["x"], rows["x"])
    first, second = (next(c for c in seen.columns if c.startswith(name)) for name in ("first_", "second_"))
    assert np.array_equal(rows_of(now)["x"], rows["x"] + 100)
    log = deltalake.DeltaTable(before).history()[0]
    assert log["inputVersion"] == 0 and len(log["envelopeDigests"]) == 2

    actuals = rows[["id"]].assign(paid=rows["x"] * 1.1)
    deltalake.write_deltalake(str(tmp_path / "actuals"), actuals)
    errors = ", ".join(f"avg(abs(p.{column} - a.paid)) {column}" for column in (first, second))
    query = f"SELECT {errors} FROM '{before}' p JOIN '{tmp_path / 'actuals'}' a ON p.id = a.id"
    done = subprocess.run([PROGRAM, "sql", query, "--json"], capture_output=True, text=True, check=True)
    (told,) = json.loads(done.stdout)["rows"]
    for column in (first, second):
        assert np.isclose(told[column], (seen[column] - actuals["paid"]).abs().mean())


def test_two_models_give_on_a_cluster_what_they_give_here(short_table, pair, tmp_path):
    few = ("--where", "id < 10000")
    here = compared(short_table, tmp_path / "here", *few)
    far = compared(short_table, tmp_path / "there", *few, "--cluster", pair.url)
    assert far["rows"] == here["rows"] == 10_000
    assert checksum(rows_of(tmp_path / "there")) == checksum(rows_of(tmp_path / "here"))
