"""The online bench: everybody serves the same function, and is asked by the same client in turn."""

import http
import json
import os
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import cloudpickle
import contestants
import model_envelope as me
import numpy as np
import pandas as pd
import processes
import reports
from contestants import OURS, Unavailable

ROOT = Path(__file__).resolve().parent.parent
LOAD = ROOT / "target/release/examples/load"
HELLO = ROOT / "target/release/examples/hello"
SECONDS = float(os.environ.get("BENCH_SECONDS", "2"))
WARM_UP_SECONDS = float(os.environ.get("BENCH_WARM_UP_SECONDS", "0.5"))
MANY_ROWS, MANY_CALLERS = 100, 8
ANSWER_SECONDS = 30
BUSY_TRIES = 50


@dataclass
class Served:
    """One model, in the forms in which contestants take it."""

    name: str
    function: object
    sample: pd.DataFrame
    place: Path
    surroundings: dict
    """The variables of every service; nothing in it sets anything."""
    steps: list
    """Pairs of rows per body and callers."""
    leaves_out: tuple = ()
    """Peers of which one configuration tells enough."""
    reference: str = field(init=False)

    def __post_init__(self):
        self.reference = f"bench_{self.name}"
        self.pickle.write_bytes(cloudpickle.dumps(self.function))
        me.save_model(self.function, name=self.reference, api_input=self.sample)

    @property
    def pickle(self):
        return self.place / f"{self.name}.pkl"

    def folder(self, peer):
        """Of the files that a peer wants beside the pickle."""
        folder = self.place / self.name / peer
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def takes(self, contestant):
        return contestant.name not in self.leaves_out


# === one contestant, one round


def measure(contestant, served):
    """Starts a service, checks its answers, loads it, and ends it."""
    port = processes.free_port()
    log = served.folder(contestant.name) / "log"
    environment = {**served.surroundings, **contestants.variables(contestant, port, served)}
    command = contestants.command(contestant, port, served)
    where = contestants.PEERS / contestant.name if contestant is not OURS else served.place
    began = time.monotonic()
    with processes.running(command, environment, where, log) as tree:
        address = f"127.0.0.1:{port}"
        wait_for_answer(contestant, served, address, tree, log)
        figures = {"start_s": time.monotonic() - began}
        check(contestant, served, address)
        for rows, callers in served.steps:
            file = body_file(contestant, served, rows)
            load(address, contestant.dialect.path, file, callers, WARM_UP_SECONDS)
            figures[rows, callers] = load(address, contestant.dialect.path, file, callers, SECONDS)
        figures["pss_mb"], figures["rss_mb"] = tree.memory()
    return figures


def wait_for_answer(contestant, served, address, tree, log):
    def answered():
        if tree.has_ended():
            raise Unavailable(f"did not start: {processes.last_line(log)}")
        try:
            return ask(contestant, served, address, 1) is not None
        except (OSError, ValueError, LookupError, TypeError):
            return False

    if not processes.until(answered, processes.START_SECONDS):
        raise Unavailable(f"did not answer in {processes.START_SECONDS} s: {processes.last_line(log)}")


def check(contestant, served, address):
    """What it answers is what the function gives."""
    for rows in sorted({rows for rows, _ in served.steps}):
        given = np.asarray(ask(contestant, served, address, rows), float).ravel()
        expected = np.asarray(served.function(served.sample.head(rows)))
        if given.shape != expected.shape or not np.allclose(given, expected):
            raise Unavailable(f"answers something else for {rows} rows")


def ask(contestant, served, address, rows):
    """Its answer, as one number per row; one that says that it is busy is asked again."""
    for _ in range(BUSY_TRIES):
        try:
            return ask_once(contestant, served, address, rows)
        except urllib.error.HTTPError as error:
            if error.code != http.HTTPStatus.CONFLICT:
                raise
            time.sleep(0.1)
    raise Unavailable("is busy with nothing")


