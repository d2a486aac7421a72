# SPDX-License-Identifier: AGPL-3.0-or-later
"""The cache holds the workitems that were read or written last, up to its size in bytes."""

from orthanc_ups.core.workitem import Workitem
from orthanc_ups.projection.recent import Recent, StoredWorkitem


def stored(uid: str, version: str = "1") -> StoredWorkitem:
    return StoredWorkitem(Workitem(uid, 1, {}), version)


def test_the_latest_version_of_a_workitem_is_returned() -> None:
    recent = Recent()
    recent.keep(stored("1", "old"), 100)
    recent.keep(stored("1", "new"), 100)
    assert recent.get("1") == stored("1", "new")
    recent.forget("1")
    assert recent.get("1") is None


def test_the_workitem_least_recently_read_is_evicted_first() -> None:
    recent = Recent(size=250)
    recent.keep(stored("1"), 100)
    recent.keep(stored("2"), 100)
    assert recent.get("1")
    recent.keep(stored("3"), 100)
    assert [uid for uid in "123" if recent.get(uid)] == ["1", "3"]


def test_a_document_larger_than_the_cache_is_not_cached() -> None:
    recent = Recent(size=250)
    recent.keep(stored("1"), 251)
    assert recent.get("1") is None
    recent.keep(stored("2"), 250)
    assert recent.get("2")


def test_a_workitem_that_is_cached_again_counts_once() -> None:
    recent = Recent(size=250)
    for _ in range(10):
        recent.keep(stored("1"), 100)
    recent.keep(stored("2"), 100)
    assert recent.get("1")
    assert recent.get("2")
    recent.clear()
    assert recent.get("1") is None
