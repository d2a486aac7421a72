# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the log says of refused DIMSE requests and associations."""

from __future__ import annotations

import logging
import socket

import pytest

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dimse.message import PduType
from orthanc_ups.settings import OrthancSettings
from tests.support import workitems
from tests.support.dimse_client import NoAssociation, UpsClient
from tests.support.dimse_server import DimseRig
from tests.support.raw_dimse import Closed, RawPeer

UID = workitems.uid(1)


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "orthanc_ups")


def test_a_refused_request_names_operation_workitem_peer_status_and_reason(
    rig: DimseRig, caplog: pytest.LogCaptureFixture
) -> None:
    rig.worklist.error = UpsError(statuses.WRONG_TRANSACTION_UID)
    with UpsClient(rig.port) as client:
        assert client.update(UID, {tags.LABEL: element("LO", "x")}, transaction="2.25.4711").code == 0xC301
        assert client.change_state(UID, "COMPLETED", "2.25.4711").code == 0xC301
        rig.worklist.error = None
        assert client.find({tags.STATE: element("CS")}).pop().code == 0
    assert caplog.messages == [
        f"{operation} of {UID} by SCU at 127.0.0.1 refused with C301: The correct Transaction UID was not provided"
        for operation in ("N-SET", "N-ACTION 1")
    ]


def test_a_peer_that_repeats_its_mistake_has_five_lines_a_minute(
    rig: DimseRig, caplog: pytest.LogCaptureFixture
) -> None:
    with UpsClient(rig.port) as client:
        for _ in range(30):
            assert client.get("1.2.3").code == statuses.NO_SUCH_WORKITEM.code
    assert len(caplog.messages) == 5
    assert caplog.messages[0].startswith("N-GET of 1.2.3 by SCU at 127.0.0.1 refused with C307: ")


def test_a_rejected_association_names_the_peer_and_the_reason(caplog: pytest.LogCaptureFixture) -> None:
    with DimseRig(orthanc_settings=OrthancSettings(check_called_aet=True)) as rig:
        with pytest.raises(NoAssociation):
            UpsClient(rig.port, called="OTHER").__enter__()
        assert caplog.messages[0] == (
            "association by SCU at 127.0.0.1 refused: called AE title OTHER, expected ORTHANC"
        )


def test_what_is_no_dicom_has_a_line_and_a_flood_of_it_a_few(
    rig: DimseRig, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(7):
        with RawPeer(rig.port) as peer:
            peer.send(b"GET / HTTP/1.1\r\n\r\n")
            assert peer.receive()[0] is PduType.ABORT
            peer.socket.shutdown(socket.SHUT_WR)
            with pytest.raises(Closed):
                peer.receive()
    assert caplog.messages[0].startswith("association by somebody at 127.0.0.1 refused: ")
    assert len(caplog.messages) == 5
