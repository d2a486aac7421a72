# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist in Orthanc's metadata: as little of it as possible is visible, and deleted entries are restored."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orthanc_ups.core.workitem import Workitem
from orthanc_ups.store import shelves
from orthanc_ups.store.documents import encode
from tests.contract.stores import OrthancStore
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient
from tests.support.workitems import stored, uid

NUMBERS = range(1, 9)


def client(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def test_a_new_worklist_is_one_instance_that_says_what_it_is(suite: str) -> None:
    with RealOrthanc(suite, {"Ups": {"Store": "metadata"}}) as orthanc:
        store = OrthancStore(orthanc)
        client(orthanc).create()
        assert store.shelves_in_orthanc() == 1
        study = store.get(f"/studies/{shelves.STUDY}").json()
        assert study["Labels"] == ["orthanc-ups"]
        assert study["MainDicomTags"]["StudyDescription"] == shelves.STUDY_DESCRIPTION
        assert study["MainDicomTags"]["StudyDate"] and study["MainDicomTags"]["StudyTime"]


@pytest.fixture(scope="module")
def of_old(suite: str) -> Iterator[RealOrthanc]:
    """With a worklist of version 1.0.0.dev0 on its 256 shelves."""
    documents = {
        f"workitem/{uid(number)}": encode(Workitem(uid(number), number, stored(number), revision=1))
        for number in NUMBERS
    }
    with RealOrthanc(suite, {"Ups": {"Store": "metadata", "Enable": False}}) as orthanc:
        OrthancStore(orthanc).make_by_version_1_0_0_dev0(documents)
        orthanc.stop()
        orthanc.configuration["Ups"]["Enable"] = True
        orthanc.start()
        yield orthanc


def test_a_worklist_of_version_1_0_0_dev0_is_opened_without_loss(of_old: RealOrthanc) -> None:
    web = client(of_old)
    for number in NUMBERS:
        assert web.retrieve(uid(number))
    assert OrthancStore(of_old).shelves_in_orthanc() == shelves.SHELVES
    assert "deleted" not in of_old.log_text()


def test_single_shelves_that_are_deleted_one_after_the_other_are_written_back_at_once(
    of_old: RealOrthanc,
) -> None:
    store, web = OrthancStore(of_old), client(of_old)
    web.claim(uid(1))
    keys = [f"workitem/{uid(number)}" for number in (1, 2)]
    addresses = [shelves.hashed(key, 0) for key in keys]
    before = [store.get(shelves.path(address)).content for address in addresses]
    for address in addresses:  # the second one while the first one is made good
        store.delete_shelf(address.shelf)
    wait_until(
        lambda: [store.get(shelves.path(address)).content for address in addresses] == before,
        lambda: f"both are written back\n{of_old.log_tail()}",
    )
    of_old.logs("nothing is lost")
