# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.18 §11.5 Retrieve Workitem, and the common rules of §8.7 for what it returns."""

import json
from urllib.parse import quote

import pytest

from orthanc_ups.codecs import dicom_json, dicom_xml
from orthanc_ups.core.dataset import element
from orthanc_ups.dicomweb import multipart
from orthanc_ups.dicomweb.media_types import parse
from tests.support.web_client import WebClient, new_uid
from tests.support.workitems import full

MULTIPART = 'multipart/related; type="application/dicom+xml"'


def test_11_5_3_json_is_an_array_of_one(service: WebClient) -> None:
    uid = service.create(full("japanese"))
    answer = service.get(f"/workitems/{uid}", headers={"Accept": "application/dicom+json"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/dicom+json"
    (workitem,) = json.loads(answer.content)
    assert list(workitem) == sorted(workitem)
    assert workitem["00080005"] == {"vr": "CS", "Value": ["ISO_IR 192"]}
    assert workitem["00080016"] == {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.34.6.1"]}
    assert workitem["00100010"]["Value"][0]["Ideographic"] == "青川^春香"
    assert workitem["00101030"] == {"vr": "DS", "Value": [71.5]}
    assert b'"Value":[71.50]' in answer.content


@pytest.mark.parametrize("accept", ["application/dicom+json", MULTIPART, "application/dicom+xml"])
def test_11_5_3_what_the_body_shows_is_named(service: WebClient, accept: str) -> None:
    uid = service.create()
    answer = service.get(f"/workitems/{uid}?accept={quote(accept)}")
    assert answer.headers["Content-Type"].startswith(accept.partition(";")[0])
    assert answer.headers["Content-Location"] == f"{service.url}/workitems/{uid}"


@pytest.mark.parametrize("who", ["plain", "japanese", "cyrillic", "greek", "latin-1"])
def test_11_5_3_xml_and_json_say_the_same(service: WebClient, who: str) -> None:
    uid = service.create(full(who))
    answer = service.get(f"/workitems/{uid}", headers={"Accept": MULTIPART})
    assert answer.status_code == 200
    media_type = parse(answer.headers["Content-Type"])
    assert media_type is not None
    assert (media_type.name, media_type.parameters["type"]) == ("multipart/related", "application/dicom+xml")
    (part,) = multipart.decode(answer.content, media_type.parameters["boundary"])
    assert part.content_type == "application/dicom+xml"
    assert dicom_xml.decode(part.content) == service.retrieve(uid)
    single = service.get(f"/workitems/{uid}", headers={"Accept": "application/dicom+xml"})
    assert dicom_xml.decode(single.content) == service.retrieve(uid)


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        (None, "application/dicom+json"),
        ("*/*", "application/dicom+json"),
        ("application/json", "application/json"),
        (f"{MULTIPART};q=0.5, application/dicom+json;q=0.4", "multipart/related"),
        ("text/html, */*;q=0.1", "application/dicom+json"),
    ],
)
def test_8_7_4_accept_is_negotiated(service: WebClient, accept: str | None, media_type: str) -> None:
    answer = service.get(f"/workitems/{service.create()}", headers={"Accept": accept})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith(media_type)


@pytest.mark.parametrize("accept", ["text/html", "application/dicom", "application/dicom+json;q=0"])
def test_8_7_4_nothing_acceptable_is_406(service: WebClient, accept: str) -> None:
    assert service.get(f"/workitems/{service.create()}", headers={"Accept": accept}).status_code == 406


@pytest.mark.parametrize(
    ("query", "status", "media_type"),
    [
        ("accept=application/dicom%2Bxml", 200, "application/dicom+xml"),
        ("accept=application/dicom+json", 200, "application/dicom+json"),
        ("accept=multipart/related%3Btype%3D%22application/dicom%2Bxml%22", 200, "multipart/related"),
        ("accept=text/html", 406, "application/json"),
        ("charset=utf-8", 200, "application/dicom+json"),
        ("charset=iso-8859-1", 406, "application/json"),
    ],
)
def test_8_3_3_accept_and_charset_as_parameters(
    service: WebClient, query: str, status: int, media_type: str
) -> None:
    answer = service.get(
        f"/workitems/{service.create()}?{query}", headers={"Accept": "application/dicom+json"}
    )
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (status, media_type)


def test_8_4_gzip_where_it_is_asked_for(service: WebClient) -> None:
    uid = service.create(full())
    plain = service.get(f"/workitems/{uid}", headers={"Accept-Encoding": "identity"})
    packed = service.get(f"/workitems/{uid}", headers={"Accept-Encoding": "gzip"})
    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert int(packed.headers["Content-Length"]) < int(plain.headers["Content-Length"])
    assert packed.content == plain.content


def test_11_5_3_transaction_uid_is_never_told(service: WebClient) -> None:
    uid = service.create()
    transaction = service.claim(uid)
    for accept in ("application/dicom+json", MULTIPART):
        answer = service.get(f"/workitems/{uid}", headers={"Accept": accept})
        assert transaction.encode() not in answer.content
        assert b"00081195" not in answer.content
        assert service.get(f"/workitems?includefield=all&SOPInstanceUID={uid}").text.count("00081195") == 0


def test_11_5_2_unknown_workitem_is_404(service: WebClient) -> None:
    assert service.get(f"/workitems/{new_uid()}").status_code == 404


@pytest.mark.parametrize("uid", ["1.2.840.10008.5.1.4.34.5", "1.2.840.10008.5.1.4.34.5.1"])
def test_11_5_2_subscription_uids_are_no_workitems(service: WebClient, uid: str) -> None:
    assert service.get(f"/workitems/{uid}").status_code == 404


@pytest.mark.parametrize("uid", ["1..2", "x", "1.02", "1" * 65])
def test_11_5_2_malformed_uid_is_400(service: WebClient, uid: str) -> None:
    assert service.get(f"/workitems/{uid}").status_code == 400


def test_11_5_head_is_get_without_content(service: WebClient) -> None:
    uid = service.create()
    got, head = service.get(f"/workitems/{uid}"), service.request("HEAD", f"/workitems/{uid}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == got.headers["Content-Type"]
    assert service.request("HEAD", f"/workitems/{new_uid()}").status_code == 404


def test_f_2_numbers_keep_their_digits(service: WebClient) -> None:
    uid = new_uid()
    text = dicom_json.encode(full()).replace(b'"Value":[71.50]', b'"Value":[71.5000]')
    assert service.post(f"/workitems?workitem={uid}", text).status_code == 201
    assert service.retrieve(uid)["00101030"] == element("DS", "71.5000")
