# SPDX-License-Identifier: AGPL-3.0-or-later
"""Malformed bytes: strategies for PDUs, DIMSE messages, HTTP requests and WebSocket frames."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from hypothesis import strategies as st

from orthanc_ups.core import tags
from orthanc_ups.dimse.message import CommandField, Message, Value, fragments
from tests.support import raw_http, upper_layer
from tests.support.load_plan import as_json
from tests.support.raw_dimse import CLASSES, encoded, state_change, subscription
from tests.support.workitems import UID_ROOT, full, progress

_PATIENCE = 5.0  # seconds for the server to close a connection that we have closed


@dataclass(frozen=True)
class Case:
    """The bytes sent over one connection: ``first``, and once the server has answered, ``then``."""

    first: bytes
    then: bytes = b""


# --- mutations ---


@st.composite
def mutated(draw: st.DrawFn, originals: Sequence[bytes]) -> bytes:
    """A valid message in which up to four parts were changed, removed, repeated or inserted."""
    result = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(result)))
        piece = draw(st.one_of(st.binary(max_size=4), st.sampled_from(_NASTY)))
        end = at + draw(st.integers(0, 8))
        kind = draw(st.integers(0, 3))
        result[at:end] = (piece, b"", bytes(result[at:end]) * 3, piece + bytes(result[at:end]))[kind]
    return bytes(result)


_NASTY = (
    b"\xff\xff\xff\xff",
    b"\x00\x00\x00\x00",
    b"\x7f\xff\xff\xff",
    b"\\",
    b"\r\n",
    b"\x00",
    b"\x80",
    b"\xfe\xff",
)


# --- DIMSE ---

REQUEST = upper_layer.associate_rq(
    "WRITER1", "ORTHANC", [*CLASSES, "1.2.840.10008.1.1"], roles={tags.EVENT: (0, 1)}
)
_CONTEXTS = dict(zip((*CLASSES, "1.2.840.10008.1.1"), range(1, 20, 2), strict=False))
_TRANSACTION = f"{UID_ROOT}.96"


def _message(on: str, field: CommandField, data: bytes | None, **more: int | str | tuple[str, ...]) -> bytes:
    uid = f"{UID_ROOT}.95.1"
    command: dict[int, Value] = {
        2: tags.PUSH,
        3: tags.PUSH,
        0x100: int(field),
        0x110: 7,
        0x1000: uid,
        0x1001: uid,
    }
    command |= {int(name[1:], 16): value for name, value in more.items()}
    message = Message(_CONTEXTS[on], command, data)
    return b"".join(upper_layer.pdu(4, part) for part in fragments(message, 16_384))


MESSAGES = (
    _message(tags.PUSH, CommandField.N_CREATE, encoded(full("japanese"))),
    _message(tags.PULL, CommandField.N_SET, encoded(progress())),
    _message(tags.PULL, CommandField.N_GET, None, e1005=("00741000", "00404005")),
    _message(tags.PULL, CommandField.N_ACTION, state_change("IN PROGRESS", _TRANSACTION), e1008=1),
    _message(tags.WATCH, CommandField.N_ACTION, subscription("WARD"), e1008=3),
    _message(tags.PULL, CommandField.C_FIND, encoded(full()), e700=0, e2=tags.PULL),
    _message(tags.PULL, CommandField.C_CANCEL, None, e120=7),
    _message("1.2.840.10008.1.1", CommandField.C_ECHO, None, e2="1.2.840.10008.1.1"),
    upper_layer.pdu(5, bytes(4)),
    upper_layer.pdu(7, bytes(4)),
    REQUEST,
)


def _lying_pdus() -> st.SearchStrategy[bytes]:
    kinds, lengths = st.integers(0, 255), st.one_of(st.integers(0, 64), st.integers(0, 2**32 - 1))
    return st.builds(
        lambda kind, length, body: struct.pack(">BxL", kind, length) + body,
        kinds,
        lengths,
        st.binary(max_size=64),
    )


def pdus() -> st.SearchStrategy[Case]:
    """PDUs before an association."""
    return st.one_of(st.binary(max_size=64), _lying_pdus(), mutated((REQUEST,)), mutated(MESSAGES)).map(Case)


def messages() -> st.SearchStrategy[Case]:
    """Messages on an established association."""
    message = st.one_of(mutated(MESSAGES), mutated(MESSAGES), st.sampled_from(MESSAGES), _lying_pdus())
    return st.lists(message, min_size=1, max_size=4).map(lambda stream: Case(REQUEST, b"".join(stream)))


# --- HTTP and WebSocket ---

_WORKITEM = f"/dicom-web/workitems/{UID_ROOT}.95.2"
_XML = b'<?xml version="1.0"?><NativeDicomModel><DicomAttribute tag="00741000" vr="CS"/></NativeDicomModel>'
REQUESTS = (
    raw_http.request("POST", f"/dicom-web/workitems?{UID_ROOT}.95.2", as_json(full("greek"))),
    raw_http.request("POST", f"{_WORKITEM}?{_TRANSACTION}", as_json(progress())),
    raw_http.request("PUT", f"{_WORKITEM}/state", b'[{"00741000":{"vr":"CS","Value":["IN PROGRESS"]}}]'),
    raw_http.request("GET", _WORKITEM, Accept='multipart/related; type="application/dicom+xml"'),
    raw_http.request(
        "GET", "/dicom-web/workitems?PatientName=A*&00404005=20260101-&fuzzymatching=true&limit=3"
    ),
    raw_http.request("POST", f"{_WORKITEM}/subscribers/WARD?deletionlock=true", b""),
    raw_http.request("DELETE", f"{_WORKITEM}/subscribers/WARD"),
    raw_http.request("OPTIONS", "/dicom-web/", Accept="application/vnd.sun.wadl+xml"),
    raw_http.request("POST", f"{_WORKITEM}/cancelrequest", _XML, Content_Type="application/dicom+xml"),
    b"POST /dicom-web/workitems HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n[{}]\r\n0\r\n\r\n",
    raw_http.handshake("/dicom-web/subscribers/WARD"),
)
HANDSHAKE = raw_http.handshake("/dicom-web/subscribers/WARD?since=0")
FRAMES = (
    raw_http.masked(1, b"hello"),
    raw_http.masked(2, bytes(200)),
    raw_http.masked(8, struct.pack(">H", 1000) + b"bye"),
    raw_http.masked(9, b"ping"),
    raw_http.masked(10, struct.pack(">Q", 1)),
    raw_http.masked(1, b"part", final=False),
    raw_http.masked(0, b"rest"),
)


def requests() -> st.SearchStrategy[Case]:
    """Requests to the DICOMweb port."""
    several = st.lists(mutated(REQUESTS), min_size=1, max_size=3).map(b"".join)
    return st.one_of(several, several, st.binary(max_size=64)).map(Case)


def frames() -> st.SearchStrategy[Case]:
    """Frames on an open notification connection."""
    frame = st.one_of(mutated(FRAMES), st.sampled_from(FRAMES), st.binary(max_size=32))
    return st.lists(frame, min_size=1, max_size=5).map(lambda stream: Case(HANDSHAKE, b"".join(stream)))


# --- sending ---


async def send(port: int, cases: Sequence[Case]) -> list[bytes]:
    """Send all cases at once, each over a connection of its own; return what the server answered."""
    return list(await asyncio.gather(*(_send(port, case) for case in cases)))


async def _send(port: int, case: Case) -> bytes:
    """Raises TimeoutError if the server keeps a connection open that we have closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    result = b""
    try:
        async with asyncio.timeout(_PATIENCE):
            with suppress(ConnectionError):
                writer.write(case.first)
                if case.then:
                    result += await reader.read(65_536)
                    writer.write(case.then)
                writer.write_eof()
                while part := await reader.read(65_536):
                    result += part
    finally:
        writer.transport.abort()
    return result
