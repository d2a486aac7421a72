# SPDX-License-Identifier: AGPL-3.0-or-later
"""UPS-RS on Orthanc's own port, beside QIDO, WADO and STOW; each port serves what docs/dicomweb.md says."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from orthanc_ups.codecs import dicom_xml
from orthanc_ups.core.dataset import element
from orthanc_ups.dicomweb import multipart
from orthanc_ups.dicomweb.media_types import parse
from tests.support.orthanc import DICOMWEB_PLUGIN, PYTHON_PLUGIN, RealOrthanc
from tests.support.web_client import WebClient, new_uid, next_event, state
from tests.support.workitems import changed, full, minimal, performed

GLOBAL, FILTERED = "1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return {"Plugins": [PYTHON_PLUGIN, DICOMWEB_PLUGIN]}


@pytest.fixture(scope="module")
def own(orthanc: RealOrthanc) -> Iterator[WebClient]:
    """Orthanc's own port."""
    client = WebClient(f"{orthanc.base_url}/dicom-web", keep_alive=False)
    yield client
    client.session.close()


@pytest.fixture(scope="module")
def listener(orthanc: RealOrthanc) -> Iterator[WebClient]:
    """The plugin's port."""
    client = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
    yield client
    client.session.close()


def query(text: str) -> dict[str, dict[str, str]]:
    return {"headers": {"X-Ups-Query": text}}


def test_dicomweb_goes_on_beside_it(own: WebClient) -> None:
    assert own.get("/studies").status_code in (200, 204)
    assert own.get("/workitems").status_code in (200, 204)


@pytest.mark.parametrize("form", ["%3Fworkitem={uid}", "%3F{uid}", "%3fAffectedSOPInstanceUID%3D{uid}"])
def test_uid_of_a_create_behind_an_encoded_question_mark(own: WebClient, form: str) -> None:
    uid = new_uid()
    answer = own.post("/workitems" + form.format(uid=uid), minimal())
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"{own.url}/workitems/{uid}"
    assert own.retrieve(uid)["00741000"] == element("CS", "SCHEDULED")


def test_uid_of_a_create_in_a_header_or_the_body(own: WebClient) -> None:
    for more in (query("workitem={uid}"), {}):
        uid = new_uid()
        headers = {name: value.format(uid=uid) for name, value in more.get("headers", {}).items()}
        body = minimal() if headers else changed(minimal(), t00080018=element("UI", uid))
        assert own.post("/workitems", body, headers=headers).status_code == 201
        assert own.get(f"/workitems/{uid}").status_code == 200


def test_whole_life_of_a_workitem(own: WebClient, listener: WebClient) -> None:
    uid, transaction = new_uid(), new_uid()
    own.post("/workitems", full("greek"), **query(f"workitem={uid}"))
    assert own.post(f"/workitems/{uid}", {"00741204": element("LO", "new")}).status_code == 200
    claim = own.put(f"/workitems/{uid}/state", state("IN PROGRESS", transaction))
    assert (claim.status_code, claim.content) == (200, b"")
    assert own.post(f"/workitems/{uid}", performed()).status_code == 400
    assert (
        own.post(f"/workitems/{uid}", performed(), **query(f"transaction-uid={transaction}")).status_code
        == 200
    )
    body = {"00081195": element("UI", transaction), "00741204": element("LO", "newer")}
    assert own.post(f"/workitems/{uid}", body).status_code == 200
    assert own.put(f"/workitems/{uid}/state", state("COMPLETED", transaction)).status_code == 200
    again = own.put(f"/workitems/{uid}/state", state("COMPLETED", transaction))
    assert again.headers["Warning"].endswith("already in the requested state of COMPLETED.")
    assert listener.retrieve(uid) == own.retrieve(uid)


def test_refusals_have_their_status_and_say_why(own: WebClient) -> None:
    uid = new_uid()
    assert own.post("/workitems", minimal(t00741204=None), **query(f"workitem={uid}")).status_code == 400
    assert own.get(f"/workitems/{uid}").status_code == 404
    assert own.get("/workitems/1..2").status_code == 400
    assert own.post("/workitems", b"{").status_code == 400
    assert own.post("/workitems", b"[" * 5000).status_code == 400
    assert own.post("/workitems", b"x", headers={"Content-Type": "text/plain"}).status_code == 415
    assert own.get("/workitems", headers={"Accept": "text/html"}).status_code == 406
    not_allowed = own.delete("/workitems")
    assert (not_allowed.status_code, not_allowed.headers["Allow"]) == (405, "GET,POST,HEAD,OPTIONS")
    answer = own.get("/workitems?limit=Nonsense")
    assert answer.status_code == 400
    assert "Nonsense" in answer.json()["Detail"]


