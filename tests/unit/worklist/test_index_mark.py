# SPDX-License-Identifier: AGPL-3.0-or-later
"""The search index is used only if store, index and journal bear the same mark; else the store is read whole.

``store/journal.py`` says why that is enough. Held here: whatever was written, whenever the process ended, and whichever
file was taken from a backup, the index of the next start is what the store holds.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orthanc_ups.core import tags
from orthanc_ups.core.commands import ChangeState
from orthanc_ups.core.dataset import element
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.store import keys
from orthanc_ups.store.documents import is_tombstone
from orthanc_ups.store.journal import IndexJournal
from tests.support.service import SCHEDULER, TRANSACTION, ServiceRig, SlowEntries, on_loop
from tests.support.workitems import uid

Stored = dict[str, tuple[str, bytes]]


class UnexposedEntries(SlowEntries):
    """A store from which nobody takes entries away, as Orthanc's key-value store."""

    exposed = False


def rig_on(folder: Path) -> ServiceRig:
    rig = ServiceRig("A", path=str(folder / "p.sqlite"))
    rig.entries = UnexposedEntries()
    return rig


def mark_of(rig: ServiceRig) -> str:
    return str(orjson.loads(rig.entries.documents()[keys.INDEX_MARK])["mark"])


async def purged(rig: ServiceRig, number: int) -> None:
    await rig.complete(number)
    await rig.purge(number)


async def populated(folder: Path) -> ServiceRig:
    """Three workitems and what is left of a fourth one; the mark is made anew after that."""
    rig = await rig_on(folder).start()
    for number in range(1, 5):
        await rig.create(number)
    await purged(rig, 4)
    await marked_anew(rig)
    return rig


async def marked_anew(rig: ServiceRig) -> None:
    former = mark_of(rig)
    await rig.pass_by(11)
    await rig.until(lambda: mark_of(rig) != former)


async def in_store(rig: ServiceRig) -> Stored:
    entries = [entry async for chunk in rig.entries.another().load() for entry in chunk]
    return {
        entry.key: (entry.version, entry.document) for entry in entries if entry.key.startswith("workitem/")
    }


def in_index(rig: ServiceRig) -> Stored:
    projection = rig.service.projection
    entries = {key: (version, document) for key, document, version in projection.documents()}
    entries |= {entry.key: (entry.version, entry.document) for entry in projection.tombstones()}
    assert projection.count() == sum(not is_tombstone(document) for _, document in entries.values())
    return entries


async def restarted(rig: ServiceRig) -> dict[str, int]:
    """Start again; returns how often the store was called, and holds the index against it."""
    rig.entries = rig.entries.another()
    await rig.start()
    calls, stored = dict(rig.entries.calls), await in_store(rig)
    assert in_index(rig) == stored
    purged = {
        key.removeprefix("workitem/") for key, (_, document) in stored.items() if is_tombstone(document)
    }
    assert set(rig.service.workitems.tombstones) == purged
    return calls


@on_loop
async def test_after_a_stop_in_order_no_workitem_is_read(tmp_path: Path) -> None:
    rig = await populated(tmp_path)
    await rig.claim(1)
    await rig.stop()
    calls = await restarted(rig)
    assert "load" not in calls


@on_loop
async def test_after_a_crash_only_what_was_written_since_the_mark_is_read(tmp_path: Path) -> None:
    rig = await populated(tmp_path)
    await rig.claim(1)
    await rig.update({tags.LABEL: element("LO", "twice")}, 1)
    await rig.create(5)
    await purged(rig, 2)
    await rig.crash()
    calls = await restarted(rig)
    assert "load" not in calls
    others = {keys.INDEX_MARK, "worklist", "move"}
    assert calls["read"] <= 3 + len(others)


@on_loop
async def test_a_write_that_is_under_way_while_the_mark_changes_is_read_again(tmp_path: Path) -> None:
    rig = await populated(tmp_path)
    await rig.claim(2)
    rig.entries.after[f"workitem/{uid(1)}"] = asyncio.Event()
    claim = ChangeState(SCHEDULER, uid(1), "IN PROGRESS", TRANSACTION)
    claiming = asyncio.ensure_future(rig.service.worklist.execute(claim))
    await marked_anew(rig)
    assert not claiming.done(), "the store has it, the index does not"
    await rig.crash()
    calls = await restarted(rig)
    assert "load" not in calls
    assert rig.state(1) == "IN PROGRESS"


# --- when one of the three is not the last ---


def without_journal(rig: ServiceRig, backup: Path) -> None:
    Path(f"{rig.path}.journal").unlink()


def with_an_empty_journal(rig: ServiceRig, backup: Path) -> None:
    Path(f"{rig.path}.journal").write_bytes(b"")


def with_a_former_journal(rig: ServiceRig, backup: Path) -> None:
    shutil.copy(backup / "p.sqlite.journal", f"{rig.path}.journal")


def without_index(rig: ServiceRig, backup: Path) -> None:
    for file in Path(rig.path).parent.glob("p.sqlite*"):
        if "journal" not in file.name:
            file.unlink()


def with_a_former_index(rig: ServiceRig, backup: Path) -> None:
    without_index(rig, backup)
    for ending in ("", "-wal"):
        if Path(f"{backup}/p.sqlite{ending}").exists():
            shutil.copy(f"{backup}/p.sqlite{ending}", f"{rig.path}{ending}")


def with_a_former_mark_in_the_store(rig: ServiceRig, backup: Path) -> None:
    rig.entries.tamper(keys.INDEX_MARK, (backup / "mark").read_bytes())


