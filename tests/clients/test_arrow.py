"""This service's own path with every medium: Arrow, Parquet, comma-separated values, lines of JSON."""

import gzip
import io
import json
import os
import zlib

import httpx
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
import zstandard
from datatypes import DATATYPES

URL = os.environ["IDENTITY_URL"]
RECORDS = os.environ["RECORDS_URL"]
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"


def table(rows):
    """Every type, with its extremes."""

    def values(name, of):
        if name == "BOOL":
            return [True, False, True]
        if name == "BYTES":
            return ["", 'é,"\n', "NaN"]
        if name.startswith("FP"):
            return [0.5, -2.0, 0.0]
        bits = of.bit_width - (0 if name.startswith("U") else 1)
        return [2**bits - 1, 0 if name.startswith("U") else -(2**bits), 7]

    return pa.table({name: pa.array(values(name, of)[:rows], of) for name, of in DATATYPES.items()})


def nested(rows):
    def column(name):
        flat = table(3).column(name).combine_chunks()
        flat = pa.concat_arrays([flat] * rows) if rows else flat.slice(0, 0)
        return pa.FixedSizeListArray.from_arrays(flat, 3)

    return pa.table({name: column(name) for name in DATATYPES})


def stream(rows, **options):
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, rows.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(rows)
    return sink.getvalue()


def parquet(rows, **options):
    sink = io.BytesIO()
    pa.parquet.write_table(rows, sink, **options)
    return sink.getvalue()


def csv(rows):
    sink = io.BytesIO()
    pa.csv.write_csv(rows, sink)
    return sink.getvalue()


def lines(rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows.to_pylist()).encode()


def ask(body, media, accept=ARROW, path="/predict/columns", url=URL, **headers):
    headers = {"content-type": media, "accept": accept} | headers
    return httpx.post(url + path, content=body, headers=headers, timeout=60)


def read(answer):
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == ARROW
    return pa.ipc.open_stream(answer.content).read_all()


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize(
    ("media", "write"),
    [
        (ARROW, stream),
        (PARQUET, parquet),
        (PARQUET, lambda rows: parquet(rows, compression="zstd")),
        ("text/csv", csv),
        ("application/x-ndjson", lines),
        ("application/jsonlines", lines),
    ],
)
def test_every_medium_says_the_same(media, write, rows):
    if rows == 0 and media == "text/csv":
        pytest.skip("the writer writes nothing at all")
    given = read(ask(write(table(rows)), media))
    assert given.to_pylist() == table(rows).to_pylist()
    assert given.schema.types == table(rows).schema.types


@pytest.mark.parametrize("rows", [0, 1, 3])
@pytest.mark.parametrize(
    ("media", "write"), [(ARROW, stream), (PARQUET, parquet), ("application/x-ndjson", lines)]
)
def test_lists_come_back(media, write, rows):
    given = read(ask(write(nested(rows)), media, path="/predict/matrices"))
    assert given.to_pylist() == nested(rows).to_pylist()


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_buffers_that_are_compressed_within_a_stream_are_refused(compression):
    answer = ask(stream(table(3), compression=compression), ARROW)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_table")


def test_every_medium_is_given():
    body = stream(table(3))
    given = ask(body, ARROW, accept=PARQUET)
    assert pa.parquet.read_table(io.BytesIO(given.content)).to_pylist() == table(3).to_pylist()
    given = ask(body, ARROW, accept="text/csv")
    types = pa.csv.ConvertOptions(
        column_types=dict(DATATYPES) | {"FP16": pa.float32()}, strings_can_be_null=False
    )
    given = pa.csv.read_csv(
        io.BytesIO(given.content),
        convert_options=types,
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
    )
    assert given.to_pylist() == table(3).to_pylist()
    given = ask(body, ARROW, accept="application/jsonlines")
    assert [json.loads(line) for line in given.text.splitlines()] == table(3).to_pylist()
    given = ask(body, ARROW, accept="application/json")
    assert given.json()["predictions"] == table(3).to_pylist()


def test_columns_are_found_by_name():
    turned = table(3).select(list(DATATYPES)[::-1])
    assert read(ask(stream(turned), ARROW)).to_pylist() == table(3).to_pylist()


@pytest.mark.parametrize(
    ("name", "given"),
    [("INT64", pa.int8()), ("FP64", pa.float32()), ("BYTES", pa.large_string()), ("BYTES", pa.string_view())],
)
def test_types_that_hold_less_are_read(name, given):
    small = {"BYTES": ["a", "b", "c"]}.get(name, [1, 2, 3])
    index = table(3).schema.get_field_index(name)
    rows = table(3).set_column(index, name, pa.array(small, given))
    assert read(ask(stream(rows), ARROW)).column(name).to_pylist() == small


