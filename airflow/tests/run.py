"""Tries the operator in a real Airflow, whose servers see no network but loopback.

python airflow/tests/run.py [--programs FOLDER] [ARGUMENT OF PYTEST ...]

Airflow is in an environment of its own. What is installed and saved is kept in `target/airflow`.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from network import alone  # noqa: E402

VENV = ROOT / ".venv" / "bin"
KEPT = ROOT / "target" / "airflow"
REQUIREMENTS = ROOT / "requirements" / "airflow.txt"


def environment():
    """The interpreter that has Airflow, the provider and the package."""
    folder = KEPT / "environment"
    interpreter, done = folder / "bin" / "python", folder / "done"
    makers = (REQUIREMENTS, HERE.parent / "pyproject.toml")
    if done.exists() and all(done.stat().st_mtime >= maker.stat().st_mtime for maker in makers):
        return interpreter
    uv = [VENV / "uv", "--quiet"]
    install = [*uv, "pip", "install", "--python", interpreter]
    subprocess.run([*uv, "venv", "--clear", "--python", VENV / "python", folder], check=True)
    subprocess.run([*install, "-r", REQUIREMENTS], check=True)
    subprocess.run([*install, "--no-deps", "--editable", HERE.parent], check=True)
    # As `maturin develop` does it, which has built the package already.
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "model_envelope.pth").write_text(f"{ROOT / 'python'}\n")
    done.touch()
    return interpreter


def saved(settings):
    """Makes the envelopes and the table anew: the tests change tags."""
    for name in ("store", "tables"):
        shutil.rmtree(KEPT / name, ignore_errors=True)
    subprocess.run([VENV / "python", HERE / "envelopes.py", KEPT / "tables"], env=settings, check=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--programs", type=Path, default=ROOT / "target" / "release")
    arguments, more = parser.parse_known_args()
    settings = os.environ | {
        "ENVELOPE_CACHE_DIR": str(ROOT / "target" / "acceptance" / "cache"),
        "ENVELOPE_PROGRAM": str(arguments.programs.resolve() / "envelope"),
        "ENVELOPE_URL": str(KEPT / "store"),
        "TABLES": str(KEPT / "tables"),
    }
    interpreter = environment()
    subprocess.run([interpreter, "-m", "mypy"], cwd=HERE.parent, check=True)
    saved(settings)
    command = [interpreter, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", HERE, *more]
    # Airflow's log servers listen to all addresses.
    return subprocess.run(alone(command), cwd=HERE, env=settings, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
