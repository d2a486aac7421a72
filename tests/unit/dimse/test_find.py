# SPDX-License-Identifier: AGPL-3.0-or-later
"""C-FIND on the wire, asked by pynetdicom (PS3.4 CC.2.8, §K.5)."""

import asyncio

import pytest
from pydicom import Dataset

from orthanc_ups.core import statuses, tags
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.dimse.data_sets import EXPLICIT as EXPLICIT_SYNTAX
from orthanc_ups.dimse.data_sets import encode
from orthanc_ups.dimse.message import OFFENDING_ELEMENT, STATUS
from tests.support import raw_dimse, workitems
from tests.support.dimse_client import (
    Answer,
    UpsClient,
)
from tests.support.dimse_server import DimseRig
from tests.support.raw_dimse import RawPeer
from tests.support.waiting import wait_until

ANY_STATE: DataSet = {tags.STATE: element("CS")}


def codes(answers: list[Answer]) -> list[int | None]:
    return [answer.code for answer in answers]


@pytest.mark.parametrize("on", [tags.PULL, tags.WATCH, tags.QUERY])
def test_cc_2_8_matches_are_pending_then_success(rig: DimseRig, client: UpsClient, on: str) -> None:
    result: DataSet = {
        tags.STATE: element("CS", "SCHEDULED"),
        "00100010": element("PN", workitems.person("japanese")),
    }
    rig.worklist.chunks = [[result, result], [result]]
    answers = client.find(ANY_STATE, on=on)
    assert codes(answers) == [0xFF00] * 3 + [0]
    assert [answer.attributes for answer in answers] == [result] * 3 + [{}]
    assert {answer.command["AffectedSOPClassUID"] for answer in answers} == {on}


