# SPDX-License-Identifier: AGPL-3.0-or-later
"""Misbehaving peers, crashes and restarts do no lasting harm to the DIMSE worklist of a real Orthanc."""

import asyncio
import contextlib
import os
import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import requests
from pynetdicom import AE

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element, text
from orthanc_ups.dimse.data_sets import EXPLICIT, encode
from orthanc_ups.dimse.message import (
    RELEASE_RQ,
    STATUS,
    CommandField,
    Message,
    PduType,
    data_pdu,
    fragments,
)
from orthanc_ups.dimse.negotiation import request
from tests.support import raw_dimse, workitems
from tests.support.dimse_client import VERIFICATION, NoAssociation, UpsClient
from tests.support.event_receiver import EventReceiver
from tests.support.orthanc import RealOrthanc
from tests.support.ports import is_listening
from tests.support.raw_dimse import Closed, RawPeer, crowd
from tests.support.waiting import wait_until

pytestmark = pytest.mark.one_suite("the DIMSE port is our own")

MODALITIES = {"scu": ["SCU", "127.0.0.1", 104]}
SCP_STATUS_CHANGE = 4
STOPS_WITHIN = 25.0
"""Seconds; five would be enough, and 30 and more pass where something waits for a silent peer."""


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {"DicomModalities": MODALITIES, "Ups": {"MaximumAssociations": 30}}


def orthanc_is_well(orthanc: RealOrthanc) -> None:
    """Orthanc's own ports and ours serve."""
    assert requests.get(f"{orthanc.base_url}/system", timeout=60).status_code == 200
    ae = AE(ae_title="SCU")
    ae.add_requested_context(VERIFICATION)
    association = ae.associate("127.0.0.1", orthanc.dicom_port)
    assert association.send_c_echo().Status == 0
    association.release()
    with UpsClient(orthanc.ups_dicom_port) as client:
        assert client.create(workitems.minimal()).code == 0


def test_a_thousand_associations_at_once(orthanc: RealOrthanc) -> None:
    """On a busy machine some of them do not take the rejection in time, and are cut off."""
    answers = asyncio.run(crowd(orthanc.ups_dicom_port, 1000))
    accepted, rejected = answers.count(PduType.ASSOCIATE_AC), answers.count(PduType.ASSOCIATE_RJ)
    assert 0 < accepted <= 30
    assert rejected > 0
    assert accepted + rejected + answers.count(None) == 1000
    orthanc_is_well(orthanc)


def test_damaged_conversations_and_vanishing_peers(orthanc: RealOrthanc) -> None:
    """A fixed sequence of 300 damaged conversations; threads and files of Orthanc do not grow."""
    conversation = request("SCU", "ORTHANC", tags.PUSH, 16_384) + _create() * 2 + RELEASE_RQ
    chance = random.Random(4711)
    orthanc_is_well(orthanc)
    before = _resources(orthanc)
    for _ in range(300):
        damaged = bytearray(conversation)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", orthanc.ups_dicom_port)) as peer,
        ):
            peer.sendall(damaged[: chance.randint(1, len(damaged))])
    # Until the server has looked at the last of them it may be full, and says so.
    wait_until(lambda: _lets_in(orthanc), lambda: "an association is accepted again")
    orthanc_is_well(orthanc)
    wait_until(lambda: _is_no_more(_resources(orthanc), before), lambda: f"{before} → {_resources(orthanc)}")


def _lets_in(orthanc: RealOrthanc) -> bool:
    try:
        with UpsClient(orthanc.ups_dicom_port):
            return True
    except NoAssociation:
        return False


def _create() -> bytes:
    encoded = encode(workitems.minimal(), EXPLICIT)
    message = Message(1, raw_dimse.operation(CommandField.N_CREATE, ""), encoded)
    return b"".join(data_pdu(part) for part in fragments(message, 16_384))


def _resources(orthanc: RealOrthanc) -> tuple[int, int]:
    """Threads and open files of Orthanc."""
    process = f"/proc/{orthanc.pid}"
    return len(os.listdir(f"{process}/task")), len(os.listdir(f"{process}/fd"))


def _is_no_more(now: tuple[int, int], before: tuple[int, int]) -> bool:
    """Orthanc's own threads and connections come and go by a few."""
    return now[0] <= before[0] + 3 and now[1] <= before[1] + 10


