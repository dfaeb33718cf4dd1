"""Drivers that write one table at the same time, and drivers that die."""

import json
import signal
import subprocess
from collections import Counter

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from servers import BUSY, LOST, is_entry, way_to
from support import job, run

DRIVERS = 8
FORMATS = ("delta", "parquet")


def put(server, key, rows):
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=100)
    server.put(key, sink.getvalue().to_pybytes())


def check(server, table, ids, versions, format="delta"):
    """Every row once; and one version and one transaction for each job, where a table has those."""
    if format == "parquet":
        assert sorted(server.rows(table)["id"].to_pylist()) == sorted(ids)
        return
    found = deltalake.DeltaTable(table, storage_options=server.options())
    assert sorted(found.to_pandas()["id"].tolist()) == sorted(ids)
    assert found.version() == versions - 1
    history = Counter(entry["operation"] for entry in found.history())
    assert sum(history.values()) == versions, history


def all_done(commands):
    drivers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for command in commands
    ]
    ended = [(*driver.communicate(timeout=300), driver.returncode) for driver in drivers]
    assert all(code == 0 for *_, code in ended), ended
    return [json.loads(said) for said, *_ in ended]


@pytest.mark.parametrize("format", FORMATS)
def test_drivers_that_add_to_one_table_at_once_all_land_once(format, rows, atomic, at):
    at(atomic.variables())
    table = f"s3://lake/raced-{format}"
    commands = []
    for number in range(DRIVERS):
        put(atomic, f"race/{number}/0.parquet", rows.slice(number * 100, 100))
        identity = ("--job", f"job-{number}", "--mode", "append", "--format", format)
        commands.append(job("score", f"s3://lake/race/{number}", table, *identity, "--workers", "1"))
    done = all_done(commands)
    if format == "delta":
        assert sorted(one["version"] for one in done) == list(range(DRIVERS))
    check(atomic, table, range(DRIVERS * 100), DRIVERS, format)


@pytest.mark.parametrize("format", FORMATS)
def test_of_drivers_with_one_identity_one_lands(format, rows, atomic, at):
    at(atomic.variables())
    put(atomic, "same/0.parquet", rows.slice(0, 1000))
    table = f"s3://lake/same-{format}"
    identity = ("--job", "same", "--mode", "append", "--workers", "2", "--format", format)
    done = all_done([job("score", "s3://lake/same", table, *identity)] * DRIVERS)
    if format == "delta":
        assert {one["version"] for one in done} == {0}
    check(atomic, table, range(1000), 1, format)


def is_file(method, path):
    return method == "PUT" and path.endswith(".parquet")


def is_copy(method, path):
    """Whether a file of a folder of Parquet files gets its place."""
    return is_file(method, path) and "/_envelope_files/" not in path


def is_done(method, path):
    return method == "PUT" and path.endswith(".done")


# When a driver ends: what it asks for then, and whether the server does it all the same.
MOMENTS = {
    "reading": (lambda method, path: method == "GET" and path.endswith("/killed/0.parquet"), False),
    "writing": (is_file, False),
    "written": (is_file, True),
    "committing": (is_entry, False),
    "committed": (is_entry, True),
}
MOMENTS_OF_COPIES = {
    "copying": (is_copy, False),
    "copied": (is_copy, True),
    "ending": (is_done, False),
    "ended": (is_done, True),
}
AFTER_COMMIT = {"committed", *MOMENTS_OF_COPIES}


@pytest.mark.parametrize(
    ("format", "moment"),
    [
        *(("delta", moment) for moment in MOMENTS),
        *(("parquet", moment) for moment in MOMENTS | MOMENTS_OF_COPIES),
    ],
)
def test_a_driver_that_is_killed_is_completed_by_the_next_one(format, moment, rows, atomic, at):
    put(atomic, "killed/0.parquet", rows.slice(0, 1000))
    tables = ("s3://lake/killed", f"s3://lake/killed-{format}-{moment}")
    identity = ("--job", moment, "--mode", "append", "--workers", "2", "--format", format)
    comes, is_done = (MOMENTS | MOMENTS_OF_COPIES)[moment]
    driver = None

    def kill(method, path, _):
        if comes(method, path):
            driver.kill()
            return LOST if is_done else BUSY
        return None

    with way_to(atomic, kill) as (url, done):
        at(atomic.variables(url))
        driver = subprocess.Popen(job("score", *tables, *identity), stderr=subprocess.DEVNULL)
        assert driver.wait(120) == -signal.SIGKILL and done, "it was killed"
    at(atomic.variables())
    assert run("score", *tables, *identity)["already_done"] == (moment in AFTER_COMMIT)
    check(atomic, tables[1], range(1000), 1, format)
    assert run("score", *tables, *identity)["already_done"]


def test_files_of_a_run_whose_commit_failed_are_used_by_the_next_one(rows, atomic, at):
    put(atomic, "reused/0.parquet", rows.slice(0, 1000))
    command = job("score", "s3://lake/reused", "s3://lake/reused-out", "--job", "reused", "--workers", "3")

    def never(method, path, _):
        return BUSY if is_entry(method, path) else None

    with way_to(atomic, never) as (url, done):
        at(atomic.variables(url))
        failed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert failed.returncode != 0 and len(done) > 1, failed
    at(atomic.variables())
    (summary,) = all_done([command])
    assert summary["files_reused"] == summary["files"] > 1, summary
    check(atomic, "s3://lake/reused-out", range(1000), 1)


def test_a_commit_whose_answer_is_lost_is_read_back(rows, atomic, at):
    put(atomic, "lost/0.parquet", rows.slice(0, 1000))
    for number, identity in enumerate([(), ("--job", "lost")]):
        losses = []

        def once(method, path, _, losses=losses):
            if is_entry(method, path) and not losses:
                losses.append(path)
                return LOST
            return None

        with way_to(atomic, once) as (url, done):
            at(atomic.variables(url))
            table = f"s3://lake/lost-out-{number}"
            for version in range(2):
                losses.clear()
                name = (identity[0], f"lost-{version}") if identity else ()
                summary = run("score", "s3://lake/lost", table, "--mode", "append", *name)
                assert (summary["rows"], summary["version"]) == (1000, version)
        assert [outcome for outcome, *_ in done] == [LOST, LOST], done
        check(atomic, table, list(range(1000)) * 2, 2)
