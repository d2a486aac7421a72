# SPDX-License-Identifier: AGPL-3.0-or-later
"""Structs from JSON: each wrong key is named with its value and what is expected."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from msgspec import Meta, Struct

from orthanc_ups.codecs.structs import WrongKeys, decode


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Input(Struct, forbid_unknown_fields=True):
    level: Literal["study", "series"]
    id: str


class Body(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=5)]
    lock: bool = False
    count: Annotated[int, Meta(ge=1, le=500)] = 1
    numbers: list[int] | None = None
    inputs: Annotated[list[Input], Meta(max_length=2)] = []
    colour: Colour = Colour.RED
    attributes: dict[str, Any] = {}
    counts: dict[str, int] = {}


def test_an_object_becomes_its_struct() -> None:
    body = decode(Body, {"name": "x", "inputs": [{"level": "study", "id": "1"}], "colour": "blue"})
    assert body == Body("x", inputs=[Input("study", "1")], colour=Colour.BLUE)


def test_a_query_has_numbers_as_texts() -> None:
    assert decode(Body, {"name": "x", "count": "20"}, strict=False).count == 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": 5}, '"name" is 5, expected a string'),
        ({"name": "abcdef"}, "\"name\" is 'abcdef', expected a string of at most 5 characters"),
        ({}, '"name" is missing'),
        ({"name": "x", "lokc": True}, '"lokc" is unknown; did you mean "lock"?'),
        (
            {"name": "x", "zzz": 1},
            '"zzz" is unknown; expected name, lock, count, numbers, inputs, colour, attributes, counts',
        ),
        ({"name": "x", "count": 0}, '"count" is 0, expected a whole number of at least 1'),
        ({"name": "x", "count": 501}, '"count" is 501, expected a whole number of at most 500'),
        ({"name": "x", "count": 1.5}, '"count" is 1.5, expected a whole number'),
        ({"name": "x", "numbers": [1, "2"]}, "\"numbers[1]\" is '2', expected a whole number"),
        ({"name": "x", "numbers": 1}, '"numbers" is 1, expected a list or null'),
        ({"name": "x", "lock": 1}, '"lock" is 1, expected true or false'),
        ({"name": "x", "inputs": [{}]}, '"inputs[0].level" is missing'),
        ({"name": "x", "inputs": [1, 2, 3]}, '"inputs[0]" is 1, expected an object'),
        (
            {"name": "x", "inputs": [{"level": "patient", "id": "1"}]},
            "\"inputs[0].level\" is 'patient', expected one of series, study",
        ),
        ({"name": "x", "colour": "green"}, "\"colour\" is 'green', expected one of red, blue"),
        ({"name": "x", "attributes": []}, '"attributes" is [], expected an object'),
        ({"name": "x", "counts": {"a": 1, "b": "2"}}, "\"counts.b\" is '2', expected a whole number"),
        ([], "expected an object, not []"),
        (
            {"name": 5, "count": "x", "lock": "y"},
            "\"name\" is 5, expected a string; \"lock\" is 'y', expected true or false; "
            "\"count\" is 'x', expected a whole number",
        ),
    ],
)  # fmt: skip
def test_every_key_at_fault_is_named_with_what_is_expected(content: object, message: str) -> None:
    with pytest.raises(WrongKeys) as caught:
        decode(Body, content)
    assert str(caught.value) == message
