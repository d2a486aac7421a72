# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §8.10 Notifications, §11.13 Workitem Event Reports, and ``?since=`` beyond the standard."""

import json
import threading

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from orthanc_ups.core.dataset import element
from tests.support.web_client import TIMEOUT, WebClient, new_ae, next_event
from tests.support.workitems import full, minimal, progress, station

GLOBAL = "1.2.840.10008.5.1.4.34.5"


def sequence(event: dict[str, dict[str, list[str]]]) -> int:
    return int(event["00771001"]["Value"][0])


def subscribed(service: WebClient, ae: str, socket: ClientConnection) -> str:
    """A workitem to which the AE is subscribed, with the first report already read."""
    uid = service.create()
    service.post(f"/workitems/{uid}/subscribers/{ae}")
    assert next_event(socket)["00001000"]["Value"] == [uid]
    return uid


@pytest.mark.parametrize("path", ["/subscribers/{ae}", "/ws/subscribers/{ae}"])
@pytest.mark.parametrize("below_root", [True, False])
def test_8_10_4_connection_is_opened_at_every_usual_path(
    service: WebClient, path: str, below_root: bool
) -> None:
    ae = new_ae()
    base = service.web_sockets if below_root else service.web_sockets.rsplit("/", 1)[0]
    with connect(base + path.format(ae=ae), proxy=None) as socket:
        assert socket.response is not None
        assert socket.response.status_code == 101
        assert "Sec-WebSocket-Extensions" not in socket.response.headers
        subscribed(service, ae, socket)


@pytest.mark.parametrize(
    "target",
    [
        "/?requester={ae}",
        "?requester={ae}",
        "/subscribers?requester={ae}",
        "/ws?Requester={ae}",
        "/ws/?requester={ae}",
    ],
)
def test_8_10_4_connection_is_opened_for_a_requester(service: WebClient, target: str) -> None:
    ae = new_ae()
    with connect(service.web_sockets + target.format(ae=ae), proxy=None) as socket:
        subscribed(service, ae, socket)


@pytest.mark.parametrize("target", ["/", "/subscribers", "/ws", "/?requester=", "/?requester=a%5Cb"])
def test_8_10_4_connection_without_requester_is_400(service: WebClient, target: str) -> None:
    assert service.get(target).status_code == 400
    with pytest.raises(InvalidStatus) as refusal:
        connect(service.web_sockets + target, proxy=None)
    assert refusal.value.response.status_code == 400


def test_rfc_6455_4_2_2_the_first_subprotocol_offered_is_chosen(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae, subprotocols=["dicom-events", "json"]) as socket:
        assert socket.subprotocol == "dicom-events"
        subscribed(service, ae, socket)
    with service.socket(ae) as socket:
        assert socket.subprotocol is None


@pytest.mark.parametrize("version", ["12", "8", "7", "0", "14", "x"])
def test_rfc_6455_4_4_another_version_is_426_and_names_13(service: WebClient, version: str) -> None:
    upgrade = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    answer = service.get("/subscribers/A", headers={**upgrade, "Sec-WebSocket-Version": version})
    assert answer.status_code == 426
    assert (answer.headers["Sec-WebSocket-Version"], answer.headers["Upgrade"]) == ("13", "websocket")
    assert service.get("/workitems?limit=1").status_code in (200, 204)  # on the same connection


def test_no_answer_names_versions_of_software(service: WebClient) -> None:
    with service.socket(new_ae()) as socket:
        assert socket.response is not None
        servers = [socket.response.headers["Server"]]
    answers = [service.get(path) for path in ("/workitems", "/", "/nowhere", "/subscribers/A")]
    answers += [
        service.request("OPTIONS", "/"),
        service.request("BREW", "/"),
        service.post("/workitems", b"x"),
    ]
    servers += [answer.headers["Server"] for answer in answers]
    assert servers == ["orthanc-ups"] * len(servers)


