"""Runs every suite, prints how many tests each ran, and fails if one failed or ran nothing.

python tests/run_all.py [rust] [python] [clusters] [buckets]
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv" / "bin"
FEATURES = ["--features", "cli/cluster"]
"""What `make test` builds the programs with: other ones would compile DataFusion once more."""
CRATES = ["envelope-format", "registry", "runtime", "server", "batch", "cli", "acceptance"]


def rust():
    """`cargo nextest` where it is installed, `cargo test` otherwise; doc examples always by the latter."""
    packages = [*(part for crate in CRATES for part in ("-p", crate)), *FEATURES]
    if subprocess.run(["cargo", "nextest", "--version"], capture_output=True, check=False).returncode == 0:
        main = [
            "cargo",
            "nextest",
            "run",
            "--release",
            "--no-fail-fast",
            "--retries=1",
            "--status-level=fail",
            *packages,
        ]
        yield "Rust", main, r"Summary .*?(\d+) tests? run: (\d+) passed"
        yield (
            "Rust examples",
            ["cargo", "test", "--release", "--quiet", "--doc", *packages],
            r"test result: .*? (\d+) passed",
        )
    else:
        yield (
            "Rust",
            ["cargo", "test", "--release", "--no-fail-fast", *packages],
            r"test result: .*? (\d+) passed",
        )


def python():
    # As Rust's: a test that fails once and not twice is named, not hidden.
    command = [VENV / "pytest", "-q", "-n", "auto", "--reruns=1", "-rR", "tests"]
    yield "Python", command, r"(\d+) passed"


def clusters():
    """Schedulers and executors as processes. Side by side: mostly these tests wait for something to be noticed."""
    side_by_side = ["-n", "3", "--dist=worksteal"]
    command = [VENV / "pytest", "-q", *side_by_side, "--reruns=1", "-rR", "tests/cluster"]
    yield "Clusters", command, r"(\d+) passed"


def buckets():
    """Of the servers that speak S3, those that are installed: `make s3-test` installs all."""
    yield "Buckets", [VENV / "pytest", "-q", "--reruns=1", "-rsR", "tests/s3"], r"(\d+) passed"


def run(name, command, pattern):
    """How many tests passed; 0 when the suite failed."""
    print(f"=== {name}", flush=True)
    where = ROOT / "python" if name == "Python" else ROOT
    process = subprocess.Popen(
        command, cwd=where, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    passed = 0
    for line in process.stdout:
        print(line, end="", flush=True)
        found = re.search(pattern, re.sub(r"\x1b\[[0-9;]*m", "", line))
        passed += int(found.group(found.re.groups)) if found else 0
    return passed if process.wait() == 0 else -1


def main(chosen):
    os.environ.setdefault("PYO3_NO_PYTHON", "1")
    suites = [
        suite for make in (rust, python, clusters, buckets) if make.__name__ in chosen for suite in make()
    ]
    counts = {name: run(name, command, pattern) for name, command, pattern in suites}
    print("\n=== Summary")
    for name, count in counts.items():
        print(f"{name}: {'FAILED' if count < 0 else count}{' (ran nothing)' if count == 0 else ''}")
    failed = sum(1 for count in counts.values() if count <= 0)
    print(f"{sum(max(count, 0) for count in counts.values())} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["rust", "python", "clusters", "buckets"]))
