# SPDX-License-Identifier: AGPL-3.0-or-later
"""Retention on a real Orthanc: purging, tombstones, release of forgotten locks, cancellation of expired workitems.

It looks after all that when it starts, so a start with short times shows it without waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from orthanc_ups.core.dataset import element
from tests.support.orthanc import RealOrthanc
from tests.support.raw_dimse import RawScu
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient
from tests.support.workitems import minimal

pytestmark = [
    pytest.mark.slow,
    pytest.mark.one_suite("retention is a clock and the store, which the contract tests hold on each suite"),
]
HOLDER = {"DicomModalities": {"holder": ["HOLDER", "127.0.0.1", 104]}}
GONE = 0xC307
PAST, FUTURE = "20200101000000+0000", "29990101000000+0000"


@pytest.fixture
def orthanc(suite: str) -> Iterator[RealOrthanc]:
    with RealOrthanc(suite, HOLDER) as running:
        yield running


@pytest.fixture
def client(orthanc: RealOrthanc) -> Iterator[WebClient]:
    service = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
    yield service
    service.session.close()


def start_with(orthanc: RealOrthanc, **settings: object) -> None:
    """Start anew, without any other change of settings."""
    orthanc.kill()
    orthanc.configuration["Ups"] |= settings
    orthanc.start()


def becomes(client: WebClient, uid: str, status: int) -> None:
    wait_until(lambda: client.get(f"/workitems/{uid}").status_code == status, f"{uid} answers {status}")


def state(client: WebClient, uid: str) -> str:
    result: str = client.retrieve(uid)["00741000"]["Value"][0]
    return result


async def _get(port: int, uid: str) -> int:
    async with await RawScu.open(port, "HOLDER") as scu:
        return (await scu.get(uid))[0]


def test_a_final_workitem_is_purged_remembered_and_forgotten(orthanc: RealOrthanc, client: WebClient) -> None:
    uid, scheduled = client.create(), client.create()
    client.complete(uid)
    start_with(orthanc, RetainFinal=0.001)
    becomes(client, uid, 410)
    assert asyncio.run(_get(orthanc.ups_dicom_port, uid)) == GONE
    assert client.post(f"/workitems?workitem={uid}", minimal()).status_code == 409, "no UID has two lives"
    assert state(client, scheduled) == "SCHEDULED"
    start_with(orthanc)
    becomes(client, uid, 410)
    start_with(orthanc, RememberPurged=0.001)
    becomes(client, uid, 404)
    assert asyncio.run(_get(orthanc.ups_dicom_port, uid)) == GONE


def test_a_deletion_lock_holds_a_final_workitem_until_it_is_forgotten(
    orthanc: RealOrthanc, client: WebClient
) -> None:
    held, free = client.create(), client.create()
    assert client.post(f"/workitems/{held}/subscribers/HOLDER?deletionlock=true").status_code == 201
    client.complete(held)
    client.complete(free)
    drop(orthanc)
    start_with(orthanc, RetainFinal=0.001)
    becomes(client, free, 410)
    assert state(client, held) == "COMPLETED"
    start_with(orthanc, MaximumLockAge=0.001)
    becomes(client, held, 410)
    orthanc.logs("is too old; releasing it")


def drop(orthanc: RealOrthanc) -> None:
    """HOLDER is never there, and what waits for it would hold the workitem as well."""
    api = WebClient(f"{orthanc.base_url}/ups/api", keep_alive=False)
    answer = api.post("/subscribers/HOLDER/drop", b"{}", headers={"Content-Type": "application/json"})
    assert answer.json()["dropped"] > 0
    api.session.close()
    orthanc.stop()
    orthanc.start()


def test_what_expired_is_canceled_only_if_that_is_asked_for(orthanc: RealOrthanc, client: WebClient) -> None:
    late = client.create(minimal(t00404008=element("DT", PAST)))
    early = client.create(minimal(t00404008=element("DT", FUTURE)))
    claimed = client.create(minimal(t00404008=element("DT", PAST)))
    client.claim(claimed)
    start_with(orthanc)
    assert state(client, late) == "SCHEDULED"
    start_with(orthanc, CancelExpired=True)
    wait_until(lambda: state(client, late) == "CANCELED", "the expired one is canceled")
    assert (state(client, early), state(client, claimed)) == ("SCHEDULED", "IN PROGRESS")
