"""Jobs that call a function for each group of rows, on clusters."""

import json
import subprocess

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import ROWS, checksum, cluster, job, refused, run, wait_until

DAYS = 400
"""Groups of a job that takes 20 ms for each: enough of them to be in the middle of."""


@pytest.fixture(scope="session")
def groups(tmp_path_factory):
    """Rows of seven regions, one of which is missing, with numbers whose sum depends on their order."""
    names = [None, "UK", "US", "", "a b", "é/=", "x" * 100]
    rows = pa.table(
        {
            "id": range(ROWS),
            "region": [names[row * 5 % 7] for row in range(ROWS)],
            "day": pa.array([row % 1000 for row in range(ROWS)], pa.int32()),
            "x": [1e3 / (row + 1) for row in range(ROWS)],
            "y": [1.5] * ROWS,
        }
    )
    folder = tmp_path_factory.mktemp("groups")
    for name, start, end in (("a", 0, 10), ("b", 10, ROWS * 3 // 4), ("c", ROWS * 3 // 4, ROWS)):
        pq.write_table(rows.slice(start, end - start), folder / f"{name}.parquet", row_group_size=5_000)
    return folder


def summed(reference, table, output, *more):
    done = run_grouped(reference, table, output, *more)
    rows = deltalake.DeltaTable(output).to_pandas()
    keys = [column for column in ("region", "day", "id") if column in rows]
    return done, rows.sort_values(keys, ignore_index=True)


def run_grouped(reference, table, output, *more):
    return run(reference, table, output, "--group-by", "region,day", *more, keep=())


@pytest.mark.parametrize("reference, keep", [("total", ()), ("demean", ("id",))])
def test_groups_give_the_same_bits_wherever_the_work_is_done(reference, keep, groups, clusters, tmp_path):
    sums, counts = {}, set()
    more = [option for column in keep for option in ("--keep", column)]

    def placed(name, *where):
        done, rows = summed(reference, groups, tmp_path / name, *more, *where)
        sums[name] = checksum(rows)
        counts.add((done["rows"], done["version"], len(rows)))

    for workers in (1, 2):
        placed(f"local-{workers}", "--workers", str(workers))
    for slots, here in clusters.items():
        placed(f"cluster-{slots}", "--cluster", here.url)
    assert len(set(sums.values())) == 1, sums
    assert counts == {(7000 if reference == "total" else ROWS, 0, 7000 if reference == "total" else ROWS)}


def test_a_killed_executor_in_the_round_of_groups_costs_time_only(groups, tmp_path):
    more = ("--group-by", "day", "--where", f"day < {DAYS}")
    with cluster(1, 1) as here:
        command = job("slow_total", groups, tmp_path / "killed", *more, "--cluster", here.url, keep=())
        driver = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        wait_until(lambda: rounds_begun(here) == 2, 60)
        here.executors[0].kill()
        run("slow_total", groups, tmp_path / "undisturbed", *more, keep=())
        summary = json.loads(driver.communicate(timeout=150)[0])
    assert (driver.returncode, summary["rows"], summary["version"]) == (0, DAYS, 0)
    sums = [
        checksum(deltalake.DeltaTable(tmp_path / name).to_pandas().sort_values("day", ignore_index=True))
        for name in ("undisturbed", "killed")
    ]
    assert sums[0] == sums[1]


def rounds_begun(here):
    """How many rounds of the only job have a task at work or done."""
    return sum(any(stage["tasks"]) for stage in here.rounds())


def test_few_groups_leave_partitions_empty(groups, wide, tmp_path):
    done = run("total", groups, tmp_path / "out", "--group-by", "region", "--cluster", wide.url, keep=())
    assert done["rows"] == 7


def test_a_group_that_fails_is_named_as_without_a_cluster(groups, single, tmp_path):
    more = ("--group-by", "region", "--where", "region = 'UK'")
    code, error = refused("angry", groups, tmp_path / "out", *more, "--cluster", single.url, keep=())
    assert (code, error["code"]) == (1, "function_failed")
    assert "the group region=UK of the table" in error["message"] and "ValueError: no" in json.dumps(error)
    assert (code, error) == refused("angry", groups, tmp_path / "out", *more, keep=())
