"""MLflow's scoring client, and the bodies that its server takes."""

import datetime
import io
import json
import os
import urllib.error
import urllib.request

import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient

URL = os.environ["RECORDS_URL"]
SCORE = os.environ["SCORE_URL"]
MOMENT = "2026-01-01T12:30:00"


@pytest.fixture
def client():
    host, _, port = URL.removeprefix("http://").partition(":")
    return ScoringServerClient(host, int(port))


def frame():
    return pd.DataFrame(
        {
            "x": [1.5, float("nan")],
            "count": [1, 2**53 + 1],
            "label": ["a", "ü"],
            "moment": pd.to_datetime([datetime.datetime(2026, 1, 1, 12, 30)] * 2),
        }
    )


def ask(body, media="application/json", url=URL):
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{url}/invocations", data, {"Content-Type": media})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        text = error.read().decode()
        is_json = error.headers["content-type"].startswith("application/json")
        return error.code, json.loads(text) if is_json else text


def test_ping_and_version(client):
    client.ping()
    assert client.get_version()
    with urllib.request.urlopen(f"{URL}/health") as answer:
        assert answer.status == 200


def test_a_frame_comes_back_as_it_went(client):
    # The client sends `NaN`, which is no JSON, and moments as text.
    given = client.invoke(frame()).get_predictions()
    assert list(given.columns) == ["x", "count", "label", "moment"]
    assert given["x"].iloc[0] == 1.5
    assert pd.isna(given["x"].iloc[1])
    assert given["count"].tolist() == [1, 2**53 + 1]
    assert given["label"].tolist() == ["a", "ü"]
    assert given["moment"].iloc[0].startswith(MOMENT)


def test_params_are_passed_over(client):
    given = client.invoke(frame(), params={"k": 1}).get_predictions()
    assert len(given) == 2


RECORD = {"x": 1.5, "count": 1, "label": "a", "moment": MOMENT}
COLUMNS = list(RECORD)
VALUES = list(RECORD.values())


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": COLUMNS, "data": [VALUES]}},
        {"dataframe_split": {"data": [VALUES], "index": [7], "columns": COLUMNS}},
        {"dataframe_split": {"columns": COLUMNS[::-1], "data": [VALUES[::-1]]}},
        {"dataframe_split": {"columns": [*COLUMNS, "more"], "data": [[*VALUES, {"any": []}]]}},
        {"dataframe_records": [RECORD]},
        {"dataframe_records": [RECORD | {"more": [1]}], "params": {}},
        {"instances": [RECORD]},
        {"inputs": {name: [value] for name, value in RECORD.items()}},
        {"inputs": [RECORD]},
    ],
)
def test_every_shape_of_json(body):
    status, given = ask(body)
    assert status == 200, given
    [row] = given["predictions"]
    assert {name: row[name] for name in ("x", "count", "label")} == {"x": 1.5, "count": 1, "label": "a"}
    assert row["moment"].startswith(MOMENT)


def test_a_series_is_a_list_of_records():
    status, given = ask({"dataframe_records": [{"a": 1.0, "b": 0.5}]}, url=SCORE)
    assert (status, given) == (200, {"predictions": [{"0": 2.5}]})


def test_no_rows_are_no_predictions():
    for body in ({"dataframe_records": []}, {"dataframe_split": {"columns": COLUMNS, "data": []}}):
        assert ask(body) == (200, {"predictions": []})


@pytest.mark.parametrize("media", ["text/csv", "text/csv; charset=utf-8", "text/csv;charset=UTF-8"])
def test_comma_separated_values(media):
    body = frame().head(1).to_csv(index=False).encode()
    status, given = ask(body, media)
    assert status == 200, given
    assert given["predictions"][0]["label"] == "a"


def test_parquet():
    body = io.BytesIO()
    frame().to_parquet(body)
    status, given = ask(body.getvalue(), "application/vnd.apache.parquet")
    assert status == 200, given
    assert given["predictions"][1]["count"] == 2**53 + 1


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"count": 1.5}, "count"),
        ({"count": "1"}, "count"),
        ({"count": 2**63}, "count"),
        ({"count": None}, "count"),
        ({"x": "NaN"}, "x"),
        ({"label": 5}, "label"),
        ({"moment": 1_700_000_000}, "moment"),
        ({"moment": "01/02/2026"}, "moment"),
    ],
)
def test_nothing_is_coerced_silently(change, word):
    status, given = ask({"dataframe_records": [RECORD | change]})
    assert status == 400
    assert f"`{word}`" in given["message"]
    assert given["error_code"] == "BAD_REQUEST"


@pytest.mark.parametrize(
    "body",
    [
        {},
        [],
        {"instances": [RECORD], "inputs": [RECORD]},
        {"dataframe_records": {"x": 1}},
        {"dataframe_split": {"columns": COLUMNS, "rows": []}},
        {"dataframe_records": [{"x": 1.0}]},
        {"inputs": {"x": [1.0, 2.0], "count": [1], "label": ["a"], "moment": [MOMENT]}},
    ],
)
def test_what_is_wrong_is_told(body):
    status, given = ask(body)
    assert status == 400, given
    assert isinstance(given["message"], str)
    assert isinstance(given["error_code"], str)


@pytest.mark.parametrize(
    "media", ["text/plain", "application/json; charset=latin-1", "application/json; format=pandas-split"]
)
def test_other_media_are_not_read(media):
    status, given = ask({"dataframe_records": [RECORD]}, media)
    assert status == 415
    assert isinstance(given, str), "as plain text"


def test_literals_that_are_no_json():
    body = b'{"dataframe_records": [{"x": -Infinity, "count": 1, "label": "NaN", "moment": "2026-01-01T00:00:00"}]}'
    status, given = ask(body)
    assert status == 200, given
    assert given["predictions"][0]["label"] == "NaN"
    assert given["predictions"][0]["x"] is None
