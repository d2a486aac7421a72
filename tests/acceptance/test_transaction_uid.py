# SPDX-License-Identifier: AGPL-3.0-or-later
"""A Transaction UID is never stored nor logged: access to Orthanc's data does not make a performer (PS3.4 CC.1.1)."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from orthanc_ups.core.dataset import element
from tests.support.orthanc import RealOrthanc
from tests.support.raw_dimse import RawScu, encoded, state_change
from tests.support.web_client import WebClient, new_uid, state
from tests.support.workitems import full, performed, progress

pytestmark = pytest.mark.one_suite("our own ports read requests before Orthanc sees anything")

OVERRIDES = {"DicomModalities": {"performer": ["PERFORMER", "127.0.0.1", 104]}}


def claimed_over_http(client: WebClient) -> str:
    """Claimed, refused, updated and completed, by which the UID passes every place where it may stand."""
    uid = client.create(full())
    transaction = client.claim(uid)
    assert client.put(f"/workitems/{uid}/state", state("IN PROGRESS", transaction)).status_code == 409
    assert client.post(f"/workitems/{uid}?transaction-uid={transaction}", progress()).status_code == 200
    own = {**performed(), "00081195": element("UI", transaction)}
    assert client.post(f"/workitems/{uid}", dict(sorted(own.items()))).status_code == 200
    assert client.put(f"/workitems/{uid}/state", state("COMPLETED", transaction)).status_code == 200
    return transaction


async def claimed_over_dimse(port: int, uid: str) -> str:
    """A claim that is not given back."""
    transaction = new_uid()
    async with await RawScu.open(port, "PERFORMER") as scu:
        assert await scu.create(uid, encoded(full())) in (0x0000, 0xB300)
        assert await scu.action(1, uid, state_change("IN PROGRESS", transaction)) == 0x0000
        assert await scu.action(1, uid, state_change("IN PROGRESS", transaction)) == 0xC302
    return transaction


def files_with(folder: Path, text: str) -> list[Path]:
    """The files of a folder in which a text stands."""
    result = []
    for file in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # a database has ended its journal meanwhile
            if file.is_file() and text.encode() in file.read_bytes():
                result.append(file)
    return result


def test_a_transaction_uid_stands_in_no_file(suite: str) -> None:
    with RealOrthanc(suite, OVERRIDES) as orthanc:
        client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
        uid = new_uid()
        transactions = [
            claimed_over_http(client),
            asyncio.run(claimed_over_dimse(orthanc.ups_dicom_port, uid)),
        ]
        client.session.close()
        assert files_with(orthanc.folder / "data", uid), "what is stored can be found"
        assert [files_with(orthanc.folder, transaction) for transaction in transactions] == [[], []]
        assert orthanc.stop() == 0
        assert [files_with(orthanc.folder, transaction) for transaction in transactions] == [[], []]