def test_a_refused_request_changes_nothing(orthanc: RealOrthanc) -> None:
    with UpsClient(orthanc.ups_dicom_port) as client:
        uid = client.create(workitems.full("greek")).uid
        before = client.get(uid).attributes
        with RawPeer(orthanc.ups_dicom_port, tags.PULL) as peer:
            broken = encode(workitems.progress(), EXPLICIT)[:-3]
            assert peer.ask(raw_dimse.operation(CommandField.N_SET, uid), broken).number(STATUS) == 0x0110
        client.update(uid, {tags.STATE: element("CS", "COMPLETED")})
        client.update(uid, {tags.PRIORITY: element("CS", "URGENT")})
        client.update(uid, workitems.progress(), "2.25.1")
        assert client.get(uid).attributes == before


@pytest.fixture
def lonely(suite: str) -> Iterator[RealOrthanc]:
    """An Orthanc of its own, to be stopped and killed."""
    with RealOrthanc(suite, {"DicomModalitiesInDatabase": True}) as running:
        _tell(running, "SCU", 104)
        yield running


def test_everything_survives_a_restart_and_a_crash(lonely: RealOrthanc) -> None:
    with EventReceiver("WATCHER") as watcher:
        _tell(lonely, "WATCHER", watcher.port)
        with UpsClient(lonely.ups_dicom_port) as client:
            uid = client.create(workitems.full("cyrillic")).uid
            assert client.subscribe(uid, "WATCHER", lock=True).code == 0
            assert client.change_state(uid, "IN PROGRESS", "2.25.99").code == 0
            before = client.get(uid).attributes
        watcher.wait_for(2)
        assert lonely.stop() == 0
        lonely.start()
        down, up = watcher.wait_for(4)[2:]
        assert (down.type, text(down.information, tags.SCP_STATUS)) == (SCP_STATUS_CHANGE, "GOING DOWN")
        assert (up.type, text(up.information, tags.SCP_STATUS)) == (SCP_STATUS_CHANGE, "RESTARTED")
        assert (up.uid, up.information[tags.WORKITEM_LIST_STATUS]) == (
            tags.GLOBAL_SUBSCRIPTION,
            element("CS", "WARM START"),
        )
        lonely.kill()
        lonely.start()
        watcher.wait_for(5)
        with UpsClient(lonely.ups_dicom_port) as client:
            assert client.get(uid).attributes == before
            assert client.change_state(uid, "COMPLETED", "2.25.1").code == 0xC301
            assert client.update(uid, workitems.performed(), "2.25.99").code == 0
            assert client.change_state(uid, "COMPLETED", "2.25.99").code == 0
        assert text(watcher.wait_for(6)[5].information, tags.STATE) == "COMPLETED"


def test_a_receiver_that_was_away_gets_everything_in_order(lonely: RealOrthanc) -> None:
    with EventReceiver("WATCHER") as watcher, EventReceiver("OTHER") as present:
        _tell(lonely, "WATCHER", watcher.port)
        _tell(lonely, "OTHER", present.port)
        with UpsClient(lonely.ups_dicom_port) as client:
            for ae in ("WATCHER", "OTHER"):
                client.subscribe(tags.GLOBAL_SUBSCRIPTION, ae)
            first = client.create(workitems.minimal()).uid
            watcher.wait_for(1)
            watcher.stop()
            uids = [client.create(workitems.minimal()).uid for _ in range(20)]
            assert [report.uid for report in present.wait_for(21)] == [first, *uids]
        lonely.kill()
        lonely.start()
        watcher.start()
        reports = [report for report in watcher.wait_for(22) if report.type != SCP_STATUS_CHANGE]
        reported = list(dict.fromkeys(report.uid for report in reports))
        assert reported == [first, *uids]


def _tell(orthanc: RealOrthanc, ae_title: str, port: int) -> None:
    entry = {"AET": ae_title, "Host": "127.0.0.1", "Port": port}
    requests.put(f"{orthanc.base_url}/modalities/{ae_title}", json=entry).raise_for_status()


def test_a_stop_aborts_associations_and_is_quick(lonely: RealOrthanc) -> None:
    with RawPeer(lonely.ups_dicom_port, tags.PUSH) as push:
        large = encode(workitems.minimal(t0040A160=element("UT", "x" * 200_000)), EXPLICIT)  # wakes a thread
        assert push.ask(raw_dimse.operation(CommandField.N_CREATE, ""), large).number(STATUS) == 0
    with RawPeer(lonely.ups_dicom_port, tags.PULL) as idle, RawPeer(lonely.ups_dicom_port) as silent:
        assert lonely.stop(timeout=STOPS_WITHIN) == 0
        assert idle.receive()[0] is PduType.ABORT
        with pytest.raises(Closed):
            silent.receive()
    assert not is_listening(lonely.ups_dicom_port)
