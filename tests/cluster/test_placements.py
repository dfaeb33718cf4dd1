"""The same rows wherever the work is done, for several kinds of functions; all of them: `make placements`."""

from placements import compare

FEW = 20_000


def test_kinds_of_functions_give_the_same_bits_wherever_they_run(tmp_path):
    sums, _ = compare(["numpy", "sklearn", "loop"], ["plain", "local-2", "2x1"], FEW)
    for name, by_placement in sums.items():
        assert len(set(by_placement.values())) == 1, (name, by_placement)
        assert {rows for rows, _ in by_placement.values()} == {FEW // 50 if name == "loop" else FEW}
