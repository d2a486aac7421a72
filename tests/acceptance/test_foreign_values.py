# SPDX-License-Identifier: AGPL-3.0-or-later
"""Data sets as real-world clients write them, on a real Orthanc: accepted, with each correction named."""

import base64
import struct
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.dimse.data_sets import EXPLICIT as EXPLICIT_SYNTAX
from orthanc_ups.dimse.data_sets import IMPLICIT as IMPLICIT_SYNTAX
from orthanc_ups.dimse.data_sets import encode
from orthanc_ups.dimse.message import AFFECTED_CLASS, ERROR_COMMENT, STATUS, CommandField
from tests.support import workitems
from tests.support.dimse_client import UpsClient
from tests.support.event_receiver import EventReceiver
from tests.support.orthanc import RealOrthanc
from tests.support.raw_dimse import VERIFICATION, RawPeer, echo, operation
from tests.support.upper_layer import associate_rq
from tests.support.web_client import WebClient, new_uid

pytestmark = pytest.mark.one_suite("our own ports read data sets before Orthanc sees anything")

CREATED_MODIFIED, UPDATED_MODIFIED, SUCCESS = 0xB300, 0xB305, 0x0000
PASSING = [0xA700, 0xC001, 0xFF00, 0x0213]
JSON = {"Content-Type": "application/dicom+json"}


@pytest.fixture(scope="module")
def orthanc_overrides() -> dict[str, Any]:
    modalities = {"scu": ["SCU", "127.0.0.1", 104]}
    return {"DicomModalities": modalities, "Ups": {"RetryFirst": 0.1, "RetryFactor": 1}}


