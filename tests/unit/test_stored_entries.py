# SPDX-License-Identifier: AGPL-3.0-or-later
"""The stored entries that ARCHITECTURE.md shows are what the code writes, and reads back."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from orthanc_ups.core.commands import Requester
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.core.numbers import Numbers
from orthanc_ups.core.subscriptions import ActKind, GlobalAct, Log
from orthanc_ups.core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem, digest
from orthanc_ups.delivery.documents import (
    Batch,
    Progress,
    decode_batch,
    decode_progress,
    encode_batch,
    encode_progress,
)
from orthanc_ups.delivery.port import Burst, Endpoint
from orthanc_ups.delivery.queue import BurstAt
from orthanc_ups.modality.performed_steps import PerformedStep
from orthanc_ups.rules.memory import Memory, RuleRecord, decode_memory, encode_memory
from orthanc_ups.store.choice import move_worklist, settle
from orthanc_ups.store.copy import Copies, EntriesCopy
from orthanc_ups.store.documents import decode, decode_events, decode_log, encode, encode_events, encode_log
from orthanc_ups.store.journal import document_of
from orthanc_ups.store.node import Node, NodeMark
from orthanc_ups.store.port import StoreUnavailable
from orthanc_ups.store.shelves import Value
from orthanc_ups.store.writer import Writer
from orthanc_ups.worklist.order import WorklistEntry
from orthanc_ups.worklist.workitem_store import read_tombstone, tombstone_document
from tests.support.delivery import VirtualClock
from tests.support.memory_store import InMemoryEntries

ARCHITECTURE: Final = (Path(__file__).resolve().parents[2] / "ARCHITECTURE.md").read_text()
EXAMPLES: Final[dict[str, str]] = dict(
    re.findall(
        r"^\*\*`([^`\n]+)`\*\*.*?\n```(?:json|text)\n(.*?)\n```$", ARCHITECTURE, re.MULTILINE | re.DOTALL
    )
)
UID: Final = "2.25.71"
CREATED, CLAIMED, PURGED = 1_790_000_000.0, 1_790_000_060.0, 1_790_700_000.0


def state_report(sequence: int, state: str, *receivers: str, at: float = CLAIMED) -> Event:
    content = {
        "00404041": {"vr": "CS", "Value": ["READY"]},
        "00741000": {"vr": "CS", "Value": [state]},
    }
    return Event(sequence, EventType.STATE_REPORT, UID, content, receivers, at)


WORKITEM: Final = Workitem(
    uid=UID,
    created=7,
    attributes={
        "00080018": {"vr": "UI", "Value": [UID]},
        "00741000": {"vr": "CS", "Value": ["IN PROGRESS"]},
        "00741204": {"vr": "LO", "Value": ["Lung nodules"]},
    },
    owner=digest("2.25.99"),
    acts={"READER": SpecificAct(118, Subscription.LOCK, CREATED)},
    filtered=(46,),
    events=(state_report(120, "IN PROGRESS", "AI1", "READER"),),
    spilled=(12,),
    history=(
        HistoryEntry(CREATED, str(Requester("RIS", "DIMSE")), "created"),
        HistoryEntry(CLAIMED, str(Requester("CAD1", "DIMSE")), "claimed"),
    ),
    revision=3,
)
TOMBSTONE: Final = HistoryEntry(PURGED, str(Requester("ORTHANC", "retention")), "purged")
LOG: Final = Log(
    "AI1",
    (
        GlobalAct(40, ActKind.NO_LOCK, through=5, at=CREATED),
        GlobalAct(
            46,
            ActKind.LOCK,
            through=6,
            filtered=True,
            filter={"00741200": {"vr": "CS", "Value": ["HIGH"]}},
            matched=Numbers.of([2, 6]),
            at=CREATED,
        ),
    ),
    revision=2,
)
PROGRESS: Final = {
    "dimse": Progress(
        119,
        (),
        {
            "delivered": 57,
            "failed": 2,
            "dead": 1,
            "last_success_at": CLAIMED,
            "last_error": "connection refused",
            "last_error_at": CREATED,
        },
    )
}
LETTERS: Final = Batch(
    Endpoint("AI1", "dimse"),
    (
        state_report(101, "CANCELED", "AI1", at=CREATED),
        BurstAt(Burst("AI1", 102, 6, 102, CREATED), after=104),
    ),
    "refused: N-EVENT-REPORT answered 0112 No such SOP Instance",
    CLAIMED,
)
OVERFLOW: Final = (state_report(12, "SCHEDULED", "AI1", at=CREATED),)
MEMORY: Final = Memory(
    cursor=4711,
    unstable={"series/93034833-163e42c3-bc9a428b-194620cf-2c5799e5": CREATED},
    ended_at=CLAIMED,
    studies={"8a8cf898-ca27c490-d0c7058c-929d0581-2bbf104d": "1.2.3.44"},
    records={
        "AI on chest CT": RuleRecord(
            12, last_at=CLAIMED, last="series 1.2.3.4 is stable: created workitem 2.25.71"
        )
    },
    revision=7,
)
STEP: Final = PerformedStep(
    uid="2.25.31",
    ae="CT1",
    attributes={
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00400252": {"vr": "CS", "Value": ["IN PROGRESS"]},
    },
    created=CREATED,
    changed=CLAIMED,
    workitems=(UID,),
    notes={UID: "the workitem is already CANCELED"},
    history=(HistoryEntry(CREATED, "CT1 by MPPS", "created IN PROGRESS"),),
    revision=2,
)
NODE: Final = Node("5f0c6c2d8a534c51a3a0f1f0c7b5a811", "pacs1", 4711, "0b9d1e4e63a94cb3b79f3b9c4a4e2c10")
IDENTITY: Final = "d3b07384d113edec49eaa6238ad5ff00"


async def header_document() -> bytes:
    entries = InMemoryEntries()
    worklist_entry = WorklistEntry(Writer(entries))
    worklist_entry.identity = IDENTITY
    await worklist_entry.reserve(1, 1)
    return await stored(entries, "worklist")


async def node_document() -> bytes:
    entries = InMemoryEntries()
    await NodeMark(entries, NODE, VirtualClock(), lambda reason: None).acquire()
    return await stored(entries, "node")


class _Interrupted(InMemoryEntries):
    """A store into which a move has just begun."""

    async def exists(self) -> bool:
        return True

    async def discard(self) -> None:
        raise StoreUnavailable("not now", certain=True)


async def move_document() -> bytes:
    source, target = _Interrupted(), _Interrupted()
    await source.create("workitem/2.25.71", encode(WORKITEM))
    with pytest.raises(StoreUnavailable):
        await move_worklist(source, target)
    return await stored(target, "move")


async def aside_document() -> bytes:
    metadata, key_value = _Interrupted(), _Interrupted()
    for entries in (metadata, key_value):
        await entries.create("workitem/2.25.71", encode(WORKITEM))
    await settle(metadata, key_value, Copies(EntriesCopy(":memory:"), tuple))
    return await stored(metadata, "aside")


async def stored(entries: InMemoryEntries, key: str) -> bytes:
    entry = await entries.read(key)
    assert entry is not None
    return entry.document


DOCUMENTS: Final[dict[str, Callable[[], bytes]]] = {
    "workitem/2.25.71": lambda: encode(WORKITEM),
    "workitem/2.25.70": lambda: tombstone_document("2.25.70", TOMBSTONE),
    "events/2.25.71/12": lambda: encode_events(UID, OVERFLOW),
    "subscriber/AI1": lambda: encode_log(LOG),
    "delivery/AI1": lambda: encode_progress("AI1", 88, PROGRESS),
    "dead/AI1/dimse/101": lambda: encode_batch(LETTERS, 1),
    "note/rules": lambda: encode_memory(MEMORY),
    "note/mpps/2.25.31": STEP.document,
    "worklist": lambda: asyncio.run(header_document()),
    "node": lambda: asyncio.run(node_document()),
    "index": lambda: document_of("6f1d2a90c4b84d0f9a3be1572f60c8d1"),
    "move": lambda: asyncio.run(move_document()),
    "aside": lambda: asyncio.run(aside_document()),
}


def parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def test_every_kind_of_entry_is_shown_and_no_other() -> None:
    assert set(EXAMPLES) == set(DOCUMENTS)


def test_what_a_start_reads_beside_workitems_stands_before_them_in_the_key_value_store() -> None:
    """``KeyValueEntries.load_others`` stops at the first workitem and reads one key behind them."""
    others = {key for key in DOCUMENTS if not key.startswith("workitem/")}
    assert {key for key in others if key > "workitem/"} == {"worklist"}


@pytest.mark.parametrize("key", DOCUMENTS)
def test_an_example_is_what_the_code_writes(key: str) -> None:
    assert parsed(EXAMPLES[key]) == parsed(DOCUMENTS[key]().decode())


def test_the_examples_are_read_back() -> None:
    """By whoever repairs a worklist by hand, too."""
    assert decode(EXAMPLES["workitem/2.25.71"].encode()) == WORKITEM
    assert decode_events(EXAMPLES["events/2.25.71/12"].encode()) == OVERFLOW
    assert decode_log(EXAMPLES["subscriber/AI1"].encode()) == LOG
    assert decode_progress(EXAMPLES["delivery/AI1"].encode()) == ("AI1", 88, PROGRESS)
    assert decode_batch(EXAMPLES["dead/AI1/dimse/101"].encode()) == LETTERS
    assert decode_memory(EXAMPLES["note/rules"].encode()) == MEMORY
    assert PerformedStep.of_document(EXAMPLES["note/mpps/2.25.31"].encode()) == STEP
    assert read_tombstone(EXAMPLES["workitem/2.25.70"].encode()) == ("2.25.70", TOMBSTONE)


def test_the_head_of_a_value_in_each_store_is_as_shown() -> None:
    assert Value("workitem/2.25.71", 2, b"{").encoded() == b"UPS1 2 workitem/2.25.71\n{"
    assert "`UPS1 2 workitem/2.25.71`" in ARCHITECTURE
