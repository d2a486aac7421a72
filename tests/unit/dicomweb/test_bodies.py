# SPDX-License-Identifier: AGPL-3.0-or-later
"""BodyReader of requests: media types, multipart, compression and limits (PS3.18 §8.7)."""

import asyncio
import gzip

import pytest

from orthanc_ups.codecs import dicom_json, dicom_xml
from orthanc_ups.core.dataset import DataSet
from orthanc_ups.dicomweb import multipart
from orthanc_ups.dicomweb.bodies import BodyReader
from orthanc_ups.dicomweb.response import HttpProblem
from tests.support.workitems import full

WORKITEM = full("greek")
JSON, XML = dicom_json.encode(WORKITEM), dicom_xml.encode(WORKITEM)


def read(
    body: bytes, content_type: str = "application/dicom+json", encoding: str = "", size: int = 1 << 20
) -> DataSet | None:
    headers = {"content-type": content_type, "content-encoding": encoding}

    async def work() -> DataSet | None:
        return await BodyReader(size, 32).data_set(headers, body)

    return asyncio.run(work())


def in_parts(
    *contents: bytes, of: str = "application/dicom+xml", kind: str = "application/dicom+xml"
) -> tuple[bytes, str]:
    """Always the same, as it names tests."""
    body, boundary = multipart.encode(contents, of)
    return body.replace(boundary.encode(), b"part"), f'multipart/related; type="{kind}"; boundary="part"'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (JSON, "application/dicom+json"),
        (b"[" + JSON + b"]", "application/dicom+json; charset=UTF-8"),
        (JSON, "application/json"),
        (JSON, ""),
        (XML, "application/dicom+xml"),
        in_parts(XML),
        in_parts(JSON, of="application/dicom+json", kind="application/dicom+json"),
    ],
)
@pytest.mark.parametrize("compressed", [False, True])
def test_every_form_of_a_body_is_read(body: bytes, content_type: str, compressed: bool) -> None:
    if compressed:
        assert read(gzip.compress(body), content_type, "gzip") == WORKITEM
    else:
        assert read(body, content_type) == WORKITEM


def test_large_body_is_read_in_a_thread() -> None:
    large = {
        "00400400": {"vr": "LT", "Value": ["x" * 9_000]},
        "00741204": {"vr": "UT", "Value": ["y" * 40_000]},
    }
    assert read(dicom_json.encode(large)) == large


def test_no_body_is_no_data_set() -> None:
    assert read(b"") is read(b"[]", "application/dicom+json") is None


def test_parts_may_come_without_headers_and_with_a_preamble() -> None:
    body = b"preamble\n--b\n\n" + XML + b"\n--b--\nepilogue"
    assert read(body, "multipart/related; boundary=b") == WORKITEM


@pytest.mark.parametrize(
    ("body", "content_type", "encoding", "status"),
    [
        (JSON, "text/plain", "", 415),
        (JSON, "application/x-www-form-urlencoded", "", 415),
        (JSON, "nonsense", "", 415),
        (JSON, "application/dicom+json; charset=utf-16", "", 415),
        (JSON, "application/dicom+json", "br", 415),
        (JSON, "application/dicom+json", "gzip", 400),
        (gzip.compress(JSON)[:-4], "application/dicom+json", "gzip", 400),
        (gzip.compress(JSON) + b"x", "application/dicom+json", "gzip", 400),
        (gzip.compress(b" " * (2 << 20) + JSON), "application/dicom+json", "gzip", 413),
        (b"{", "application/dicom+json", "", 400),
        (b"[" + JSON + b"," + JSON + b"]", "application/dicom+json", "", 400),
        (JSON, "application/dicom+xml", "", 400),
        (XML, "multipart/related", "", 400),
        (XML, "multipart/related; boundary=b", "", 400),
        (b"--b\r\n\r\n" + XML, "multipart/related; boundary=b", "", 400),
        (b"--b\r\nno empty line\r\n--b--", "multipart/related; boundary=b", "", 400),
        (b"--b\r\n\r\n\r\n" * 200 + b"--b--", "multipart/related; boundary=b", "", 400),
        (*in_parts(XML, XML), "", 400),
        (*in_parts(b"x", of="text/plain"), "", 415),
        (*in_parts(b"x", of="multipart/related; boundary=c"), "", 415),
        (
            b"--b\r\nContent-Transfer-Encoding: base64\r\n\r\nAAAA\r\n--b--",
            "multipart/related; boundary=b",
            "",
            400,
        ),
    ],
)
def test_other_bodies_are_refused(body: bytes, content_type: str, encoding: str, status: int) -> None:
    with pytest.raises(HttpProblem) as problem:
        read(body, content_type, encoding)
    assert problem.value.status == status
    assert problem.value.detail
