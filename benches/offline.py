"""The batch bench: every engine maps the same function over the same table, in turn.

What an engine runs is in `engines/NAME`: `requirements.txt`, for an environment of its own, and
`job.py`, which maps as the variables of `engines/mapped.py` say.
"""

import json
import os
import shutil
import statistics
import threading
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import cloudpickle
import contestants
import model_envelope as me
import numpy as np
import pandas as pd
import processes
import pyarrow as pa
import pyarrow.parquet as pq
from contestants import Unavailable
from lightgbm import LGBMRegressor
from models import NUMBERS, TEXTS, features
from reports import Rounds

ROOT = Path(__file__).resolve().parent.parent
ENGINES = ROOT / "benches/engines"
ENVIRONMENTS = ROOT / "target/bench/engines"
NAMES = ["pool", "polars", "datafusion", "duckdb", "daft", "dask", "pyspark", "raydata"]
OURS = "envelope batch"
ROWS = int(os.environ.get("BENCH_ROWS", "2000000"))
FILES = 16
CORES = len(os.sched_getaffinity(0))
PIECE_ROWS = 65_536
LONGEST_SECONDS = float(os.environ.get("BENCH_LONGEST_SECONDS", "1800"))
LOOK_SECONDS = 0.1
SCALES = [int(text) for text in os.environ.get("BENCH_SCALES", "1000000 10000000").split()]


# === what is mapped


@dataclass
class Mapped:
    """One function, and the columns that it reads."""

    name: str
    function: object
    columns: list
    place: Path
    files: int = FILES
    """A slow function gets fewer."""
    reference: str = field(init=False)

    def __post_init__(self):
        self.reference = f"batch_{self.name}"
        self.pickle.write_bytes(cloudpickle.dumps(self.function))
        me.save_model(self.function, name=self.reference, api_input=features(1000, 0)[self.columns])

    @property
    def pickle(self):
        return self.place / f"{self.name}.pkl"

    @property
    def table(self):
        return self.place / f"table-{self.files}"

    @property
    def rows(self):
        return ROWS // FILES * self.files


