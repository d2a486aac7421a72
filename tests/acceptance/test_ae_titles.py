# SPDX-License-Identifier: AGPL-3.0-or-later
"""An application entity is one subscriber on a real Orthanc, whichever spelling of its AE title a request uses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from orthanc_ups.core import tags
from tests.support.event_receiver import EventReceiver
from tests.support.orthanc import RealOrthanc
from tests.support.raw_dimse import RawScu, encoded, subscription
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient, next_event

GLOBAL = "1.2.840.10008.5.1.4.34.5"
SUBSCRIBE, UNSUBSCRIBE = 3, 4
OUR_RULES = pytest.mark.one_suite("the plugin itself compares AE titles")


@pytest.fixture(scope="module")
def receiver() -> Iterator[EventReceiver]:
    with EventReceiver("SUB4") as running:
        yield running


@pytest.fixture(scope="module")
def orthanc_overrides(receiver: EventReceiver) -> dict[str, Any]:
    modalities = {"a": ["SUB4", "127.0.0.1", receiver.port], "b": ["Sub4", "127.0.0.1", receiver.port]}
    return {"DicomModalities": modalities, "Ups": {"StatusChangeReceivers": ["sub4", "NOBODY"]}}


def client_of(orthanc: RealOrthanc) -> WebClient:
    return WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")


def api(orthanc: RealOrthanc, path: str) -> Any:
    return requests.get(f"{orthanc.base_url}/ups/api{path}", timeout=60).json()


def subscribers(orthanc: RealOrthanc) -> list[str]:
    return [subscriber["ae"] for subscriber in api(orthanc, "/subscribers")["subscribers"]]


async def _act(orthanc: RealOrthanc, number: int, calling: str, uid: str, *, lock: bool = False) -> int:
    async with await RawScu.open(orthanc.ups_dicom_port, calling) as scu:
        if number == SUBSCRIBE:
            data = subscription(calling, lock=lock)
        else:
            data = encoded({tags.RECEIVING_AE: {"vr": "AE", "Value": [calling]}})
        return await scu.action(number, uid, data, on=tags.WATCH)


def act(orthanc: RealOrthanc, number: int, calling: str, uid: str, *, lock: bool = False) -> int:
    return asyncio.run(_act(orthanc, number, calling, uid, lock=lock))


def test_by_whichever_interface_and_spelling_it_is_one_subscriber_told_once(
    orthanc: RealOrthanc, receiver: EventReceiver
) -> None:
    client = client_of(orthanc)
    assert act(orthanc, SUBSCRIBE, "sub4", GLOBAL) == 0
    assert act(orthanc, SUBSCRIBE, "SUB4", GLOBAL) == 0
    assert client.post(f"/workitems/{GLOBAL}/subscribers/sUB4").status_code == 201
    on_orthancs_port = f"{orthanc.base_url}/dicom-web/workitems/{GLOBAL}/subscribers/sub4"
    assert requests.post(on_orthancs_port, timeout=60).status_code == 201
    assert subscribers(orthanc) == ["NOBODY", "SUB4"]
    assert api(orthanc, "/subscribers/sub4")["ae"] == "SUB4"
    uid = client.create()
    client.claim(uid)
    receiver.wait_for(3)  # RESTARTED, and the two changes
    assert receiver.silent_for(1.0)
    states = [report.information["00741000"]["Value"][0] for report in receiver.reports if report.uid == uid]
    assert states == ["SCHEDULED", "IN PROGRESS"]
    client.session.close()


def test_any_spelling_ends_the_subscription_and_releases_the_lock(orthanc: RealOrthanc) -> None:
    client = client_of(orthanc)
    uid = client.create()
    assert act(orthanc, SUBSCRIBE, "sub4", uid, lock=True) == 0
    assert api(orthanc, "/subscribers/SUB4")["locks"] == 1
    assert act(orthanc, UNSUBSCRIBE, "Sub4", uid) == 0
    assert api(orthanc, "/subscribers/SUB4")["locks"] == 0
    client.session.close()


def test_requests_carry_the_spelling_of_dicom_modalities_into_the_history(orthanc: RealOrthanc) -> None:
    client = client_of(orthanc)
    uid = client.create()
    assert client.post(f"/workitems/{uid}/cancelrequest?requester=sub4", {}).status_code == 202
    who = [entry["who"] for entry in api(orthanc, f"/workitems/{uid}")["history"]]
    assert who[-1].startswith("SUB4 ")
    client.session.close()


def test_receivers_of_status_changes_that_nothing_reaches_are_told_at_the_start(orthanc: RealOrthanc) -> None:
    orthanc.logs('"Ups.StatusChangeReceivers" names NOBODY')
    assert '"Ups.StatusChangeReceivers" names SUB4' not in orthanc.log_text()


@OUR_RULES
@pytest.mark.parametrize("ae", ["..", "%2e%2e", "A%2FB", "A%5CB", "%2e"])
def test_an_ae_title_that_is_part_of_a_path_is_refused(orthanc: RealOrthanc, ae: str) -> None:
    client = client_of(orthanc)
    assert client.post(f"/workitems/{GLOBAL}/subscribers/{ae}").status_code in (400, 404, 405)
    assert set(subscribers(orthanc)) <= {"NOBODY", "SUB4"}
    client.session.close()


def test_a_spelling_that_changes_at_run_time_is_told_and_adopted_at_the_next_start(
    suite: str, tmp_path: Path
) -> None:
    overrides = {"DicomModalities": {}, "DicomModalitiesInDatabase": True}
    with RealOrthanc(suite, overrides, folder=tmp_path) as orthanc:
        client = client_of(orthanc)
        entry = {"AET": "VIEWER", "Host": "127.0.0.1", "Port": 104}
        requests.put(f"{orthanc.base_url}/modalities/v", json=entry, timeout=60).raise_for_status()
        url = f"{orthanc.base_url}/ups/api/subscribers/VIEWER"
        wait_until(lambda: requests.get(url, timeout=60).json()["known"], "the new modality is known")
        assert client.post(f"/workitems/{GLOBAL}/subscribers/viewer").status_code == 201
        assert subscribers(orthanc) == ["VIEWER"]
        entry["AET"] = "Viewer"
        requests.put(f"{orthanc.base_url}/modalities/v", json=entry, timeout=60).raise_for_status()
        orthanc.logs("VIEWER is now spelled Viewer")
        assert client.post(f"/workitems/{GLOBAL}/subscribers/viewer").status_code == 201
        assert subscribers(orthanc) == ["VIEWER"]
        orthanc.kill()
        orthanc.start()
        assert subscribers(orthanc) == ["Viewer"]
        client.session.close()


@OUR_RULES
def test_what_was_stored_under_two_spellings_is_joined_at_the_start(suite: str, tmp_path: Path) -> None:
    with RealOrthanc(suite, {"StrictAetComparison": True}, folder=tmp_path) as orthanc:
        client = client_of(orthanc)
        uid, canceled = client.create(), client.create()
        for ae in ("viewer", "VIEWER"):
            assert client.post(f"/workitems/{GLOBAL}/subscribers/{ae}").status_code == 201
        assert client.post(f"/workitems/{uid}/subscribers/VIEWER?deletionlock=true").status_code == 201
        client.cancel(canceled)
        assert subscribers(orthanc) == ["VIEWER", "viewer"]
        orthanc.kill()
        orthanc.configuration["StrictAetComparison"] = False
        orthanc.start()
        orthanc.logs("AE title viewer: what was stored as VIEWER is being joined with it")
        assert subscribers(orthanc) == ["viewer"]
        assert api(orthanc, "/subscribers/viewer")["locks"] == 1
        with client.socket("VIEWER", since=0) as socket:
            events = [next_event(socket) for _ in range(3)]
        contents = [json.dumps({**event, "00000110": None}, sort_keys=True) for event in events]
        assert len(contents) == len(set(contents)), "each event comes once"
        assert canceled in "".join(contents)
        assert client.delete(f"/workitems/{uid}/subscribers/ViEwEr").status_code == 200
        assert api(orthanc, "/subscribers/viewer")["locks"] == 0
        client.session.close()