def without_mark_in_the_store(rig: ServiceRig, backup: Path) -> None:
    rig.entries.tamper(keys.INDEX_MARK, None)


def with_a_damaged_mark_in_the_store(rig: ServiceRig, backup: Path) -> None:
    rig.entries.tamper(keys.INDEX_MARK, b'["mark"]')


def with_an_index_of_another_version(rig: ServiceRig, backup: Path) -> None:
    with sqlite3.connect(rig.path) as connection:
        # A crash while a deleted index was made anew leaves a file without tables, which is of no version either.
        connection.execute("CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT)")
        connection.execute("UPDATE meta SET value = 'another' WHERE name = 'fingerprint'")
    connection.close()


WRONG: Final[Sequence[Callable[[ServiceRig, Path], None]]] = (
    without_journal,
    with_an_empty_journal,
    with_a_former_journal,
    without_index,
    with_a_former_index,
    with_a_former_mark_in_the_store,
    without_mark_in_the_store,
    with_a_damaged_mark_in_the_store,
    with_an_index_of_another_version,
)


async def backed_up(rig: ServiceRig, folder: Path) -> Path:
    """A copy of everything as it is now; then time passes and two workitems change, so that the marks do."""
    backup = folder / "backup"
    backup.mkdir()
    for file in Path(rig.path).parent.glob("p.sqlite*"):
        shutil.copy(file, backup)
    (backup / "mark").write_bytes(rig.entries.documents()[keys.INDEX_MARK])
    for number in (1, 3):
        await rig.claim(number)
        await marked_anew(rig)
    return backup


@pytest.mark.parametrize("in_order", [True, False])
@pytest.mark.parametrize("wrong", WRONG)
def test_the_store_is_read_whole_if_one_of_the_three_is_not_the_last(
    tmp_path: Path, wrong: Callable[[ServiceRig, Path], None], in_order: bool
) -> None:
    @on_loop
    async def scenario() -> None:
        rig = await populated(tmp_path)
        backup = await backed_up(rig, tmp_path)
        await (rig.stop() if in_order else rig.crash())
        wrong(rig, backup)
        assert (await restarted(rig))["load"] == 1
        await rig.update({tags.LABEL: element("LO", "later")}, 1)
        await rig.crash()
        assert "load" not in await restarted(rig)

    scenario()


@on_loop
async def test_an_entry_that_nobody_can_read_keeps_the_index_from_being_trusted(tmp_path: Path) -> None:
    rig = await populated(tmp_path)
    await rig.stop()
    rig.entries.tamper(f"workitem/{uid(1)}", b"garbage")
    rig.entries.tamper(keys.INDEX_MARK, None)
    rig.entries = rig.entries.another()
    await rig.start()
    await rig.pass_by(11)
    await rig.stop()
    rig.entries = rig.entries.another()
    await rig.start()
    assert rig.entries.calls["load"] == 1


def test_a_journal_that_cannot_be_written_bears_no_mark(tmp_path: Path) -> None:
    """Such as on a disk that is full: what it does not name may have been written all the same."""
    journal = IndexJournal(tmp_path / "journal")
    journal.begin("first", whole=True)
    journal.complete()
    journal.note("workitem/2.25.71")
    assert journal.read("first") == frozenset({"2.25.71"})
    (tmp_path / "journal.next").symlink_to("/dev/full")
    journal.begin("second", whole=False)
    journal.note("workitem/2.25.72")
    assert journal.read("first") is journal.read("second") is None
    journal.begin("third", whole=False)
    assert journal.is_empty, "a write that failed is no reason to make the mark anew again and again"
    journal.complete()
    assert journal.read("third") == frozenset({"2.25.71", "2.25.72"}), "what is open is carried over"
    journal.close()


# --- anything, in any order ---

_NUMBERS: Final = st.integers(1, 4)
_STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["create", "claim", "update", "purge"]), _NUMBERS),
        st.tuples(st.sampled_from(["pass_by", "crash", "stop", "break"]), st.just(0)),
    ),
    max_size=14,
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_STEPS, st.sampled_from([None, *WRONG]))
def test_whatever_was_written_and_however_it_ended_the_index_is_what_the_store_holds(
    steps: list[tuple[str, int]], wrong: Callable[[ServiceRig, Path], None] | None
) -> None:
    @on_loop
    async def scenario(folder: Path) -> None:
        rig = await populated(folder)
        backup = await backed_up(rig, folder)
        for step, number in steps:
            await carried_out(rig, step, number)
        await rig.crash()
        if wrong is not None:
            wrong(rig, backup)
        await restarted(rig)

    with TemporaryDirectory() as folder:
        scenario(Path(folder))


async def carried_out(rig: ServiceRig, step: str, number: int) -> None:
    if step == "pass_by":
        await rig.pass_by(11)
    elif step == "break":
        with suppress(FileNotFoundError):  # it is just being made anew
            os.unlink(rig.path)
        rig.service.workitems.check_file()
    elif step in ("crash", "stop"):
        await getattr(rig, step)()
        await restarted(rig)
    else:
        with suppress(UpsError):  # such as a second claim
            await commanded(rig, step, number)


async def commanded(rig: ServiceRig, step: str, number: int) -> None:
    if step == "create":
        await rig.create(number + 4)
    elif step == "claim":
        await rig.claim(number)
    elif step == "update":
        await rig.update({tags.LABEL: element("LO", "changed")}, number)
    else:
        await purged(rig, number)
