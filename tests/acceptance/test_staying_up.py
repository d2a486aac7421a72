# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real Orthanc whose file descriptors a stranger takes serves on, or again, as before."""

from __future__ import annotations

import contextlib
import fcntl
import resource
import socket
import time
from collections.abc import Iterator

import pytest
import requests

from tests.support.dimse_client import UpsClient
from tests.support.orthanc import RealOrthanc
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient
from tests.support.workitems import minimal

MANY = 1020
HELD = 2.0  # seconds
MODALITIES = {"DicomModalities": {"scu": ["SCU", "127.0.0.1", 104]}}


@pytest.fixture(autouse=True)
def _many_sockets_of_our_own() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4 * MANY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (4 * MANY if hard < 0 else min(4 * MANY, hard), hard))


def _tight(suite: str, limits: str) -> RealOrthanc:
    return RealOrthanc(suite, MODALITIES, prefix=("prlimit", f"--nofile={limits}"))


@contextlib.contextmanager
def _silent_connections(port: int, count: int = MANY) -> Iterator[list[socket.socket]]:
    """Connections on which a stranger says nothing."""
    connections: list[socket.socket] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                connections.append(_out_of_the_way(socket.create_connection(("127.0.0.1", port), timeout=5)))
        yield connections
    finally:
        for connection in connections:
            connection.close()


def _out_of_the_way(connection: socket.socket) -> socket.socket:
    """pynetdicom, the peer in these tests, selects: it needs the descriptors below 1,024."""
    with connection:
        return socket.socket(fileno=fcntl.fcntl(connection, fcntl.F_DUPFD_CLOEXEC, 1024))


def _serves(orthanc: RealOrthanc) -> bool:
    """DICOMweb, DIMSE and Orthanc's own port."""
    with contextlib.suppress(requests.RequestException, AssertionError, OSError):
        client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web", keep_alive=False)
        uid = client.create()
        client.retrieve(uid)
        with UpsClient(orthanc.ups_dicom_port) as scu:
            assert scu.create(minimal()).code == 0
        return requests.get(f"{orthanc.base_url}/system", timeout=10).status_code == 200
    return False


@pytest.mark.parametrize("target", ["HTTP", "DIMSE"])
def test_a_stranger_who_takes_a_thousand_descriptors_stops_nothing(suite: str, target: str) -> None:
    """Soft and hard limit 1,024: the connections are refused beyond what Orthanc can spare."""
    with _tight(suite, "1024:1024") as orthanc:
        assert _serves(orthanc)
        port = orthanc.ups_http_port if target == "HTTP" else orthanc.ups_dicom_port
        with _silent_connections(port):
            until = time.monotonic() + HELD
            while time.monotonic() < until:
                # Meanwhile: served, 503 or refused; Orthanc itself always has descriptors.
                assert requests.get(f"{orthanc.base_url}/system", timeout=10).status_code == 200
                with contextlib.suppress(requests.ConnectionError):
                    answer = requests.get(
                        f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web/workitems", timeout=10
                    )
                    assert answer.status_code in (200, 503)
        wait_until(lambda: _serves(orthanc), lambda: f"all is as before\n{orthanc.log_tail()}", 30)
        log = orthanc.log_text()
        assert log.count("too many connections") == 1
        assert "Too many open files" not in log
        assert log.count("\n") < 200
        assert orthanc.stop() == 0


def test_with_a_higher_hard_limit_everybody_is_served_meanwhile(suite: str) -> None:
    """Soft limit 1,024: it is raised for our connections, whose descriptors leave the low ones to Orthanc."""
    with _tight(suite, "1024:8192") as orthanc, _silent_connections(orthanc.ups_http_port) as silent:
        assert len(silent) == MANY
        assert _serves(orthanc)
        assert "too many connections" not in orthanc.log_text()


def test_a_process_without_any_descriptor_goes_on_once_it_has_some(suite: str) -> None:
    """A limit so low that Orthanc and the plugin together reach it: a failed look at /proc is no stop."""
    with _tight(suite, "1024:1024") as orthanc:
        assert _serves(orthanc)
        before = resource.prlimit(orthanc.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(orthanc.pid, resource.RLIMIT_NOFILE, (8, before[1]))
        with _silent_connections(orthanc.ups_http_port, 20):
            time.sleep(HELD)
        resource.prlimit(orthanc.pid, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: _serves(orthanc), lambda: f"all is as before\n{orthanc.log_tail()}", 60)
        assert orthanc.log_text().count("cannot accept connections now") == 1