def test_a_create_whose_uid_was_lost_names_the_uid_that_was_chosen(own: WebClient) -> None:
    lost = new_uid()
    answer = own.post(f"/workitems?workitem={lost}", minimal())
    chosen = answer.headers["Location"].rpartition("/")[2]
    assert (answer.status_code, answer.headers["Location"]) == (201, f"{own.url}/workitems/{chosen}")
    assert f"so {chosen} was chosen" in answer.headers["Warning"]
    assert "X-Ups-Query" in answer.headers["Warning"]
    assert own.get(f"/workitems/{lost}").status_code == 404
    assert own.retrieve(chosen)["00741000"] == element("CS", "SCHEDULED")


def test_a_create_without_uid_names_the_uid_that_was_chosen_whatever_the_header_holds(own: WebClient) -> None:
    answer = own.post("/workitems", minimal(), **query("foo=1"))
    chosen = answer.headers["Location"].rpartition("/")[2]
    assert (answer.status_code, f"so {chosen} was chosen" in answer.headers["Warning"]) == (201, True)


def test_the_header_may_hold_the_query_with_its_question_mark(own: WebClient) -> None:
    uid = new_uid()
    answer = own.post("/workitems", minimal(), **query(f"?workitem={uid}"))
    assert (answer.status_code, "Warning" in answer.headers) == (201, False)
    assert own.retrieve(uid)["00741000"] == element("CS", "SCHEDULED")


def test_a_handshake_is_sent_to_the_port_that_has_web_sockets(own: WebClient, listener: WebClient) -> None:
    """PS3.18 §8.10.4; Orthanc's server cannot upgrade a connection."""
    answer = own.get("/subscribers/DASHBOARD", headers={"Upgrade": "websocket", "Connection": "Upgrade"})
    assert answer.status_code == 400
    assert f"{listener.web_sockets}/subscribers/AETITLE" in answer.json()["Detail"]


def test_arguments_that_may_have_been_lost_are_named(own: WebClient) -> None:
    uid, transaction, ae = new_uid(), new_uid(), "LOST"
    assert "Warning" not in own.post("/workitems", minimal(), **query(f"workitem={uid}")).headers
    subscribers = f"/workitems/{uid}/subscribers/{ae}"
    assert "No Deletion Lock" in own.post(f"{subscribers}?deletionlock=true").headers["Warning"]
    lock = {"00741230": element("LO", "FALSE")}
    assert "Warning" not in own.post(subscribers, lock).headers
    assert "Warning" not in own.post(subscribers, None, **query("deletionlock=false")).headers
    filtered = own.post(f"/workitems/{FILTERED}/subscribers/{ae}?filter=PatientID=1")
    assert (filtered.status_code, "No filter has arrived" in filtered.headers["Warning"]) == (400, True)
    own.put(f"/workitems/{uid}/state", state("IN PROGRESS", transaction))
    update = own.post(f"/workitems/{uid}?transaction-uid={transaction}", performed())
    assert (update.status_code, "No Transaction UID has arrived" in update.headers["Warning"]) == (400, True)
    cancel = own.post(f"/workitems/{uid}/cancelrequest?requester=RIS")
    assert "No requester has arrived" in cancel.headers["Warning"]
    assert "Warning" not in own.delete(subscribers).headers


def test_capabilities_name_no_parameter_that_is_dropped(own: WebClient, listener: WebClient) -> None:
    options = {"X-Ups-Method": "OPTIONS", "Accept": "application/json"}
    text = own.get("/workitems", headers=options).text
    assert not [name for name in ('"filter"', '"deletionlock"', '"transaction-uid"') if name in text]
    assert '"X-Ups-Query"' in text
    assert '"includefield"' in text
    own_port = listener.request("OPTIONS", "/", headers={"Accept": "application/json"}).text
    assert '"filter"' in own_port
    assert "X-Ups-Query" not in own_port


def test_refused_requests_leave_a_line_in_the_log(
    orthanc: RealOrthanc, own: WebClient, listener: WebClient
) -> None:
    uid, transaction = listener.create(), new_uid()
    own.put(f"/workitems/{uid}/state", state("IN PROGRESS", transaction))
    for client in (own, listener):
        client.post(f"/workitems/{uid}", performed(), params={"transaction-uid": "2.25.4711"})
    orthanc.logs(f"Update of {uid} by somebody at Orthanc's port refused with 400: ")
    log = orthanc.logs(f"Update of {uid} by somebody at 127.0.0.1 refused with 400: ")
    assert transaction not in log
    assert "2.25.4711" not in log


def test_search_with_repeated_keys(own: WebClient) -> None:
    uid = new_uid()
    own.post("/workitems", full(), **query(f"workitem={uid}"))
    keys = f"SOPInstanceUID={uid}&includefield=PatientWeight&includefield=001021C0"
    (workitem,) = own.get("/workitems", **query(keys)).json()
    assert {"00101030", "001021C0"} <= workitem.keys()
    (workitem,) = own.get(f"/workitems?SOPInstanceUID={uid}&includefield=PatientWeight,001021C0").json()
    assert {"00101030", "001021C0"} <= workitem.keys()
    assert own.get(f"/workitems?SOPInstanceUID={new_uid()}").status_code == 204


