"""Jobs while executors, workers and drivers are killed: `CLUSTER_LONG=1 make cluster-test`."""

import os
import random
import signal
import subprocess
import threading
import time

import deltalake
import pytest
from support import LONG, ROWS, Cluster, below, job, processes, wait_until

JOBS = int(os.environ.get("CLUSTER_JOBS", "12"))


class Killer(threading.Thread):
    """Kills one process of a cluster every few seconds; another executor comes for each that is gone."""

    def __init__(self, here, seed):
        super().__init__()
        self.here, self.random, self.done = here, random.Random(seed), threading.Event()
        self.kills = {"executor": 0, "worker": 0}

    def run(self):
        while not self.done.wait(self.random.uniform(1, 4)):
            executor = self.random.choice(self.here.executors)
            workers = sorted(below(executor.pid))
            if workers and self.random.random() < 0.8:
                self.kill(self.random.choice(workers), "worker")
            else:
                self.kill(executor.pid, "executor")
                executor.wait()
                self.here.executors.remove(executor)
                self.here.join()

    def kill(self, pid, what):
        try:
            os.kill(pid, signal.SIGKILL)
            self.kills[what] += 1
        except ProcessLookupError:
            pass


@pytest.mark.skipif(not LONG, reason="takes minutes")
def test_no_row_is_lost_or_doubled_whatever_is_killed(table, tmp_path):
    chance, drivers = random.Random(7), 0
    with processes() as start:
        here = Cluster(start)
        for _ in range(3):
            here.join()
        wait_until(lambda: here.size() == 3, 20)
        killer = Killer(here, 11)
        killer.start()
        begun = time.monotonic()
        try:
            for number in range(JOBS):
                command = job("slow", table, tmp_path / "out", "--mode", "append", "--workers", "12",
                              "--job", f"job-{number}", "--cluster", here.url)  # fmt: skip
                tries = 0
                while True:
                    driver = subprocess.Popen(
                        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
                    )
                    try:
                        seconds = chance.uniform(0.2, 1.5) if chance.random() < 0.5 and tries < 3 else 120
                        _, said = driver.communicate(timeout=seconds)
                    except subprocess.TimeoutExpired:
                        driver.kill()
                        driver.communicate()
                        drivers += 1
                        said = "killed"
                    tries += 1
                    if driver.returncode == 0:
                        break
                    assert tries < 10, said
        finally:
            killer.done.set()
            killer.join()
    rows = deltalake.DeltaTable(tmp_path / "out").to_pandas()
    assert len(rows) == JOBS * ROWS and (rows["id"].value_counts() == JOBS).all()
    log = deltalake.DeltaTable(tmp_path / "out").history()
    assert sorted(entry["jobName"] for entry in log) == sorted(f"job-{number}" for number in range(JOBS))
    print(f"{JOBS} jobs in {time.monotonic() - begun:.0f} s; killed: {drivers} drivers, {killer.kills}")
