"""What `--coerce mlflow` makes of values, against what MLflow's own scoring server makes of them."""

import base64
import io
import json
import logging
import math
import os
import urllib.error
import urllib.request
import warnings

import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models.utils import _enforce_schema
from mlflow.pyfunc.scoring_server import infer_and_parse_data, predictions_to_json
from mlflow.types import ColSpec, Schema

URL = os.environ["CASTS_URL"]

# The service has a column of each of MLflow's types, named after it, and gives back what it takes.
GOOD = {
    "boolean": "true",
    "integer": "1",
    "long": "1",
    "float": "0.5",
    "double": "0.5",
    "string": '"a"',
    "binary": '"AAEC"',
    "datetime": '"2026-01-01T00:00:00"',
}
SCHEMA = Schema([ColSpec(name, name) for name in GOOD])
FRAMES = ["dataframe_split", "dataframe_records"]
ARRAYS = ["instances", "inputs"]

NOTHING = ["null", "NaN", "Infinity", "-Infinity"]
TRUTHS = ["true", "false"]
INTEGERS = [
    *["0", "1", "2", "-1", "255", "16777217", "1700000000", "9007199254740993", "9007199791611905"],
    *["2147483647", "2147483648", "-2147483649", "1099511627776"],
    *["9223372036854775807", "-9223372036854775808", "9223372036854775808", "18446744073709551615"],
]
LONG = ["18446744073709551616", "-9223372036854775809", "100000000000000000000"]
FLOATS = [
    *["1.0", "1.5", "-1.5", "2.9", "0.1", "-0.0", "1e3", "1e10", "9.3e18", "1e19", "1e16", "1.5e-7"],
    *["1700000000.5", "0.30000000000000004", "5e-324"],
]
LARGE = ["1e39", "1e300", "-1e300"]
NUMBERS_AS_TEXT = [
    *['"1"', '" 1 "', '"12\\n"', '"-7"', '"+7"', '"1.0"', '"1.5"', '"1e3"', '"007"', '"1_000"', '"1__0"'],
    *['"_1"', '"1_"', '"0x10"', '".5"', '"5."', '"1e"', '"--1"', '"NaN"', '"nan"', '"inf"', '"-Infinity"'],
    *['"1e999"', '"2147483648"', '"9223372036854775808"', '"-9223372036854775808"', '"1,5"'],
]
TEXTS = ['"true"', '"false"', '"False"', '""', '" "', '"x"', '"é"', '"a\\u0000"']
BASE64 = [
    *['"AAEC"', '"!!!"', '"AAE"', '"AAE="', '"AA=="', '"AA=A"', '"A==="', '"===="', '"AA==BB"'],
    *['"A A E C"', '"AAEC\\nAwQF\\n"', '"AAECA"', '"/+8="', '"_-8="'],
]
DATES = [
    *['"2026-01-01"', '"2026-02-30"', '"2026"', '"2026-01"', '"2026-13-01"', '"NaT"', '"None"'],
    *['"2026-01-01T00:00:00"', '"2026-01-01 00:00:00"', '"2026-01-01T03"', '"2026-01-01T03:04"'],
    *['"2026-01-01T00:00:00Z"', '"2026-01-01T02:00:00+02:00"', '"2026-01-01T24:00:00"'],
    *['"2026-01-01T03:04:05.1"', '"2026-01-01T03:04:05.123456789"', '"2026-01-01T00:00:60"'],
    *['"01/02/2026"', '"13/02/2026"', '"01/13/2026"', '"13/13/2026"', '"01-02-2026"', '"01.02.2026"'],
    *['"20260102"'],
    *['"2026/01/02"', '"2026.01.02"', '"2026/01/02 03:04:05"', '"01/02/2026 03:04"', '"01/02/2026T03:04"'],
    *['"9999-01-01"', '"0001-01-01"', '"1677-09-21"', '"2262-04-12"', '"1900-01-01"', '"9999"'],
]
ODD_DATES = [
    *['"20260102T030405"', '"1/2/2026 3:04 PM"', '"Jan 2 2026"', '"01/02/26"', '"2026-1-2"'],
    *['"now"', '"12:30"', '"202601"', '"1700000000"', '"2026-01-01T00:00:00+0200"', '" 2026-01-01"'],
]
FOREIGN_DIGITS = ['"٣"']
NESTED = ["[1]", "[]", "{}", '{"a": 1}']
VALUES = [
    *NOTHING,
    *TRUTHS,
    *INTEGERS,
    *LONG,
    *FLOATS,
    *LARGE,
    "1e400",
    *NUMBERS_AS_TEXT,
    *TEXTS,
    *BASE64,
    *DATES,
    *ODD_DATES,
    *FOREIGN_DIGITS,
    *NESTED,
]


