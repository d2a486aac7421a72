# SPDX-License-Identifier: AGPL-3.0-or-later
"""The workitems that were read or written last are at hand, and no more of them than there is room for."""

from orthanc_ups.core.workitem import Workitem
from orthanc_ups.projection.recent import Recent, StoredWorkitem


def stored(uid: str, version: str = "1") -> StoredWorkitem:
    return StoredWorkitem(Workitem(uid, 1, {}), version)


def test_the_version_that_was_kept_last_is_found() -> None:
    recent = Recent()
    recent.keep(stored("1", "old"), 100)
    recent.keep(stored("1", "new"), 100)
    assert recent.get("1") == stored("1", "new")
    recent.forget("1")
    assert recent.get("1") is None


def test_the_ones_that_were_not_asked_for_go_when_room_is_short() -> None:
    recent = Recent(size=250)
    recent.keep(stored("1"), 100)
    recent.keep(stored("2"), 100)
    assert recent.get("1")
    recent.keep(stored("3"), 100)
    assert [uid for uid in "123" if recent.get(uid)] == ["1", "3"]


def test_what_is_larger_than_the_room_is_not_kept() -> None:
    recent = Recent(size=250)
    recent.keep(stored("1"), 251)
    assert recent.get("1") is None
    recent.keep(stored("2"), 250)
    assert recent.get("2")


def test_what_is_kept_again_takes_its_room_once() -> None:
    recent = Recent(size=250)
    for _ in range(10):
        recent.keep(stored("1"), 100)
    recent.keep(stored("2"), 100)
    assert recent.get("1")
    assert recent.get("2")
    recent.clear()
    assert recent.get("1") is None
