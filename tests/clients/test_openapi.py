"""The document that describes a service: valid, and true of every answer to bodies made from it."""

import os

import openapi_spec_validator
import pytest
import requests
import schemathesis

URL = os.environ["RECORDS_URL"]
schema = schemathesis.openapi.from_url(f"{URL}/openapi.json")


@pytest.mark.parametrize("variable", ["RECORDS_URL", "SCORE_URL", "IDENTITY_URL"])
def test_the_document_is_valid(variable):
    document = requests.get(f"{os.environ[variable]}/openapi.json", timeout=60).json()
    assert document["openapi"].startswith("3.1")
    openapi_spec_validator.validate(document)


# What a schema cannot say: which days a month has, how far a unit of time reaches.
BEYOND_SCHEMAS = {"wrong_form", "out_of_range"}


def is_beyond_schemas(response):
    if response.status_code == 504:
        return True  # a caller that waits for a millisecond
    problem = response.headers.get("content-type", [""])[0].startswith("application/problem+json")
    return problem and response.json()["code"] in BEYOND_SCHEMAS


@schema.parametrize()
def test_answers_are_what_the_document_says(case):
    response = case.call()
    if not is_beyond_schemas(response):
        case.validate_response(response)


def test_examples_are_answered():
    document = requests.get(f"{URL}/openapi.json", timeout=60).json()
    tried = 0
    for path, operations in document["paths"].items():
        content = operations.get("post", {}).get("requestBody", {}).get("content", {})
        example = content.get("application/json", {}).get("example")
        if example is not None:
            answer = requests.post(URL + path, json=example, timeout=60)
            assert answer.status_code == 200, (path, answer.text)
            tried += 1
    assert tried
