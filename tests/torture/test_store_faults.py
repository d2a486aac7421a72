# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever happens to the store: a clear line in the log, the right refusal, recovery, and nothing lost."""

from __future__ import annotations

import orjson
import pytest
import requests

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, text
from orthanc_ups.store import shelves
from tests.support.faults import Shelf, UnderLoad, fill, limit_file_size
from tests.support.waiting import wait_until

pytestmark = pytest.mark.one_store("each store fails on the Orthanc that has it by default")

DONE, FULL = (0x0000, 201), (0x0213, 503)
LABEL = "Second reading"
LOW: DataSet = {tags.PRIORITY: element("CS", "LOW")}


def shown(load: UnderLoad, uid: str) -> tuple[str, str]:
    answer = load.retrieve(uid)
    return text(answer, tags.LABEL), text(answer, tags.PRIORITY)


def wait_until_refused(load: UnderLoad) -> tuple[int, int]:
    """What is still free in the database's own pages is used up first."""
    statuses = DONE

    def is_refused() -> bool:
        nonlocal statuses
        statuses = load.create()
        return all(status != done for status, done in zip(statuses, DONE, strict=True))

    wait_until(is_refused, "no more workitems can be created", 60, interval=0.0)
    return statuses


def wait_until_taken(load: UnderLoad) -> None:
    wait_until(lambda: load.create() == DONE, "workitems can be created again", 30, interval=0.1)


# --- no room ---


def test_a_full_disk_refuses_changes_until_space_is_free(load: UnderLoad) -> None:
    disk = load.orthanc.folder / "data"
    if not disk.is_mount():
        return a_database_that_cannot_grow(load)
    begun = load.log_size
    ballast = fill(disk)
    try:
        assert wait_until_refused(load) == FULL
        assert load.logs("The disk of .* is full", begun)
        assert requests.get(f"{load.orthanc.base_url}/system", timeout=10).status_code == 200
    finally:
        ballast.unlink()
    wait_until_taken(load)
    assert load.logs("has free space again", begun)
    return load.goes_on()


def test_a_database_that_cannot_grow_refuses_changes_until_it_can(load: UnderLoad) -> None:
    a_database_that_cannot_grow(load)


def a_database_that_cannot_grow(load: UnderLoad) -> None:
    begun = load.log_size
    limit_file_size(load.orthanc.pid, 4096)
    try:
        assert wait_until_refused(load) == FULL
        assert load.logs("not stored|disk I/O error", begun)  # whoever meets it first
    finally:
        limit_file_size(load.orthanc.pid, None)
    wait_until_taken(load)
    load.goes_on()


def test_an_orthanc_that_is_read_only_does_not_start_and_is_used_again_when_it_is_writable(
    load: UnderLoad,
) -> None:
    load.orthanc.stop()
    begun = load.log_size
    load.orthanc.configuration["ReadOnly"] = True
    load.orthanc.launch()
    assert load.orthanc.wait(60) != 0
    assert load.logs('"ReadOnly" is true', begun)
    del load.orthanc.configuration["ReadOnly"]
    load.orthanc.start()
    load.goes_on()


# --- an entry ---


def test_an_entry_that_was_changed_by_hand_is_taken_over(load_on_shelves: UnderLoad) -> None:
    uid, begun = load_on_shelves.make(), load_on_shelves.log_size
    shelf = Shelf(load_on_shelves.orthanc, uid)
    header, _, document = shelf.read().partition(b"\n")
    content = orjson.loads(document)
    content["attributes"][tags.LABEL] = element("LO", "by hand")
    shelf.write(header + b"\n" + orjson.dumps(content))
    assert load_on_shelves.update(uid, LOW) == 200
    assert load_on_shelves.logs("was changed by somebody else", begun)
    assert shown(load_on_shelves, uid) == ("by hand", "LOW")


CORRUPT = {
    "alien": b"garbage",
    "empty": b"",
    "cut": b'UPS1 3 workitem/%b\n{"format": 1',
    "newer": b'UPS1 3 workitem/%b\n{"format": 99}',
}