def ask_once(contestant, served, address, rows):
    dialect = contestant.dialect
    request = urllib.request.Request(
        f"http://{address}{dialect.path}",
        body_file(contestant, served, rows).read_bytes(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
        return dialect.answer(json.load(answer))


def body_file(contestant, served, rows):
    file = served.folder(contestant.name) / f"{rows}.json"
    if not file.exists():
        file.write_text(json.dumps(contestant.dialect.body(served.sample.head(rows))))
    return file


def load(address, path, file, callers, seconds):
    output, cpu = processes.with_cpu_seconds([LOAD, address, path, file, callers, seconds])
    told = json.loads(output)
    return told | {"client_us": cpu / max(told["per_second"] * seconds, 1) * 1e6}


# === beside them


def in_process(served):
    """The limit: the function in a loop, on one core."""
    frames = {rows: served.sample.head(rows) for rows in (1, 64, MANY_ROWS)}
    return {rows: timed_calls(served.function, frame) for rows, frame in frames.items()}


def timed_calls(function, frame):
    """Milliseconds of the median call within a second."""
    times, end = [], time.perf_counter() + min(SECONDS, 1.0)
    while (began := time.perf_counter()) < end or len(times) < 3:
        function(frame)
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1e3


def bare_start(served):
    """Seconds until an interpreter that does nothing else has the function."""
    program = "import cloudpickle, pandas, sys; cloudpickle.load(open(sys.argv[1], 'rb')); print(flush=True)"
    began = time.monotonic()
    with subprocess.Popen(
        [contestants.interpreter("bare"), "-c", program, served.pickle],
        stdout=subprocess.PIPE,
        env=served.surroundings,
    ) as process:
        process.stdout.readline()
        return time.monotonic() - began


def hello(folder):
    """What hyper answers with a constant: the ceiling of any service, and of the client."""
    log, body = folder / "hello.log", folder / "hello.json"
    body.write_text('{"data": [{"a": 0.5}]}')
    with processes.running([HELLO], os.environ.copy(), folder, log):
        line = processes.until(log.read_text, processes.START_SECONDS)
        address = line.strip().removeprefix("http://")
        return {callers: load(address, "/", body, callers, SECONDS) for callers in (1, 16, 64)}


# === all of them, in turn


def contest(served, taking_part, rounds, unavailable):
    """The figures of each contestant, one for each round, and those of what is beside them."""
    figures, beside = defaultdict(list), defaultdict(list)
    for number in range(rounds):
        beside["in_process"].append(in_process(served))
        beside["bare_start_s"].append(bare_start(served))
        for contestant in taking_part:
            if contestant.title in unavailable or not served.takes(contestant):
                continue
            try:
                figures[contestant.title].append(measure(contestant, served))
            except (Unavailable, urllib.error.HTTPError, subprocess.CalledProcessError) as why:
                unavailable[contestant.title] = str(why)
                print(f"  {contestant.title}: {why}", flush=True)
            except OSError as why:
                unavailable[contestant.title] = f"stopped answering: {why}"
                print(f"  {contestant.title}: stopped answering: {why}", flush=True)
        print(f"  round {number + 1} of {rounds} of `{served.name}` is done", file=sys.stderr, flush=True)
    return figures, beside


def installed(wanted, unavailable):
    """Those whose environment is there, ours first."""
    for name in wanted:
        try:
            contestants.install(name)
        except Unavailable as why:
            unavailable[name] = str(why)
            print(f"  {why}")
    return [
        one for one in contestants.ALL if one is OURS or one.name in wanted and one.name not in unavailable
    ]


def prepared(served, taking_part, unavailable):
    for one in taking_part:
        if one.name in unavailable or one is OURS:
            continue
        try:
            contestants.prepare(one, served)
        except Unavailable as why:
            unavailable[one.title] = str(why)
            print(f"  {why}")


def surroundings():
    """Our variables without those that set something for a contestant."""
    left_out = ("OMP_NUM_THREADS", "ENVELOPE_LOG", "PYTHONDONTWRITEBYTECODE")
    return {name: value for name, value in os.environ.items() if name not in left_out}


MODELS = ("sk", "cheap", "free")


def models(model, sample, folder):
    """`sk` and `cheap`, as makers of what is served: saving takes time."""

    def sk(rows):
        return model.predict(rows)

    def cheap(rows):
        return rows["a"] * 2 + rows["b"]

    one_row = [(1, 1), (1, 16), (1, 64)]
    two = sample[["f0", "f1"]].rename(columns={"f0": "a", "f1": "b"})
    return {
        "sk": lambda: Served("sk", sk, sample, folder, surroundings(), [*one_row, (MANY_ROWS, MANY_CALLERS)]),
        "cheap": lambda: Served(
            "cheap", cheap, two, folder, surroundings(), [(1, 1), (1, 64)], leaves_out=("ray", "cog")
        ),
    }


def bench_online(model, sample, folder, options):
    """Prints tables and goals; gives everything that was measured, for a file."""
    processes.adopt_orphans()
    unavailable, told = {}, {}
    contestants.install("bare")
    taking_part = installed(options.peers, unavailable)
    for name, make in models(model, sample, folder).items():
        if name in options.models:
            served = make()
            prepared(served, taking_part, unavailable)
            figures, beside = contest(served, taking_part, options.rounds, unavailable)
            told[name] = reports.contest(served, taking_part, figures, beside)
    if "free" in options.models:
        told["free"] = bench_overhead(sample, folder, options)
    told["unavailable"] = unavailable
    return told


def bench_overhead(sample, folder, options):
    """What the service itself costs: a function that gives a column back, against a constant."""

    def free(rows):
        return rows["a"]

    column = sample[["f0"]].rename(columns={"f0": "a"})
    served = Served("free", free, column, folder, surroundings(), [(1, 1), (1, 16), (1, 64)])
    constant, ours = [], []
    for _ in range(options.rounds):
        constant.append(hello(folder))
        ours.append(measure(OURS, served))
    return reports.overhead(constant, ours)