def test_xml(own: WebClient) -> None:
    uid = new_uid()
    body, boundary = multipart.encode([dicom_xml.encode(full("japanese"))], "application/dicom+xml")
    kind = f'multipart/related; type="application/dicom+xml"; boundary={boundary}'
    headers = {"Content-Type": kind, "X-Ups-Query": f"workitem={uid}"}
    assert own.post("/workitems", body, headers=headers).status_code == 201
    answer = own.get(
        f"/workitems/{uid}", headers={"Accept": 'multipart/related; type="application/dicom+xml"'}
    )
    media_type = parse(answer.headers["Content-Type"])
    assert media_type is not None
    (part,) = multipart.decode(answer.content, media_type.parameters["boundary"])
    assert dicom_xml.decode(part.content) == own.retrieve(uid)


def test_subscriptions_and_where_to_listen(own: WebClient, listener: WebClient) -> None:
    ae, label = new_uid()[-16:], new_uid()[-20:]
    body = {"00741204": element("LO", label), "00741230": element("LO", "TRUE")}
    answer = own.post(f"/workitems/{FILTERED}/subscribers/{ae}", body)
    assert answer.status_code == 201
    assert answer.headers["Content-Location"] == f"{listener.web_sockets}/subscribers/{ae}"
    with listener.socket(ae) as socket:
        uid = new_uid()
        own.post("/workitems", minimal(t00741204=element("LO", label)), **query(f"workitem={uid}"))
        assert next_event(socket)["00001000"]["Value"] == [uid]
        assert own.post(f"/workitems/{uid}/cancelrequest").status_code == 202
        assert [next_event(socket)["00741000"]["Value"][0] for _ in range(2)] == ["IN PROGRESS", "CANCELED"]
    assert own.post(f"/workitems/{FILTERED}/subscribers/{ae}/suspend").status_code == 200
    assert own.delete(f"/workitems/{GLOBAL}/subscribers/{ae}").status_code == 200
    assert own.delete(f"/workitems/{GLOBAL}/subscribers/{ae}").status_code == 404


def test_capabilities_by_a_header(own: WebClient) -> None:
    answer = own.get("/workitems", headers={"X-Ups-Method": "OPTIONS"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/vnd.sun.wadl+xml"
    assert own.url.encode() in answer.content
    entity_tag = answer.headers["ETag"]
    headers = {"X-Ups-Method": "OPTIONS", "If-None-Match": entity_tag}
    assert own.get("/workitems", headers=headers).status_code == 304


def test_sockets_are_not_here(own: WebClient) -> None:
    assert own.get("/subscribers/A").status_code == 400


def test_both_ports_show_one_worklist(own: WebClient, listener: WebClient) -> None:
    uid = listener.create(full("cyrillic"))
    assert own.retrieve(uid) == listener.retrieve(uid)


def test_8_3_1_what_is_ignored_is_named_there_too(own: WebClient) -> None:
    answer = own.get("/workitems?_=1&QueryRetrieveLevel=WORKLIST&multiplevaluematching=true&foo=bar")
    assert answer.status_code in (200, 204)
    assert "Unsupported query parameters were ignored: _, foo" in answer.headers["Warning"]
    assert "were not used: QueryRetrieveLevel (0008,0052)" in answer.headers["Warning"]
    uid = new_uid()
    assert own.post("/workitems", minimal(), **query(f"workitem={uid}")).status_code == 201
    answer = own.post(f"/workitems/{uid}/cancelrequest", headers={"X-Ups-Query": "foo=bar"})
    assert answer.status_code == 202
    assert "were ignored: foo" in answer.headers["Warning"]


@pytest.mark.parametrize(
    ("name", "sought"),
    [("Müller^Jörg", "M%C3%BCller%5EJ%C3%B6rg"), ("Müller^Jörg", "M%C3%BC*"), ("Doe Jane", "Doe%20Jane")],
)
def test_8_3_percent_encoded_values_are_decoded_once(own: WebClient, name: str, sought: str) -> None:
    label = new_uid()[-16:]
    own.post(
        f"/workitems%3Fworkitem={new_uid()}",
        minimal(t00741202=element("LO", label), t00100010=element("PN", {"Alphabetic": name})),
    )
    answer = own.get(f"/workitems?WorklistLabel={label}&%30%30100010={sought}")
    assert answer.status_code == 200
    assert [workitem["00100010"]["Value"] for workitem in answer.json()] == [[{"Alphabetic": name}]]
    assert own.get(f"/workitems?WorklistLabel={label}&PatientName=M%25").status_code == 204


def test_8_3_4_empty_values_match_there_too(own: WebClient) -> None:
    label = new_uid()[-16:]
    uid = new_uid()
    created = own.post("/workitems", minimal(t00741202=element("LO", label)), **query(f"workitem={uid}"))
    assert created.status_code == 201
    content = own.get(f"/workitems?emptyvaluematching=true&WorklistLabel={label}&PatientName=%22%22").json()
    assert [workitem["00080018"]["Value"] for workitem in content] == [[uid]]
