# SPDX-License-Identifier: AGPL-3.0-or-later
"""Refused requests leave readable lines, and a flood of them does not fill the log."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest

from orthanc_ups.orthanc.refusal_log import Refusal, RefusalLog

WRONG = Refusal("N-SET", "10.0.0.5", "CT1", "1.2.3", "C301", "The correct Transaction UID was not provided")


@pytest.fixture(autouse=True)
def _warnings(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "orthanc_ups.refused")


def test_a_refusal_says_who_asked_what_about_which_workitem_and_why(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    log.add(WRONG)
    log.add(Refusal("association", "10.0.0.6", "XX", reason="called AE title YY, expected UPS"))
    log.add(Refusal("Search", "10.0.0.7", status="400", reason="offset is not a number"))
    assert caplog.messages == [
        "N-SET of 1.2.3 by CT1 at 10.0.0.5 refused with C301: The correct Transaction UID was not provided",
        "association by XX at 10.0.0.6 refused: called AE title YY, expected UPS",
        "Search by somebody at 10.0.0.7 refused with 400: offset is not a number",
    ]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


def test_what_repeats_is_counted_and_summed_up_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    for number in range(245):
        log.add(replace(WRONG, target=f"1.2.{number}"))
    assert len(caplog.messages) == 5
    caplog.clear()
    log.summarize()
    assert caplog.messages == [
        "N-SET by CT1 at 10.0.0.5 refused with C301: 240 more within a minute, the last of 1.2.244"
    ]
    caplog.clear()
    log.summarize()
    log.add(WRONG)
    assert caplog.messages == [WRONG.line()]


def test_a_stranger_who_changes_names_does_not_crowd_out_others(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    for number in range(5_000):
        log.add(Refusal("association", "10.6.6.6", f"AE{number}", reason="not known"))
    assert len(caplog.messages) == 20
    log.add(WRONG)
    assert caplog.messages[-1] == WRONG.line()
    caplog.clear()
    log.summarize()
    assert len(caplog.messages) == 21
    assert caplog.messages[-1] == "4960 more requests of other clients refused within a minute"


def test_many_hosts_have_sixty_lines_a_minute_together(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    for number in range(1_000):
        log.add(replace(WRONG, host=f"10.1.{number // 250}.{number % 250}"))
    assert len(caplog.messages) == 60


def test_what_a_client_sent_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    log.add(
        replace(WRONG, reason="unknown attribute 'Doe^Jane' in \"Doe's^Jane\": the UPS's key is 'it\\'s'")
    )
    assert caplog.messages[0].endswith("C301: unknown attribute '…' in '…': the UPS's key is '…'")


def test_a_line_stays_one_line_of_bounded_length(caplog: pytest.LogCaptureFixture) -> None:
    log = RefusalLog()
    log.add(replace(WRONG, requester="A\nB\x1b[2J", reason="x" * 100_000))
    (line,) = caplog.messages
    assert "by A?B?[2J at" in line
    assert len(line) < 400