def test_cc_2_8_keys_that_are_not_supported_make_it_ff01(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    unsupported = {**ANY_STATE, "00281201": {"vr": "OW", "InlineBinary": "AQI="}}
    assert codes(client.find(unsupported)) == [0xFF01, 0]
    assert rig.worklist.queries[0].unsupported


def test_c_2_2_1_3_a_key_that_no_ups_has_is_universal(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    assert codes(client.find({"00080052": element("CS", "WORKLIST")})) == [0xFF01, 0]
    assert rig.worklist.queries[0].matches(workitems.stored())


def test_cc_2_8_an_identifier_without_keys_matches_nothing(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    assert codes(client.find({tags.TIMEZONE_OFFSET: element("SH", "+0100")})) == [0]
    assert not rig.worklist.queries


@pytest.mark.parametrize(
    ("charset", "who"),
    [
        ("ISO_IR 192", "japanese"),
        ("\\ISO 2022 IR 87", "japanese"),
        ("ISO_IR 144", "cyrillic"),
        ("ISO_IR 126", "greek"),
        ("ISO_IR 100", "latin-1"),
    ],
)
def test_ps3_5_6_1_2_keys_are_understood_in_the_character_set_of_the_request(
    rig: DimseRig, client: UpsClient, charset: str, who: str
) -> None:
    stored = workitems.stored(base=workitems.full(who))
    rig.worklist.chunks = [[stored]]
    identifier = Dataset()
    identifier.SpecificCharacterSet = charset.split("\\") if "\\" in charset else charset
    identifier.PatientName = "=".join(
        workitems.person(who).get(group, "") for group in ("Alphabetic", "Ideographic", "Phonetic")
    )
    answers = client.find(identifier)
    assert rig.worklist.queries[0].matches(stored)
    assert answers[0].attributes["00100010"] == stored["00100010"]


def test_cc_2_8_c_cancel_ends_the_stream_with_fe00(rig: DimseRig, client: UpsClient) -> None:
    async def slowly() -> None:
        await asyncio.sleep(0.01)

    rig.worklist.chunks = [[ANY_STATE]] * 2000
    rig.worklist.before_chunk = slowly
    answers = client.find(ANY_STATE, cancel_after=3)
    assert answers[-1].code == 0xFE00
    assert len(answers) < 1000
    wait_until(lambda: rig.worklist.streams_closed == 1, "the stream is closed", 20)
    rig.worklist.chunks = [[ANY_STATE]]
    assert codes(client.find(ANY_STATE)) == [0xFF00, 0]


def test_a_c_cancel_that_comes_with_its_request_is_honoured(rig: DimseRig) -> None:
    rig.worklist.chunks = [[ANY_STATE] * 100] * 10
    with RawPeer(rig.port, tags.PULL) as peer:
        peer.post(raw_dimse.find(number=7), encode(ANY_STATE, EXPLICIT_SYNTAX))
        peer.post(raw_dimse.cancel(7))
        code = 0xFF00
        while code == 0xFF00:
            code = peer.answer().number(STATUS) or 0
        assert code == 0xFE00


def test_a_c_cancel_of_something_else_is_ignored(rig: DimseRig) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    with RawPeer(rig.port, tags.PULL) as peer:
        peer.post(raw_dimse.cancel(1))
        assert peer.ask(raw_dimse.find(number=1), encode(ANY_STATE, EXPLICIT_SYNTAX)).number(STATUS) == 0xFF00
        assert peer.answer().number(STATUS) == 0


def test_a_peer_that_leaves_amid_the_answers_ends_the_stream(rig: DimseRig) -> None:
    rig.worklist.chunks = [[ANY_STATE] * 1000] * 1000
    with RawPeer(rig.port, tags.PULL) as peer:
        peer.post(raw_dimse.find(), encode(ANY_STATE, EXPLICIT_SYNTAX))
        assert peer.answer().number(STATUS) == 0xFF00
    rig.wait_for_associations(0)
    wait_until(lambda: rig.worklist.streams_closed == 1, "the stream is closed", 20)
    assert rig.worklist.matches_sent < 1_000_000


def test_others_are_served_while_a_peer_gets_many_matches(rig: DimseRig, client: UpsClient) -> None:
    rig.worklist.chunks = [[ANY_STATE] * 5000] * 20
    with RawPeer(rig.port, tags.PULL) as greedy:
        greedy.post(raw_dimse.find(), encode(ANY_STATE, EXPLICIT_SYNTAX))  # and never reads
        assert client.echo().code == 0
        assert client.create(workitems.minimal()).code == 0


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UpsError(statuses.RESOURCE_LIMITATION), 0xA700),
        (UpsError(statuses.PROCESSING_FAILURE), 0xA700),
        (UpsError(statuses.IDENTIFIER_MISMATCH), 0xA900),
        (ValueError("a mistake of ours"), 0xA700),
    ],
)
def test_cc_2_8_failures_amid_the_answers_have_statuses_of_c_find(
    rig: DimseRig, client: UpsClient, error: Exception, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    rig.worklist.chunks = [[ANY_STATE]]
    rig.worklist.error = error
    assert codes(client.find(ANY_STATE)) == [0xFF00, code]
    assert client.echo().code == 0


def test_cc_2_8_a_malformed_key_is_a900_and_named(rig: DimseRig) -> None:
    with RawPeer(rig.port, tags.PULL) as peer:
        identifier = encode({tags.START: element("DT", "tomorrow")}, EXPLICIT_SYNTAX)
        answer = peer.ask(raw_dimse.find(), identifier)
        assert (answer.number(STATUS), answer.tags(OFFENDING_ELEMENT)) == (0xA900, (tags.START,))


def test_a_c_find_without_identifier_is_a900(rig: DimseRig) -> None:
    with RawPeer(rig.port, tags.PULL) as peer:
        assert peer.ask(raw_dimse.find()).number(STATUS) == 0xA900


@pytest.mark.parametrize(
    ("proposed", "answered", "fuzzy"),
    [
        (b"\1\1\1\1", b"\1\1\1\1", True),
        (b"\1\1\1\0", b"\1\1\1\0", True),
        (b"\1\1\0\1", b"\1\1\0\1", False),
        (b"\1\1\1", b"\1\1\1", True),
        (b"\1\1", b"\1\1", False),
        (b"\1\1\1\1\1\1\1", b"\1\1\1\1\0\1\1", True),
        (b"\1\1\0\0\1\0\0\1", b"\1\1\0\0\0\0\0", False),
    ],
)
def test_k_5_extended_negotiation_of_c_find(
    rig: DimseRig, proposed: bytes, answered: bytes, fuzzy: bool
) -> None:
    with UpsClient(rig.port, extended=proposed) as client:
        assert client.extended_answer == dict.fromkeys((tags.WATCH, tags.PULL, tags.QUERY), answered)
        client.find({"00100010": element("PN", {"Alphabetic": "Jensen"})})
    stored = {"00100010": element("PN", {"Alphabetic": "Jenssen^Kari"})}
    assert rig.worklist.queries[0].matches(stored) is fuzzy


@pytest.mark.parametrize(
    ("proposed", "fits"),
    [
        (b"\1\1\0\0\0\1\1", [True, False, True]),
        (b"\1\1\0\0\0\1\0", [True, False, False]),
    ],
)
def test_c_5_1_1_empty_value_matching_is_negotiated(rig: DimseRig, proposed: bytes, fits: list[bool]) -> None:
    """PS3.4 Table C.5-1, bytes 6 and 7; a Watch context takes filters by the same mechanisms."""
    values = ['""', "A"] if fits[2] else ['""']
    with UpsClient(rig.port, extended=proposed) as client:
        client.find({tags.LABEL: element("LO", *values), tags.STATE: element("CS")})
    query = rig.worklist.queries[0]
    stored = (element("LO"), element("LO", "B"), element("LO", "A"))
    assert [query.matches({tags.LABEL: label}) for label in stored] == fits


def test_without_extended_negotiation_none_is_answered(client: UpsClient) -> None:
    assert client.extended_answer == {}