def models(model, sample, folder):
    def sk(rows):
        return model.predict(rows)

    booster = LGBMRegressor(n_estimators=100, n_jobs=1, verbose=-1).fit(sample[NUMBERS], sample["f0"])

    def lightgbm(rows):
        return booster.predict(rows)

    def cheap(rows):
        return rows["f0"] * 2 + rows["f1"]

    def loop(rows):
        return [first * 2 + second for first, second in zip(rows["f0"], rows["f1"], strict=True)]

    return {
        "sk": lambda: Mapped("sk", sk, NUMBERS + TEXTS, folder),
        "lightgbm": lambda: Mapped("lightgbm", lightgbm, NUMBERS, folder),
        "cheap": lambda: Mapped("cheap", cheap, ["f0", "f1"], folder),
        "loop": lambda: Mapped("loop", loop, ["f0", "f1"], folder, FILES // 4),
    }


MODELS = ("sk", "lightgbm", "cheap", "loop")


def make_table(folder):
    """The whole table, and a quarter of it, which has the same files."""
    whole, part = folder / f"table-{FILES}", folder / f"table-{FILES // 4}"
    whole.mkdir()
    part.mkdir()
    for number in range(FILES):
        write_file(whole / f"{number:02}.parquet", ROWS // FILES, number)
    for file in sorted(whole.iterdir())[: FILES // 4]:
        os.link(file, part / file.name)


def write_file(path, rows, number):
    frame = features(rows, number)
    frame.insert(0, "id", np.arange(number * rows, (number + 1) * rows))
    frame["day"] = pd.Timestamp("2026-01-01") + pd.to_timedelta(np.arange(rows) % 365, "D")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    pq.write_table(table.set_column(table.num_columns - 1, "day", table["day"].cast(pa.date32())), path)


# === one engine, one round


def measure(engine, mapped, out):
    """Seconds of the job and of the whole process, and the most memory of all its processes."""
    shutil.rmtree(out, ignore_errors=True)
    command, variables = ours(mapped, out) if engine == OURS else peer(engine, mapped, out)
    log = mapped.place / "log"
    began = time.monotonic()
    with processes.running(command, variables, mapped.place, log) as tree:
        with Watched(tree) as memory:
            if not processes.until(tree.has_ended, LONGEST_SECONDS, 0.01):
                raise Unavailable(f"did not end in {LONGEST_SECONDS} s")
            whole = time.monotonic() - began
    if tree.first.returncode != 0:
        raise Unavailable(f"failed: {processes.last_line(log)}")
    figures = {"job_s": job_seconds(log, whole), "whole_s": whole}
    return figures | {"rss_mb": memory.rss, "pss_mb": memory.pss}


def ours(mapped, out):
    places = ["--input", mapped.table, "--output", out]
    command = [contestants.ENVELOPE, "batch", mapped.reference, *places]
    return [*command, "--keep", "id", "--format", "parquet", "-q", "--json"], os.environ.copy()


def peer(engine, mapped, out):
    variables = {
        "READ_COLUMNS": ",".join(mapped.columns),
        "INPUT": str(mapped.table),
        "MODEL": str(mapped.pickle),
        "OMP_NUM_THREADS": "1",
        "OUTPUT": str(out),
        "PYTHONPATH": str(ENGINES),
    }
    interpreter = ENVIRONMENTS / engine / "bin/python"
    return [interpreter, ENGINES / engine / "job.py"], os.environ | contestants.QUIET | variables


def job_seconds(log, whole):
    """As the engine tells: without imports, the load of the model and its own start; ours is over when its workers
    are ready."""
    text = log.read_text(errors="replace")
    if text.startswith("{\n"):
        return whole - json.loads(text)["start_seconds"]
    for line in text.splitlines():
        if line.startswith('{"job_s"'):
            return json.loads(line)["job_s"]
    return whole


class Watched:
    """The most memory that a tree of processes has at one time, in megabytes."""

    def __init__(self, tree):
        self.tree, self.rss, self.pss = tree, 0.0, 0.0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.watch)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()

    def watch(self):
        while not self.over.wait(LOOK_SECONDS):
            pss, rss = self.tree.memory()
            self.rss, self.pss = max(self.rss, rss), max(self.pss, pss)


# === beside them


def limit(mapped):
    """The function alone on data in memory, and Parquet alone, on all cores as if they shared evenly."""
    path = sorted(mapped.table.iterdir())[0]
    frame = pq.read_table(path, columns=mapped.columns).to_pandas()
    began = time.monotonic()
    for start in range(0, len(frame), PIECE_ROWS):
        mapped.function(frame.iloc[start : start + PIECE_ROWS])
    function = time.monotonic() - began
    began = time.monotonic()
    table = pq.read_table(path, columns=["id", *mapped.columns], use_threads=False)
    numbers = pa.table({"id": table["id"], "prediction": frame["f0"].to_numpy()})
    pq.write_table(numbers, mapped.place / "limit.parquet", compression="zstd")
    return (function + time.monotonic() - began) * mapped.files / CORES


def check(mapped, engine, out):
    """Every row once, and what the function gives for it."""
    found = pq.read_table(out, columns=["id", "prediction"]).to_pandas().sort_values("id", ignore_index=True)
    if len(found) != mapped.rows or not (found["id"].to_numpy() == np.arange(mapped.rows)).all():
        raise Unavailable("does not give every row once")
    first = pq.read_table(sorted(mapped.table.iterdir())[0]).slice(0, 1000).to_pandas()
    if not np.allclose(found["prediction"].head(1000), mapped.function(first[mapped.columns])):
        raise Unavailable("gives something else")


# === all of them, in turn


def installed(wanted):
    taking_part = []
    for name in wanted:
        try:
            contestants.install(name, ENGINES, ENVIRONMENTS)
            taking_part.append(name)
        except Unavailable as why:
            print(f"  {why}")
    return taking_part


def contest(mapped, engines, rounds):
    out = mapped.place / "out"
    figures, limits, failed = defaultdict(list), [], set()
    for number in range(rounds):
        limits.append(limit(mapped))
        for engine in [OURS, *engines]:
            if engine in failed:
                continue
            try:
                figures[engine].append(measure(engine, mapped, out))
                if number == 0:
                    check(mapped, engine, out)
            except Unavailable as why:
                failed.add(engine)
                print(f"  {engine}: {why}", flush=True)
    shutil.rmtree(out, ignore_errors=True)
    ranked = {engine: rows for engine, rows in figures.items() if engine not in failed}
    return tell(mapped, ranked, limits)


def tell(mapped, figures, limits):
    print(f"\n  `{mapped.name}`, {mapped.rows:,} rows; median (least–most)")
    print(f"    {'limit':18} {Rounds(limits).shown('.2f')} s")
    for engine, rounds in figures.items():
        job, whole, rss, pss = (
            Rounds([each[key] for each in rounds]) for key in ("job_s", "whole_s", "rss_mb", "pss_mb")
        )
        against = statistics.median(
            each["job_s"] / beside for each, beside in zip(rounds, limits, strict=True)
        )
        print(
            f"    {engine:18} job {job.shown('.2f'):>22} s ×{against:5.2f} of the limit   "
            f"whole {whole.median:6.2f} s   {rss.median:5.0f} MB RSS {pss.median:5.0f} MB PSS",
            flush=True,
        )
    return {"limit_s": limits, "engines": figures}


def bench_offline(model, sample, folder, options):
    processes.adopt_orphans()
    make_table(folder)
    engines = installed(options.engines)
    makers = models(model, sample, folder)
    return {name: contest(makers[name](), engines, options.rounds) for name in options.maps}


# === the same job over more rows


def bench_scale(folder):
    """That time grows with the rows, and memory does not."""
    processes.adopt_orphans()
    file = folder / "million.parquet"
    write_file(file, 1_000_000, 0)

    def cheap(rows):
        return rows["f0"] * 2 + rows["f1"]

    mapped = Mapped("scale", cheap, ["f0", "f1"], folder)
    for rows in SCALES:
        shutil.rmtree(mapped.table, ignore_errors=True)
        mapped.table.mkdir()
        # The same million over and over: what is measured does not depend on the values.
        for number in range(rows // 1_000_000):
            os.link(file, mapped.table / f"{number:03}.parquet")
        figures = measure(OURS, mapped, folder / "out")
        written = sum(pq.read_metadata(part).num_rows for part in (folder / "out").glob("*.parquet"))
        if written != rows:
            raise Unavailable(f"{written} rows instead of {rows}")
        print(
            f"  {rows:12,} rows  {figures['whole_s']:7.2f} s  {figures['whole_s'] / rows * 1e9:6.1f} ns a row  "
            f"{figures['rss_mb']:5.0f} MB RSS {figures['pss_mb']:5.0f} MB PSS",
            flush=True,
        )
    shutil.rmtree(folder / "out")
