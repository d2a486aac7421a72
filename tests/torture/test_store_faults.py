# SPDX-License-Identifier: AGPL-3.0-or-later
"""Whatever happens to the store: a clear line in the log, the right refusal, recovery, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import requests

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element, text
from orthanc_ups.store import shelves
from tests.support.faults import NotPermitted, Shelf, UnderLoad, fill, limit_file_size, small_disk
from tests.support.load_plan import as_json
from tests.support.waiting import wait_until
from tests.support.workitems import full

DONE, FULL = (0x0000, 201), (0x0213, 503)
LABEL = tags.LABEL


def make(load: UnderLoad, uid: str) -> None:
    answer = requests.post(
        f"{load.url}/workitems?{uid}",
        as_json(full()),
        headers={"Content-Type": "application/dicom+json"},
        timeout=30,
    )
    assert answer.status_code == 201, answer.text


def wait_until_refused(load: UnderLoad) -> tuple[int, int]:
    """What is still free in the database's own pages is used up first."""
    found = DONE

    def is_refused() -> bool:
        nonlocal found
        found = load.create()
        return DONE[0] != found[0] and DONE[1] != found[1]

    wait_until(is_refused, "no more workitems can be created", 60, interval=0.0)
    return found


def test_a_full_disk_refuses_changes_and_loses_nothing(suite: str, tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "orthanc" / "data", 24) as disk, UnderLoad(suite, tmp_path) as load:
            ballast = fill(disk)
            assert wait_until_refused(load) == FULL
            assert load.logs("not stored")
            assert requests.get(f"{load.orthanc.base_url}/system", timeout=10).status_code == 200
            ballast.unlink()
            wait_until(lambda: load.create() == DONE, "workitems can be created again", 30, interval=0.2)
            load.goes_on()
            load.orthanc.kill()
            load.orthanc.start()
            load.goes_on()
    except NotPermitted:
        a_database_that_cannot_grow(suite, tmp_path)


def test_a_database_that_cannot_grow_refuses_changes_and_loses_nothing(suite: str, tmp_path: Path) -> None:
    a_database_that_cannot_grow(suite, tmp_path)


def a_database_that_cannot_grow(suite: str, tmp_path: Path) -> None:
    with UnderLoad(suite, tmp_path, prefix=("env", "--ignore-signal=XFSZ")) as load:
        limit_file_size(load.orthanc.pid, 16 * 1024)
        assert wait_until_refused(load) == FULL
        limit_file_size(load.orthanc.pid, None)
        assert load.logs("not stored")
        wait_until(lambda: load.create() == DONE, "workitems can be created again", 30, interval=0.2)
        load.goes_on()


def test_a_read_only_database_is_told_and_served_again_when_it_is_writable(
    suite: str, tmp_path: Path
) -> None:
    with UnderLoad(suite, tmp_path) as load:
        load.orthanc.stop()
        load.orthanc.configuration["ReadOnly"] = True
        begun = len(load.orthanc.log_text())
        load.orthanc.launch()
        assert load.logs("read-only", begun)
        load.orthanc.stop()
        del load.orthanc.configuration["ReadOnly"]
        load.orthanc.start()
        load.goes_on()


def test_an_entry_that_was_changed_by_hand_is_taken_over(suite: str, tmp_path: Path) -> None:
    with UnderLoad(suite, tmp_path) as load:
        make(load, "1.2.3.1")
        shelf = Shelf(load.orthanc, "1.2.3.1")
        header, _, document = shelf.read().partition(b"\n")
        content = orjson.loads(document)
        content["attributes"][LABEL] = element("LO", "by hand")
        shelf.write(header + b"\n" + orjson.dumps(content))
        assert load.update("1.2.3.1", {tags.PRIORITY: element("CS", "LOW")}).status_code == 200
        assert load.logs("was changed by somebody else")
        found = load.retrieve("1.2.3.1")
        assert (text(found, LABEL), text(found, tags.PRIORITY)) == ("by hand", "LOW")


@pytest.mark.parametrize(
    "garbage", [b"garbage", b"", b"UPS1 3 workitem/1.2.3.1\n{"], ids=["alien", "empty", "cut"]
)
def test_a_corrupt_entry_is_written_back(suite: str, tmp_path: Path, garbage: bytes) -> None:
    with UnderLoad(suite, tmp_path) as load:
        make(load, "1.2.3.1")
        Shelf(load.orthanc, "1.2.3.1").write(garbage)
        begun = len(load.orthanc.log_text())
        assert load.update("1.2.3.1", {tags.PRIORITY: element("CS", "LOW")}).status_code == 200
        assert load.logs("1.2.3.1", begun) or load.logs("is not an entry", begun)
        load.orthanc.kill()
        load.orthanc.start()
        found = load.retrieve("1.2.3.1")
        assert (text(found, LABEL), text(found, tags.PRIORITY)) == ("Second reading", "LOW")


def test_an_entry_that_was_deleted_is_written_back(suite: str, tmp_path: Path) -> None:
    with UnderLoad(suite, tmp_path) as load:
        make(load, "1.2.3.1")
        Shelf(load.orthanc, "1.2.3.1").delete()
        assert load.update("1.2.3.1", {tags.PRIORITY: element("CS", "LOW")}).status_code == 200
        assert load.logs("vanished")
        load.orthanc.kill()
        load.orthanc.start()
        assert text(load.retrieve("1.2.3.1"), tags.PRIORITY) == "LOW"


def test_a_corrupt_entry_at_the_start_is_reported_and_the_rest_served(suite: str, tmp_path: Path) -> None:
    with UnderLoad(suite, tmp_path) as load:
        make(load, "1.2.3.1")
        make(load, "1.2.3.2")
        Shelf(load.orthanc, "1.2.3.1").write(b"garbage")
        load.orthanc.kill()
        begun = len(load.orthanc.log_text())
        load.orthanc.start()
        assert load.logs("is not an entry of the worklist", begun)
        assert text(load.retrieve("1.2.3.2"), LABEL) == "Second reading"


def test_the_pseudo_patient_is_written_back_while_clients_go_on(suite: str, tmp_path: Path) -> None:
    with UnderLoad(suite, tmp_path) as load:
        patient = f"{load.orthanc.base_url}/patients/{shelves.PATIENT}"
        assert requests.get(f"{patient}/protected", timeout=10).text == "1"
        requests.delete(patient, timeout=30).raise_for_status()
        assert load.logs("was deleted; writing it back")
        assert load.logs("nothing is lost")
        load.goes_on()
        assert requests.get(f"{patient}/protected", timeout=10).text == "1"
        load.orthanc.kill()
        load.orthanc.start()
        load.goes_on()


def test_a_single_shelf_is_written_back(suite: str, tmp_path: Path) -> None:
    with UnderLoad(suite, tmp_path) as load:
        make(load, "1.2.3.1")
        shelf = shelves.INSTANCES[shelves.address("workitem/1.2.3.1", 0).shelf]
        requests.delete(f"{load.orthanc.base_url}/instances/{shelf}", timeout=30).raise_for_status()
        assert load.logs("nothing is lost")
        assert load.update("1.2.3.1", {tags.PRIORITY: element("CS", "LOW")}).status_code == 200
