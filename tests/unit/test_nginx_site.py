# SPDX-License-Identifier: AGPL-3.0-or-later
"""nginx before two nodes sends a request that changes something to one of them only, whatever that one does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import requests

from tests.support.nginx import Nginx
from tests.support.orthanc import CHECKOUT


class DyingNode(ThreadingHTTPServer):
    """Takes a request and hangs up without an answer, as a node that is killed."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Handler(BaseHTTPRequestHandler):
    server: DyingNode

    def _hang_up(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.requests.append(self.command)
        self.close_connection = True

    do_GET = do_PUT = do_POST = do_DELETE = _hang_up

    def log_message(self, format: str, *arguments: object) -> None: ...


@pytest.fixture
def dying() -> Iterator[list[DyingNode]]:
    pair = [DyingNode(), DyingNode()]
    yield pair
    for node in pair:
        node.shutdown()
        node.server_close()


@pytest.mark.parametrize("path", ["/dicom-web/workitems/1.2/state", "/ups/api/workitems"])
@pytest.mark.parametrize(("method", "times"), [("PUT", 1), ("POST", 1), ("DELETE", 1), ("GET", 2)])
def test_a_change_is_never_sent_to_both_nodes(
    dying: list[DyingNode], tmp_path: Path, path: str, method: str, times: int
) -> None:
    site = (CHECKOUT / "docker" / "nginx.cluster.conf").read_text()
    for name, node in zip(("first", "second"), dying, strict=True):
        for port in (8042, 8043):
            site = site.replace(f"server {name}:{port} ", f"server 127.0.0.1:{node.server_port} ")
    with Nginx(tmp_path, site, {}) as nginx:
        body = b"x" if method in ("PUT", "POST") else None
        assert requests.request(method, nginx.url + path, data=body, timeout=60).status_code == 502
    assert [command for node in dying for command in node.requests] == [method] * times
