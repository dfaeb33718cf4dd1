"""What the operator promises: each row once, one envelope for a run, nothing left behind."""

import json
import os
import signal
import subprocess
import time
from datetime import date
from pathlib import Path

import model_envelope as me
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from conftest import ROWS, Run, eventually, jobs, table
from deltalake import DeltaTable


def tag(reference, change):
    subprocess.run([os.environ["ENVELOPE_PROGRAM"], "tag", reference, change], check=True)


def test_dags_can_be_tried_without_servers(bare, tmp_path):
    for dag in ("worker", "triggerer"):
        output = tmp_path / dag
        bare.command("dags", "test", dag, "--conf", json.dumps({"query": "score:1", "output": str(output)}))
        assert table(output) == 0
    assert "airflow-provider-model-envelope" in bare.command("providers", "list")


def test_a_run_writes_each_row_once_and_tells_what_it_wrote(airflow, dag, tmp_path):
    run = airflow.run(dag, "plain", "2026-11-28T06:00:00Z", query="score:1", output=str(tmp_path / "out"))
    assert run.over() == "success"
    told = run.result
    assert (told["rows"], told["version"], told["already_done"]) == (ROWS, 0, False)
    assert told["digest"] == me.get("score:1").digest
    assert table(tmp_path / "out") == 0


def test_mapped_tasks_are_jobs_of_their_own(airflow, tmp_path):
    run = airflow.run("mapped", "halves", query="score:1", output=str(tmp_path / "out"))
    assert run.over() == "success"
    assert table(tmp_path / "out") == 1


def test_groups_and_several_envelopes_reach_the_job_and_stay_when_it_is_cleared(airflow, tmp_path):
    tag("score:1", "options=yes")
    query = "name=score,options=yes"
    run = airflow.run("options", "several", "2026-11-25T06:00:00Z", query=query, output=str(tmp_path))
    assert run.over() == "success"
    tasks = [Run(airflow, "options", "several", task) for task in ("both", "groups")]
    told = [task.result for task in tasks]
    assert told[0]["digests"] == [me.get(name).digest for name in ("score:1", "score:2")]
    assert [one["rows"] for one in told] == [ROWS, 4]
    check_options(tmp_path)
    # The query means another envelope now.
    tag("score:2", "options=yes")
    tasks[0].clear()
    for task in tasks:
        eventually(lambda task=task: task.instance["try_number"] == 2)
    assert run.over() == "success"
    again = [task.result for task in tasks]
    assert all(one["already_done"] for one in again)
    assert [one["digests"] for one in again] == [one["digests"] for one in told]
    check_options(tmp_path)


def check_options(folder):
    """What two envelopes gave for each row, by parts, and one for each part."""
    assert table(folder / "both") == 0
    both = DeltaTable(folder / "both")
    assert both.metadata().partition_columns == ["part"]
    rows = both.to_pyarrow_table()
    assert rows["new_prediction"] == pc.multiply(rows["old_prediction"], 1.5)
    groups = pq.read_table(folder / "groups")
    assert sorted(groups["part"].to_pylist()) == [0, 1, 2, 3]
    assert pc.sum(groups["prediction"]) == pc.sum(pc.divide(rows["old_prediction"], 2))


def in_the_middle(output):
    """The process of a job of `slow` that has done a part of its twelve seconds of work."""
    eventually(lambda: list(output.glob("_envelope_jobs/*/lock")))
    time.sleep(5)
    [job] = jobs(output)
    assert not list(output.glob("_delta_log/*.json"))
    return job


def end_group(job):
    """All processes of the task, as its supervisor or the kernel may do it."""
    group = os.getpgid(job)
    assert group != os.getpgrp()
    os.killpg(group, signal.SIGKILL)


def end_task(job):
    """The task alone, which started the job."""
    os.kill(int(Path(f"/proc/{job}/stat").read_text().rsplit(")", 1)[1].split()[1]), signal.SIGKILL)