def test_8_10_4_handshake_that_is_none_is_400(service: WebClient) -> None:
    assert service.get("/subscribers/A").status_code == 400
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    assert service.get("/subscribers/A", headers=upgrade).status_code == 400
    assert service.get("/subscribers/A", headers={**upgrade, "Sec-WebSocket-Key": "x"}).status_code == 400


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/subscribers/A?since=x", 400),
        ("/subscribers/" + "x" * 17, 400),
        ("/subscribers/%20", 400),
        ("/nowhere/A", 404),
    ],
)
def test_8_10_4_bad_targets(service: WebClient, target: str, status: int) -> None:
    with pytest.raises(InvalidStatus) as refusal:
        connect(service.web_sockets + target, proxy=None)
    assert refusal.value.response.status_code == status


def test_8_10_4_agents_may_say_what_they_like(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        socket.send("hello")
        socket.send(b"\x00" * 1000)
        assert socket.ping().wait(TIMEOUT)
        subscribed(service, ae, socket)


def test_8_10_4_losing_the_connection_alters_no_subscription(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        uid = subscribed(service, ae, socket)
    with service.socket(ae) as socket:
        service.claim(uid)
        (reported,) = next_event(socket)["00741000"]["Value"]
        if (
            reported == "SCHEDULED"
        ):  # it comes again if the first connection was closed before it was confirmed
            (reported,) = next_event(socket)["00741000"]["Value"]
        assert reported == "IN PROGRESS"


def test_11_13_state_report(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        uid = subscribed(service, ae, socket)
        service.claim(uid)
        event = next_event(socket)
    assert list(event) == sorted(event)
    assert event["00000002"] == {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.1"]}
    assert event["00000110"]["vr"] == "US"
    assert event["00001000"] == {"vr": "UI", "Value": [uid]}
    assert event["00001002"] == {"vr": "US", "Value": [1]}
    assert event["00404041"] == {"vr": "CS", "Value": ["READY"]}
    assert event["00741000"] == {"vr": "CS", "Value": ["IN PROGRESS"]}


def test_11_13_canceled_before_claimed_reports_twice_with_the_reason(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        uid = subscribed(service, ae, socket)
        service.post(f"/workitems/{uid}/cancelrequest", {"00741238": element("LT", "not needed")})
        first, second = next_event(socket), next_event(socket)
    assert [report["00741000"]["Value"] for report in (first, second)] == [["IN PROGRESS"], ["CANCELED"]]
    assert second["00741238"] == {"vr": "LT", "Value": ["not needed"]}
    assert second["0074100E"]["Value"][0]["00080100"] == {"vr": "SH", "Value": ["110513"]}


def test_11_13_progress_report_has_the_whole_progress(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        uid = subscribed(service, ae, socket)
        transaction = service.claim(uid)
        service.post(f"/workitems/{uid}?transaction-uid={transaction}", progress("40.50", "segmenting"))
        claimed, event = next_event(socket), next_event(socket)
    assert claimed["00001002"]["Value"] == [1]
    assert event["00001002"] == {"vr": "US", "Value": [3]}
    (item,) = event["00741002"]["Value"]
    assert item["00741004"] == {"vr": "DS", "Value": [40.5]}
    assert item["00741006"] == {"vr": "ST", "Value": ["segmenting"]}
    assert item["00741008"]["Value"][0]["0074100A"]["vr"] == "UR"


def test_11_13_assigned_after_the_first_state_report(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        service.post(f"/workitems/{GLOBAL}/subscribers/{ae}")
        uid = service.create(full("greek"))
        mine = (
            event for event in iter(lambda: next_event(socket), None) if event["00001000"]["Value"] == [uid]
        )
        first, second = next(mine), next(mine)
    assert (first["00001002"]["Value"], second["00001002"]["Value"]) == ([1], [5])
    assert [code["00080100"]["Value"] for code in second["00404025"]["Value"]] == [["READING7"], ["READING8"]]
    assert second["00404036"] == {"vr": "LO", "Value": ["Harbour Clinic"]}


def test_11_13_assignment_that_changes(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        uid = subscribed(service, ae, socket)
        service.post(f"/workitems/{uid}", {"00404025": element("SQ", station("CT9"))})
        event = next_event(socket)
    assert event["00001002"]["Value"] == [5]
    assert event["00404025"]["Value"][0]["00080100"]["Value"] == ["CT9"]


def test_8_10_5_every_socket_of_an_ae_is_told(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as first, service.socket(ae) as two:
        uid = service.create()
        service.post(f"/workitems/{uid}/subscribers/{ae}")
        assert next_event(first) == next_event(two)


def test_8_10_5_events_are_text_objects_in_order(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        uid = subscribed(service, ae, socket)
        transaction = service.claim(uid)
        for percent in range(20):
            service.post(f"/workitems/{uid}?transaction-uid={transaction}", progress(str(percent)))
        events = [next_event(socket) for _ in range(2)]
        while events[-1]["00741002"]["Value"][0]["00741004"]["Value"] != [19]:
            events.append(next_event(socket))
    numbers = [sequence(event) for event in events]
    assert numbers == sorted(set(numbers))


# --- beyond the standard ----------------------------------------------------------------------------


def test_since_brings_what_was_missed_in_order_and_then_what_comes(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        uid = subscribed(service, ae, socket)
        service.claim(uid)
        cursor = sequence(next_event(socket))
    missed = [service.create() for _ in range(3)]
    for missed_uid in missed:
        service.post(f"/workitems/{missed_uid}/subscribers/{ae}")
    with service.socket(ae, since=cursor) as socket:
        events = [next_event(socket) for _ in missed]
        assert [event["00001000"]["Value"][0] for event in events] == missed
        service.claim(missed[0])
        last = next_event(socket)
        assert (last["00001000"]["Value"], last["00741000"]["Value"]) == ([missed[0]], ["IN PROGRESS"])
    numbers = [cursor, *map(sequence, events), sequence(last)]
    assert numbers == sorted(set(numbers))


def test_since_0_brings_everything_that_is_kept(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        uid = subscribed(service, ae, socket)
        service.claim(uid)
        next_event(socket)
    for _ in range(2):
        with service.socket(ae, since=0) as socket:
            assert [next_event(socket)["00741000"]["Value"][0] for _ in range(2)] == [
                "SCHEDULED",
                "IN PROGRESS",
            ]


def test_since_meets_the_live_stream_without_gap_or_repeat(service: WebClient) -> None:
    ae = new_ae()
    service.post(f"/workitems/{GLOBAL}/subscribers/{ae}")
    created: list[str] = []
    enough = threading.Event()

    def create_on_and_on() -> None:
        client = WebClient(service.url)
        while not enough.is_set() and len(created) < 2000:
            created.append(client.create(minimal()))
        client.session.close()

    worker = threading.Thread(target=create_on_and_on)
    worker.start()
    reported: list[str] = []
    last = 0
    try:
        for _ in range(6):
            with service.socket(ae, since=last) as socket:
                for _ in range(25):
                    event = next_event(socket)
                    assert sequence(event) > last
                    last = sequence(event)
                    reported.append(event["00001000"]["Value"][0])
    finally:
        enough.set()
        worker.join()
    first = created.index(reported[0])
    assert reported == created[first : first + len(reported)]


def test_sequence_stands_in_a_private_block_that_names_its_creator(service: WebClient) -> None:
    ae = new_ae()
    with service.socket(ae) as socket:
        service.post(f"/workitems/{service.create()}/subscribers/{ae}")
        text = socket.recv(TIMEOUT)
    event = json.loads(text)
    private = {tag: value for tag, value in event.items() if int(tag[:4], 16) % 2}
    assert private.keys() == {"00770010", "00771001"}
    assert private["00770010"] == {"vr": "LO", "Value": ["ORTHANC-UPS"]}
    assert private["00771001"]["vr"] == "LO"
