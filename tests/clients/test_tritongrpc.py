"""Triton's client over gRPC: every datatype and shape, there and back."""

import asyncio
import os
import queue

import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from arrays import NUMPY, array
from tritonclient.utils import InferenceServerException

HOST = os.environ["IDENTITY_URL"].removeprefix("http://")


@pytest.fixture
def client():
    with triton.InferenceServerClient(HOST) as client:
        yield client


def tensor(name, values, datatype=None):
    made = triton.InferInput(name, list(values.shape), datatype or name)
    made.set_data_from_numpy(values)
    return made


def tensors(shape):
    return [tensor(datatype, array(datatype, shape)) for datatype in NUMPY]


def check(given, shape, names=tuple(NUMPY)):
    for datatype in names:
        values = given.as_numpy(datatype)
        assert values.dtype == NUMPY[datatype], datatype
        np.testing.assert_array_equal(values, array(datatype, shape), err_msg=datatype)


@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize(
    ("function", "shape"),
    [("columns", (0,)), ("columns", (1,)), ("columns", (6,)), ("matrices", (2, 3)), ("matrices", (0, 3))],
)
def test_every_datatype_comes_back(client, function, shape, compression):
    check(client.infer(function, tensors(shape), compression_algorithm=compression), shape)


def test_what_is_no_number_comes_back(client):
    special = {name: np.array([np.nan, np.inf, -np.inf], NUMPY[name]) for name in ("FP16", "FP32", "FP64")}
    inputs = [tensor(name, special.get(name, array(name, (3,)))) for name in NUMPY]
    given = client.infer("columns", inputs)
    for name, values in special.items():
        np.testing.assert_array_equal(given.as_numpy(name), values)


def test_outputs_are_those_that_are_asked_for(client):
    names = ["INT8", "BOOL"]
    outputs = [triton.InferRequestedOutput(name) for name in names]
    given = client.infer("columns", tensors((2,)), outputs=outputs, request_id="7é")
    assert [output.name for output in given.get_response().outputs] == names
    assert given.get_response().id == "7é"
    check(given, (2,), names)


def test_calls_at_once_over_one_connection(client):
    done = queue.Queue()
    for _ in range(50):
        client.async_infer("columns", tensors((6,)), lambda result, error: done.put((result, error)))
    for _ in range(50):
        result, error = done.get(timeout=20)
        assert error is None
        check(result, (6,))


def test_parameters_and_timeouts_are_taken(client):
    given = client.infer(
        "columns",
        tensors((1,)),
        parameters={"k": 1, "name": "x"},
        client_timeout=20,
        priority=1,
        timeout=10**7,
    )
    check(given, (1,))


def refused(call, code, *words):
    with pytest.raises(InferenceServerException) as raised:
        call()
    assert raised.value.status() == f"StatusCode.{code}", raised.value
    for word in words:
        assert word in raised.value.message()


def test_what_is_wrong_is_told(client):
    good = tensors((2,))
    infer = client.infer
    refused(lambda: infer("columns", good[1:]), "INVALID_ARGUMENT", "BOOL")
    more = [*good, tensor("more", array("INT8", (2,)), "INT8")]
    refused(lambda: infer("columns", more), "INVALID_ARGUMENT", "more")
    unknown = [triton.InferRequestedOutput("nowhere")]
    refused(lambda: infer("columns", good, outputs=unknown), "INVALID_ARGUMENT", "nowhere")
    uneven = [tensor("BOOL", array("BOOL", (3,))), *good[1:]]
    refused(lambda: infer("columns", uneven), "INVALID_ARGUMENT")
    text = [tensor("BOOL", array("BYTES", (2,)), "BYTES"), *good[1:]]
    refused(lambda: infer("columns", text), "INVALID_ARGUMENT", "BOOL")
    refused(lambda: infer("nobody", good), "NOT_FOUND", "columns")
    refused(lambda: infer("columns", good, model_version="77"), "NOT_FOUND")
    refused(lambda: client.get_model_config("columns"), "UNIMPLEMENTED")


def test_what_there_is_is_described(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("columns")
    assert client.is_model_ready("columns", model_version="1")
    refused(lambda: client.is_model_ready("nobody"), "NOT_FOUND")
    assert "binary_tensor_data" in client.get_server_metadata().extensions
    told = client.get_model_metadata("columns")
    assert [(each.name, each.datatype, list(each.shape)) for each in told.inputs] == [
        (name, name, [-1]) for name in NUMPY
    ]
    told = client.get_model_metadata("matrices")
    assert {tuple(each.shape) for each in told.outputs} == {(-1, 3)}
    names = {each.name for each in client.get_model_repository_index().models}
    assert {"columns", "matrices"} <= names


def test_the_asynchronous_client():
    async def ask():
        async with triton_aio.InferenceServerClient(HOST) as client:
            calls = [client.infer("columns", tensors((6,))) for _ in range(20)]
            return await asyncio.gather(*calls)

    for given in asyncio.run(ask()):
        check(given, (6,))
