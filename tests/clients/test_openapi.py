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


@schema.parametrize()
def test_answers_are_what_the_document_says(case):
    case.call_and_validate()


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
