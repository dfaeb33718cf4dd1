"""Row-wise is what was tested, not what was promised."""

import numpy as np
import pytest
import zoo

import model_envelope as me

SAMPLE = zoo.sample()


def certificate(save, function, sample=SAMPLE, **more):
    return next(iter(save(function, sample, **more).certificate.values()))


@pytest.mark.parametrize("kind", zoo.DEPENDENT)
def test_no_function_is_certified_whose_rows_depend_on_each_other(kind, save):
    try:
        found = certificate(save, zoo.DEPENDENT[kind])
    except me.NotServable as error:
        told = str(error)
    else:
        told = None
    if told:
        # What it gives depends on so much else that it is not even saved.
        assert "gives another output in a clean process" in told
        return
    assert not found["row_wise"], found
    assert found["equality"] == "none"
    assert found["reason"]


@pytest.mark.parametrize("kind", zoo.ROW_WISE)
def test_every_function_is_certified_whose_rows_depend_on_nothing_else(kind, save):
    found = certificate(save, zoo.ROW_WISE[kind])
    assert found["row_wise"], found["reason"]
    assert found["equality"] == "bitwise", found
    assert found["trials"] > 100
    assert "planned" not in found


@pytest.mark.parametrize("kind", zoo.DATED)
def test_no_function_of_days_and_texts_is_certified_whose_rows_depend_on_each_other(kind, save):
    found = certificate(save, zoo.DATED[kind], zoo.dated())
    assert not found["row_wise"], found


WEIGHTS = np.random.default_rng(3).normal(size=(12, 64)).astype("float32")


@pytest.mark.parametrize(
    "function",
    [
        lambda rows: {"score": (rows @ WEIGHTS)[:, 0], "vector": rows @ WEIGHTS},
        lambda rows: (rows @ WEIGHTS).reshape(len(rows), 8, 8),
        lambda rows: [{"of": {"first": float(row[0])}} for row in rows @ WEIGHTS],
    ],
)
def test_the_noise_of_floats_counts_as_little_within_arrays_and_structs(function, save):
    rows = np.random.default_rng(4).normal(size=(60, 12)).astype("float32")
    found = certificate(save, function, rows)
    assert found["row_wise"], found


def test_all_pixels_are_scaled_if_one_is_large(save):
    images = (np.random.default_rng(5).random((40, 8, 8)) * 255).astype("uint8")
    found = certificate(
        save, lambda rows: rows / 255.0 if rows.size and rows.max() > 1 else rows * 1.0, images
    )
    assert not found["row_wise"], found
