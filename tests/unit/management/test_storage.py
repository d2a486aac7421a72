# SPDX-License-Identifier: AGPL-3.0-or-later
"""``/ups/api/storage``: what is stored, how much of each kind, and single entries."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.dicomweb.origins import Origins
from orthanc_ups.dicomweb.request import WebRequest
from orthanc_ups.dicomweb.rights import Rights
from orthanc_ups.management.routing import Router
from orthanc_ups.management.storage import Storage
from tests.support.memory_store import InMemoryEntries

DOCUMENTS = {
    "workitem/1": b'{"uid": "1"}',
    "workitem/2": b'{"format": 1, "uid": "2", "gone": 1.0}',
    "workitem/3": b'{"uid": "33"}',
    "dead/AI1/dimse/7": b"{}",
    "worklist": b"\xff not JSON",
}


class Look:
    """The routes over entries in memory, asked as a user."""

    def __init__(self) -> None:
        self.store = InMemoryEntries()
        for key, document in DOCUMENTS.items():
            asyncio.run(self.store.create(key, document))
        self.now = datetime(2026, 11, 27, tzinfo=UTC)
        storage = Storage(self.store, lambda: self.now)
        users = {"admin": ("*",), "ris": ("RIS",)}
        self._router = Router(storage.routes(), "UPS", Rights(users, AeTitles()), Origins(()))

    def answer(self, path: str, query: str = "", user: str = "admin") -> tuple[int, Any]:
        request = WebRequest("GET", path, query, {}, b"", user=user)
        answer = asyncio.run(self._router.answer(request))
        return answer.status, json.loads(answer.body)


def test_the_store_is_named_with_number_and_size_of_entries_by_kind() -> None:
    status, content = Look().answer("/storage")
    assert status == 200
    assert (content["store"], content["location"]) == ("memory", "the memory of a test")
    assert (content["entries"], content["bytes"]) == (5, sum(map(len, DOCUMENTS.values())))
    kinds = [(kind["kind"], kind["entries"], kind["bytes"]) for kind in content["kinds"]]
    assert kinds == [("workitem", 2, 25), ("purged", 1, 38), ("dead", 1, 2), ("worklist", 1, 10)]
    assert all(kind["meaning"] for kind in content["kinds"])
    assert content["counted_at"] == "2026-11-27T00:00:00+00:00"


def test_counting_reads_everything_once_for_all_who_ask_within_ten_seconds() -> None:
    look = Look()
    for _ in range(3):
        look.answer("/storage")
    assert look.store.calls["load"] == 1
    look.now += timedelta(seconds=11)
    look.answer("/storage")
    assert look.store.calls["load"] == 2


def test_a_count_that_failed_is_made_anew() -> None:
    look = Look()
    look.store.unavailable = True
    assert look.answer("/storage")[0] == 503
    look.store.unavailable = False
    assert look.answer("/storage")[0] == 200


def test_an_entry_is_shown_as_it_stands_in_the_store() -> None:
    look = Look()
    assert look.answer("/storage/entry", "key=workitem/1") == (
        200,
        {"key": "workitem/1", "kind": "workitem", "version": "1", "bytes": 12, "document": {"uid": "1"}},
    )
    assert look.answer("/storage/entry", "key=worklist")[1]["document"] == "\ufffd not JSON"
    assert look.answer("/storage/entry", "key=workitem/9")[0] == 404
    assert look.answer("/storage/entry")[0] == 400


def test_keys_can_be_listed_by_kind() -> None:
    look = Look()
    status, content = look.answer("/storage/entries", "kind=workitem")
    assert status == 200
    assert [entry["key"] for entry in content["entries"]] == ["workitem/1", "workitem/3"]
    assert content["more"] is False
    content = look.answer("/storage/entries", "limit=2")[1]
    assert (len(content["entries"]), content["more"]) == (2, True)


def test_only_who_administers_every_ae_title_may_look() -> None:
    look = Look()
    for path in ("/storage", "/storage/entries", "/storage/entry"):
        assert look.answer(path, "key=worklist", user="ris")[0] == 403
