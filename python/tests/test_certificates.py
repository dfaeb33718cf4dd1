"""Row-wise is what was tested, not what was promised."""

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
