"""What a frame into a function and its result back cost: the general conversions, the prepared ones, and
the least that pandas' own parts, put together by hand for just this frame, can be had for.

Ten columns (5 float64, 3 int64, 2 text) in, a series of float64 back. Microseconds, least and median.
"""

import importlib
import statistics
import sys
import time

import numpy as np
import pandas as pd
import pyarrow as pa
from model_envelope import _native

ROWS = (1, 64, 65_536)
ROUNDS, SECONDS = 15, 0.04
general = _native.conversions()
prepared = importlib.import_module("_envelope_prepared")  # made by the line before


def sample(rows):
    frame = {f"f{i}": np.arange(rows) / (i + 3) for i in range(5)}
    frame |= {f"i{i}": np.arange(rows) * (i + 1) for i in range(3)}
    frame |= {f"s{i}": pd.Series([f"text {n % 1000}" for n in range(rows)], dtype="str") for i in range(2)}
    return pd.DataFrame(frame)


def cheapest(frame):
    """A frame of the parts of `frame`, and bytes of a series; nothing is checked."""
    manager, labels = type(frame._mgr), frame.columns
    numbers = [block for block in frame._mgr.blocks if isinstance(block.values, np.ndarray)]
    texts = [block for block in frame._mgr.blocks if not isinstance(block.values, np.ndarray)]
    (float_type, floats, at_floats), (int_type, ints, at_ints) = (
        (type(block), block.values, block.mgr_locs) for block in numbers
    )
    (text_type, one, at_one), (_, other, at_other) = (
        (type(block), block.values, block.mgr_locs) for block in texts
    )
    first, second = one._pa_array.chunk(0), other._pa_array.chunk(0)
    take, chunked, rows = pa.Array._import_from_c_capsule, pa.chunked_array, len(frame)

    def decode():
        blocks = (
            float_type(floats.copy(), at_floats, 2),
            int_type(ints.copy(), at_ints, 2),
            text_type(one._from_pyarrow_array(chunked([take(*first.__arrow_c_array__())])), at_one, 2),
            text_type(other._from_pyarrow_array(chunked([take(*second.__arrow_c_array__())])), at_other, 2),
        )
        axes = [labels, pd.RangeIndex._simple_new(range(rows))]
        return pd.DataFrame._from_mgr(manager(blocks, axes, False), axes)

    return decode, lambda series: series.to_numpy().tobytes()


def microseconds(work):
    """The least and the median of rounds, each long enough to be timed."""
    began = time.perf_counter()
    work()
    times = max(1, int(SECONDS / (time.perf_counter() - began + 1e-7)))
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            work()
        found.append((time.perf_counter() - began) / times * 1e6)
    return min(found), statistics.median(found)


def bench(rows):
    frame = sample(rows)
    described, batch = general.describe(frame, "x")
    result = frame["f0"] * 2
    back, _ = general.describe(result, "prediction", output=True)
    decode, _, encode = prepared.prepare(len, described, back, "prediction")
    hand_decode, hand_encode = cheapest(frame)
    pd.testing.assert_frame_equal(decode(batch), general.decode(batch, described))
    pd.testing.assert_frame_equal(decode(batch), hand_decode())
    ways = {
        "general": (
            lambda: general.decode(batch, described),
            lambda: general.encode(result, back, "prediction"),
        ),
        "prepared": (lambda: decode(batch), lambda: encode(result)),
        "by hand": (hand_decode, lambda: hand_encode(result)),
    }
    least = {}
    for label, (there, back_again) in ways.items():

        def both(there=there, back_again=back_again):
            there()
            back_again()

        found = [microseconds(work) for work in (there, back_again, both)]
        least[label] = found[2]
        shown = "".join(f"{low:11.1f} {middle:9.1f}" for low, middle in found)
        print(f"{rows:7} {label:9}{shown}")
    ratio = [one / other for one, other in zip(least["prepared"], least["by hand"], strict=True)]
    print(
        f"{'':7} prepared / by hand, both ways: ×{ratio[0]:.2f} of the least, ×{ratio[1]:.2f} of the median"
    )


if __name__ == "__main__":
    print(
        f"Python {sys.version.split()[0]}, pandas {pd.__version__}, pyarrow {pa.__version__}; µs, least median"
    )
    print(f"{'rows':>7} {'way':9}{'batch → frame':>21}{'series → batch':>21}{'both':>21}")
    for rows in ROWS:
        bench(rows)
