"""Jobs from Python: what they write, how they fail, and that none outlives the process that started it."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

import pandas as pd
import polars as pl
import pytest
from deltalake import DeltaTable

import model_envelope as me

ROWS = 200_000
KEPT = ["id", "x"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Paths of envelopes by name, and of a table for them."""
    folder = tmp_path_factory.mktemp("saved")
    patch = pytest.MonkeyPatch()
    patch.setenv("ENVELOPE_URL", str(folder / "store"))
    sample = pd.DataFrame({"x": [0.5, 1.0, 2.5]})

    def double(features: pd.DataFrame) -> pd.Series:
        return features["x"] * 2

    def picky(features: pd.DataFrame) -> pd.Series:
        if (features["x"] == 777.0).any():
            raise ValueError("not that one")
        return features["x"] * 2

    def slow(features: pd.DataFrame) -> pd.Series:
        if (features["x"] == 199_999.0).any():
            time.sleep(60)
        return features["x"] * 2

    def total(features: pd.DataFrame) -> float:
        return float(features["x"].sum())

    paths = {
        function.__name__: me.save_model(function, name=function.__name__, api_input=sample).path
        for function in (double, picky, slow, total)
    }
    patch.undo()
    table = folder / "table.parquet"
    rows = pd.DataFrame({"id": range(ROWS), "x": [float(index) for index in range(ROWS)]})
    rows["third"] = rows["id"] % 3
    rows.to_parquet(table)
    return {**paths, "table": table}


@pytest.fixture
def run(saved, tmp_path):
    """Starts a job with the envelope of that name."""

    def run(name, **more):
        return me.batch(saved[name], **{"input": saved["table"], "output": tmp_path / "out"} | more)

    return run


@pytest.fixture
def start(saved, tmp_path):
    """Starts a program that starts a slow job without waiting; gives it, and the job's processes."""
    programs = []

    def start(then, wait=False):
        options = {"input": str(saved["table"]), "output": str(tmp_path / "out"), "wait": wait}
        program = f"""
import multiprocessing, os, sys, time
import model_envelope as me
job = me.batch({str(saved["slow"])!r}, **{options!r})
{then}
"""
        process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        programs.append(process)
        eventually(lambda: works(process.pid))
        return process, descendants(process.pid)

    yield start
    for program in programs:
        program.kill()
        program.wait()


def stat(pid):
    """Name, state and parent of a process; nothing when there is none."""
    try:
        name, rest = Path(f"/proc/{pid}/stat").read_text().split("(", 1)[1].rsplit(")", 1)
    except (OSError, IndexError):
        return None
    state, parent = rest.split()[:2]
    return None if state == "Z" else (name, int(parent))


def descendants(ancestor):
    """Names of the processes that a process has started, and those have started, by number."""
    known = {int(pid): stat(pid) for pid in os.listdir("/proc") if pid.isdigit()}
    found = {ancestor}
    while True:
        more = {pid for pid, one in known.items() if one and one[1] in found} - found
        if not more:
            return {pid: known[pid][0] for pid in found - {ancestor}}
        found |= more


def works(ancestor):
    """Whether there are workers: the third process of a job that has that name, and those that follow."""
    return [*descendants(ancestor).values()].count("launcher") > 2


def eventually(holds, seconds=20):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)


def all_gone(processes):
    eventually(lambda: not any(stat(pid) for pid in processes))


# === what a job writes


def test_a_job_gives_what_the_function_gives(run, tmp_path):
    job = run("double", columns=KEPT)
    result = job.result()
    assert job.status == "succeeded"
    assert (result.rows, result.version, result.already_done) == (ROWS, 0, False)
    assert result.digest.startswith("sha256:")
    assert result.seconds > 0
    table = DeltaTable(tmp_path / "out")
    assert len(table.file_uris()) == result.files
    rows = table.to_pandas().sort_values("id")
    assert rows["id"].tolist() == [*range(ROWS)]
    assert (rows["prediction"] == rows["x"] * 2).all()
    assert pl.read_delta(str(tmp_path / "out"))["prediction"].sum() == rows["prediction"].sum()


def test_options_reach_the_job(run, tmp_path):
    first = run("double", columns=KEPT, where="x < 10", local=1).result()
    assert first.rows == 10
    assert run("double", columns=KEPT, where="x = 11", mode="append").result().version == 1
    assert sorted(DeltaTable(tmp_path / "out").to_pandas()["id"]) == [*range(10), 11]
    (tmp_path / "warehouse" / "sales").mkdir(parents=True)
    scores = {"output": "sales.scores", "warehouse": tmp_path / "warehouse"}
    assert run("double", input=tmp_path / "out", as_of=0, **scores).result().rows == 10
    assert DeltaTable(tmp_path / "warehouse" / "sales" / "scores").version() == 0


