# SPDX-License-Identifier: AGPL-3.0-or-later
"""Documents of an older format are upgraded when they are read; those of a newer one are refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from orthanc_ups.core.workitem import HistoryEntry, SpecificAct, Subscription, Workitem
from orthanc_ups.projection.projection import Projection
from orthanc_ups.store import documents
from orthanc_ups.store.documents import FORMAT, UnreadableDocument, decode, encode, read
from orthanc_ups.worklist.loader import Loader
from tests.support.delivery import event
from tests.support.memory_store import InMemoryEntries
from tests.support.service import on_loop
from tests.support.workitems import stored, uid


def workitem(number: int) -> Workitem:
    """A subscribed workitem with an event."""
    return Workitem(
        uid(number),
        number,
        stored(number),
        acts={"AI": SpecificAct(3, Subscription.LOCK, 1.5)},
        events=(event(4, "AI", "RIS", uid=uid(number)),),
        history=(HistoryEntry(1.5, "SCHEDULER by DIMSE", "created"),),
        revision=2,
    )


def from_format_0(content: dict[str, Any]) -> dict[str, Any]:
    """An invented past: format 0 called the data set ``dataset`` and knew no overflow entries."""
    if "dataset" not in content:
        return content
    rest = {key: value for key, value in content.items() if key != "dataset"}
    return {**rest, "attributes": content["dataset"], "spilled": []}


def as_format_0(document: bytes) -> bytes:
    content = orjson.loads(document)
    content["dataset"] = content.pop("attributes")
    del content["spilled"]
    return orjson.dumps({**content, "format": 0})


@pytest.fixture
def upgradable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "UPGRADES", {0: from_format_0})


@pytest.mark.usefixtures("upgradable")
def test_a_workitem_of_an_older_format_is_read_as_one_of_today() -> None:
    expected = workitem(1)
    assert decode(as_format_0(encode(expected))) == expected


@pytest.mark.usefixtures("upgradable")
@on_loop
async def test_a_worklist_of_an_older_format_is_read_in() -> None:
    entries = InMemoryEntries()
    expected = workitem(7)
    await entries.create(f"workitem/{expected.uid}", as_format_0(encode(expected)))
    projection = Projection.open(":memory:")
    stored = await Loader(entries, projection).load()
    in_projection = projection.get(expected.uid)
    projection.close()
    assert not stored.damaged
    assert in_projection is not None and in_projection.workitem == expected


def test_every_older_format_can_be_upgraded() -> None:
    assert sorted(documents.UPGRADES) == list(range(1, FORMAT))


def test_a_format_without_upgrade_is_refused() -> None:
    with pytest.raises(UnreadableDocument, match="format 0 is older than what this plugin can read"):
        read(as_format_0(encode(workitem(1))))


def test_a_newer_format_is_refused_and_left_alone() -> None:
    newer = orjson.dumps({"format": FORMAT + 1, "uid": uid(1), "attributes": stored()})
    with pytest.raises(UnreadableDocument, match=f"format {FORMAT + 1} is newer"):
        decode(newer)


@pytest.mark.usefixtures("upgradable")
@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b'{"format": true}', b'{"format": "1"}', b'{"format": 1.0}']
)
def test_a_document_without_format_is_refused(content: bytes) -> None:
    with pytest.raises(UnreadableDocument, match="no format version"):
        read(content)


def test_an_upgrade_that_does_not_fit_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "UPGRADES", {0: lambda content: {"was": content["something else"]}})
    with pytest.raises(UnreadableDocument, match="not a document of format 0"):
        read(b'{"format": 0}')
