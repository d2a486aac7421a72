# SPDX-License-Identifier: AGPL-3.0-or-later
"""What is corrected while a data set is read is reported like what the rules correct (PS3.4 CC.2.5.4, CC.2.6.4)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from orthanc_ups.core import statuses
from orthanc_ups.core.commands import Create, RequestCancel, Requester, Update
from orthanc_ups.core.decide import Circumstances, decide
from orthanc_ups.core.workitem import Workitem
from tests.support.workitems import full, stored

AROUND: Final = Circumstances(datetime(2026, 12, 1, 12, tzinfo=UTC))
WHO: Final = Requester("SCU1", "DIMSE")
SENTENCE: Final = ("CodeValue (0008,0100) was decoded from UN",)


def test_cc_2_5_4_a_correction_of_the_codec_makes_a_creation_b300() -> None:
    decision = decide(None, Create(WHO, "2.25.1", full(), SENTENCE), AROUND)
    assert (decision.status, decision.details) == (statuses.CREATED_MODIFIED, SENTENCE)


def test_cc_2_6_4_a_correction_of_the_codec_makes_an_update_b305() -> None:
    decision = decide(
        Workitem("2.25.1", 1, stored()), Update(WHO, "2.25.1", {}, corrections=SENTENCE), AROUND
    )
    assert (decision.status, decision.details) == (statuses.UPDATED_MODIFIED, SENTENCE)


def test_a_correction_of_the_codec_is_reported_with_a_cancellation() -> None:
    decision = decide(
        Workitem("2.25.1", 1, stored()), RequestCancel(WHO, "2.25.1", corrections=SENTENCE), AROUND
    )
    assert (decision.status, decision.details) == (statuses.SUCCESS, SENTENCE)