def test_a_function_is_called_once_for_each_group(run, saved, tmp_path):
    result = run(
        "total", group_by="third", partition_by=["third"], max_group_bytes=1 << 30, timeout=60
    ).result()
    assert (result.rows, result.digests) == (3, (result.digest,))
    assert DeltaTable(tmp_path / "out").metadata().partition_columns == ["third"]
    rows = DeltaTable(tmp_path / "out").to_pandas().set_index("third")["prediction"]
    assert rows.to_dict() == pd.read_parquet(saved["table"]).groupby("third")["x"].sum().to_dict()
    with pytest.raises(me.InvalidInput, match=r"third=[012]") as failure:
        run("total", group_by=["third"], max_group_bytes=1000, mode="overwrite")
    assert failure.value.code == "group_too_large"
    with pytest.raises(me.InvalidInput, match="grouped by `x`"):
        run("total", group_by="x", mode="overwrite")


def test_rows_take_the_place_of_those_with_the_same_key(run, tmp_path):
    for rows in ("id < 10", "id >= 5 AND id < 12"):
        run("double", columns=["id"], where=rows, merge_on=["id"], format="delta")
    table = DeltaTable(tmp_path / "out")
    assert (sorted(table.to_pandas()["id"]), table.version()) == ([*range(12)], 1)
    with pytest.raises(me.InvalidInput, match="a mode of its own"):
        run("double", merge_on="id", mode="append")


def test_results_of_several_envelopes_stand_side_by_side(saved, tmp_path):
    more = {"input": saved["table"], "columns": "id", "where": "id < 10"}
    named = {"old": saved["double"], "new": me.get(saved["picky"])}
    result = me.batch(named, output=tmp_path / "named", **more).result()
    assert result.digests == tuple(me.get(saved[name]).digest for name in ("double", "picky"))
    rows = DeltaTable(tmp_path / "named").to_pandas()
    assert [*rows] == ["id", "old_prediction", "new_prediction"]
    me.batch([*named.values()], output=tmp_path / "plain", format="parquet", **more)
    assert [*pd.read_parquet(tmp_path / "plain")] == ["id", "double_prediction", "picky_prediction"]
    with pytest.raises(me.InvalidInput, match="no envelope in the list"):
        me.batch([], output=tmp_path / "none", **more)


def test_a_named_job_is_done_once(run, tmp_path):
    more = {
        "columns": ["id"],
        "mode": "append",
        "job": "nightly",
        "logical_date": datetime(2026, 11, 28, tzinfo=timezone.utc),
    }
    first, again = run("double", **more).result(), run("double", **more).result()
    assert not first.already_done
    assert again.already_done
    assert (again.rows, again.version) == (first.rows, 0)
    assert DeltaTable(tmp_path / "out").version() == 0


def test_an_envelope_and_a_query_mean_what_get_gives(saved, store, tmp_path):
    sample = pd.DataFrame({"x": [0.5, 1.0]})

    def triple(features: pd.DataFrame) -> pd.Series:
        return features["x"] * 3

    envelope = me.save_model(triple, name="triple", tags={"region": "US"}, api_input=sample)
    for position, ref in enumerate((envelope, "region=US", "triple:1")):
        job = me.batch(ref, input=saved["table"], output=tmp_path / f"{position}")
        assert job.digest == job.result().digest == envelope.digest


def test_variables_of_the_job_say_where_its_store_is(saved, tmp_path):
    elsewhere = {"ENVELOPE_URL": str(saved["double"].parents[1])}
    job = me.batch("double", input=saved["table"], output=tmp_path / "out", env=elsewhere)
    assert job.result().rows == ROWS
    with pytest.raises(me.NotFound):
        me.batch("double", input=saved["table"], output=tmp_path / "out")


def test_progress_is_told_while_the_job_runs(run):
    told = []
    job = run("double", progress=told.append)
    assert told[0].step == "starting workers"
    assert told[-1] == job.progress()
    assert (told[-1].rows, told[-1].total, told[-1].seconds_left) == (ROWS, ROWS, 0)
    assert f"{ROWS:,} of {ROWS:,} rows" in str(told[-1])


def test_progress_can_be_shown(run, capsys):
    run("double", progress=True)
    assert f"\r{ROWS:,} of {ROWS:,} rows" in capsys.readouterr().err
    run("double", mode="overwrite")
    assert capsys.readouterr().err == ""


def test_what_hears_of_progress_may_raise(run):
    def tell(progress):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run("slow", progress=tell)