@pytest.fixture
def client(orthanc: RealOrthanc) -> Iterator[WebClient]:
    service = WebClient(f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web")
    yield service
    service.session.close()


def with_element(name: str, written: str) -> bytes:
    """A workitem in DICOM JSON with one more element, as it is written."""
    return dicom_json.encode(workitems.minimal())[:-1] + f',"{name}":{written}}}'.encode()


FOREIGN = [
    ("00101030", '{"vr":"DS","Value":[70.12345678901235]}', element("DS", "70.1234567890124")),
    ("PatientSize", '{"vr":"DS","Value":[1.7]}', element("DS", "1.7")),
    ("00101020", "1.7", element("DS", "1.7")),
    ("00102180", '{"vr":"UN","InlineBinary":"QmFrZXI="}', element("SH", "Baker")),
    ("00404011", '{"vr":"DT","Value":["2026-12-01T13:00:00Z"]}', element("DT", "20261201130000+0000")),
    ("00101010", '{"vr":"AS","Value":["42Y"]}', element("AS", "042Y")),
    ("00102297", '{"vr":"PN","Value":["Kim^Min"]}', element("PN", {"Alphabetic": "Kim^Min"})),
]


@pytest.mark.parametrize(("name", "written", "expected"), FOREIGN)
def test_ps3_18_11_4_a_foreign_value_is_stored_as_dicom_has_it_and_named(
    client: WebClient, name: str, written: str, expected: dict[str, Any]
) -> None:
    uid = new_uid()
    answer = requests.post(
        f"{client.url}/workitems?workitem={uid}", data=with_element(name, written), headers=JSON, timeout=30
    )
    assert answer.status_code == 201, answer.text
    assert "Warning" in answer.headers
    (tag,) = [key for key, value in client.retrieve(uid).items() if value == expected]
    assert f"({tag[:4]},{tag[4:]})" in answer.headers["X-Ups-Modifications"]


def test_ps3_6_supplement_233_is_known_by_keyword(client: WebClient) -> None:
    uid = new_uid()
    item = '{"Value":[{"00100012":{"Value":["Kim"]}}]}'
    url = f"{client.url}/workitems?workitem={uid}"
    answer = requests.post(url, data=with_element("00100011", item), headers=JSON, timeout=60)
    assert answer.status_code == 201, answer.text
    query = f"{client.url}/workitems?SOPInstanceUID={uid}&includefield=PersonNamesToUseSequence"
    (workitem,) = requests.get(query, timeout=60).json()
    assert workitem["00100011"] == element("SQ", {"00100012": element("LT", "Kim")})


def test_ps3_3_c_12_1_1_2_latin_9_and_private_text_of_an_implicit_vr_peer(orthanc: RealOrthanc) -> None:
    """Both go back in UTF-8, as the answer declares."""
    uid, name, remark = new_uid(), "Œuvre^Šárka", "Šárka war hier"
    sent = (
        implicit("00080005", b"ISO_IR 203")
        + encode(workitems.minimal(t00100010=None), IMPLICIT_SYNTAX)
        + implicit("00100010", name.encode("iso8859_15") + b" ")
        + implicit("00110010", b"SOMEBODY")
        + implicit("00111001", remark.encode("iso8859_15"))
    )
    with RawPeer(orthanc.ups_dicom_port) as peer:
        peer.negotiate(associate_rq("SCU", "ORTHANC", [tags.PUSH], syntax=IMPLICIT_SYNTAX.uid))
        answer = peer.ask(operation(CommandField.N_CREATE, uid), sent)
        assert answer.number(STATUS) == CREATED_MODIFIED
        assert answer.text(ERROR_COMMENT).startswith("(0011,1001)")
    with UpsClient(orthanc.ups_dicom_port) as client:
        attributes = client.get(uid).attributes
    assert attributes[tags.PATIENT_NAME] == element("PN", {"Alphabetic": name})
    private = base64.b64decode(attributes["00111001"]["InlineBinary"])
    assert private.decode("utf-8").rstrip() == remark


def implicit(tag: str, value: bytes) -> bytes:
    """One element in Implicit VR Little Endian."""
    return struct.pack("<HHL", int(tag[:4], 16), int(tag[4:], 16), len(value)) + value


def test_ps3_4_cc_2_6_elements_of_the_command_set_within_an_n_set_are_dropped_and_named(
    orthanc: RealOrthanc,
) -> None:
    with UpsClient(orthanc.ups_dicom_port) as client:
        uid = client.create(workitems.minimal()).uid
        changes = {
            "00000002": element("UI", tags.PUSH),
            "00001000": element("UI", uid),
            tags.LABEL: element("LO", "Second look"),
        }
        with RawPeer(orthanc.ups_dicom_port, tags.PULL) as peer:
            answer = peer.ask(operation(CommandField.N_SET, uid), encode(changes, EXPLICIT_SYNTAX))
        assert answer.number(STATUS) == UPDATED_MODIFIED
        assert "(0000,0002)" in answer.text(ERROR_COMMENT)
        assert client.get(uid, [tags.LABEL]).attributes == {tags.LABEL: element("LO", "Second look")}


def test_ps3_7_9_1_5_c_echo_of_another_class_is_0122(orthanc: RealOrthanc) -> None:
    with RawPeer(orthanc.ups_dicom_port, VERIFICATION) as peer:
        answer = peer.ask({**echo(), AFFECTED_CLASS: tags.PUSH})
        assert answer.number(STATUS) == 0x0122
        assert answer.text(ERROR_COMMENT)
        assert peer.echo() == SUCCESS


def test_a_receiver_that_cannot_take_an_event_now_gets_it_again(orthanc: RealOrthanc) -> None:
    with (
        EventReceiver("WATCHER", statuses=PASSING) as watcher,
        UpsClient(orthanc.ups_dicom_port) as client,
    ):
        entry = {"AET": "WATCHER", "Host": "127.0.0.1", "Port": watcher.port}
        requests.put(f"{orthanc.base_url}/modalities/watcher", json=entry, timeout=60).raise_for_status()
        uid = client.create(workitems.minimal()).uid
        assert client.subscribe(uid, "WATCHER").code == SUCCESS
        reports = watcher.wait_for(len(PASSING) + 1)
        assert {report.uid for report in reports} == {uid}
        assert {report.type for report in reports} == {1}
