"""A running Airflow, and how to ask it."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from deltalake import DeltaTable

HERE = Path(__file__).resolve().parent
SERVERS = ("api-server", "scheduler", "dag-processor", "triggerer")
URL = "http://127.0.0.1:8080"
ROWS = 400_000
OVER = {"success", "failed", "upstream_failed", "skipped"}


def eventually(gives, seconds=120):
    """What `gives` gives as soon as that is true."""
    end = time.monotonic() + seconds
    while not (given := gives()):
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.2)
    return given


class Airflow:
    """The servers of an Airflow in a folder, each in a process group of its own."""

    def __init__(self, home):
        self.home = home
        dags = home / "dags"
        dags.mkdir()
        for file in (*HERE.glob("dags/*.py"), *HERE.parent.glob("examples/*.py")):
            (dags / file.name).symlink_to(file)
        self.settings = os.environ | {
            "AIRFLOW_HOME": str(home),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{URL}/execution/",
            # So that what died, or was failed by a user, is noticed soon.
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
            "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "5",
            "ENVELOPE_WAREHOUSE": str(home / "warehouse"),
        }
        self.servers = {}

    def command(self, *arguments):
        """Runs `airflow …`; gives what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.settings,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, server):
        log = (self.home / f"{server}.log").open("a")
        command = [sys.executable, "-m", "airflow", server]
        self.servers[server] = subprocess.Popen(
            command, env=self.settings, stdout=log, stderr=log, start_new_session=True
        )

    def end(self, server, how):
        """Sends a signal to all processes of a server, and waits until it is gone."""
        os.killpg(self.servers[server].pid, how)
        self.servers.pop(server).wait(60)

    def close(self):
        for server in [*self.servers]:
            self.end(server, signal.SIGKILL)

    def ask(self, method, path, body=None):
        request = urllib.request.Request(
            f"{URL}/api/v2/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": f"Bearer {self.token}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{method} {path}: {error.code} {error.read().decode()}") from None

    def sign_in(self):
        """The token of a user who may do all; nothing while the server starts."""
        try:
            with urllib.request.urlopen(f"{URL}/auth/token", timeout=5) as answer:
                self.token = json.load(answer)["access_token"]
        except OSError:
            return False
        return True

    def knows(self, dag):
        found = self.ask("GET", "dags?exclude_stale=false")["dags"]
        return dag in {one["dag_id"] for one in found}

    def run(self, dag, name, logical_date=None, **conf):
        """Starts a run of a DAG."""
        body = {"dag_run_id": name, "logical_date": logical_date, "conf": conf}
        self.ask("POST", f"dags/{dag}/dagRuns", body)
        return Run(self, dag, name)


class Run:
    """A run of a DAG, of which one task is looked at."""

    def __init__(self, airflow, dag, name, task="score"):
        self.airflow, self.dag, self.name, self.task = airflow, dag, name, task

    @property
    def path(self):
        return f"dags/{self.dag}/dagRuns/{urllib.request.quote(self.name)}"

    @property
    def instance(self):
        return self.airflow.ask("GET", f"{self.path}/taskInstances/{self.task}")

    def until(self, *states, seconds=120):
        """Waits until the task is in one of these states, which it gives."""
        state = lambda: self.instance["state"]  # noqa: E731
        return eventually(lambda: (now := state()) in states and now, seconds)

    def over(self):
        """How the run ended."""
        run = lambda: self.airflow.ask("GET", self.path)["state"]  # noqa: E731
        return eventually(lambda: (now := run()) in OVER and now)

    @property
    def result(self):
        """The XCom."""
        value = self.airflow.ask("GET", f"{self.path}/taskInstances/{self.task}/xcomEntries/return_value")
        return value["value"] if isinstance(value["value"], dict) else json.loads(value["value"])

    def mark(self, state):
        self.airflow.ask("PATCH", f"{self.path}/taskInstances/{self.task}", {"new_state": state})

    def clear(self):
        body = {"dag_run_id": self.name, "dry_run": False, "only_failed": False, "reset_dag_runs": True}
        self.airflow.ask("POST", f"dags/{self.dag}/clearTaskInstances", body)

    def log(self, attempt=1):
        found = self.airflow.ask("GET", f"{self.path}/taskInstances/{self.task}/logs/{attempt}")
        return json.dumps(found["content"])


def jobs(output):
    """Numbers of the processes that write a table."""
    found = []
    for process in Path("/proc").iterdir():
        try:
            command = (process / "cmdline").read_bytes().split(b"\0") if process.name.isdigit() else []
        except OSError:
            continue
        if f"--output={output}".encode() in command:
            found.append(int(process.name))
    return found


def table(output):
    """Version of a table, and how often each client is in it."""
    read = DeltaTable(str(output))
    ids = read.to_pyarrow_table().column("id").to_pylist()
    assert sorted(ids) == [*range(ROWS)], "each row once"
    return read.version()


@pytest.fixture
def bare(tmp_path):
    """An Airflow without servers."""
    made = Airflow(tmp_path)
    made.command("db", "migrate")
    return made


@pytest.fixture(scope="session")
def airflow(tmp_path_factory):
    """With a scheduler, a triggerer, an executor; the DAGs run when they are asked to."""
    running = Airflow(tmp_path_factory.mktemp("airflow"))
    running.command("db", "migrate")
    try:
        for server in SERVERS:
            running.start(server)
        eventually(running.sign_in)
        for dag in ("worker", "triggerer", "mapped", "options"):
            eventually(lambda dag=dag: running.knows(dag))
            running.ask("PATCH", f"dags/{dag}", {"is_paused": False})
        yield running
    finally:
        running.close()


@pytest.fixture(params=["worker", "triggerer"])
def dag(request):
    """Where a job runs."""
    return request.param
