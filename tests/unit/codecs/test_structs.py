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


def minutes(value: object) -> object:
    return float(value[:-1]) * 60 if isinstance(value, str) and value.endswith("m") else value


Wait = Annotated[
    float,
    Meta(ge=0, le=100, extra={"parse": minutes, "expected": 'seconds or "1m"', "unit": " seconds"}),
]


class Body(Struct, forbid_unknown_fields=True):
    name: Annotated[str, Meta(max_length=5)]
    lock: bool = False
    count: Annotated[int, Meta(ge=1, le=500)] = 1
    numbers: list[int] | None = None
    inputs: Annotated[list[Input], Meta(max_length=2)] = []
    colour: Colour = Colour.RED
    attributes: dict[str, Any] = {}
    counts: dict[str, int] = {}
    wait: Wait = 1.0
    waits: dict[str, Wait] = {}


def test_an_object_becomes_its_struct() -> None:
    body = decode(Body, {"name": "x", "inputs": [{"level": "study", "id": "1"}], "colour": "blue"})
    assert body == Body("x", inputs=[Input("study", "1")], colour=Colour.BLUE)


def test_a_number_may_be_written_as_a_text_that_stands_for_it() -> None:
    body = decode(Body, {"name": "x", "wait": "1m", "waits": {"a": 5, "b": "1m"}})
    assert (body.wait, body.waits) == (60.0, {"a": 5.0, "b": 60.0})


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
            '"zzz" is unknown; expected name, lock, count, numbers, inputs, colour, attributes, counts, '
            "wait, waits",
        ),
        ({"name": "x", "count": 0}, '"count" is 0, expected 1 to 500'),
        ({"name": "x", "count": 501}, '"count" is 501, expected 1 to 500'),
        ({"name": "x", "count": 1.5}, '"count" is 1.5, expected a whole number'),
        ({"name": "x", "numbers": [1, "2"]}, "\"numbers[1]\" is '2', expected a whole number"),
        ({"name": "x", "numbers": 1}, '"numbers" is 1, expected a list or null'),
        ({"name": "x", "lock": 1}, '"lock" is 1, expected true or false'),
        ({"name": "x", "inputs": [{}]}, '"inputs[0].level" is missing; "inputs[0].id" is missing'),
        (
            {"name": "x", "inputs": [{"level": "study", "id": "1", "Level": 1}]},
            '"inputs[0].Level" is unknown; did you mean "level"?',
        ),
        ({"name": "x", "wait": "soon"}, "\"wait\" is 'soon', expected seconds or \"1m\""),
        ({"name": "x", "wait": "9m"}, "\"wait\" is '9m', expected 0 to 100 seconds"),
        ({"name": "x", "waits": {"a": 1, "b": -1}}, '"waits.b" is -1, expected 0 to 100 seconds'),
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