def is_refused(layout, of, value):
    """Whether the service refuses it whatever MLflow does; the reasons are in `docs/protocols.md`."""
    is_frame = layout in FRAMES
    if value in NESTED:
        return True
    if value == "1e400":
        return True
    if of in ("integer", "long") or (of == "datetime" and is_frame):
        if value in FOREIGN_DIGITS or value in LONG + LARGE:
            return True
    if of in ("float", "double") and value in FOREIGN_DIGITS:
        return True
    if of == "string" and is_frame:
        return not value.startswith('"')
    if of in ("string", "binary") and not is_frame:
        return value in LONG + LARGE
    if of == "datetime":
        is_missing = value in [*NOTHING, '""', '"NaT"', '"nan"', '"NaN"', "-9223372036854775808"]
        if is_frame:
            return is_missing or value in [*ODD_DATES, "9.3e18", "1e19"]
        return is_missing or value in [*ODD_DATES, *NUMBERS_AS_TEXT, '"20260102"']
    return False


def listed(values):
    return "[" + ", ".join(values) + "]"


def keyed(values):
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"


def body(layout, of, values):
    """Rows of good values, but for those of one column."""
    rows = [GOOD | {of: value} for value in values]
    if layout == "dataframe_split":
        data = listed(listed(row.values()) for row in rows)
        rows = keyed({"columns": json.dumps(list(GOOD)), "data": data})
    elif layout == "inputs":
        rows = keyed({name: listed(row[name] for row in rows) for name in GOOD})
    else:
        rows = listed(keyed(row) for row in rows)
    return keyed({layout: rows})


def of_mlflow(text):
    """The rows that a model of MLflow's would be given, as they would come back; `None` if it is not."""
    out = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            given = _enforce_schema(infer_and_parse_data(json.loads(text), SCHEMA), SCHEMA)
            predictions_to_json(given, out)
        except (MlflowException, TypeError, ValueError):
            return None
    return json.loads(out.getvalue())["predictions"]


def request(text):
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{URL}/invocations", text.encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]


def of_service(text):
    try:
        return request(text)
    except urllib.error.HTTPError as error:
        assert error.code == 400, error.read()
        return None


def plain(of, value):
    """A value of an answer without what is the manner of writing it."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | dict):
        return value
    if of == "float" and value is not None:
        return float(np.float32(value))
    if of == "binary":
        return base64.decodebytes(value.encode())
    if of == "datetime":
        return None if value is None else pd.Timestamp(value)
    return value


def both(layout, of, values):
    """What becomes of the values of a column there and here; `None` where they are refused."""
    text = body(layout, of, values)
    given = of_mlflow(text), of_service(text)
    return tuple(rows and [plain(of, row[of]) for row in rows] for rows in given)


@pytest.fixture(autouse=True, scope="module")
def quiet():
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("layout", [*FRAMES, *ARRAYS])
@pytest.mark.parametrize("of", GOOD)
def test_values_become_what_mlflow_makes_of_them(of, layout):
    differences = []
    for value in VALUES:
        theirs, ours = both(layout, of, [value])
        if theirs != ours and not (ours is None and is_refused(layout, of, value)):
            differences.append((value, theirs, ours))
    assert not differences, differences


@pytest.mark.parametrize("layout", [*FRAMES, *ARRAYS])
@pytest.mark.parametrize(
    ("of", "values"),
    [
        ("boolean", ["true", "null"]),
        ("boolean", ['"x"', "0", "2.5"]),
        ("integer", ["1", "2.5", '"3"', "true"]),
        ("long", ["9223372036854775808", "1"]),
        ("long", ["1", "null"]),
        ("long", ['"x"', "1"]),
        ("double", ["1", "null", '"NaN"', "true"]),
        ("datetime", ['"13/02/2026"', '"01/02/2026"']),
        ("datetime", ['"01/02/2026"', '"13/02/2026"']),
        ("datetime", ['"2026-01-01"', '"2026-01-02"']),
        ("datetime", ['"2026-01-01"', '"2026-01-01T00:00:00"']),
        ("datetime", ['"2026-01-01T00:00:00"', '"2026-01-01T00:00:00.5"']),
        ("datetime", ['"2026-01-01"', '"01/02/2026"']),
        ("datetime", ["1700000000", "1"]),
    ],
)
def test_values_of_one_column_become_what_mlflow_makes_of_them(of, values, layout):
    theirs, ours = both(layout, of, values)
    assert theirs == ours


def test_what_is_refused_is_told_by_column():
    with pytest.raises(urllib.error.HTTPError) as told:
        request(body("instances", "long", ["9223372036854775808"]))
    message = json.load(told.value)["message"]
    assert "column `long`" in message
    assert "9223372036854775808" in message
