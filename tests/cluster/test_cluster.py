"""Jobs on real clusters of processes on this machine: `make cluster-test`.

The program must have been built with `--features cluster`; `ENVELOPE_PROGRAM` says where it is.
"""

import json
import operator
import signal
import socket
import subprocess
import time
from pathlib import Path

import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from support import (
    NOTICED_WITHIN,
    PROGRAM,
    ROWS,
    SHORT,
    below,
    checksum,
    cluster,
    job,
    refused,
    rows_of,
    run,
    wait_until,
)


def test_the_same_rows_wherever_the_work_is_done(table, clusters, tmp_path):
    sums, seconds = {}, {}
    for workers in (1, 2):
        output, name = tmp_path / f"local-{workers}", f"local {workers}"
        summary = run("score", table, output, "--workers", str(workers))
        assert summary["rows"] == ROWS
        sums[name], seconds[name] = checksum(rows_of(output)), summary["seconds"]
    for slots, here in clusters.items():
        output, name = tmp_path / slots, f"cluster {slots}"
        summary = run("score", table, output, "--cluster", here.url)
        assert (summary["rows"], summary["version"]) == (ROWS, 0)
        sums[name], seconds[name] = checksum(rows_of(output)), summary["seconds"]
    assert len(set(sums.values())) == 1, sums
    print(f"{ROWS} rows, checksum {sums['local 1'][:16]}; seconds, start of workers included: {seconds}")


@pytest.mark.parametrize("kind", ["csv", "jsonl", "partitioned"])
def test_every_kind_of_table_and_filters_travel(kind, rows, wide, tmp_path):
    table = tmp_path / "in"
    if kind == "csv":
        table.mkdir()
        csv.write_csv(rows, table / "a.csv")
    elif kind == "jsonl":
        table.mkdir()
        rows.to_pandas().to_json(table / "a.jsonl", orient="records", lines=True)
    else:
        for number in range(3):
            folder = table / f"part=no%20{number}"
            folder.mkdir(parents=True)
            pq.write_table(rows.slice(number * 1000, 1000), folder / "a.parquet")
    keep = ("--keep", "part") if kind == "partitioned" else ()
    more = ("--where", "id >= 500 AND x < 2500.5", *keep)
    local = run("score", table, tmp_path / "local", *more)
    done = run("score", table, tmp_path / "out", *more, "--cluster", wide.url)
    assert local["rows"] == done["rows"] == 2001
    assert checksum(rows_of(tmp_path / "out")) == checksum(rows_of(tmp_path / "local"))


@pytest.mark.parametrize("form", [("--format", "parquet"), ("--partition-by", "label"), ("--format", "parquet", "--partition-by", "label")])  # fmt: skip
def test_every_kind_of_output_is_written(form, table, pair, tmp_path):
    run("score", table, tmp_path / "local", *form)
    summary = run("score", table, tmp_path / "out", *form, "--cluster", pair.url)
    assert summary["rows"] == ROWS
    there, here = (pq.read_table(tmp_path / name).to_pandas() for name in ("out", "local"))
    there, here = (rows.sort_values("id", ignore_index=True).astype({"label": str}) for rows in (there, here))
    assert checksum(there[sorted(there)]) == checksum(here[sorted(here)])
    assert not list(tmp_path.rglob("*workshop*"))


def test_a_job_with_a_name_is_done_once_and_completed_where_it_died(short_table, tmp_path):
    table, more = short_table, ("--job", "nightly", "--logical-date", "2026-11-28", "--workers", "8")
    with cluster(1, 1) as here:
        command = job("slow", table, tmp_path / "out", *more, "--cluster", here.url)
        driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: list(tmp_path.glob("out/_envelope_jobs/*/splits/*")), 60)
        driver.kill()
        driver.wait()
        summary = run("slow", table, tmp_path / "out", *more, "--cluster", here.url)
        assert (summary["rows"], summary["already_done"]) == (SHORT, False)
        assert summary["files_reused"] > 0, summary
        assert run("slow", table, tmp_path / "out", *more, "--cluster", here.url)["already_done"]
    assert run("slow", table, tmp_path / "out", *more)["already_done"], "without a cluster, too"
    given = rows_of(tmp_path / "out")
    assert len(given) == given["id"].nunique() == SHORT
    print(f"{summary['files_reused']} of {summary['files']} files were those of the driver that died")


def test_a_value_that_cannot_be_read_is_located_as_without_a_cluster(pair, tmp_path):
    table = tmp_path / "in.csv"
    table.write_text("id,x,y\n1,1.0,1.5\n2,many,1.5\n")
    code, error = refused("score", table, tmp_path / "out", "--cluster", pair.url)
    assert code == 1 and str(table) in error["message"], error
    assert (code, error) == refused("score", table, tmp_path / "out")


def test_envelopes_whose_packages_exclude_each_other_share_an_executor(table, wide, tmp_path):
    names = ("edition_1", "edition_2")
    jobs = [
        subprocess.Popen(job(name, table, tmp_path / name, "--cluster", wide.url), stdout=subprocess.DEVNULL)
        for name in names
    ]
    assert [process.wait(120) for process in jobs] == [0, 0]
    for number, name in enumerate(names, 1):
        given = rows_of(tmp_path / name)
        assert len(given) == ROWS and (given.iloc[:, 1] == number).all()


