"""Tries the clients that people have, unmodified, on services made by `envelope build`. A browser is one.

python tests/clients/run.py [--programs FOLDER] [CLIENT ...]

Each client is in an environment of its own, because their requirements contradict each other; each
file `test_CLIENT*.py` runs there. What is built and installed is kept in `target/clients`.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from network import alone  # noqa: E402

VENV = ROOT / ".venv" / "bin"
KEPT = ROOT / "target" / "clients"
REQUIREMENTS = ROOT / "requirements" / "clients"
CLIENTS = ["arrow", "triton", "tritongrpc", "grpc", "kserve", "mlflow", "sagemaker", "openapi", "page"]
# With what more than the others each service is started.
ENVELOPES = {"identity": [], "records": [], "score": [], "casts": ["--coerce", "mlflow"], "orders": []}


def is_newer(made, *makers):
    return made.exists() and all(made.stat().st_mtime >= maker.stat().st_mtime for maker in makers)


def environment(client):
    """The interpreter that has the client."""
    folder, requirements = KEPT / "environments" / client, REQUIREMENTS / f"{client}.txt"
    interpreter, done = folder / "bin" / "python", folder / "done"
    if not is_newer(done, requirements):
        subprocess.run(
            [VENV / "uv", "venv", "--quiet", "--clear", "--python", VENV / "python", folder], check=True
        )
        subprocess.run(
            [VENV / "uv", "pip", "install", "--quiet", "--python", interpreter, "-r", requirements],
            check=True,
        )
        done.touch()
    return interpreter


def executables(programs):
    """One executable for each envelope, by name."""
    store, saved = KEPT / "store", KEPT / "saved"
    settings = os.environ | {"ENVELOPE_URL": str(store)}
    if not is_newer(saved, HERE / "envelopes.py", HERE / "datatypes.py"):
        subprocess.run([VENV / "python", HERE / "envelopes.py"], env=settings, check=True)
        saved.touch()
    made = {}
    for name in ENVELOPES:
        made[name] = KEPT / f"serve-{name}"
        command = [programs / "envelope", "-q", "build", name, "--output", made[name]]
        subprocess.run(command, env=settings, check=True, stdout=subprocess.DEVNULL)
    return made


@contextlib.contextmanager
def served(name, executable):
    """The address of a running service, which is started as container platforms do it."""
    command = [executable, "serve", "--port", "0", "--workers", "1", *ENVELOPES[name]]
    log = KEPT / f"{name}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(command, stderr=errors)
    try:
        yield address(process, log)
    finally:
        process.terminate()
        process.wait(60)


def address(process, log):
    while process.poll() is None:
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        if found:
            return found.group()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
    raise SystemExit(f"the service did not start:\n{log.read_text()}")


def run(client, addresses, executable):
    """How many tests passed, or were skipped for want of a browser, in words; nothing when one failed."""
    print(f"=== {client}", flush=True)
    tests = [HERE / f"test_{client}.py", *sorted(HERE.glob(f"test_{client}_*.py"))]
    command = [environment(client), "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", *tests]
    if client == "page":
        command = alone(command)
    settings = os.environ | {f"{name.upper()}_URL": url for name, url in addresses.items()}
    settings |= {"ORDERS_PROGRAM": str(executable)}
    process = subprocess.run(command, cwd=HERE, env=settings, stdout=subprocess.PIPE, text=True, check=False)
    print(process.stdout, flush=True)
    outcome = re.search(r"\d+ (passed|skipped)", process.stdout)
    return outcome.group() if outcome and process.returncode == 0 else None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--programs", type=Path, default=ROOT / "target" / "release")
    parser.add_argument("clients", nargs="*", metavar="CLIENT", default=CLIENTS)
    arguments = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as services:
        made = executables(arguments.programs.resolve())
        # Whoever opens the page starts its service itself: nobody else can reach it there.
        others = [] if arguments.clients == ["page"] else [name for name in ENVELOPES if name != "orders"]
        addresses = {name: services.enter_context(served(name, made[name])) for name in others}
        outcomes = {client: run(client, addresses, made["orders"]) for client in arguments.clients}
    for client, outcome in outcomes.items():
        print(f"{client}: {outcome or 'FAILED'}")
    return 0 if all(outcomes.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
