"""The client of SageMaker's runtime, and what SageMaker asks of a container."""

import json
import os
import urllib.request

import boto3
import botocore.config
import botocore.exceptions
import pytest

URL = os.environ["SCORE_URL"]


@pytest.fixture
def client():
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=URL,
        region_name="eu-west-1",
        aws_access_key_id="nobody",
        aws_secret_access_key="nothing",
        config=botocore.config.Config(retries={"max_attempts": 1}),
    )


def ask(client, body, media, **more):
    given = client.invoke_endpoint(EndpointName="any", Body=body, ContentType=media, **more)
    return given["ContentType"], given["Body"].read().decode()


def test_json(client):
    body = json.dumps({"instances": [{"a": 1.0, "b": 0.5}]})
    media, given = ask(client, body, "application/json", CustomAttributes="c=1", TargetVariant="v")
    assert media == "application/json"
    assert json.loads(given) == {"predictions": [{"0": 2.5}]}


@pytest.mark.parametrize("media", ["application/jsonlines", "application/x-ndjson"])
def test_lines(client, media):
    body = '{"a": 1.0, "b": 0.5}\n{"b": 0.0, "a": 2.0}\n'
    _, given = ask(client, body, media, Accept="application/jsonlines")
    assert [json.loads(line) for line in given.splitlines()] == [{"0": 2.5}, {"0": 4.0}]


@pytest.mark.parametrize("header", ["", "a,b\n"])
def test_values_with_and_without_names(client, header):
    _, given = ask(client, f"{header}1.0,0.5\n2,0\n", "text/csv", Accept="text/csv")
    assert [float(line) for line in given.split()] == [2.5, 4.0]


def test_names_in_another_order(client):
    _, given = ask(client, "b,a\n0.5,1.0\n", "text/csv", Accept="text/csv")
    assert float(given) == 2.5


def test_what_is_wrong_reaches_the_caller(client):
    with pytest.raises(botocore.exceptions.ClientError) as raised:
        ask(client, "a,b\n1.0,x\n", "text/csv")
    assert raised.value.response["ResponseMetadata"]["HTTPStatusCode"] == 400


def test_a_container_answers_the_platform():
    with urllib.request.urlopen(f"{URL}/ping", timeout=2) as answer:
        assert answer.status == 200
    with urllib.request.urlopen(f"{URL}/execution-parameters") as answer:
        told = json.load(answer)
    assert told["BatchStrategy"] == "MULTI_RECORD"
    assert told["MaxConcurrentTransforms"] >= 1
    assert told["MaxPayloadInMB"] >= 6
