# SPDX-License-Identifier: AGPL-3.0-or-later
"""TLS in both roles, by Orthanc's settings (PS3.15 Annex B)."""

import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.delivery.port import Unreachable
from orthanc_ups.dimse.message import ProtocolError
from orthanc_ups.dimse.tls import TlsError, client_context, server_context
from orthanc_ups.orthanc.modalities import Modality
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.certificates import Certificate, bundle, self_signed
from tests.support.dimse_client import UpsClient
from tests.support.dimse_server import DimseRig
from tests.support.event_receiver import EventReceiver
from tests.support.raw_dimse import REQUEST, Closed, RawPeer

Prepare = Callable[..., OrthancSettings]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


@pytest.fixture(scope="module")
def ours(folder: Path) -> Certificate:
    return self_signed(folder, "ours")


@pytest.fixture(scope="module")
def theirs(folder: Path) -> Certificate:
    return self_signed(folder, "theirs")


@pytest.fixture(scope="module")
def stranger(folder: Path) -> Certificate:
    return self_signed(folder, "stranger")


@pytest.fixture
def prepare(folder: Path, ours: Certificate, theirs: Certificate) -> Prepare:
    def prepared(*, required: bool = True, version: int = 0) -> OrthancSettings:
        return OrthancSettings(
            dicom_tls_enabled=True,
            dicom_tls_certificate=ours.certificate,
            dicom_tls_private_key=ours.key,
            dicom_tls_trusted_certificates=bundle(folder, theirs),
            dicom_tls_remote_certificate_required=required,
            dicom_tls_minimum_protocol_version=version,
        )

    return prepared


def client_of(trusted: Certificate, own: Certificate | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=trusted.certificate)
    if own:
        context.load_cert_chain(own.certificate, own.key)
    return context


def is_let_in(port: int, context: ssl.SSLContext) -> bool:
    """Whether an association request over TLS gets an answer."""
    with socket.create_connection(("127.0.0.1", port), 5) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="localhost") as secured:
                secured.sendall(REQUEST)
                return secured.recv(1) == b"\2"
        except OSError:
            return False


def test_a_client_with_a_trusted_certificate_is_served(
    prepare: Prepare, ours: Certificate, theirs: Certificate
) -> None:
    with DimseRig(orthanc_settings=prepare()) as rig:
        with UpsClient(rig.port, tls=client_of(ours, theirs)) as client:
            assert client.echo().code == 0
            assert client.create({tags.LABEL: element("LO", "x" * 60)}).code == 0
        rig.wait_for_associations(0)


@pytest.mark.parametrize("which", ["none", "stranger"])
def test_a_client_without_a_trusted_certificate_is_not(
    prepare: Prepare, ours: Certificate, stranger: Certificate, which: str
) -> None:
    tls = client_of(ours, stranger if which == "stranger" else None)
    with DimseRig(orthanc_settings=prepare()) as rig:
        assert not is_let_in(rig.port, tls)
        assert rig.server.associations == 0


def test_without_required_certificates_any_client_is_served(prepare: Prepare, ours: Certificate) -> None:
    orthanc_settings = prepare(required=False)
    with (
        DimseRig(orthanc_settings=orthanc_settings) as rig,
        UpsClient(rig.port, tls=client_of(ours)) as client,
    ):
        assert client.echo().code == 0


def test_a_minimum_version_is_kept(prepare: Prepare, ours: Certificate) -> None:
    old = client_of(ours)
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with DimseRig(orthanc_settings=prepare(required=False, version=5)) as rig:
        assert not is_let_in(rig.port, old)
        with UpsClient(rig.port, tls=client_of(ours)) as client:
            assert client.echo().code == 0


def test_a_plain_peer_gets_no_association(prepare: Prepare) -> None:
    with DimseRig(orthanc_settings=prepare()) as rig, RawPeer(rig.port) as peer:
        peer.send(REQUEST)
        with pytest.raises((Closed, ProtocolError)):
            peer.receive()
        assert rig.server.associations == 0


def test_handshakes_that_stall_delay_nobody(prepare: Prepare, ours: Certificate) -> None:
    with DimseRig(Settings(association_handshake_timeout=2.0), prepare(required=False)) as rig:
        stalled = [socket.create_connection(("127.0.0.1", rig.port)) for _ in range(50)]
        with UpsClient(rig.port, tls=client_of(ours)) as client:
            assert client.echo().code == 0
        stalled[0].settimeout(60)
        assert stalled[0].recv(1) == b""
        for connection in stalled:
            connection.close()


def test_events_go_out_over_tls_where_the_modality_wants_it(
    prepare: Prepare, folder: Path, ours: Certificate, theirs: Certificate
) -> None:
    with EventReceiver("WATCHER", tls=(theirs.certificate, theirs.key)) as watcher:
        entry = Modality("watcher", "WATCHER", "127.0.0.1", watcher.port, use_dicom_tls=True)
        with DimseRig(orthanc_settings=prepare(), modalities=[entry]) as rig:
            content = {tags.STATE: element("CS", "SCHEDULED")}
            event = Event(1, EventType.STATE_REPORT, "1.2.3", content, ("WATCHER",), 0.0)
            assert rig.loop.run(rig.channel.deliver("WATCHER", [event])) == 1
            assert watcher.wait_for(1)[0].uid == "1.2.3"


def test_a_receiver_with_an_unknown_certificate_is_unreachable(
    prepare: Prepare, stranger: Certificate
) -> None:
    with EventReceiver("WATCHER", tls=(stranger.certificate, stranger.key)) as watcher:
        entry = Modality("watcher", "WATCHER", "127.0.0.1", watcher.port, use_dicom_tls=True)
        words = r"cannot connect .*certificate verify failed"
        with (
            DimseRig(orthanc_settings=prepare(), modalities=[entry]) as rig,
            pytest.raises(Unreachable, match=words),
        ):
            rig.loop.run(rig.channel.echo("WATCHER"))


def test_without_tls_there_is_no_context() -> None:
    assert server_context(OrthancSettings()) is None


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("dicom_tls_certificate", "", "DicomTlsCertificate"),
        ("dicom_tls_private_key", "/nowhere.key", "/nowhere.key"),
        ("dicom_tls_trusted_certificates", "", "DicomTlsTrustedCertificates"),
        ("dicom_tls_trusted_certificates", "/nowhere.crt", "/nowhere.crt"),
        ("dicom_tls_ciphers_accepted", ("NONSENSE",), "DicomTlsCiphersAccepted"),
    ],
)
def test_settings_that_cannot_be_used_are_named(
    prepare: Prepare, setting: str, value: object, words: str
) -> None:
    orthanc_settings = msgspec.structs.replace(prepare(), **{setting: value})
    with pytest.raises(TlsError, match=words):
        server_context(orthanc_settings)


def test_client_settings_that_cannot_be_used_are_named(prepare: Prepare) -> None:
    orthanc_settings = msgspec.structs.replace(prepare(), dicom_tls_trusted_certificates="/nowhere.crt")
    with pytest.raises(TlsError, match=r"/nowhere\.crt"):
        client_context(orthanc_settings)