@pytest.mark.parametrize("end", [end_group, end_task])
def test_a_task_that_is_killed_is_retried_and_writes_each_row_once(airflow, end, tmp_path):
    output = tmp_path / "out"
    run = airflow.run("worker", end.__name__, query="slow", output=str(output))
    job = in_the_middle(output)
    end(job)
    eventually(lambda: job not in jobs(output), 15)
    assert run.over() == "success"
    assert run.instance["try_number"] == 2
    assert (run.result["rows"], run.result["version"]) == (ROWS, 0)
    assert table(output) == 0


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_triggerer_that_ends_is_replaced_and_each_row_is_written_once(airflow, how, tmp_path):
    output = tmp_path / "out"
    run = airflow.run("triggerer", how.name, query="slow", output=str(output))
    job = in_the_middle(output)
    assert run.instance["state"] == "deferred"
    airflow.end("triggerer", how)
    eventually(lambda: job not in jobs(output), 15)
    airflow.start("triggerer")
    assert run.over() == "success"
    assert run.instance["try_number"] == 1
    assert (run.result["rows"], run.result["version"]) == (ROWS, 0)
    assert table(output) == 0


def test_a_run_that_is_cleared_writes_nothing_and_keeps_its_envelope(airflow, dag, tmp_path):
    output, query = tmp_path / "out", f"name=score,{dag}=yes"
    tag("score:1", f"{dag}=yes")
    run = airflow.run(dag, "cleared", "2026-11-27T06:00:00Z", query=query, output=str(output))
    assert run.over() == "success"
    tag("score:2", f"{dag}=yes")
    run.clear()
    eventually(lambda: run.instance["try_number"] == 2)
    assert run.over() == "success"
    assert (run.result["already_done"], run.result["version"]) == (True, 0)
    assert run.result["digest"] == me.get("score:1").digest
    assert table(output) == 0
    # Another run is another job, by the envelope that the query means now.
    another = airflow.run(dag, "another", "2026-11-26T06:00:00Z", query=query, output=str(output))
    assert another.over() == "success"
    assert (another.result["digest"], another.result["version"]) == (me.get("score:2").digest, 1)


def test_a_task_that_a_user_fails_leaves_no_process_and_no_table(airflow, dag, tmp_path):
    output = tmp_path / "out"
    run = airflow.run(dag, "failed", query="slow", output=str(output))
    job = in_the_middle(output)
    run.mark("failed")
    eventually(lambda: job not in jobs(output), 60)
    assert run.over() == "failed"
    assert not jobs(output)
    assert not (output / "_delta_log").exists()


def test_an_error_of_the_function_is_not_retried_and_shows_its_traceback(airflow, dag, tmp_path):
    run = airflow.run(dag, "wrong", query="wrong", output=str(tmp_path / "out"))
    assert run.over() == "failed"
    assert run.instance["try_number"] == 1
    log = run.log()
    for part in ("id=7, x=7.25", "ValueError: seven", "in wrong"):
        assert part in log


def test_what_a_retry_may_mend_is_retried(airflow, tmp_path):
    run = airflow.run("worker", "nothing", query="name=nobody", output=str(tmp_path / "out"))
    assert run.over() == "failed"
    assert run.instance["try_number"] == 3


def test_a_schedule_runs_after_what_it_depends_on(airflow):
    tag("score:1", "stage=prod")
    eventually(lambda: airflow.knows("client_scores"))
    airflow.ask("PATCH", "dags/client_scores", {"is_paused": False})
    found = eventually(lambda: airflow.ask("GET", "dags/client_scores/dagRuns")["dag_runs"])
    [scheduled] = found
    assert scheduled["run_type"] == "scheduled"
    run = Run(airflow, "client_scores", scheduled["dag_run_id"])
    assert run.over() == "success"
    extract, score, report = (
        airflow.ask("GET", f"{run.path}/taskInstances/{task}") for task in ("extract", "score", "report")
    )
    assert extract["end_date"] <= score["start_date"]
    assert score["end_date"] <= report["start_date"]
    scores = DeltaTable(str(Path(airflow.settings["ENVELOPE_WAREHOUSE"], "sales.db", "scores")))
    days = scores.to_pyarrow_table().column("day").to_pylist()
    assert days == [date.fromisoformat(scheduled["logical_date"][:10])] * 100