def test_dictionaries_are_read():
    index = table(3).schema.get_field_index("BYTES")
    words = pa.array(["a", "b", "a"]).dictionary_encode()
    rows = table(3).set_column(index, "BYTES", words)
    assert read(ask(stream(rows), ARROW)).column("BYTES").to_pylist() == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("INT8", pa.array([1, 200, 3], pa.int64())),
        ("INT64", pa.array(["1", "2", "3"])),
        ("BOOL", pa.array([0, 1, 1], pa.int8())),
        ("INT32", pa.array([1.5, 2.0, 3.0])),
        ("BYTES", pa.array([1, 2, 3])),
        ("UINT8", pa.array([1, None, 3], pa.uint8())),
    ],
)
@pytest.mark.parametrize(("media", "write"), [(ARROW, stream), (PARQUET, parquet)])
def test_what_would_be_lost_is_refused_by_name(media, write, name, values):
    index = table(3).schema.get_field_index(name)
    answer = ask(write(table(3).set_column(index, name, values)), media)
    assert answer.status_code == 422, answer.text
    [fault, *_] = answer.json()["errors"]
    assert fault["column"] == name


@pytest.mark.parametrize(("media", "write"), [(ARROW, stream), (PARQUET, parquet), ("text/csv", csv)])
def test_every_column_of_the_signature_is_there(media, write):
    answer = ask(write(table(1).drop_columns(["BOOL"])), media)
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_column")


@pytest.mark.parametrize(("media", "write"), [(ARROW, stream), (PARQUET, parquet)])
def test_other_columns_of_tables_are_passed_over(media, write):
    more = table(1).append_column("more", pa.array([1]))
    assert read(ask(write(more), media)).to_pylist() == table(1).to_pylist()


@pytest.mark.parametrize(("media", "write"), [(ARROW, stream), (PARQUET, parquet)])
def test_damaged_bytes_are_refused_and_end_nothing(media, write):
    good = write(table(3))
    for length in range(0, len(good) - 1, max(1, len(good) // 60)):
        # A stream may end without its end mark.
        assert ask(good[:length], media).status_code in (200, 400, 422)
    for place in range(0, len(good), max(1, len(good) // 300)):
        for bits in (0x01, 0x80, 0xFF):
            damaged = bytearray(good)
            damaged[place] ^= bits
            answer = ask(bytes(damaged), media)
            assert answer.status_code in (200, 400, 413, 422), answer.text
    read(ask(good, media))


ENCODINGS = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_compressed_bodies_are_read_up_to_a_size(encoding):
    body = ENCODINGS[encoding](stream(table(3)))
    given = read(ask(body, ARROW, **{"content-encoding": encoding}))
    assert given.to_pylist() == table(3).to_pylist()
    bomb = ENCODINGS[encoding](bytes(100 << 20))
    answer = ask(bomb, ARROW, **{"content-encoding": encoding})
    assert answer.status_code == 413
    assert ask(b"no", ARROW, **{"content-encoding": encoding}).status_code == 400


def test_long_answers_are_compressed_where_that_is_read():
    rows = pa.concat_tables([table(3)] * 2000)
    answer = ask(stream(rows), ARROW, **{"accept-encoding": "gzip"})
    assert answer.headers["content-encoding"] == "gzip"
    assert read(answer).num_rows == 6000
    answer = ask(stream(rows), ARROW, **{"accept-encoding": "identity"})
    assert "content-encoding" not in answer.headers


def test_a_file_that_unpacks_into_too_much_is_refused():
    zeros = pa.table(
        {
            name: pa.array([0] * 1_100_000, pa.int8()).cast(of)
            if name != "BYTES"
            else pa.array(["x"] * 1_100_000)
            for name, of in DATATYPES.items()
            if name != "FP16"
        }
    )
    zeros = zeros.append_column("FP16", zeros.column("FP32").cast(pa.float16()))
    assert ask(parquet(zeros, compression="zstd"), PARQUET).status_code == 413
    assert ask(stream(zeros), ARROW).status_code == 413


def test_no_number_and_no_value_stay_two_things():
    rows = pa.table(
        {
            "x": pa.array([float("nan"), 1.0]),
            "count": pa.array([1, 2]),
            "label": pa.array(["", "b"]),
            "moment": pa.array([0, 1], pa.timestamp("us")),
        }
    )
    answer = ask(stream(rows), ARROW, path="/predict", url=RECORDS)
    if answer.status_code == 422:
        # The moment's unit is pandas' choice.
        unit = answer.json()["errors"][0]["expected"]
        pytest.fail(f"a moment of microseconds is not read as {unit}")
    assert str(read(answer).column("x").to_pylist()[0]) == "nan"
