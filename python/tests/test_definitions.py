"""What a definition says about its parameters is kept as text."""

import functools

import pandas as pd

from model_envelope._definition import parameters


def scored(frame: pd.DataFrame, limit: "int | None" = 10, *rest, key=len, **more: float) -> list[float]:
    return [0.0 for _ in range(len(frame))]


SCORED = [
    {"name": "frame", "annotation": "pandas.DataFrame"},
    {"name": "limit", "annotation": "int | None", "default": "10"},
    {"name": "*rest"},
    {"name": "key", "default": "..."},
    {"name": "**more", "annotation": "float"},
]


def test_names_annotations_and_plain_defaults_are_kept():
    assert parameters(scored) == SCORED
    assert parameters(functools.partial(scored, limit=3))[1]["default"] == "3"
    assert parameters(lambda x=("a", [1, None]), y="x" * 500: x) == [
        {"name": "x", "default": "('a', [1, None])"},
        {"name": "y", "default": "..."},
    ]


def test_what_has_no_signature_has_no_parameters():
    assert parameters(dict.fromkeys) or parameters(int) == []


def test_they_are_in_the_manifest(save):
    envelope = save(scored, pd.DataFrame({"a": [1.0, 2.0]}))
    assert envelope.manifest["functions"][0]["parameters"] == SCORED