def test_the_work_of_a_killed_executor_moves(short_table, tmp_path):
    with cluster(1, 1) as here:
        begun = time.monotonic()
        process = subprocess.Popen(
            job("slow", short_table, tmp_path / "killed", "--cluster", here.url, "--workers", "8"),
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_until(here.tasks_done, 60)
        here.executors[0].kill()
        killed = time.monotonic()
        run("slow", short_table, tmp_path / "undisturbed", "--workers", "2")
        wait_until(lambda: here.size() == 1, NOTICED_WITHIN)
        noticed = time.monotonic() - killed
        summary = json.loads(process.communicate(timeout=120)[0])
        took = time.monotonic() - begun
    assert process.returncode == 0
    assert (summary["rows"], summary["version"]) == (SHORT, 0)
    assert checksum(rows_of(tmp_path / "killed")) == checksum(rows_of(tmp_path / "undisturbed"))
    print(f"killed after {killed - begun:.1f} s, noticed {noticed:.1f} s later, {took:.1f} s in all")


def test_an_executor_that_is_asked_to_end_gives_its_work_away_at_once(short_table, tmp_path):
    with cluster(1, 1) as here:
        process = subprocess.Popen(
            job("slow", short_table, tmp_path / "out", "--cluster", here.url, "--workers", "8"),
            stdout=subprocess.PIPE,
            text=True,
        )
        wait_until(here.tasks_done, 60)
        begun = time.monotonic()
        here.executors[0].terminate()
        assert here.executors[0].wait(10) == 0
        stopped = time.monotonic() - begun
        summary = json.loads(process.communicate(timeout=60)[0])
        print(f"stopped after {stopped:.1f} s, done {time.monotonic() - begun:.1f} s after it was asked")
    assert (process.returncode, summary["rows"]) == (0, SHORT)


def test_a_row_that_kills_workers_is_named_and_costs_no_executor(table, pair, tmp_path):
    code, error = refused("poison", table, tmp_path / "out", "--cluster", pair.url)
    assert (code, error["code"]) == (1, "worker_crashed")
    assert "id=731" in error["message"]
    assert all(executor.poll() is None for executor in pair.executors)
    assert pair.size() == 2
    # And they go on working.
    assert run("score", table, tmp_path / "after", "--cluster", pair.url)["rows"] == ROWS
    assert not (tmp_path / "out").exists()


def test_an_exception_comes_back_with_its_row_and_its_traceback(table, single, tmp_path):
    rows = pq.read_table(table)
    rows = rows.filter(rows["id"].to_numpy() > 5_000)
    pq.write_table(rows, tmp_path / "in.parquet")
    code, error = refused("poison", tmp_path / "in.parquet", tmp_path / "out", "--cluster", single.url)
    assert (code, error["code"]) == (1, "function_failed")
    text = json.dumps(error)
    assert "id=5137" in text and "ValueError: x is 5137" in text
    row = rows["id"].to_pylist().index(5137) + 1
    assert f"(row {row} of `{tmp_path / 'in.parquet'}`)" in error["message"], error
    assert (code, error) == refused("poison", tmp_path / "in.parquet", tmp_path / "out")


def test_libraries_use_one_thread_for_each_slot(table, single, tmp_path):
    run("score", table, tmp_path / "out", "--cluster", single.url)
    workers = below(single.executors[0].pid)
    variables = [Path(f"/proc/{worker}/environ").read_bytes().split(b"\0") for worker in workers]
    assert variables and all(b"OMP_NUM_THREADS=1" in each for each in variables)


@pytest.mark.parametrize("is_there", [False, True])
def test_an_executor_whose_scheduler_does_not_answer_ends_when_it_is_asked_to(is_there):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = "{}:{}".format(*silent.getsockname())
        if not is_there:
            silent.close()
        executor = subprocess.Popen([PROGRAM, "executor", "--scheduler", address, "--slots", "1"])
        time.sleep(1)
        assert executor.poll() is None, "it waits"
        executor.terminate()
        assert executor.wait(20) == 0


def test_cancelling_ends_work_and_workers_and_leaves_nothing(table, tmp_path):
    with cluster(1, 1) as here:
        command = job("slow", table, tmp_path / "out", "--cluster", here.url, "--workers", "64")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(here.tasks_done, 60)
        # The next ones are in the middle of a call then.
        time.sleep(0.5)
        before = [below(executor.pid) for executor in here.executors]
        assert all(before), "workers are at it"
        begun = time.monotonic()
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        cancelled = time.monotonic() - begun
        # The worker that was in the middle of a call is gone, on each of them.
        wait_until(lambda: all(map(operator.sub, before, (below(one.pid) for one in here.executors))), 5)
        stopped = time.monotonic() - begun
        assert not (tmp_path / "out").exists()
        # The slots are free again: the next job does not wait for 60 calls of a second each.
        begun = time.monotonic()
        run("score", table, tmp_path / "next", "--cluster", here.url)
        assert time.monotonic() - begun < 20
        assert not (tmp_path / "out").exists()
    print(f"cancelled in {cancelled:.1f} s, workers gone after {stopped:.1f} s")


def test_progress_is_told_in_lines_of_json(short_table, wide, tmp_path):
    command = job("slow", short_table, tmp_path / "out", "--cluster", wide.url, "--verbose")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    told = [line for line in lines if "rows" in line]
    assert len(told) >= 2 and told[-1]["rows"] == SHORT
    assert all(line["total"] == SHORT and line["rows_per_second"] > 0 for line in told)


def test_a_cluster_that_is_not_there_is_refused_before_any_work(table, tmp_path):
    code, error = refused("score", table, tmp_path / "out", "--cluster", "df://127.0.0.1:9")
    assert (code, error["code"]) == (6, "cluster_unreachable")
    with cluster() as here:
        code, error = refused("score", table, tmp_path / "out", "--cluster", here.url)
    assert code == 6 and "no executors" in error["message"]
    assert not (tmp_path / "out").exists()
