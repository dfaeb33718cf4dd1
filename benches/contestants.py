"""Who takes part in the online bench: how each is installed, started and spoken to.

What a peer serves with is in `peers/NAME`: `requirements.txt`, for an environment of its own, and
`server.py`, which serves on the loopback address as the variables of `peers/served.py` say. A
`prepare.py` runs before it, once for each model.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "benches/peers"
ENVIRONMENTS = ROOT / "target/bench/peers"
ENVELOPE = ROOT / "target/release/envelope"
QUIET = {
    "BENTOML_DO_NOT_TRACK": "True",
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Nobody reports to its maker that it was measured."""


class Kind(Enum):
    OURS = "ours"
    HAND = "by hand"
    PRODUCT = "product"


# === bodies


def records(frame):
    return {"data": frame.to_dict("records")}


def split(frame):
    return {"dataframe_split": {"columns": list(frame), "data": frame.to_numpy(object).tolist()}}


def tensors(frame):
    """The Open Inference Protocol: one tensor for each column."""
    return {"inputs": [tensor(name, column) for name, column in frame.items()]}


def tensor(name, column):
    text = column.dtype.kind not in "fi"
    described = {"datatype": "BYTES", "parameters": {"content_type": "str"}} if text else {"datatype": "FP64"}
    return {"name": name, "shape": [len(column), 1], "data": column.tolist()} | described


def text_of_records(frame):
    return {"input": {"data": json.dumps(frame.to_dict("records"))}}


@dataclass(frozen=True)
class Dialect:
    path: str
    body: Callable
    """A frame as what is sent, before JSON."""
    answer: Callable
    """What came back, after JSON, as one number per row."""


PLAIN = Dialect("/predict", records, lambda body: body["predictions"])
BENTO = Dialect("/predict", records, lambda body: body)
MLFLOW = Dialect("/invocations", split, lambda body: body["predictions"])
INFERENCE = Dialect("/v2/models/model/infer", tensors, lambda body: body["outputs"][0]["data"])
COG = Dialect("/predictions", text_of_records, lambda body: body["output"])


# === the list


@dataclass(frozen=True)
class Contestant:
    name: str
    """Of the folder below `peers`."""
    label: str
    kind: Kind
    workers: int
    batching: bool = False
    dialect: Dialect = PLAIN

    @property
    def title(self):
        workers = f"{self.workers} worker{'s' if self.workers > 1 else ''}"
        return f"{self.label}{', batching' if self.batching else ''}, {workers}"


OURS = Contestant("envelope", "envelope serve", Kind.OURS, 2)
ALL = [
    OURS,
    Contestant("microbatch", "FastAPI, micro-batcher", Kind.HAND, 1),
    Contestant("fastapi", "FastAPI", Kind.HAND, 1),
    Contestant("fastapi", "FastAPI", Kind.HAND, 2),
    Contestant("litserve", "LitServe", Kind.PRODUCT, 1),
    Contestant("litserve", "LitServe", Kind.PRODUCT, 1, True),
    Contestant("litserve", "LitServe", Kind.PRODUCT, 2, True),
    Contestant("mlserver", "MLServer", Kind.PRODUCT, 1, False, INFERENCE),
    Contestant("mlserver", "MLServer", Kind.PRODUCT, 1, True, INFERENCE),
    Contestant("mlserver", "MLServer", Kind.PRODUCT, 2, True, INFERENCE),
    Contestant("bentoml", "BentoML", Kind.PRODUCT, 2, False, BENTO),
    Contestant("bentoml", "BentoML", Kind.PRODUCT, 2, True, BENTO),
    Contestant("mlflow", "MLflow", Kind.PRODUCT, 1, False, MLFLOW),
    Contestant("ray", "Ray Serve", Kind.PRODUCT, 1, True),
    Contestant("cog", "Cog", Kind.PRODUCT, 1, False, COG),
]
NAMES = list(dict.fromkeys(contestant.name for contestant in ALL if contestant is not OURS))


# === environments


class Unavailable(Exception):
    """A contestant that cannot take part, and why."""


def interpreter(name):
    return ENVIRONMENTS / name / "bin/python"


def install(name, peers=PEERS, environments=ENVIRONMENTS):
    """An environment with what the peer requires, unless there is one.

    With bytecode, as after a first start: some machines forbid that imports write it.
    """
    requirements, folder = peers / name / "requirements.txt", environments / name
    done = folder / "done"
    if done.exists() and done.stat().st_mtime >= requirements.stat().st_mtime:
        return
    uv = Path(sys.executable).with_name("uv")
    tell(name, [uv, "venv", "--quiet", "--clear", "--python", sys.executable, folder])
    packages = ["--compile-bytecode", "--python", folder / "bin/python", "-r", requirements]
    tell(name, [uv, "pip", "install", "--quiet", *packages])
    done.touch()


def tell(name, command, **settings):
    ended = subprocess.run(
        list(map(str, command)), stderr=subprocess.PIPE, text=True, check=False, **settings
    )
    if ended.returncode != 0:
        lines = ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"]
        raise Unavailable(f"{name} is not installed: {lines[-1].strip()}")


# === what is run


def command(contestant, port, served):
    if contestant.kind is Kind.OURS:
        return [ENVELOPE, "serve", served.reference, "--port", str(port)]
    return [interpreter(contestant.name), PEERS / contestant.name / "server.py"]


def variables(contestant, port, served):
    """Ours gets none: what it starts with is what its user gets who configures nothing."""
    if contestant.kind is Kind.OURS:
        return {}
    return QUIET | {
        "BATCHING": "yes" if contestant.batching else "no",
        "FOLDER": str(served.folder(contestant.name)),
        "MODEL": str(served.pickle),
        "OMP_NUM_THREADS": "1",
        "PORT": str(port),
        "PYTHONPATH": str(PEERS),
        "WORKERS": str(contestant.workers),
    }


def prepare(contestant, served):
    """Runs the peer's `prepare.py`, if it has one that did not run yet for this model."""
    program, folder = PEERS / contestant.name / "prepare.py", served.folder(contestant.name)
    if program.exists() and not any(folder.iterdir()):
        settings = {**served.surroundings, **variables(contestant, 0, served)}
        tell(contestant.name, [interpreter(contestant.name), program], env=settings, cwd=folder)
