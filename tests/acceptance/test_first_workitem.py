# SPDX-License-Identifier: AGPL-3.0-or-later
"""First data sets of clients written without a worklist manager at hand, over every interface.

They get in with one request, and the answer names each correction; or one refusal names all that is wrong. With
`Ups.Strict` they are held to the letter of PS3.4 5.4.2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, is_empty
from tests.support.dimse_client import EXPLICIT, IMPLICIT, UpsClient
from tests.support.orthanc import RealOrthanc
from tests.support.web_client import WebClient, new_uid, next_event, state
from tests.support.workitems import changed, code, full, minimal, performed, station

PORTS: Final = ("UPS-RS", "Orthanc's port", "DIMSE explicit", "DIMSE implicit")

BARE: Final = ("00741000", "00741200", "00741204", "00404041", "00404005")
"""Type 1 attributes."""


@dataclass(frozen=True)
class Reply:
    """What a client sees, whichever way it asked."""

    accepted: bool
    status: str
    words: str
    faults: tuple[str, ...]
    returned: DataSet


class Ways:
    """Create and Update in every spelling."""

    def __init__(self, orthanc: RealOrthanc) -> None:
        self.web = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
        self.own = WebClient(f"{orthanc.base_url}/dicom-web", keep_alive=False)
        self.dicom_port = orthanc.ups_dicom_port

    def close(self) -> None:
        self.web.session.close()
        self.own.session.close()

    def create(self, way: str, uid: str, attributes: DataSet) -> Reply:
        if way.startswith("DIMSE"):
            return self._by_dimse(way, lambda client: client.create(attributes, uid))
        return self._by_http(way, "/workitems", attributes, f"workitem={uid}")

    def update(self, way: str, uid: str, attributes: DataSet, transaction: str | None = None) -> Reply:
        if way.startswith("DIMSE"):
            return self._by_dimse(way, lambda client: client.update(uid, attributes, transaction=transaction))
        query = f"transaction-uid={transaction}" if transaction else ""
        return self._by_http(way, f"/workitems/{uid}", attributes, query)

    def _by_http(self, way: str, path: str, attributes: DataSet, query: str) -> Reply:
        if way == "UPS-RS":
            answer = self.web.post(f"{path}?{query}", attributes)
        else:  # Orthanc drops the query of a POST
            answer = self.own.post(path, attributes, headers={"X-Ups-Query": query})
        report = answer.json() if answer.status_code >= 400 else {}
        return Reply(
            answer.ok,
            report.get("Status", str(answer.status_code)),
            " ".join((answer.headers.get("Warning", ""), answer.headers.get("X-Ups-Modifications", ""))),
            tuple(fault["Tag"].rpartition(".")[2] for fault in report.get("Attributes", ())),
            {},
        )

    def _by_dimse(self, way: str, ask: Callable[[UpsClient], Any]) -> Reply:
        with UpsClient(self.dicom_port, syntaxes=[EXPLICIT if "explicit" in way else IMPLICIT]) as client:
            answer = ask(client)
        return Reply(
            answer.code in (0, 0xB300, 0xB305),
            f"{answer.code:04X}",
            answer.comment,
            _tags_of(answer.command.get("OffendingElement")),
            answer.attributes,
        )


def _tags_of(offset_table: Any) -> tuple[str, ...]:
    if offset_table is None:
        return ()
    listed = [offset_table] if isinstance(offset_table, int) else offset_table
    return tuple(f"{int(tag):08X}" for tag in listed)


MODALITIES: Final = {"DicomModalities": {"scu": ["SCU", "127.0.0.1", 104]}}


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    return dict(MODALITIES)


@pytest.fixture(scope="module")
def ways(orthanc: RealOrthanc) -> Iterator[Ways]:
    every = Ways(orthanc)
    yield every
    every.close()


def bare() -> DataSet:
    """Type 1 attributes only, a patient and a workitem code."""
    sent = {tag: value for tag, value in minimal().items() if tag in BARE}
    return changed(
        sent,
        t00100010=element("PN", {"Alphabetic": "Quayside^Ola"}),
        t00100020=element("LO", "Q-77"),
        t00404018=element("SQ", code("SEG-1", "99QUAY", "Segmentation")),
    )


@pytest.mark.parametrize("way", PORTS)
def test_cc_2_5_type_1_attributes_are_enough_and_what_was_added_is_named(ways: Ways, way: str) -> None:
    uid = new_uid()
    reply = ways.create(way, uid, bare())
    assert (reply.accepted, reply.status) == (True, "B300" if "DIMSE" in way else "201")
    stored = ways.web.retrieve(uid)
    absent = minimal().keys() - bare().keys()
    assert absent <= stored.keys()
    assert all(is_empty(stored[tag]) for tag in absent - {tags.WORKLIST_LABEL})
    if "DIMSE" in way:
        assert absent <= reply.returned.keys()
        assert reply.words.startswith("(0008,1080) (0008,1084) (0010,0021)")
    else:
        assert all(f"({tag[:4]},{tag[4:]})" in reply.words for tag in absent)


@pytest.mark.parametrize("way", PORTS[:3])
def test_ps3_5_6_2_text_of_a_neighbouring_vr_is_taken(ways: Ways, way: str) -> None:
    uid = new_uid()
    unknown = {"vr": "UN", "InlineBinary": "UVVBWTc="}  # QUAY7
    sent = changed(
        bare(),
        t00741204=element("ST", "Segment the liver"),
        t00741200=element("LO", "medium"),
        t00404025=element("SQ", changed(station(), t00080100=unknown)),
        t00404018=element("SQ", changed(code(), t00080100=element("LO", "SEG-1"))),
    )
    reply = ways.create(way, uid, sent)
    assert reply.accepted
    stored = ways.web.retrieve(uid)
    assert stored["00741204"] == element("LO", "Segment the liver")
    assert stored["00741200"] == element("CS", "MEDIUM")
    assert stored["00404025"]["Value"][0]["00080100"] == element("SH", "QUAY7")
    assert stored["00404018"]["Value"][0]["00080100"] == element("SH", "SEG-1")


@pytest.mark.parametrize("way", PORTS)
def test_ps3_7_annex_c_one_refusal_names_every_attribute_at_fault(ways: Ways, way: str) -> None:
    uid = new_uid()
    sent = changed(
        bare(),
        t00741204=None,
        t00404005=None,
        t00741200=element("CS", "STAT"),
        t00404018=element("SQ", {"00080100": element("SH", "X")}),
    )
    reply = ways.create(way, uid, sent)
    assert (reply.accepted, reply.status) == (False, "0120")
    assert set(reply.faults) == {"00741204", "00404005", "00741200", "00080102", "00080104"}
    if "DIMSE" in way:
        assert reply.words.startswith("(0040,4005) (0074,1204) (0040,4018)>(0008,0104),(0008,0102)")
    assert ways.web.get(f"/workitems/{uid}").status_code == 404


@pytest.mark.parametrize("way", PORTS)
def test_cc_2_6_performed_without_output_gets_it_empty(ways: Ways, way: str) -> None:
    uid = ways.web.create(full())
    transaction = ways.web.claim(uid)
    reply = ways.update(way, uid, performed(t00404033=None), transaction)
    assert (reply.accepted, reply.status) == (True, "B305" if "DIMSE" in way else "200")
    item = ways.web.retrieve(uid)[tags.PERFORMED_PROCEDURE]["Value"][0]
    assert item["00404033"] == element("SQ")
    assert "(0040,4033)" in reply.words


@pytest.mark.parametrize("way", PORTS)
def test_ps3_7_command_elements_in_the_data_set_of_an_update_are_left_out(ways: Ways, way: str) -> None:
    uid = ways.web.create(full())
    sent = {
        "00000002": element("UI", tags.PUSH),
        "00001000": element("UI", uid),
        tags.LABEL: element("LO", "Second look"),
    }
    reply = ways.update(way, uid, sent)
    assert (reply.accepted, reply.status) == (True, "B305" if "DIMSE" in way else "200")
    stored = ways.web.retrieve(uid)
    assert stored[tags.LABEL] == element("LO", "Second look")
    assert not {"00000002", "00001000"} & stored.keys()


@pytest.mark.parametrize("way", PORTS)
def test_cc_2_6_a_whole_workitem_sent_back_is_an_update_of_what_differs(ways: Ways, way: str) -> None:
    uid = ways.web.create(full())
    sent = {**ways.web.retrieve(uid), tags.LABEL: element("LO", "Second look")}
    assert ways.update(way, uid, sent).accepted
    assert ways.web.retrieve(uid)[tags.LABEL] == element("LO", "Second look")


def test_cc_2_4_3_an_assignment_that_is_taken_away_is_reported(ways: Ways) -> None:
    uid = ways.web.create(changed(full(), t00404034=None))
    with ways.web.socket("QUAY") as socket:
        assert ways.web.post(f"/workitems/{uid}/subscribers/QUAY").status_code == 201
        assert next_event(socket)["00001002"]["Value"] == [1]
        assert ways.web.post(f"/workitems/{uid}", {"00404025": element("SQ")}).status_code == 200
        event = next_event(socket)
    assert event["00001002"]["Value"] == [5]
    assert "00404025" not in event


def test_cc_2_1_3_every_unmet_requirement_of_the_final_state_is_named(ways: Ways) -> None:
    uid = ways.web.create(full())
    transaction = ways.web.claim(uid)
    with UpsClient(ways.dicom_port) as client:
        answer = client.change_state(uid, "COMPLETED", transaction)
    assert answer.code == 0xC304
    assert answer.comment.startswith("(0074,1216) (0074,1216)>(0040,4019),(0040,4028)")


@pytest.fixture(scope="module")
def strict(suite: str) -> Iterator[Ways]:
    with RealOrthanc(suite, {**MODALITIES, "Ups": {"Strict": True}}) as running:
        every = Ways(running)
        yield every
        every.close()


@pytest.mark.parametrize("way", ["UPS-RS", "DIMSE explicit"])
def test_ps3_4_5_4_2_strict_absent_type_2_attributes_are_refused_all_at_once(strict: Ways, way: str) -> None:
    reply = strict.create(way, new_uid(), bare())
    assert (reply.accepted, reply.status) == (False, "0120")
    assert set(reply.faults) == minimal().keys() - bare().keys()


@pytest.mark.parametrize("way", ["UPS-RS", "DIMSE explicit"])
def test_ps3_4_5_4_2_strict_a_neighbouring_vr_is_refused(strict: Ways, way: str) -> None:
    reply = strict.create(way, new_uid(), minimal(t00741204=element("ST", "x")))
    assert (reply.accepted, reply.status, reply.faults) == (False, "0106", ("00741204",))


def test_ps3_7_c_names_that_no_attribute_has_are_refused_all_at_once(ways: Ways) -> None:
    sent = {**minimal(), "Foo": element("LT", "x"), "Bar": element("LT", "x"), "00091001": {"Value": ["x"]}}
    answer = ways.web.post(f"/workitems?workitem={new_uid()}", json.dumps(sent).encode())
    assert answer.status_code == 400
    named = [fault["Tag"] or fault["Reason"].split("'")[1] for fault in answer.json()["Attributes"]]
    assert sorted(named) == ["00091001", "Bar", "Foo"]


@pytest.mark.parametrize("way", PORTS)
def test_cc_3_1_another_ups_class_in_the_data_set_becomes_ups_push(ways: Ways, way: str) -> None:
    uid = new_uid()
    answer = ways.create(way, uid, changed(minimal(), t00080016=element("UI", tags.PULL)))
    assert answer.accepted and answer.status in ("201", "B300")
    assert "(0008,0016)" in answer.words
    assert ways.web.retrieve(uid)["00080016"] == element("UI", tags.PUSH)


def test_ps3_7_command_elements_in_the_body_of_an_action_are_left_out(ways: Ways) -> None:
    uid, command = ways.web.create(), {"00001000": element("UI", "2.25.1")}
    claimed = ways.web.put(f"/workitems/{uid}/state", {**command, **state("IN PROGRESS", new_uid())})
    assert claimed.status_code == 200, claimed.text
    canceled = ways.web.post(f"/workitems/{ways.web.create()}/cancelrequest", command)
    assert canceled.status_code == 202, canceled.text
