# SPDX-License-Identifier: AGPL-3.0-or-later
"""PS3.4 Table CC.2.5-3, columns N-CREATE and N-SET: every row absent, empty and with a value."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from datetime import UTC, datetime
from typing import Final

import pytest

from orthanc_ups.core import attributes, rules, statuses, tags
from orthanc_ups.core.dataset import DataSet, Element, element, is_empty, items
from orthanc_ups.core.statuses import Status, UpsError
from tests.support import workitems
from tests.support.table import (
    CREATE,
    CREATED_EMPTY,
    UPDATE,
    Row,
    around,
    check_rows,
    enclosing,
    every_line,
    found_at,
    modules,
    sample,
)

NOW: Final = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
STAMP: Final = element("DT", "20261122183000.000000+0000")
CASES = ABSENT, EMPTY, VALUE = "absent", "empty", "with a value"

STORED, FILLED, GONE, OURS = "stored as sent", "stored empty", "not stored", "set by the worklist"
Expected = str | tuple[Status, str]


def _element(row: Row, case: str, column: str) -> Element | None:
    if case == ABSENT:
        return None
    if row.path == tags.SOP_CLASS_UID and column == CREATE and case == VALUE:
        return element("UI", tags.PUSH)
    if row.path == tags.STATE and column == CREATE and case == VALUE:
        return element("CS", "SCHEDULED")
    return element(row.vr) if case == EMPTY else sample(row, column)


# --- What the table says, in the order in which it is to be read ------------------------------------


def _expected_of_create(row: Row, case: str, strict: bool) -> Expected:
    for outer in enclosing(row):
        if outer.path in CREATED_EMPTY:
            return statuses.INVALID_VALUE, outer.path
        assert outer.usage(CREATE)[0] != "NA"
    if row.path == tags.TRANSACTION_UID:
        return (statuses.INVALID_VALUE, row.path) if case == VALUE and strict else GONE
    if row.path == tags.SPECIFIC_CHARACTER_SET:
        return GONE
    if row.path in (tags.MODIFICATION, tags.SOP_CLASS_UID):
        return OURS
    if row.path == tags.SOP_INSTANCE_UID:
        return GONE if case == ABSENT else STORED
    if row.path in CREATED_EMPTY and case == VALUE:
        return statuses.INVALID_VALUE, row.path
    if row.path == tags.WORKLIST_LABEL and (case == EMPTY or (case == ABSENT and not strict)):
        return OURS
    return _by_type(row, case, CREATE, strict)


def _expected_of_update(row: Row, case: str, base: DataSet, strict: bool) -> Expected:
    for outer in enclosing(row):
        if outer.usage(UPDATE)[0] == "NA":
            return statuses.NO_SUCH_ATTRIBUTE, outer.path
    if row.path in (tags.TRANSACTION_UID, tags.SPECIFIC_CHARACTER_SET):
        return GONE
    if row.path == tags.MODIFICATION:
        return OURS
    if row.above or row.usage(UPDATE)[0] == "NA":
        return _by_type(row, case, UPDATE, strict)
    if case == ABSENT:
        return STORED if row.tag in base else GONE
    if case == EMPTY and row.usage(UPDATE) == ("3", "1"):
        return statuses.MISSING_VALUE, row.path
    return FILLED if case == EMPTY else STORED


def _by_type(row: Row, case: str, column: str, strict: bool) -> Expected:
    scu, scp = row.usage(column)
    kind = row.condition[0]
    needed = scu == "1" or (scu == "1C" and kind != "")
    if scu == "NA":
        return GONE if case == ABSENT else (statuses.NO_SUCH_ATTRIBUTE, row.path)
    if case == VALUE:
        return STORED
    if case == ABSENT and (needed or (scu == "2" and strict)):
        return statuses.MISSING_ATTRIBUTE, row.path
    if case == EMPTY and needed:
        return statuses.MISSING_VALUE, row.path
    if case == ABSENT:
        return FILLED if scp == "2" else GONE
    if strict and scu == "1C" and scp in ("1", "1C"):
        return statuses.MISSING_VALUE, row.path
    return GONE if scu in ("3", "1C") and scp in ("1", "1C") else FILLED


def _is_corrected(row: Row, case: str, expected: str) -> bool:
    """Whether N-CREATE is answered with B300 for this attribute."""
    if row.path in (tags.TRANSACTION_UID, tags.MODIFICATION):
        return case == VALUE
    if row.path in (tags.SPECIFIC_CHARACTER_SET, tags.SOP_CLASS_UID, tags.SOP_INSTANCE_UID):
        return False
    if case == ABSENT:
        return row.usage(CREATE)[0] == "2"
    return case == EMPTY and expected == GONE


def _has_hollow_items(level: DataSet) -> bool:
    """Items without any value are dropped before anything else is looked at; they have tests of their own."""
    below = [item for tag, value in level.items() if value["vr"] == "SQ" for item in items(level, tag)]
    return any(all(map(is_empty, item.values())) or _has_hollow_items(item) for item in below)


def _is_stored(base: DataSet, row: Row, sent: Element | None) -> bool:
    return base.get(row.tag) == sent or (is_empty(base.get(row.tag)) and is_empty(sent))


# --- What happens -----------------------------------------------------------------------------------


def _agrees(stored: DataSet, row: Row, sent: Element | None, expected: str) -> bool:
    result = found_at(stored, row.path)
    if expected == GONE:
        return result is None
    if expected == FILLED:
        return result is not None and result["vr"] == row.vr and is_empty(result)
    if expected == STORED:
        return result == sent
    ours = {
        tags.MODIFICATION: STAMP,
        tags.SOP_CLASS_UID: element("UI", tags.PUSH),
        tags.WORKLIST_LABEL: element("LO", "OURS"),
    }
    return result == ours[row.path]


BOTH_READINGS: Final = pytest.mark.parametrize("strict", [False, True], ids=["well-meaning", "strict"])


@BOTH_READINGS
@pytest.mark.parametrize("module", modules())
def test_cc_2_5_create(module: str, strict: bool) -> None:
    check_rows(module, lambda row: _check_create(row, strict))


def _check_create(row: Row, strict: bool) -> None:
    for case in CASES:
        sent = _element(row, case, CREATE)
        request = around(row, sent, CREATE, workitems.minimal())
        if not strict and _has_hollow_items(request):
            continue
        before = deepcopy(request)
        expected = _expected_of_create(row, case, strict)
        if isinstance(expected, tuple):
            refused = _refusal(
                lambda sent: attributes.prepare_create(sent, NOW, "OURS", strict=strict), request
            )
            assert (refused.status, refused.tag) == expected, case
            assert row.cells["keyword"] in refused.detail or refused.tag != row.path, case
        else:
            prepared = attributes.prepare_create(request, NOW, "OURS", strict=strict)
            assert _agrees(prepared.attributes, row, sent, expected), case
            named = any(row.cells["keyword"] in sentence for sentence in prepared.modifications)
            assert named == _is_corrected(row, case, expected), case
        assert request == before, case


@BOTH_READINGS
@pytest.mark.parametrize("module", modules())
def test_cc_2_6_update(module: str, strict: bool) -> None:
    base = workitems.stored(base=workitems.full())
    check_rows(module, lambda row: _check_update(row, strict, base))


def _check_update(row: Row, strict: bool, base: DataSet) -> None:
    for case in CASES:
        sent = _element(row, case, UPDATE)
        request = around(row, sent, UPDATE)
        if not strict and _has_hollow_items(request):
            continue
        before = deepcopy((base, request))
        expected = _expected_of_update(row, case, base, strict)
        if not strict and row.usage(UPDATE)[0] == "NA" and not row.above and _is_stored(base, row, sent):
            expected = STORED if row.tag in base else GONE
        if isinstance(expected, tuple):
            refused = _refusal(
                lambda sent: attributes.prepare_update(base, sent, NOW, strict=strict), request
            )
            assert (refused.status, refused.tag) == expected, case
        else:
            prepared = attributes.prepare_update(base, request, NOW, strict=strict)
            stored = base.get(row.tag) if sent is None and not row.above else sent
            removed = expected == GONE and not row.above and row.tag in base
            assert _agrees(prepared.attributes, row, stored, STORED if removed else expected), case
            assert prepared.attributes[tags.MODIFICATION] == STAMP, case
        assert (base, request) == before, case


def _refusal(service: Callable[[DataSet], object], request: DataSet) -> UpsError:
    with pytest.raises(UpsError) as refused:
        service(request)
    return refused.value


MEMBERS_WITHOUT_A_ROW: Final[dict[str, tuple[str, Element]]] = {
    "SOP Common": ("04000561", element("SQ", {"04000550": element("SQ")})),
    "UPS Scheduled Procedure Information": ("00400009", element("SH", "SPS-1")),
    "UPS Relationship": ("0040E001", element("ST", "1.2.3^4")),
    "Patient Demographic": ("00101060", element("PN", {"Alphabetic": "Quay"})),
    "Patient Medical": ("00102210", element("CS", "BIPED")),
    "Visit Identification": ("00380061", element("LO", "HARBOUR")),
    "Visit Status": ("00380032", element("TM", "0930")),
    "Visit Admission": ("00081048", element("PN", {"Alphabetic": "Pier^A"}, {"Alphabetic": "Jetty^B"})),
}


@pytest.mark.parametrize("row", [row for row in every_line() if row.path == "*"], ids=str)
@pytest.mark.parametrize("service", ["CC.2.5 N-CREATE", "CC.2.6 N-SET"])
def test_catch_all_row_takes_any_other_attribute_of_its_module(row: Row, service: str) -> None:
    tag, value = MEMBERS_WITHOUT_A_ROW[row.cells["module"]]
    assert tag not in rules.RULES
    if service == "CC.2.5 N-CREATE":
        sent = {**workitems.minimal(), tag: value}
        prepared = attributes.prepare_create(sent, NOW, "OURS")
    else:
        prepared = attributes.prepare_update(workitems.stored(), {tag: value}, NOW)
    assert prepared.attributes[tag] == value
    assert prepared.modifications == ()
