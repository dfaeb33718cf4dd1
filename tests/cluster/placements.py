"""Six kinds of functions wherever the work is done: one multiset of rows each, to the last bit.

`python placements.py`: `PLACEMENTS_ROWS` (10,000,000; the loop has 50 times fewer), `PLACEMENTS_KINDS`,
`PLACEMENTS` (`plain local-1 local-2 1x1 1x2 2x1 4x1`). Prints a line for each, and one of JSON at the end.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path

import deltalake
import kinds
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from support import HERE, KEPT, cluster, run

PLACEMENTS = {
    "plain": None,
    "local-1": ("--workers", "1"),
    "local-2": ("--workers", "2"),
    "1x1": (1,),
    "1x2": (2,),
    "2x1": (1, 1),
    "4x1": (1, 1, 1, 1),
}
"""Executors, each with its slots; or options of a job without a cluster."""

PART = 1_000_000
"""Rows of a file of the input."""

LOOP_SHARE = 50
"""A loop takes so many times as long for a row as the others, about."""


def made(names):
    """The folder with the functions, which are in the store, too, as long as what makes them is older."""
    folder = KEPT / "kinds"
    folder.mkdir(parents=True, exist_ok=True)
    newest = (HERE / "kinds.py").stat().st_mtime
    old = [name for name in names if not is_newer(folder / f"{name}.done", newest)]
    if old:
        subprocess.run([sys.executable, HERE / "kinds.py", folder, *old], check=True)
    for name in old:
        (folder / f"{name}.done").touch()
    return folder


def is_newer(path, time):
    return path.exists() and path.stat().st_mtime >= time


def write_table(folder, rows):
    folder.mkdir()
    for number, start in enumerate(range(0, rows, PART)):
        frame = kinds.features(min(PART, rows - start), 100 + number)
        frame.insert(0, "id", np.arange(start, start + len(frame)))
        pq.write_table(pa.Table.from_pandas(frame, preserve_index=False), folder / f"{number:03}.parquet")


def mixed(numbers):
    """Each bit of what is given depends on each bit of a number (the finish of splitmix64)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


def checksum(keys, values):
    """How many rows, and a sum over the hashes of key and bits of the value: the same in any order."""
    assert values.dtype == np.float64, values.dtype
    keys, bits = keys.astype(np.uint64), np.ascontiguousarray(values).view(np.uint64)
    return len(keys), int(mixed(mixed(keys + np.uint64(0x9E3779B97F4A7C15)) ^ bits).sum(dtype=np.uint64))


def checksum_of(output):
    """The same of a table, file by file."""
    rows = total = 0
    for path in deltalake.DeltaTable(output).file_uris():
        table = pq.read_table(path)
        counted, summed = checksum(table["id"].to_numpy(), table[1].to_numpy())
        rows, total = rows + counted, (total + summed) % 2**64
    return rows, total


def compare(names, placements, rows, say=lambda line: None):
    """Checksums and seconds by kind and placement. Every table is written, read back and removed."""
    sums, seconds = ({name: {} for name in names} for _ in range(2))
    folder = made(names)
    with tempfile.TemporaryDirectory() as scratch:
        tables = {name: Path(scratch) / ("few" if name == "loop" else "many") for name in names}
        for table in set(tables.values()):
            write_table(table, rows // LOOP_SHARE if table.name == "few" else rows)
        for placement in placements:
            how = PLACEMENTS[placement]
            with cluster(*how) if placement[0].isdigit() else nullcontext() as here:
                for name in names:
                    begun = time.monotonic()
                    if placement == "plain":
                        sums[name][placement] = plain(name, folder, tables[name])
                    else:
                        more = ("--cluster", here.url) if here else how
                        output = Path(scratch) / "out"
                        run(f"kind_{name}", tables[name], output, *more)
                        sums[name][placement] = checksum_of(output)
                        shutil.rmtree(output)
                    seconds[name][placement] = round(time.monotonic() - begun, 1)
                    say(f"{name:9} {placement:8} {sums[name][placement]} {seconds[name][placement]} s")
    return sums, seconds


def plain(name, folder, table):
    """In a process of its own, as another one would call the function."""
    code = f"import kinds, placements; from pathlib import Path; print(*placements.checksum(*kinds.call({name!r}, Path({str(folder)!r}), {str(table)!r})))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, check=True, text=True
    )
    return tuple(map(int, done.stdout.split()))


def main():
    os.environ["ENVELOPE_URL"] = str(KEPT / "store")
    os.environ["ENVELOPE_CACHE_DIR"] = str(KEPT / "cache")
    rows = int(os.environ.get("PLACEMENTS_ROWS") or "10_000_000")
    names = (os.environ.get("PLACEMENTS_KINDS") or " ".join(kinds.KINDS)).split()
    placements = (os.environ.get("PLACEMENTS") or " ".join(PLACEMENTS)).split()
    sums, seconds = compare(names, placements, rows, lambda line: print(line, file=sys.stderr, flush=True))
    differing = [name for name in names if len(set(sums[name].values())) > 1]
    print(json.dumps({"rows": rows, "sums": sums, "seconds": seconds, "differing": differing}))
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
