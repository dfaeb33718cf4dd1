"""Tensors come back with their type and shape; only the values are carried."""

import pytest
from exactly import look
from test_inputs import output_of_proof

import model_envelope as me

torch = pytest.importorskip("torch")

TENSORS = {
    "vector": torch.tensor([1.5, float("nan"), -0.0]),
    "matrix": torch.arange(6).reshape(2, 3),
    "cube": torch.rand(2, 3, 4, dtype=torch.float64),
    "bits": torch.tensor([[[True, False]]]),
    "bytes": torch.ones(2, 2, 2, 2, dtype=torch.uint8),
    "halves": torch.ones(3, dtype=torch.float16),
    "point": torch.tensor(7),
    "turned": torch.rand(3, 2).T,
    "columns": {"a": torch.ones(2, 3), "b": [1, 2]},
}


def shown(value):
    """As `look` does it, but a tensor as its type, shape and values."""
    if isinstance(value, dict):
        return {key: shown(item) for key, item in value.items()}
    return f"{value.dtype} {tuple(value.shape)} {value.tolist()}" if hasattr(value, "tolist") else look(value)


@pytest.mark.parametrize("kind", TENSORS)
def test_tensors_come_back(kind):
    conversions = me._native.conversions()
    rows, batch = conversions.describe(TENSORS[kind], "x")
    back = conversions.decode(batch, rows)
    assert type(back) is type(TENSORS[kind])
    assert shown(back) == shown(TENSORS[kind])
    if kind != "columns":
        assert conversions.encode(back, rows, "x").difference(batch) is None


def test_a_gradient_is_not_given_over():
    conversions = me._native.conversions()
    weights = torch.ones(2, requires_grad=True)
    with pytest.raises(conversions.Unsupported, match=r"use `\.detach\(\)`"):
        conversions.describe(weights, "x")
    rows, batch = conversions.describe(weights * 2, "prediction", output=True)
    assert not conversions.decode(batch, rows).requires_grad


@pytest.mark.parametrize(
    ("tensor", "hint"),
    [
        (torch.ones(2, dtype=torch.bfloat16), "use `.float()`"),
        (torch.ones(2, dtype=torch.complex64), "use `.float()`"),
        (torch.ones(2, 2).to_sparse(), "use `.to_dense()`"),
        (torch.ones(2, device="meta"), "use `.cpu()`"),
    ],
)
def test_tensors_without_a_counterpart_are_refused(tensor, hint):
    conversions = me._native.conversions()
    with pytest.raises(conversions.Unsupported) as refused:
        conversions.describe(tensor, "x")
    assert hint in str(refused.value)


def test_a_worker_takes_and_gives_tensors(save):
    layer = torch.nn.Linear(3, 2)
    envelope = save(lambda rows: layer(rows), torch.rand(8, 3))
    shape = envelope.manifest["functions"][0]["signature"]["output"]["shape"]
    assert shape == "torch.matrix"
    assert output_of_proof(envelope).shape == (8, 2)
    assert envelope.predict(torch.zeros(1, 3)).tolist() == [pytest.approx(layer.bias.tolist())]