def test_corrupt_entries_are_written_back(load_on_shelves: UnderLoad) -> None:
    uids = []
    for kind, content in CORRUPT.items():
        uid, begun = load_on_shelves.make(), load_on_shelves.log_size
        Shelf(load_on_shelves.orthanc, uid).write(content.replace(b"%b", uid.encode()))
        assert load_on_shelves.update(uid, LOW) == 200, kind
        assert load_on_shelves.logs("corrupt" if b"UPS1" in content else "is not an entry", begun)
        assert shown(load_on_shelves, uid) == (LABEL, "LOW"), kind
        uids.append(uid)
    load_on_shelves.crash()
    assert [shown(load_on_shelves, uid) for uid in uids] == [(LABEL, "LOW")] * len(CORRUPT)


def test_an_entry_that_was_deleted_is_written_back(load_on_shelves: UnderLoad) -> None:
    uid, begun = load_on_shelves.make(), load_on_shelves.log_size
    Shelf(load_on_shelves.orthanc, uid).delete()
    assert load_on_shelves.update(uid, LOW) == 200
    assert load_on_shelves.logs("vanished", begun)
    load_on_shelves.crash()
    assert shown(load_on_shelves, uid) == (LABEL, "LOW")


def test_a_corrupt_entry_at_the_start_is_told_and_the_rest_is_served(load_on_shelves: UnderLoad) -> None:
    spoiled, other, begun = load_on_shelves.make(), load_on_shelves.make(), load_on_shelves.log_size
    Shelf(load_on_shelves.orthanc, spoiled).write(b"garbage")
    load_on_shelves.crash()
    assert load_on_shelves.logs("is not an entry of the worklist", begun)
    assert shown(load_on_shelves, other)[0] == LABEL


# --- the shelves ---


def test_the_pseudo_patient_is_written_back_while_clients_go_on(load_on_shelves: UnderLoad) -> None:
    uid, begun = load_on_shelves.make(), load_on_shelves.log_size
    patient = f"{load_on_shelves.orthanc.base_url}/patients/{shelves.PATIENT}"
    assert requests.get(f"{patient}/protected", timeout=10).text == "1"
    requests.delete(patient, timeout=30).raise_for_status()
    assert load_on_shelves.logs("was deleted; writing it back", begun)
    assert load_on_shelves.logs("nothing is lost", begun)
    load_on_shelves.goes_on()
    assert requests.get(f"{patient}/protected", timeout=10).text == "1"
    load_on_shelves.crash()
    assert shown(load_on_shelves, uid)[0] == LABEL


def test_a_shelf_is_written_back(load_on_shelves: UnderLoad) -> None:
    uid, begun = load_on_shelves.make(), load_on_shelves.log_size
    shelf = f"{load_on_shelves.orthanc.base_url}/instances/{shelves.INSTANCES[0]}"
    requests.delete(shelf, timeout=30).raise_for_status()
    assert load_on_shelves.logs("nothing is lost", begun)
    assert load_on_shelves.update(uid, LOW) == 200
    load_on_shelves.goes_on()


@pytest.mark.parametrize("ending", ["killed", "stopped"])
def test_a_pseudo_patient_deleted_while_the_plugin_is_off_comes_back_with_every_subscription(
    load_on_shelves: UnderLoad, ending: str
) -> None:
    uid, begun = load_on_shelves.make(), load_on_shelves.log_size
    orthanc, ups = load_on_shelves.orthanc, load_on_shelves.orthanc.configuration["Ups"]
    orthanc.kill() if ending == "killed" else orthanc.stop()
    ups["Enable"] = False
    orthanc.start()
    requests.delete(f"{orthanc.base_url}/patients/{shelves.PATIENT}", timeout=30).raise_for_status()
    orthanc.stop()
    ups["Enable"] = True
    orthanc.start()
    line = load_on_shelves.logs("entries back", begun)
    assert "2 × log of global subscriptions" in line
    assert (
        ending == "killed" or "2 × delivery cursor" in line
    )  # a kill may come before the first one is stored
    assert "are lost" not in orthanc.log_text()[begun:]
    assert shown(load_on_shelves, uid)[0] == LABEL
    load_on_shelves.goes_on()
