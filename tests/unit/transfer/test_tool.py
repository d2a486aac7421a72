# SPDX-License-Identifier: AGPL-3.0-or-later
"""``tools.transfer`` and ``tools.run`` say at once what is wrong with an address or a port."""

from __future__ import annotations

import json
import socket
import sys
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tools import run
from tools.transfer import Server, TransferError


def never(seconds: float) -> None:
    raise AssertionError(f"it waits for {seconds} s")


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:{port}", "127.0.0.1:{port}", "user:secret@127.0.0.1:{port}"]
)
def test_nobody_there_is_told_at_once_with_and_without_scheme(address: str) -> None:
    server = Server(address.format(port=free_port()), never)
    with pytest.raises(TransferError, match=r"no answer from http://127\.0\.0\.1:\d+/ups/api"):
        server.request("GET", "/export")


def test_make_run_never_calls_anothers_server_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        file = tmp_path / "orthanc.json"
        file.write_text(json.dumps({"HttpPort": port, "DicomPort": free_port()}))
        monkeypatch.setattr(sys, "argv", ["run", str(file)])
        assert run.main() == 1
    assert f"another program listens on port {port}" in capsys.readouterr().err
