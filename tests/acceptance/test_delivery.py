# SPDX-License-Identifier: AGPL-3.0-or-later
"""Delivery on a real Orthanc: retries when an AE is seen again, dead letters and sending them again, webhooks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Any

import pytest
import requests

from orthanc_ups.core.dataset import element
from tests.support.event_receiver import EventReceiver
from tests.support.orthanc import RealOrthanc
from tests.support.ports import free_port
from tests.support.raw_dimse import RawScu
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient
from tests.support.workitems import minimal, performed, progress

pytestmark = [pytest.mark.one_suite("delivery leaves by our own connections"), pytest.mark.postgresql]

GLOBAL = "1.2.840.10008.5.1.4.34.5"
VERIFICATION = "1.2.840.10008.1.1"
MOST = 5
SECRET = "a secret of both"
SCHEDULED, IN_PROGRESS, COMPLETED = "SCHEDULED", "IN PROGRESS", "COMPLETED"


@dataclass
class Hook:
    """A webhook receiver that turns the first request down and takes all others.

    Attributes:
        taken: headers (in lower case) and body of each request, in order; ``refused`` the same of the first.
    """

    taken: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    refused: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    lock: Lock = field(default_factory=Lock)

    def answer(self, headers: dict[str, str], body: bytes) -> int:
        with self.lock:
            into = self.taken if self.refused else self.refused
            into.append((headers, body))
            return 503 if into is self.refused else 204

    @contextmanager
    def listening(self, port: int) -> Iterator[None]:
        answer = self.answer

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(answer({name.lower(): text for name, text in self.headers.items()}, body))
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@pytest.fixture(scope="module")
def hook_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def away_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def orthanc_overrides(hook_port: int, away_port: int) -> dict[str, Any]:
    """Pauses so long that only what ends them lets a test pass."""
    webhook = {
        "Url": f"http://127.0.0.1:{hook_port}/ups",
        "Aet": "HOOK",
        "Secret": SECRET,
        "Filter": {"ScheduledProcedureStepPriority": "HIGH"},
        "EventTypes": [1],
    }
    ups = {"RetryFirst": "10m", "RetryMaximum": "10m", "MaximumPendingPerSubscriber": MOST}
    return {
        "DicomModalities": {
            "away": ["AWAY", "127.0.0.1", away_port],
            "moved": ["MOVED", "127.0.0.1", free_port()],
        },
        "Ups": {**ups, "Webhooks": [webhook]},
    }


@pytest.fixture(scope="module")
def client(orthanc: RealOrthanc) -> Iterator[WebClient]:
    service = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
    yield service
    service.session.close()


@pytest.fixture(scope="module")
def api(orthanc: RealOrthanc) -> Iterator[WebClient]:
    management = WebClient(f"{orthanc.base_url}/ups/api", keep_alive=False)
    yield management
    management.session.close()


def channels(api: WebClient, ae: str) -> dict[str, Any]:
    """The channel that something waits in, as the page shows it."""
    result = api.get(f"/subscribers/{ae}").json()["channels"]
    return next((row for row in result if row["durable"]), {"pending": 0, "failed": 0, "dead_letters": 0})


def post(api: WebClient, path: str) -> dict[str, Any]:
    """Have the operator do something; gives the answer."""
    answer = api.post(path, b"{}", headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
    content: dict[str, Any] = answer.json()
    return content


def go_through(client: WebClient, uid: str) -> None:
    """Two State Reports and, as only the newest waits, one Progress Report."""
    transaction = client.claim(uid)
    for percent in ("10", "20", "30"):
        assert client.post(f"/workitems/{uid}?transaction-uid={transaction}", progress(percent)).ok
    assert client.post(f"/workitems/{uid}?transaction-uid={transaction}", performed()).ok
    done = {"00081195": element("UI", transaction), "00741000": element("CS", COMPLETED)}
    assert client.put(f"/workitems/{uid}/state", done).status_code == 200


async def _echo(port: int, calling: str) -> None:
    async with await RawScu.open(port, calling, classes=(VERIFICATION,)) as scu:
        assert await scu.echo() == 0


def test_who_was_away_is_told_as_soon_as_it_echoes_and_progress_only_once(
    orthanc: RealOrthanc, client: WebClient, api: WebClient, away_port: int
) -> None:
    uid = client.create(minimal())
    assert client.post(f"/workitems/{uid}/subscribers/AWAY").status_code == 201
    go_through(client, uid)
    wait_until(lambda: channels(api, "AWAY")["failed"] == 1, "the first attempt failed")
    wait_until(lambda: channels(api, "AWAY")["pending"] == 4, lambda: f"four wait: {channels(api, 'AWAY')}")
    with EventReceiver("AWAY", port=away_port) as away:
        asyncio.run(_echo(orthanc.ups_dicom_port, "AWAY"))
        reports = away.wait_for(4)
    states = [report.information["00741000"]["Value"][0] for report in reports if report.type == 1]
    assert states == [SCHEDULED, IN_PROGRESS, COMPLETED]
    assert [report.type for report in reports] == [1, 1, 3, 1]
    shown = reports[2].information["00741002"]["Value"][0]["00741004"]["Value"]
    assert [float(pause) for pause in shown] == [30.0]
    wait_until(lambda: channels(api, "AWAY")["pending"] == 0, "nothing waits any more")


def test_who_gets_another_address_is_told_there_at_once(
    orthanc: RealOrthanc, client: WebClient, api: WebClient
) -> None:
    uid = client.create(minimal())
    assert client.post(f"/workitems/{uid}/subscribers/MOVED").status_code == 201
    wait_until(lambda: channels(api, "MOVED")["failed"] == 1, "nobody is at the old address")
    with EventReceiver("MOVED") as moved:
        entry = ["MOVED", "127.0.0.1", moved.port]
        requests.put(f"{orthanc.base_url}/modalities/moved", json=entry, timeout=60).raise_for_status()
        assert [report.uid for report in moved.wait_for(1)] == [uid]


def test_the_oldest_of_too_many_die_are_listed_and_can_be_sent_again(
    client: WebClient, api: WebClient, away_port: int
) -> None:
    assert client.post(f"/workitems/{GLOBAL}/subscribers/AWAY").status_code == 201
    uids = [client.create(minimal()) for _ in range(MOST + 3)]
    assert client.delete(f"/workitems/{GLOBAL}/subscribers/AWAY").status_code == 200
    wait_until(lambda: is_settled(api, len(uids)), lambda: f"the oldest are dead: {channels(api, 'AWAY')}")
    listed = api.get("/subscribers/AWAY/dead-letters").json()
    dead = [letter["uid"] for letter in listed["letters"]]
    assert dead == uids[: len(dead)]
    assert all("events waited" in letter["reason"] for letter in listed["letters"])
    assert channels(api, "AWAY")["pending"] == len(uids) - len(dead)
    with EventReceiver("AWAY", port=away_port) as away:
        assert post(api, "/subscribers/AWAY/retry")
        reported = [report.uid for report in away.wait_for(len(uids) - len(dead))]
        assert reported == uids[len(dead) :]
        assert post(api, "/subscribers/AWAY/dead-letters/resend") == {"resent": len(dead)}
        assert [report.uid for report in away.wait_for(len(uids))][len(reported) :] == dead
    wait_until(lambda: api.get("/subscribers/AWAY/dead-letters").json()["total"] == 0, "none is left")


def is_settled(api: WebClient, events: int) -> bool:
    """Whether each of so many events waits or is a dead letter, and no more wait than may."""
    row = channels(api, "AWAY")
    return bool(row["pending"] <= MOST and row["pending"] + row["dead_letters"] == events)


def test_a_webhook_is_told_again_what_it_did_not_take_signed_and_filtered(
    client: WebClient, api: WebClient, hook_port: int
) -> None:
    hook = Hook()
    with hook.listening(hook_port):
        client.create(minimal(t00741200=element("CS", "LOW")))
        uid = client.create(minimal(t00741200=element("CS", "HIGH")))
        wait_until(lambda: hook.refused, "the first request came")
        go_through(client, uid)
        wait_until(lambda: channels(api, "HOOK")["failed"] == 1, "it failed")
        assert post(api, "/subscribers/HOOK/retry")
        wait_until(lambda: len(hook.taken) == 3, lambda: f"three requests came: {hook.taken}")
    reports = [json.loads(body) for _, body in hook.taken]
    assert [report["00001000"]["Value"] for report in reports] == [[uid]] * 3
    assert [report["00741000"]["Value"][0] for report in reports] == [SCHEDULED, IN_PROGRESS, COMPLETED]
    assert all(is_signed(headers, body) for headers, body in [*hook.refused, *hook.taken])
    ids = [headers["webhook-id"] for headers, _ in hook.taken]
    assert hook.refused[0][0]["webhook-id"] == ids[0], "the receiver can pass over a repeat"
    assert len(set(ids)) == 3
    sequences = [int(headers["ups-sequence"]) for headers, _ in hook.taken]
    assert sequences == sorted(set(sequences))


def is_signed(headers: dict[str, str], body: bytes) -> bool:
    """Checked as Standard Webhooks describe it."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
    return headers["webhook-signature"] == f"v1,{expected}"