def test_a_job_can_be_awaited(run, tmp_path):
    async def both():
        jobs = [run("double", output=tmp_path / one, wait=False) for one in "ab"]
        return await asyncio.gather(*(awaited(job) for job in jobs))

    async def awaited(job):
        return await job

    assert [result.rows for result in asyncio.run(both())] == [ROWS, ROWS]


# === how a job fails


def test_an_error_of_the_function_names_the_row_and_has_its_traceback(run, tmp_path):
    with pytest.raises(me.PredictionFailed) as failure:
        run("picky")
    assert failure.value.code == "function_failed"
    assert "x=777.0" in failure.value.message
    assert "ValueError: not that one" in failure.value.message
    assert "in picky" in failure.value.details
    assert not (tmp_path / "out").exists()


def test_errors_have_the_kind_that_they_are_of(run, tmp_path):
    run("double")
    with pytest.raises(me.Conflict, match="--mode append") as failure:
        run("double")
    assert failure.value.code == "table_exists"
    with pytest.raises(me.NotFound, match="nowhere"):
        run("double", input=tmp_path / "nowhere")
    with pytest.raises(me.NotFound, match="no function"):
        run("double", function="treble")
    with pytest.raises(me.InvalidInput) as failure:
        run("double", where="x <", mode="append")
    assert failure.value.code == "bad_filter"
    with pytest.raises(me.InvalidInput, match="sometimes"):
        run("double", mode="sometimes")


def test_arguments_that_contradict_are_refused_before_anything_runs(run):
    with pytest.raises(me.InvalidInput, match="a cluster or here"):
        run("double", cluster="df://127.0.0.1:50050", local=2)
    with pytest.raises(me.InvalidInput, match="a time without a zone"):
        run("double", job="nightly", logical_date=datetime(2026, 11, 28))


def test_without_the_program_it_says_how_to_get_it(run, monkeypatch):
    monkeypatch.setenv("ENVELOPE_PROGRAM", "/nowhere/envelope")
    with pytest.raises(me.NotFound, match="make build"):
        run("double")


def test_a_job_that_is_killed_says_so(run):
    job = run("slow", wait=False)
    os.kill(job.pid, signal.SIGKILL)
    with pytest.raises(me.EnvelopeError, match="killed by signal 9"):
        job.result()
    assert job.status == "failed"


# === how a job ends


def test_waiting_may_end_before_the_job(run):
    with run("slow", wait=False) as job:
        assert not job.wait(0.01)
        with pytest.raises(TimeoutError):
            job.result(0.01)
        assert (job.done, job.status) == (False, "running")


def test_a_cancelled_job_leaves_nothing(run, tmp_path):
    job = run("slow", wait=False)
    eventually(lambda: works(job.pid))
    processes = {job.pid, *descendants(job.pid)}
    job.cancel()
    assert (job.done, job.status) == (True, "cancelled")
    with pytest.raises(me.JobCancelled):
        job.result()
    all_gone(processes)
    assert not (tmp_path / "out").exists()
    job.cancel()


def test_a_job_ends_with_its_block(run):
    with pytest.raises(ZeroDivisionError), run("slow", wait=False) as job:
        raise ZeroDivisionError
    assert job.status == "cancelled"
    assert stat(job.pid) is None


def test_a_job_ends_when_the_user_interrupts(start):
    process, processes = start("", wait=True)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    all_gone(processes)


def test_a_job_ends_with_the_program_that_started_it(start):
    process, processes = start("time.sleep(2); raise SystemExit(3)")
    assert process.wait(20) == 3
    all_gone(processes)


def test_a_job_ends_with_a_program_that_is_killed(start):
    process, processes = start("time.sleep(60)")
    process.kill()
    all_gone(processes)


def test_a_job_ends_though_its_program_had_forked(start, tmp_path):
    forked = (
        "forked = multiprocessing.get_context('fork').Process(target=time.sleep, args=(30,)); forked.start()"
    )
    process, processes = start(
        f"{forked}; open('{tmp_path}/pid', 'w').write(str(forked.pid)); time.sleep(60)"
    )
    eventually(lambda: (tmp_path / "pid").is_file() and (tmp_path / "pid").read_text())
    still = int((tmp_path / "pid").read_text())
    process.kill()
    all_gone(set(processes) - {still})
    assert stat(still)
    os.kill(still, signal.SIGKILL)


def test_what_a_program_has_forked_ends_no_job(start):
    process, _ = start(
        "if os.fork() == 0: sys.exit()\nos.wait(); print(job.status, flush=True); time.sleep(60)"
    )
    assert process.stdout.readline() == "running\n"
