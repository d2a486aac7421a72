# SPDX-License-Identifier: AGPL-3.0-or-later
"""Real-world peers over DIMSE on a real Orthanc: the answers they get, and what the operator reads in the log."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from pydicom import Dataset

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import text
from tests.support import workitems
from tests.support.dimse_client import UpsClient
from tests.support.event_receiver import EventReceiver
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until
from tests.support.web_client import new_uid

pytestmark = pytest.mark.one_suite("the DIMSE port is our own")

SUCCESS, WRONG_TRANSACTION_UID, CREATED_MODIFIED = 0x0000, 0xC301, 0xB300


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {"DicomModalities": {"scu": ["SCU", "127.0.0.1", 104], "ward": ["WARD", "127.0.0.1", 104]}}


def client(orthanc: RealOrthanc) -> UpsClient:
    return UpsClient(orthanc.ups_dicom_port, calling="SCU")


def test_cc_2_3_unsubscribe_with_a_deletion_lock_in_the_data_set_is_carried_out(orthanc: RealOrthanc) -> None:
    uid = new_uid()
    with client(orthanc) as scu:
        assert scu.create(workitems.minimal(), uid).code in (SUCCESS, CREATED_MODIFIED)
        assert scu.subscribe(uid, "WARD", lock=True).code == SUCCESS
        information = Dataset()
        information.ReceivingAE, information.DeletionLock = "WARD", "FALSE"
        assert scu.action(4, uid, information, on=tags.WATCH).code == SUCCESS
    watchers = requests.get(f"{orthanc.base_url}/ups/api/subscribers/WARD", timeout=60).json()
    assert watchers["specific"] == 0


def test_a_refused_request_is_a_line_in_the_log_that_names_who_what_and_why(orthanc: RealOrthanc) -> None:
    uid, begun = new_uid(), len(orthanc.log_text())
    with client(orthanc) as scu:
        scu.create(workitems.minimal(), uid)
        assert scu.change_state(uid, "IN PROGRESS", new_uid()).code == SUCCESS
        assert scu.change_state(uid, "COMPLETED", "2.25.4711").code == WRONG_TRANSACTION_UID
    (line,) = [line for line in orthanc.logs("C301", since=begun).splitlines() if "C301" in line]
    assert line.startswith("W") and "SCU" in line and uid in line
    assert "4711" not in line


def test_ps3_7_d_3_3_4_a_receiver_that_refuses_the_scp_role_is_sent_nothing(suite: str) -> None:
    with EventReceiver("REFUSER", refuse_role=True) as receiver:
        peers = {"refuser": ["REFUSER", "127.0.0.1", receiver.port], "scu": ["SCU", "127.0.0.1", 104]}
        with RealOrthanc(suite, {"DicomModalities": peers}) as orthanc:
            uid = new_uid()
            with client(orthanc) as scu:
                scu.create(workitems.minimal(), uid)
                assert scu.subscribe(uid, "REFUSER").code == SUCCESS
            url = f"{orthanc.base_url}/ups/api/subscribers/REFUSER"
            wait_until(
                lambda: "does not accept the UPS Event" in requests.get(url, timeout=60).text,
                "it is shown",
            )
        assert receiver.reports == []


def test_ps3_7_an_announced_data_set_that_is_not_sent_counts_as_empty(orthanc: RealOrthanc) -> None:
    """An empty data set is what pynetdicom announces and does not send."""
    uid = new_uid()
    with client(orthanc) as scu:
        scu.create(workitems.minimal(), uid)
        assert scu.action(2, uid, Dataset()).code == SUCCESS
        answer = scu.get(uid, [tags.STATE])
    assert text(answer.attributes, tags.STATE) == "CANCELED"


def test_cc_2_1_another_spelling_of_a_state_is_taken(orthanc: RealOrthanc) -> None:
    uid = new_uid()
    with client(orthanc) as scu:
        scu.create(workitems.minimal(), uid)
        assert scu.change_state(uid, "IN_PROGRESS", new_uid()).code == SUCCESS
        assert text(scu.get(uid, [tags.STATE]).attributes, tags.STATE) == "IN PROGRESS"
