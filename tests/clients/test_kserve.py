"""KServe's client over REST: its first protocol and its second."""

import asyncio
import os

import httpx
import numpy as np
import pytest
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest, RESTConfig

URL = os.environ["SCORE_URL"]


def ask(protocol, call):
    async def run():
        client = InferenceRESTClient(RESTConfig(protocol=protocol, timeout=60))
        return await call(client)

    return asyncio.run(run())


def inputs(binary):
    made = []
    for name, values in (("a", [1.0, 2.0]), ("b", [0.5, np.nan])):
        tensor = InferInput(name, [2], "FP64")
        tensor.set_data_from_numpy(np.array(values), binary_data=binary)
        made.append(tensor)
    return made


@pytest.mark.parametrize("binary", [True, False])
def test_tensors(binary):
    request = InferRequest("score", inputs(binary), request_id="7")
    given = ask("v2", lambda client: client.infer(URL, request, model_name="score"))
    assert given.id == "7"
    values = given.outputs[0].as_numpy()
    assert values[0] == 2.5
    assert np.isnan(values[1])


def test_health():
    for call in ("is_server_live", "is_server_ready"):
        assert ask("v2", lambda client, call=call: getattr(client, call)(URL)) is True
    assert ask("v2", lambda client: client.is_model_ready(URL, "score")) is True
    assert ask("v2", lambda client: client.is_model_ready(URL, "nobody")) is False
    assert ask("v1", lambda client: client.is_model_ready(URL, "score")) is True


@pytest.mark.parametrize(
    "instances",
    [[{"a": 1.0, "b": 0.5}, {"b": 0.0, "a": 2.0}], [[1.0, 0.5], [2.0, 0.0]]],
)
def test_instances(instances):
    given = ask("v1", lambda client: client.infer(URL, {"instances": instances}, model_name="score"))
    assert given["predictions"] == [2.5, 4.0]


def test_parameters_are_passed_over():
    body = {"instances": [{"a": 1, "b": 2}], "parameters": {"confidence": 0.5}}
    given = ask("v1", lambda client: client.infer(URL, body, model_name="score"))
    assert given["predictions"] == [4.0]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/models/score:predict", {"rows": []}, 400),
        ("/v1/models/score:predict", {"instances": [{"a": 1.0}]}, 400),
        ("/v1/models/score:predict", {"instances": [{"a": "1", "b": 0.0}]}, 400),
        ("/v1/models/nobody:predict", {"instances": []}, 404),
        ("/v2/models/score/infer", {"inputs": 1}, 400),
        ("/v2/models/score/versions/9/infer", {"inputs": []}, 404),
        ("/v2/no/such/path", {}, 404),
    ],
)
def test_what_is_wrong_is_told(path, body, status):
    answer = httpx.post(URL + path, json=body)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json()["error"], str)


def test_the_models_there_are():
    assert "score" in httpx.get(f"{URL}/v1/models").json()["models"]
    told = httpx.get(f"{URL}/v1/models/score").json()
    assert (told["name"], told["ready"]) == ("score", True)


def ask_grpc(call):
    async def run():
        async with InferenceGRPCClient(URL.removeprefix("http://")) as client:
            return await call(client)

    return asyncio.run(run())


@pytest.mark.parametrize("binary", [True, False])
def test_tensors_over_grpc(binary):
    request = InferRequest("score", inputs(binary), request_id="7")
    given = ask_grpc(lambda client: client.infer(request))
    assert given.id == "7"
    values = given.outputs[0].as_numpy()
    assert values[0] == 2.5
    assert np.isnan(values[1])


def test_health_over_grpc():
    assert ask_grpc(lambda client: client.is_server_live()) is True
    assert ask_grpc(lambda client: client.is_server_ready()) is True
    assert ask_grpc(lambda client: client.is_model_ready("score")) is True
