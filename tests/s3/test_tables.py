"""Tables in a bucket of a server that checks what it is sent."""

import json
import subprocess

import deltalake
import polars
import pyarrow as pa
import pyarrow.csv as csv
import pyarrow.feather as feather
import pyarrow.parquet as pq
import pytest
from servers import BUSY, SECRET, way_to
from support import PROGRAM, checksum, cluster, job, rows_of, run


def encoded(write, rows):
    sink = pa.BufferOutputStream()
    write(rows, sink)
    return sink.getvalue().to_pybytes()


def lines(rows):
    return rows.to_pandas().to_json(orient="records", lines=True).encode()


def there(server, table):
    """What another program reads."""
    found = deltalake.DeltaTable(table, storage_options=server.options())
    return found.to_pandas().sort_values("id", ignore_index=True)


WRITERS = {
    "parquet": lambda rows: encoded(pq.write_table, rows),
    "csv": lambda rows: encoded(csv.write_csv, rows),
    "arrow": lambda rows: encoded(lambda rows, sink: feather.write_feather(rows, sink), rows),
    "jsonl": lines,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_tables_of_all_kinds_give_the_rows_that_local_ones_give(kind, rows, checked, at, tmp_path):
    at(checked.variables())
    for number in range(3):
        data = WRITERS[kind](rows.slice(number * 1000, 1000))
        folder = f"part=no%20{number}" if kind == "parquet" else "."
        (tmp_path / "in" / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / folder / f"{number}.{kind}").write_bytes(data)
        checked.put(f"{kind}/{folder}/{number}.{kind}".replace("/./", "/"), data)
    keep = ("--keep", "part") if kind == "parquet" else ()
    here = run("score", tmp_path / "in", tmp_path / "out", "--where", "id >= 500", *keep)
    done = run("score", f"s3://lake/{kind}", f"s3://lake/of-{kind}", "--where", "id >= 500", *keep)
    assert here["rows"] == done["rows"] == 2500
    assert checksum(there(checked, f"s3://lake/of-{kind}")) == checksum(rows_of(tmp_path / "out"))
    back = run("score", f"s3://lake/{kind}", f"file://{tmp_path}/back", "--where", "id >= 500", *keep)
    assert back["rows"] == 2500


def test_modes_snapshots_and_the_warehouse(rows, checked, at):
    at(checked.variables())
    options = checked.options()
    deltalake.write_deltalake("s3://lake/house/db/in", rows.slice(0, 100), storage_options=options)
    deltalake.write_deltalake(
        "s3://lake/house/db/in", rows.slice(100, 50), mode="append", storage_options=options
    )
    house = ("--warehouse", "s3://lake/house")
    assert run("score", "db.in", "db.out", *house, "--as-of", "0", "--keep", "x")["rows"] == 100
    assert refused("score", "db.in", "db.out", *house)["code"] == "table_exists"
    assert run("score", "db.in", "db.out", *house, "--keep", "x", "--merge-on", "id")["rows"] == 150
    found = there(checked, "s3://lake/house/db/out")
    assert found["id"].tolist() == list(range(150))
    assert run("score", "db.in", "db.out", *house, "--keep", "x", "--mode", "overwrite")["version"] == 2
    parted = ("--partition-by", "label")
    assert run("score", "db.in", "db.parted", *house, *parted)["rows"] == 150
    assert run("score", "db.in", "db.parted", *house, "--mode", "overwrite-partitions")["rows"] == 150
    assert there(checked, "s3://lake/house/db/parted")["id"].tolist() == list(range(150))
    error = refused("score", "db.nothing", "db.out2", *house)
    assert "has no such table" in error["message"], error


def test_folders_of_parquet_files_in_all_modes(rows, checked, at):
    at(checked.variables())
    checked.put("files/0.parquet", WRITERS["parquet"](rows.slice(0, 100)))
    places = ("s3://lake/files", "s3://lake/files-out", "--format", "parquet", "--keep", "x,y")
    parted = ("s3://lake/files", "s3://lake/files-parted", "--format", "parquet", "--partition-by", "label")

    def found(table):
        return sorted(checked.rows(table)["id"].to_pylist())

    assert run("score", *places)["rows"] == 100
    assert refused("score", *places)["code"] == "table_exists"
    for mode, times in {"append": 2, "overwrite": 1}.items():
        run("score", *places, "--mode", mode)
        assert found(places[1]) == sorted([*range(100)] * times), mode
    checked.put("files/0.parquet", WRITERS["parquet"](rows.slice(50, 100)))
    assert run("score", *places, "--merge-on", "id")["rows"] == 100
    assert found(places[1]) == [*range(150)]
    run("score", *parted)
    with cluster(1, 1) as here:
        run("score", *parted, "--mode", "overwrite-partitions", "--cluster", here.url)
    assert found(parted[1]) == [*range(50, 150)]
    assert run("score", places[1], "s3://lake/files-again", "--format", "parquet")["rows"] == 150
    vacuum(places[1], "--older-than", "0")
    assert found(places[1]) == [*range(150)]
    left = {path.parent.name for path in (checked.folder / "lake" / "files-out").rglob("*") if path.is_file()}
    assert left == {"files-out", "_envelope_commits"}


def test_a_job_is_done_once_and_vacuum_leaves_what_is_needed(rows, checked, at):
    at(checked.variables())
    checked.put("once/0.parquet", WRITERS["parquet"](rows))
    identity = ("--job", "nightly", "--logical-date", "2026-11-28", "--mode", "append")
    first = run("score", "s3://lake/once", "s3://lake/scores", *identity)
    again = run("score", "s3://lake/once", "s3://lake/scores", *identity)
    assert (first["already_done"], again["already_done"]) == (False, True)
    assert again["version"] == first["version"] == 0
    run("score", "s3://lake/once", "s3://lake/scores", "--mode", "overwrite")
    checked.put("scores/part-00000-00000-0123456789abcdef0123456789abcdef.parquet", b"orphan")
    table = deltalake.DeltaTable("s3://lake/scores", storage_options=checked.options())
    dry = vacuum("s3://lake/scores", "--older-than", "0", "--dry-run")
    gone = vacuum("s3://lake/scores", "--older-than", "0")
    assert dry["files"] == gone["files"] and len(gone["files"]) == first["files"] + 1, gone
    folder = checked.folder / "lake" / "scores"
    left = {path.name for path in folder.rglob("*") if path.is_file() and "_delta_log" not in path.parts}
    assert left == {uri.rsplit("/", 1)[1] for uri in table.file_uris()}
    assert len(there(checked, "s3://lake/scores")) == rows.num_rows


def refused(reference, table, output, *more):
    """How a job fails."""
    command = job(reference, table, output, *more)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0, done.stdout
    return json.loads(done.stderr)["error"]


def vacuum(table, *more):
    command = [PROGRAM, "vacuum", table, "--json", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


def test_executors_open_buckets_themselves(rows, checked, at):
    at(checked.variables())
    checked.put("spread/0.parquet", WRITERS["parquet"](rows))
    with cluster(1, 1) as here:
        done = run("score", "s3://lake/spread", "s3://lake/by-cluster", "--cluster", here.url)
    assert (done["rows"], done["version"]) == (rows.num_rows, 0)
    assert len(there(checked, "s3://lake/by-cluster")) == rows.num_rows


def test_polars_reads_what_was_written(rows, checked, at):
    at(checked.variables())
    checked.put("polars/0.parquet", WRITERS["parquet"](rows))
    run("score", "s3://lake/polars", "s3://lake/for-polars")
    found = polars.scan_delta("s3://lake/for-polars", storage_options=checked.options()).collect()
    assert sorted(found["id"].to_list()) == rows["id"].to_pylist()


def test_errors_say_where_and_what_to_set_and_no_secret(rows, checked, at):
    at(checked.variables())
    checked.put("errors/0.parquet", WRITERS["parquet"](rows))
    at({"AWS_SECRET_ACCESS_KEY": "another-" + SECRET})
    error = refused("score", "s3://lake/errors", "s3://lake/errors-out")
    told = json.dumps(error)
    assert "lake" in told and checked.url in told and "AWS_SECRET_ACCESS_KEY" in told, told
    assert SECRET not in told
    at({**checked.variables(), "AWS_ENDPOINT_URL": "http://192.0.2.1"})
    error = refused("score", "s3://lake/errors", "s3://lake/errors-out")
    assert "AWS_ALLOW_HTTP" in json.dumps(error), error
    at(checked.variables())
    error = refused("score", "s3://nowhere/errors", "s3://lake/errors-out")
    assert "nowhere" in json.dumps(error), error


def test_a_server_that_is_busy_is_asked_again(rows, checked, at):
    checked.put("busy/0.parquet", WRITERS["parquet"](rows))

    def every_third(method, path, number):
        return BUSY if number % 3 == 0 else None

    with way_to(checked, every_third) as (url, done):
        at(checked.variables(url))
        summary = run("score", "s3://lake/busy", "s3://lake/busy-out")
    assert summary["rows"] == rows.num_rows and summary["version"] == 0
    assert len(done) > 3, done
    assert len(there(checked, "s3://lake/busy-out")) == rows.num_rows
