# SPDX-License-Identifier: AGPL-3.0-or-later
"""Command sets and fragments (PS3.7 §6.3, PS3.8 Annex E), without a network."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from orthanc_ups.core import tags
from orthanc_ups.dimse.message import (
    ACTION_TYPE,
    AFFECTED_CLASS,
    ATTRIBUTE_LIST,
    COMMAND_FIELD,
    ERROR_COMMENT,
    MESSAGE_ID,
    OFFENDING_ELEMENT,
    REQUESTED_INSTANCE,
    RESPONSE,
    STATUS,
    Assembler,
    CommandField,
    Malformed,
    MemoryBudget,
    Message,
    Value,
    format_command,
    fragments,
    parse_command,
)

COMMAND: dict[int, Value] = {
    AFFECTED_CLASS: tags.PUSH,
    COMMAND_FIELD: int(CommandField.N_ACTION) | 0x8000,
    MESSAGE_ID: 65535,
    STATUS: 0x0120,
    OFFENDING_ELEMENT: (tags.STATE,),
    ERROR_COMMENT: "odd",
    REQUESTED_INSTANCE: "1.2.3",
    ATTRIBUTE_LIST: (tags.STATE, tags.PRIORITY),
    ACTION_TYPE: 1,
}


def test_a_command_set_comes_back() -> None:
    result = dict(parse_command(format_command(COMMAND, has_data=False)))
    assert result.pop(0x0800) == 0x0101
    assert result == COMMAND


def test_pydicom_reads_our_command_sets() -> None:
    encoded = format_command(COMMAND, has_data=True)
    result = read_dataset(BytesIO(encoded), True, True)
    assert result.CommandGroupLength == len(encoded) - 12
    assert result.CommandDataSetType != 0x0101
    assert (result.Status, result.ErrorComment, result.OffendingElement) == (0x0120, "odd", 0x00741000)
    assert list(result.AttributeIdentifierList) == [0x00741000, 0x00741200]


@given(st.binary(max_size=300), st.integers(8, 200), st.lists(st.integers(1, 127), min_size=1, max_size=3))
def test_messages_of_any_size_come_back_from_fragments_of_any_size(
    data: bytes, maximum: int, contexts: list[int]
) -> None:
    assembler = Assembler(set(contexts), 1000, budget := MemoryBudget(1000))
    for context in contexts:
        parts = list(fragments(Message(context, COMMAND, data or None), maximum))
        assert all(len(part) <= max(maximum, 8) for part in parts)
        assert all(len(part) % 2 == 0 for part in parts[:-1])
        messages = [message for part in parts for message in assembler.feed(part)]
        assert [(message.context, message.data, message.oversized) for message in messages] == [
            (context, data or None, False)
        ]
        assert not assembler.is_within
        budget.give(len(data))
    assert budget.free == 1000


def test_several_fragments_may_share_a_pdu() -> None:
    parts = b"".join(fragments(Message(1, COMMAND, b"data"), 100)) * 3
    assert [message.data for message in Assembler({1}, 1000, MemoryBudget(1000)).feed(parts)] == [b"data"] * 3


@given(st.integers(101, 800))
def test_what_is_too_large_is_thrown_away_and_told(size: int) -> None:
    assembler = Assembler({1}, 100, budget := MemoryBudget(1000))
    parts = fragments(Message(1, COMMAND, b"x" * size), 50)
    (message,) = [message for part in parts for message in assembler.feed(part)]
    assert (message.data, message.oversized) == (None, True)
    assert budget.free == 1000


def _command_only(message: Message) -> bytes:
    """The command set alone, which announces a data set, as pynetdicom sends it with an empty one."""
    (command, *_) = fragments(message, 1000)
    return command


def test_a_data_set_that_is_announced_and_never_sent_is_none() -> None:
    assembler = Assembler({1}, 1000, MemoryBudget(1000))
    announcing = _command_only(Message(1, COMMAND, b"data"))
    assert not list(assembler.feed(announcing))
    assert assembler.awaits_data_set
    assert assembler.without_data_set() == Message(1, parse_command(announcing[6:]))
    assert not assembler.is_within


def test_the_next_command_set_ends_the_wait_for_a_data_set() -> None:
    parts = _command_only(Message(1, COMMAND, b"data")) + b"".join(fragments(Message(3, COMMAND), 1000))
    messages = Assembler({1, 3}, 1000, MemoryBudget(1000)).feed(parts)
    assert [(message.context, message.data) for message in messages] == [(1, None), (3, None)]


@pytest.mark.parametrize("size", [0, 1, 300])
def test_the_data_sets_of_responses_are_skipped(size: int) -> None:
    command = {**COMMAND, COMMAND_FIELD: CommandField.N_EVENT_REPORT | RESPONSE}
    assembler = Assembler({1}, 100, budget := MemoryBudget(1000), skips_replies=True)
    parts = (
        list(fragments(Message(1, command, b"x" * size), 50))
        if size
        else [_command_only(Message(1, command, b"x"))]
    )
    for _ in range(3):
        (message,) = [message for part in parts for message in assembler.feed(part)]
        assert (message.data, message.oversized, assembler.is_within) == (None, False, False)
    assert budget.free == 1000


@given(st.binary(max_size=120))
def test_any_bytes_are_messages_or_malformed(raw: bytes) -> None:
    assembler = Assembler({1}, 100, budget := MemoryBudget(100))
    try:
        size = sum(len(message.data or b"") for message in assembler.feed(raw))
    except Malformed:
        size = 0
    assembler.close()
    budget.give(size)
    assert budget.free == 100


@pytest.mark.parametrize("cut", [1, 5, 9, 20])
def test_a_command_set_that_is_cut_off_is_malformed(cut: int) -> None:
    with pytest.raises(Malformed):
        parse_command(format_command(COMMAND, has_data=False)[:-cut])
