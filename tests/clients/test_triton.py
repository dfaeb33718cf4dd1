"""Triton's client over REST: every datatype and shape, as JSON and as bytes, there and back."""

import asyncio
import os

import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from arrays import NUMPY, array
from tritonclient.utils import InferenceServerException

HOST = os.environ["IDENTITY_URL"].removeprefix("http://")


@pytest.fixture
def client():
    with triton.InferenceServerClient(HOST) as client:
        yield client


def tensor(name, values, binary, datatype=None):
    made = triton.InferInput(name, list(values.shape), datatype or name)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def tensors(shape, binary):
    return [tensor(datatype, array(datatype, shape), binary) for datatype in NUMPY]


def same(given, expected, datatype):
    assert given is not None, datatype
    if datatype == "BYTES":
        # As text where it came in JSON.
        given = np.array(
            [value.encode() if isinstance(value, str) else value for value in given.flat], np.object_
        ).reshape(given.shape)
    assert given.dtype == NUMPY[datatype], datatype
    np.testing.assert_array_equal(given, expected, err_msg=datatype)


def check(given, shape):
    for datatype in NUMPY:
        same(given.as_numpy(datatype), array(datatype, shape), datatype)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("asked", ["all", "binary", "json"])
@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(
    ("function", "shape"),
    [("columns", (0,)), ("columns", (1,)), ("columns", (6,)), ("matrices", (2, 3)), ("matrices", (0, 3))],
)
def test_every_datatype_comes_back(client, function, shape, binary, asked, compression):
    outputs = None
    if asked != "all":
        outputs = [triton.InferRequestedOutput(name, binary_data=asked == "binary") for name in NUMPY]
    given = client.infer(
        function,
        tensors(shape, binary),
        outputs=outputs,
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    check(given, shape)


@pytest.mark.parametrize("binary", [True, False])
def test_a_scalar_is_one_row(client, binary):
    given = client.infer("columns", tensors((), binary))
    for datatype in NUMPY:
        same(given.as_numpy(datatype), array(datatype, (1,)), datatype)


@pytest.mark.parametrize("binary", [True, False])
def test_what_is_no_number_is_read_and_given(client, binary):
    special = {name: np.array([np.nan, np.inf, -np.inf], NUMPY[name]) for name in ("FP16", "FP32", "FP64")}
    inputs = [tensor(name, special[name] if name in special else array(name, (3,)), binary) for name in NUMPY]
    outputs = [triton.InferRequestedOutput(name, binary_data=True) for name in special]
    given = client.infer("columns", inputs, outputs=outputs)
    for name, values in special.items():
        np.testing.assert_array_equal(given.as_numpy(name), values)
    # JSON cannot say it.
    outputs = [triton.InferRequestedOutput(name, binary_data=False) for name in special]
    given = client.infer("columns", inputs, outputs=outputs)
    assert all(np.isnan(given.as_numpy(name)[0]) for name in special)


def test_outputs_are_those_that_are_asked_for(client):
    outputs = [triton.InferRequestedOutput(name) for name in ("INT8", "BOOL")]
    given = client.infer("columns", tensors((2,), binary=True), outputs=outputs)
    assert [output["name"] for output in given.get_response()["outputs"]] == ["INT8", "BOOL"]


def test_an_id_comes_back_and_nothing_is_null(client):
    given = client.infer("columns", tensors((1,), binary=False), request_id="7é").get_response()
    assert given["id"] == "7é"
    assert None not in given.values()
    assert "id" not in client.infer("columns", tensors((1,), binary=False)).get_response()


def test_a_tensor_of_another_type_is_read_where_nothing_is_lost(client):
    inputs = tensors((2,), binary=True)
    wide = [name for name in NUMPY].index("INT64")
    inputs[wide] = tensor("INT64", np.array([1, 2], np.int8), True, "INT8")
    given = client.infer("columns", inputs)
    np.testing.assert_array_equal(given.as_numpy("INT64"), [1, 2])


def refused(call, status, *words):
    with pytest.raises(InferenceServerException) as raised:
        call()
    assert raised.value.status() == str(status), raised.value
    for word in words:
        assert word in raised.value.message()


def test_what_is_wrong_is_told(client):
    good = tensors((2,), binary=False)
    infer = client.infer
    refused(lambda: infer("columns", good[1:]), 400, "BOOL")
    refused(lambda: infer("columns", [*good, tensor("more", array("INT8", (2,)), True, "INT8")]), 400, "more")
    unknown = [triton.InferRequestedOutput("nowhere")]
    refused(lambda: infer("columns", good, outputs=unknown), 400, "nowhere")
    uneven = [tensor("BOOL", array("BOOL", (3,)), False), *good[1:]]
    refused(lambda: infer("columns", uneven), 400)
    text = [tensor("BOOL", array("BYTES", (2,)), False, "BYTES"), *good[1:]]
    refused(lambda: infer("columns", text), 400, "BOOL")
    refused(lambda: infer("nobody", good), 404, "columns")
    refused(lambda: infer("columns", good, model_version="77"), 404)


def test_what_there_is_is_described(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("columns")
    assert not client.is_model_ready("nobody")
    assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
    told = client.get_model_metadata("columns")
    assert [(each["name"], each["datatype"], each["shape"]) for each in told["inputs"]] == [
        (name, name, [-1]) for name in NUMPY
    ]
    told = client.get_model_metadata("matrices")
    assert {tuple(each["shape"]) for each in told["outputs"]} == {(-1, 3)}
    for version in told.get("versions", []):
        assert client.is_model_ready("columns", model_version=version)
    names = {each["name"] for each in client.get_model_repository_index()}
    assert {"columns", "matrices"} <= names


def test_what_is_not_there_is_refused_in_words_of_the_protocol(client):
    for ask in (
        lambda: client.get_model_metadata("nobody"),
        lambda: client.get_trace_settings(),
        lambda: client.get_cuda_shared_memory_status(),
    ):
        refused(ask, 404)


def test_the_asynchronous_client():
    async def ask():
        async with triton_aio.InferenceServerClient(HOST) as client:
            calls = [client.infer("columns", tensors((6,), binary)) for binary in (True, False)]
            return await asyncio.gather(*calls)

    for given in asyncio.run(ask()):
        check(given, (6,))
