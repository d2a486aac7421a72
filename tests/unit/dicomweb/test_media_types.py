# SPDX-License-Identifier: AGPL-3.0-or-later
"""Negotiation of media types, codings and character sets (RFC 9110 §12.5, PS3.18 §8.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orthanc_ups.dicomweb.media_types import (
    DICOM_JSON,
    DICOM_XML,
    MULTIPART_XML,
    PLAIN_JSON,
    accepts_gzip,
    accepts_utf_8,
    choose,
    parse,
)

OFFERED = (DICOM_JSON, MULTIPART_XML, PLAIN_JSON)
JSON, XML, PLAIN = "application/dicom+json", "multipart/related", "application/json"


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, JSON),
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/dicom+json", JSON),
        ("APPLICATION/DICOM+JSON", JSON),
        ("application/dicom+json; charset=utf-8", JSON),
        ("application/json", PLAIN),
        ("multipart/related", XML),
        ("multipart/*", XML),
        ('multipart/related; type="application/dicom+xml"', XML),
        ("multipart/related;type=application/dicom+xml", XML),
        ('multipart/related; type="application/dicom+xml"; transfer-syntax=*', XML),
        ('multipart/related; type="application/dicom+xml", application/dicom+json', JSON),
        ('multipart/related; type="application/dicom+xml"; q=0.9, application/dicom+json; q=0.8', XML),
        ("application/dicom+json;q=0.1, */*;q=0.9", XML),
        ("application/dicom+json;q=0, */*", XML),
        ("*/*;q=0.1, application/json", PLAIN),
        ("text/html, application/xhtml+xml, application/xml;q=0.9, */*;q=0.8", JSON),
        ("nonsense, application/json", PLAIN),
        ('multipart/related; type="application/dicom+json", application/json;q=0.2', PLAIN),
        ("text/html", None),
        ("application/dicom", None),
        ("application/dicom+json;q=0", None),
        ("*/*;q=0", None),
        ("application/dicom+json;q=2", None),
        ('multipart/related; type="application/octet-stream"', None),
        ("nonsense", None),
    ],
)
def test_best_acceptable_offer_is_chosen(accept: str | None, expected: str | None) -> None:
    chosen = choose(accept, OFFERED)
    assert (chosen.name if chosen else None) == expected


def test_quoted_comma_and_semicolon_do_not_split() -> None:
    assert choose('text/x; note="a, b; c", application/json', OFFERED) is PLAIN_JSON


def test_parameters_are_read_with_and_without_quotes() -> None:
    result = parse('Multipart/Related; Type="application/dicom+xml"; boundary=a"b')
    assert result is not None
    assert (result.name, result.parameters["type"]) == ("multipart/related", "application/dicom+xml")
    assert str(MULTIPART_XML) == 'multipart/related; type="application/dicom+xml"'
    bare = parse("application/dicom+xml")
    assert bare is not None
    assert (bare.name, bare.parameters) == (DICOM_XML.name, {})
    assert parse("nonsense") is None


@pytest.mark.parametrize(
    ("header", "accepted"),
    [(None, False), ("", False), ("gzip", True), ("GZIP;q=0.5", True), ("deflate, gzip", True), ("*", True),
     ("gzip;q=0", False), ("gzip;q=0, *", False), ("br", False), ("identity, *;q=0", False), ("gzip;q=x", False)],
)  # fmt: skip
def test_gzip_is_sent_only_to_those_that_ask(header: str | None, accepted: bool) -> None:
    assert accepts_gzip(header) is accepted


@pytest.mark.parametrize(
    ("charsets", "accepted"),
    [(None, True), ("", True), ("utf-8", True), ("UTF-8;q=0.2", True), ("iso-8859-1, *", True), ("iso-8859-1", False),
     ("utf-8;q=0", False)],
)  # fmt: skip
def test_utf_8_is_what_there_is(charsets: str | None, accepted: bool) -> None:
    assert accepts_utf_8(charsets) is accepted


@given(st.text(alphabet=st.sampled_from('application/jsnx*+;=,"q01.\\ '), max_size=60))
def test_no_header_breaks_the_negotiation(accept: str) -> None:
    assert choose(accept, OFFERED) in (*OFFERED, None)
