"""The document that describes a service: valid, and true of every answer to bodies made from it."""

import os

import openapi_spec_validator
import pytest
import requests
import schemathesis
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

URL = os.environ["RECORDS_URL"]
schema = schemathesis.openapi.from_url(f"{URL}/openapi.json")


@pytest.mark.parametrize("variable", ["RECORDS_URL", "SCORE_URL", "IDENTITY_URL"])
def test_the_document_is_valid(variable):
    document = requests.get(f"{os.environ[variable]}/openapi.json", timeout=60).json()
    assert document["openapi"].startswith("3.1")
    openapi_spec_validator.validate(document)


def is_described(case):
    """Whether the schema says all of what is taken: other protocols take more, other media have none."""
    return case.path.startswith("/predict") and case.media_type in (None, "application/json")


def is_beyond_schemas(response):
    """Whether it was refused for what a schema cannot say."""
    if response.status_code == 504:
        return True  # a caller that waits for a millisecond
    problem = response.headers.get("content-type", [""])[0].startswith("application/problem+json")
    return problem and any(is_beyond(fault) for fault in response.json().get("errors", []))


def is_beyond(fault):
    # Which days a month has, how far a unit of time reaches; and 1.0 is an integer to a schema.
    whole = fault["code"] == "wrong_type" and fault["got"].endswith(".0")
    return whole or fault["code"] in ("wrong_form", "out_of_range")


@schema.parametrize()
def test_answers_are_what_the_document_says(case):
    response = case.call()
    if not is_beyond_schemas(response):
        excluded = [] if is_described(case) else [negative_data_rejection, positive_data_acceptance]
        case.validate_response(response, excluded_checks=excluded)


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
