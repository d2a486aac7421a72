# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orthanc's DICOM TLS settings apply to the plugin's port and to its event reports (PS3.15 Annex B)."""

import ssl
from pathlib import Path

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import text
from tests.support import workitems
from tests.support.certificates import bundle, self_signed
from tests.support.dimse_client import UpsClient
from tests.support.event_receiver import EventReceiver
from tests.support.orthanc import RealOrthanc
from tests.support.raw_dimse import Closed, RawPeer

pytestmark = pytest.mark.one_suite("the DIMSE port is our own")


def test_requests_and_event_reports_go_over_tls(suite: str, tmp_path: Path) -> None:
    ours, theirs = self_signed(tmp_path, "ours"), self_signed(tmp_path, "theirs")
    with EventReceiver("WATCHER", tls=(theirs.certificate, theirs.key)) as watcher:
        receiver = {"AET": "WATCHER", "Host": "127.0.0.1", "Port": watcher.port, "UseDicomTls": True}
        configuration = {
            "DicomTlsEnabled": True,
            "DicomTlsCertificate": ours.certificate,
            "DicomTlsPrivateKey": ours.key,
            "DicomTlsTrustedCertificates": bundle(tmp_path, theirs),
            "DicomTlsRemoteCertificateRequired": True,
            "DicomModalities": {"scu": ["SCU", "127.0.0.1", 104], "watcher": receiver},
        }
        tls = ssl.create_default_context(cafile=ours.certificate)
        tls.load_cert_chain(theirs.certificate, theirs.key)
        with RealOrthanc(suite, configuration) as orthanc:
            with UpsClient(orthanc.ups_dicom_port, tls=tls) as client:
                uid = client.create(workitems.minimal()).uid
                assert client.subscribe(uid, "WATCHER").code == 0
            assert text(watcher.wait_for(1)[0].information, tags.STATE) == "SCHEDULED"
            assert not _plain_is_let_in(orthanc.ups_dicom_port)
            assert orthanc.stop() == 0


def _plain_is_let_in(port: int) -> bool:
    try:
        with RawPeer(port, tags.PULL):
            return True
    except (Closed, AssertionError):
        return False
