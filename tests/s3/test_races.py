"""Drivers that write one table at the same time, and drivers that die."""

import json
import subprocess
import time
from collections import Counter

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
from servers import BUSY, LOST, is_entry, way_to
from support import job, run

DRIVERS = 8


def put(server, key, rows):
    sink = pa.BufferOutputStream()
    pq.write_table(rows, sink, row_group_size=100)
    server.put(key, sink.getvalue().to_pybytes())


def check(server, table, ids, versions):
    """Every row once, and one version and one transaction for each job."""
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


def test_drivers_that_add_to_one_table_at_once_all_land_once(rows, atomic, at):
    at(atomic.variables())
    commands = []
    for number in range(DRIVERS):
        put(atomic, f"race/{number}/0.parquet", rows.slice(number * 100, 100))
        identity = ("--job", f"job-{number}", "--mode", "append")
        commands.append(
            job("score", f"s3://lake/race/{number}", "s3://lake/raced", *identity, "--workers", "1")
        )
    done = all_done(commands)
    assert sorted(one["version"] for one in done) == list(range(DRIVERS))
    check(atomic, "s3://lake/raced", range(DRIVERS * 100), DRIVERS)


def test_of_drivers_with_one_identity_one_lands(rows, atomic, at):
    at(atomic.variables())
    put(atomic, "same/0.parquet", rows.slice(0, 1000))
    identity = ("--job", "same", "--mode", "append", "--workers", "2")
    done = all_done([job("score", "s3://lake/same", "s3://lake/same-out", *identity)] * DRIVERS)
    assert {one["version"] for one in done} == {0}
    check(atomic, "s3://lake/same-out", range(1000), 1)


def test_a_driver_that_is_killed_is_completed_by_the_next_one(rows, atomic, at):
    at(atomic.variables())
    put(atomic, "killed/0.parquet", rows.slice(0, 1000))
    identity = ("--job", "killed", "--mode", "append", "--workers", "2")
    tables = ("s3://lake/killed", "s3://lake/killed-out")
    kills = 0
    for delay in (0.5, 1.0, 1.5, 2.0, 2.5):
        command = job("slow", *tables, *identity)
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        if driver.poll() is None:
            driver.kill()
            kills += 1
        driver.wait()
    run("slow", *tables, *identity)
    assert kills > 0
    check(atomic, tables[1], range(1000), 1)
    assert run("slow", *tables, *identity)["already_done"]


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
