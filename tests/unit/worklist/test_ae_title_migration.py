# SPDX-License-Identifier: AGPL-3.0-or-later
"""What was stored under several spellings of an AE title is one subscriber after the next start."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import orjson
import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet
from orthanc_ups.core.events import EventType
from orthanc_ups.settings import Settings
from orthanc_ups.store.port import StoreUnavailable
from tests.support.service import FILTERED, LOCK, NO_LOCK, NONE, ServiceRig, on_loop
from tests.support.workitems import uid

LUNGS: DataSet = {tags.WORKLIST_LABEL: {"vr": "LO", "Value": ["LUNGS"]}}


async def before_the_upgrade(settings: Settings | None = None, path: str = ":memory:") -> ServiceRig:
    """A worklist that tells spellings apart."""
    rig = ServiceRig("SUB4", "sub4", "Sub4", settings=settings, path=path)
    rig.strict = True
    return await rig.start()


async def upgraded(rig: ServiceRig, *listed: str) -> None:
    await rig.pass_by(2)  # cursors are stored
    await rig.crash()
    rig.strict, rig.listed = False, listed
    await rig.start()


def titles_in(documents: Mapping[str, bytes]) -> set[str]:
    """Every AE title that stands anywhere in the store."""
    titles: set[str] = set()
    for key, document in documents.items():
        content = orjson.loads(document)
        titles.update(key.split("/")[1:2] if key.startswith(("delivery/", "subscriber/", "dead/")) else ())
        titles.update([content["ae"]] if "ae" in content else ())
        titles.update(content["acts"] if isinstance(content.get("acts"), dict) else ())
        titles.update(name for names in content.get("receivers", ()) for name in names)
    return titles


@on_loop
async def test_two_spellings_become_that_of_dicom_modalities_everywhere_in_the_store() -> None:
    rig = await before_the_upgrade()
    await rig.create(1)
    await rig.subscribe("SUB4")
    await rig.subscribe("sub4", 1)
    await rig.claim(1)
    assert titles_in(rig.entries.documents()) == {"SUB4", "sub4"}
    await upgraded(rig, "Sub4")
    assert titles_in(rig.entries.documents()) == {"Sub4"}
    assert rig.service.subscriptions.aes() == {"Sub4"}
    await rig.create(2)
    assert rig.heard("Sub4")[-1] == "2: SCHEDULED"
    assert len(rig.events_for("Sub4")) == 1


@on_loop
async def test_an_ae_without_an_address_keeps_the_spelling_that_it_used_first() -> None:
    rig = await before_the_upgrade()
    await rig.subscribe("sub4")
    await rig.subscribe("SUB4")
    await upgraded(rig)
    assert rig.service.subscriptions.aes() == {"sub4"}
    await rig.subscribe("SUB4")
    assert rig.service.subscriptions.aes() == {"sub4"}


@on_loop
async def test_a_deletion_lock_of_any_spelling_is_one_of_the_joined_title_and_any_spelling_ends_it() -> None:
    rig = await before_the_upgrade()
    await rig.create(1)
    await rig.subscribe("SUB4", 1, lock=True)
    await rig.subscribe("sub4", 1)
    await rig.subscribe("Sub4")
    await upgraded(rig, "SUB4")
    assert rig.subscription("SUB4") is LOCK
    await rig.unsubscribe("sub4", 1)
    assert rig.subscription("SUB4") is NONE


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((True, "subscribe"), (False, "subscribe"), LOCK),
        ((False, "subscribe"), (True, "subscribe"), LOCK),
        ((False, "subscribe"), (True, "suspend"), NO_LOCK),
        ((True, "suspend"), (False, "suspend"), NONE),
        ((False, "subscribe"), (True, "unsubscribe"), NO_LOCK),
        ((False, "unsubscribe"), (False, "unsubscribe"), NONE),
    ],
)
@on_loop
async def test_new_workitems_are_subscribed_as_under_any_of_the_spellings(
    first: tuple[bool, str], second: tuple[bool, str], expected: object
) -> None:
    rig = await before_the_upgrade()
    for ae, (lock, _) in (("SUB4", first), ("sub4", second)):
        await rig.subscribe(ae, lock=lock)
    for ae, (_, then) in (("SUB4", first), ("sub4", second)):
        if then != "subscribe":
            await (rig.suspend(ae) if then == "suspend" else rig.unsubscribe(ae))
    await upgraded(rig, "SUB4")
    await rig.create(1)
    assert rig.subscription("SUB4") is expected


@on_loop
async def test_filters_of_both_spellings_stay_in_force() -> None:
    rig = await before_the_upgrade()
    other = {tags.WORKLIST_LABEL: {"vr": "LO", "Value": ["BRAINS"]}}
    await rig.subscribe("SUB4", FILTERED, keys=LUNGS)
    await rig.subscribe("sub4", FILTERED, keys=other)
    await rig.suspend("sub4", FILTERED)
    await rig.subscribe("sub4", FILTERED, keys=other)
    await upgraded(rig, "SUB4")
    standing = rig.service.subscriptions.standing("SUB4")
    assert len(standing.filters) >= 2


@on_loop
async def test_events_that_waited_for_either_spelling_are_told_once_and_in_order() -> None:
    rig = await before_the_upgrade()
    await rig.subscribe("SUB4")
    await rig.subscribe("sub4")
    await rig.create(1)
    told_before = rig.sequences("SUB4")
    await rig.pass_by(5)
    rig.channel.down["sub4"] = "away"
    await rig.create(2)
    rig.channel.down["SUB4"] = "away"
    await rig.create(3)
    await rig.pass_by(5)
    await upgraded(rig, "SUB4")
    rig.channel.down.clear()
    rig.service.delivery.retry_soon("SUB4")
    await rig.pass_by(60)
    sequences = [event.sequence for event in rig.events_for("SUB4")]
    assert [sequence for sequence in sequences if sequence in told_before] == told_before
    assert sequences == sorted(set(sequences))
    assert [name.split(":")[0] for name in rig.heard("SUB4")] == ["1", "2", "3"]


@on_loop
async def test_dead_letters_of_both_spellings_are_those_of_the_joined_title() -> None:
    rig = await before_the_upgrade(Settings(dead_letter_after=10.0))
    await rig.subscribe("SUB4")
    await rig.subscribe("sub4")
    rig.channel.down = {"SUB4": "away", "sub4": "away"}
    for number in (1, 2):
        await rig.create(number)
        await rig.pass_by(60)
    assert rig.entries.documents("dead/sub4")
    await upgraded(rig, "SUB4")
    assert titles_in(rig.entries.documents("dead/")) == {"SUB4"}
    letters = rig.service.delivery.dead.listed("SUB4", 0, 100)
    assert [letter.uid for letter in letters] == [uid(1), uid(2)]


@on_loop
async def test_the_log_of_events_names_the_joined_title_so_that_a_replay_finds_them(tmp_path: Path) -> None:
    rig = await before_the_upgrade(path=str(tmp_path / "projection.sqlite"))
    await rig.subscribe("sub4")
    await rig.create(1)
    await upgraded(rig, "SUB4")
    replayed = [event async for some in rig.service.delivery.replay("SUB4", 0) for event in some]
    assert [event.uid for event in replayed if event.type is EventType.STATE_REPORT] == [uid(1)]


@on_loop
async def test_the_log_tells_what_was_joined(caplog: pytest.LogCaptureFixture) -> None:
    rig = await before_the_upgrade()
    await rig.subscribe("sub4")
    with caplog.at_level(logging.WARNING, "orthanc_ups.worklist"):
        await upgraded(rig, "SUB4")
    assert "AE title SUB4: what was stored as sub4 is being joined with it" in caplog.text


async def _eventful() -> ServiceRig:
    rig = await before_the_upgrade(Settings(dead_letter_after=30.0))
    for number in (1, 2):
        await rig.create(number)
    await rig.subscribe("SUB4", lock=True)
    await rig.subscribe("sub4", 1, lock=True)
    await rig.unsubscribe("sub4", 1)
    await rig.subscribe("sub4", 2)
    rig.channel.down = {"SUB4": "away", "sub4": "away"}
    await rig.claim(1)
    await rig.claim(2)
    await rig.pass_by(120)
    await rig.cancel(1)
    await rig.cancel(2)
    await rig.pass_by(2)
    return rig


@on_loop
async def test_a_start_that_is_killed_at_any_write_is_gone_on_with() -> None:
    rig = await _eventful()
    await upgraded(rig, "Sub4")
    letters = [letter.sequence for letter in rig.service.delivery.dead.listed("Sub4", 0, 100)]
    expected = rig.subscription("Sub4", 1), rig.subscription("Sub4", 2), letters
    assert expected[:2] == (LOCK, LOCK)
    assert letters
    writes = 1
    while await _killed_at(writes, expected):
        writes += 1
    assert writes > 8


async def _killed_at(write: int, expected: tuple[object, object, list[int]]) -> bool:
    """Migrate with the store failing from that write on, then start again; False if it needs fewer writes."""
    rig = await _eventful()
    await rig.crash()
    rig.strict, rig.listed = False, ("Sub4",)
    rig.channel.down.clear()
    writes = 0

    def count(key: str) -> None:
        nonlocal writes
        writes += 1
        if writes == write:
            rig.entries.broken_keys.add(key)

    rig.entries.on_write = count  # type: ignore[method-assign]
    try:
        await rig.start()
        return False
    except StoreUnavailable:
        pass
    await rig.crash()
    await rig.start()
    assert titles_in(rig.entries.documents()) == {"Sub4"}
    letters = [letter.sequence for letter in rig.service.delivery.dead.listed("Sub4", 0, 100)]
    assert (rig.subscription("Sub4", 1), rig.subscription("Sub4", 2), letters) == expected
    await rig.pass_by(60)
    assert [event.uid for event in rig.events_for("Sub4")].count(uid(1)) >= 1
    return True
