# SPDX-License-Identifier: AGPL-3.0-or-later
"""A real Orthanc that runs out of file descriptors keeps serving, or serves again afterwards."""

from __future__ import annotations

import contextlib
import fcntl
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from orthanc_ups.orthanc.stop_notice import catches
from tests.support.dimse_client import UpsClient
from tests.support.faults import limit_file_size
from tests.support.orthanc import PLUGIN, RealOrthanc
from tests.support.ports import is_listening
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient
from tests.support.workitems import minimal

MANY = 1020
HELD = 2.0  # seconds
OUR_SOCKETS = pytest.mark.one_suite("who accepts connections is ours")
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
                connections.append(_out_of_the_way(socket.create_connection(("127.0.0.1", port), timeout=60)))
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
        return requests.get(f"{orthanc.base_url}/system", timeout=60).status_code == 200
    return False


@OUR_SOCKETS
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
                assert requests.get(f"{orthanc.base_url}/system", timeout=60).status_code == 200
                with contextlib.suppress(requests.ConnectionError):
                    answer = requests.get(
                        f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web/workitems", timeout=10
                    )
                    assert answer.status_code in (200, 503)
        wait_until(lambda: _serves(orthanc), lambda: f"all is as before\n{orthanc.log_tail()}")
        log = orthanc.logs("too many connections")
        assert log.count("too many connections") < 10  # once a minute
        assert "Too many open files" not in log
        assert log.count("\n") < 200
        assert orthanc.stop() == 0


@OUR_SOCKETS
def test_with_a_higher_hard_limit_everybody_is_served_meanwhile(suite: str) -> None:
    """Soft limit 1,024: it is raised for our connections, whose descriptors leave the low ones to Orthanc."""
    with _tight(suite, "1024:8192") as orthanc, _silent_connections(orthanc.ups_http_port) as silent:
        assert len(silent) == MANY
        assert _serves(orthanc)
        assert "too many connections" not in orthanc.log_text()


@OUR_SOCKETS
def test_a_process_without_any_descriptor_goes_on_once_it_has_some(suite: str) -> None:
    """A limit so low that Orthanc and the plugin together reach it: a failed look at /proc is no stop."""
    with _tight(suite, "1024:1024") as orthanc:
        assert _serves(orthanc)
        before = resource.prlimit(orthanc.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(orthanc.pid, resource.RLIMIT_NOFILE, (8, before[1]))
        with _silent_connections(orthanc.ups_http_port, 20):
            orthanc.logs("cannot accept connections now")
            time.sleep(HELD)
        resource.prlimit(orthanc.pid, resource.RLIMIT_NOFILE, before)
        wait_until(lambda: _serves(orthanc), lambda: f"all is as before\n{orthanc.log_tail()}")
        assert orthanc.log_text().count("cannot accept connections now") < 10  # once a minute


@OUR_SOCKETS
def test_the_health_says_what_the_service_can_do(suite: str) -> None:
    """From the start, before the DIMSE port is open, until the database is gone."""
    with RealOrthanc(suite, {"AuthenticationEnabled": True, "RegisteredUsers": {"a": "b"}}) as orthanc:
        url = f"http://127.0.0.1:{orthanc.ups_http_port}/ups/health"
        answer = requests.get(url, timeout=60)
        assert (answer.status_code, answer.json()) == (200, {"State": "open", "Role": "alone"})
        for name in ("ups_service_open", "ups_dimse_port_open", "ups_http_port_open"):
            wait_until(lambda name=name: f"\n{name} 1 " in _metrics(orthanc), name)  # type: ignore[misc]
        orthanc.stop()
        with socket.create_server(("127.0.0.1", orthanc.ups_dicom_port)):
            orthanc.launch()
            wait_until(lambda: orthanc.health() == 200, orthanc.log_tail)
            orthanc.logs("cannot open the DIMSE port")
        wait_until(lambda: is_listening(orthanc.ups_dicom_port), orthanc.log_tail)


def _metrics(orthanc: RealOrthanc) -> str:
    return requests.get(f"{orthanc.base_url}/tools/metrics-prometheus", auth=("a", "b"), timeout=60).text


def test_a_database_that_takes_no_writes_makes_the_health_503_until_it_does(suite: str) -> None:
    """Once a write has failed, nobody has to write again: the service finds out by itself."""
    with RealOrthanc(suite, prefix=("env", "--ignore-signal=XFSZ")) as orthanc:
        client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web", keep_alive=False)
        limit_file_size(orthanc.pid, 4096)
        while client.post("/workitems", minimal()).status_code != 503:
            pass  # what is still free in the database's own pages is used up first
        wait_until(lambda: orthanc.health() == 503, orthanc.log_tail)
        limit_file_size(orthanc.pid, None)
        wait_until(lambda: orthanc.health() == 200, orthanc.log_tail)
        client.create()


LETTING_GO_OF_SIGNALS = """
import ctypes
import orthanc

libc = ctypes.CDLL(None)
libc.signal.restype, libc.signal.argtypes = ctypes.c_void_p, (ctypes.c_int, ctypes.c_void_p)
handlers = []

def let_go(output, uri, **request):
    handlers.append(libc.signal(15, None))
    output.AnswerBuffer("done", "text/plain")

def take_back(output, uri, **request):
    libc.signal(15, handlers.pop())
    output.AnswerBuffer("done", "text/plain")

orthanc.RegisterRestCallback("/let-go", let_go)
orthanc.RegisterRestCallback("/take-back", take_back)
"""


def test_a_stop_that_was_none_is_told_and_the_worklist_is_opened_again(suite: str, tmp_path: Path) -> None:
    """Orthanc lets go of its signal handlers when it stops, and for a moment at SIGHUP, which may last."""
    script = tmp_path / "own_script.py"
    install = f"import sys; sys.path.append({str(PLUGIN.parent)!r}); import orthanc_ups; orthanc_ups.install(orthanc)"
    script.write_text(LETTING_GO_OF_SIGNALS + install + "\n")
    with RealOrthanc(suite, script=script) as orthanc:
        wait_until(lambda: orthanc.health() == 200, orthanc.log_tail)
        wait_until(lambda: catches(Path(f"/proc/{orthanc.pid}/status").read_text()), orthanc.log_tail)
        client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web", keep_alive=False)
        uid = client.create()
        wait_until(lambda: _closes_without_handlers(orthanc), orthanc.log_tail, 120, interval=1)
        assert requests.get(f"{orthanc.base_url}/take-back", timeout=60).text == "done"
        orthanc.logs("opening the worklist again")
        wait_until(lambda: orthanc.health() == 200, orthanc.log_tail)
        client.retrieve(uid)
        client.create()
        assert orthanc.stop() == 0


def _closes_without_handlers(orthanc: RealOrthanc) -> bool:
    """Whether the worklist is closed while Orthanc's handlers are away; if not, it has them again.

    The plugin waits for handlers before it notices that they are gone: on a busy machine it may not have seen them yet.
    """
    assert requests.get(f"{orthanc.base_url}/let-go", timeout=60).text == "done"
    try:
        wait_until(lambda: orthanc.health() != 200, orthanc.log_tail)
    except AssertionError:
        assert requests.get(f"{orthanc.base_url}/take-back", timeout=60).text == "done"
        return False
    return True
