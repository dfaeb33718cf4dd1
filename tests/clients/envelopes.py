"""Saves what the clients are tried on, into the store that `ENVELOPE_URL` names: `python envelopes.py`."""

import datetime

import model_envelope as me
import numpy as np
import pandas as pd
import pyarrow as pa
from datatypes import DATATYPES


def values(datatype, count):
    if datatype == "BOOL":
        return [index % 2 == 0 for index in range(count)]
    if datatype == "BYTES":
        return [f"é{index}" for index in range(count)]
    if datatype == "FP16":
        return list(np.arange(count).astype("float16"))
    return [float(index) if datatype.startswith("FP") else index for index in range(count)]


def column(datatype, count):
    return pa.array(values(datatype, count), DATATYPES[datatype])


def identity():
    """Two functions that give what they take: columns of every datatype, and lists of three of them."""

    def columns(table):
        return table

    def matrices(table):
        return table

    flat = pa.table({datatype: column(datatype, 8) for datatype in DATATYPES})
    nested = {datatype: pa.FixedSizeListArray.from_arrays(column(datatype, 24), 3) for datatype in DATATYPES}
    envelope = me.save_model(query_function=columns, name="identity", api_input=flat)
    envelope.add_query_function(matrices, api_input=pa.table(nested))


def records():
    """Gives the frame that it takes: a number that may be `NaN`, an integer, a text, a moment."""

    def records(frame):
        return frame

    start = datetime.datetime(2026, 1, 1)
    sample = pd.DataFrame(
        {
            "x": [1.5, float("nan"), 3.0, 4.25],
            "count": [1, 2, 3, 4],
            "label": ["a", "b", "ü", ""],
            "moment": pd.to_datetime([start + datetime.timedelta(hours=hour) for hour in range(4)]),
        }
    )
    me.save_model(query_function=records, name="records", api_input=sample)


def score():
    """A number for each row of two numbers: what is given back is a series."""

    def score(frame):
        return frame["a"] * 2 + frame["b"]

    sample = pd.DataFrame({"a": [1.0, 2.0, 3.0, 4.0], "b": [0.5, 0.25, 0.0, 1.0]})
    me.save_model(query_function=score, name="score", api_input=sample)


def orders():
    """Two functions with words about them, tags, texts that are awkward in a shell and in a page, a
    value that may be missing.
    """

    def days_until(orders):
        """Days until an order arrives.

        Twice as many at weekends; `note` is for people and changes nothing.
        """
        days = 2.0 + orders["kilograms"].fillna(1.0) / 10
        return days.where(~orders["weekend"], days * 2).round(2)

    def label(orders):
        """The words on the parcels of each order."""
        return orders["note"] + " ×" + orders["parcels"].astype(str)

    sample = pd.DataFrame(
        {
            "kilograms": pd.array([1.5, None, 30.0], dtype="Float64"),
            "weekend": [False, True, False],
            "parcels": [1, 9_007_199_254_740_993, 3],
            "note": ["it's <b>fragile</b>", 'say "hello" & {{twice}} $HOME `id` \\ ünïcode 🚲', "no"],
            "ordered": pd.to_datetime(["2026-01-01", "2026-02-03", "2026-03-04"]),
        }
    )
    envelope = me.save_model(
        query_function=days_until,
        name="orders",
        description="When will it be there? <Asked> by the shop & the call centre.",
        tags={"business_line": "womens", "region": "US", "owner": "logistics & more"},
        api_input=sample,
    )
    envelope.add_query_function(label, api_input=sample)


def casts():
    """Gives the frame that it takes: a column of each type that MLflow has, named after it."""

    def casts(frame):
        return frame

    sample = pd.DataFrame(
        {
            "boolean": [True, False],
            "integer": np.array([1, 2], "int32"),
            "long": [1, 2],
            "float": np.array([0.5, 1.5], "float32"),
            "double": [0.5, 1.5],
            "string": ["a", "b"],
            "binary": [b"a", b"b"],
            "datetime": np.array(["2026-01-01", "2026-01-02"], "datetime64[ns]"),
        }
    )
    me.save_model(query_function=casts, name="casts", api_input=sample)


if __name__ == "__main__":
    orders()
    identity()
    records()
    score()
    casts()
