# SPDX-License-Identifier: AGPL-3.0-or-later
"""What may be created and set of a performed procedure step (PS3.4 Table F.7.2-1)."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from orthanc_ups.core.dataset import DataSet, element, items, text
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.value_rules import USUAL
from orthanc_ups.modality import performed_steps as mpps
from orthanc_ups.modality.performed_steps import PerformedStep, StepCircumstances, StepStatus
from tests.support.modality import begun, discontinued, ended, scheduled, series

UID = "2.25.31"
NOW = datetime(2026, 12, 1, 9, 30, 15, tzinfo=UTC)
LENIENT, STRICT = StepCircumstances(NOW, USUAL), StepCircumstances(NOW, USUAL, strict=True)


def created(sent: DataSet | None = None, circumstances: StepCircumstances = LENIENT) -> PerformedStep:
    return mpps.created(UID, "CT1", sent or begun(), circumstances).step


def refused_create(sent: DataSet, circumstances: StepCircumstances = LENIENT) -> UpsError:
    with pytest.raises(UpsError) as refused:
        created(sent, circumstances)
    return refused.value


def refused_set(
    step: PerformedStep, sent: DataSet, circumstances: StepCircumstances = LENIENT
) -> tuple[int, set[str]]:
    with pytest.raises(UpsError) as refused:
        mpps.updated(step, sent, circumstances)
    return refused.value.status.code, {fault.path for fault in refused.value.faults}


@pytest.mark.parametrize("circumstances", [LENIENT, STRICT], ids=["lenient", "strict"])
def test_a_whole_step_is_taken_as_it_is(circumstances: StepCircumstances) -> None:
    change = mpps.created(UID, "CT1", begun(), circumstances)
    assert change.corrections == ()
    assert {tag: change.step.attributes[tag] for tag in begun()} == begun()
    assert change.step.status is StepStatus.IN_PROGRESS


def test_absent_type_2_is_added_empty_and_told() -> None:
    bare = scheduled(t00080050=None, t00081110=None)
    change = mpps.created(UID, "CT1", begun(bare, t00400340=None, t00081120=None), LENIENT)
    assert change.step.attributes["00400340"] == element("SQ")
    assert items(change.step.attributes, mpps.SCHEDULED_ATTRIBUTES)[0]["00080050"] == element("SH")
    assert any("(0040,0340)" in sentence for sentence in change.corrections)


def test_strict_refuses_absent_type_2_by_name() -> None:
    error = refused_create(begun(t00400340=None), STRICT)
    assert (error.status.code, error.tag) == (0x0120, "00400340")


@pytest.mark.parametrize("tag", ["00400270", "00400253", "00400241", "00400244", "00400245", "00080060"])
def test_type_1_is_never_invented(tag: str) -> None:
    vr = begun()[tag]["vr"]
    assert refused_create(begun(**{f"t{tag}": None})).status.code == 0x0120
    assert refused_create(begun(**{f"t{tag}": element(vr)})).status.code == 0x0121


def test_a_study_is_needed_in_each_scheduled_step() -> None:
    error = refused_create(begun(scheduled(t0020000D=None)))
    assert (error.status.code, error.tag) == (0x0120, "00400270.0020000D")


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED", "SCHEDULED", "in progress"])
def test_a_step_begins_in_progress(status: str) -> None:
    error = refused_create(begun(t00400252=element("CS", status)))
    assert (error.status.code, error.tag) == (0x0106, "00400252")


@pytest.mark.parametrize("status", ["COMPLETED", "DISCONTINUED"])
def test_a_final_step_is_final(status: str) -> None:
    final = mpps.updated(created(), ended(status), LENIENT).step
    assert final.status is StepStatus(status)
    for again in (ended(status), ended("IN PROGRESS"), {}):
        assert refused_set(final, again) == (0x0110, set())


def test_a_set_without_status_stays_in_progress() -> None:
    step = mpps.updated(created(), {"00400340": element("SQ", series())}, LENIENT).step
    assert step.status is StepStatus.IN_PROGRESS
    assert len(items(step.attributes, mpps.SERIES)) == 1


def test_an_end_without_a_time_ends_now() -> None:
    change = mpps.updated(created(), ended(t00400250=None, t00400251=None), LENIENT)
    assert (text(change.step.attributes, "00400250"), text(change.step.attributes, "00400251")) == (
        "20261201",
        "093015",
    )
    assert "set to the time of the request" in change.corrections[0]


def test_strict_needs_an_end_and_series_with_uid_and_protocol() -> None:
    incomplete = ended(t00400250=None, t00400340=element("SQ", {"0020000E": element("UI", "2.25.1")}))
    assert refused_set(created(), incomplete, STRICT) == (0x0120, {"00400250", "00400340.00181030"})
    assert refused_set(created(), ended(t00400340=element("SQ")), STRICT) == (0x0121, {"00400340"})
    assert mpps.updated(created(), ended(), STRICT).step.status is StepStatus.COMPLETED


def test_what_is_fixed_is_ignored_or_in_strict_mode_refused() -> None:
    sent = ended(t00100010=element("PN", {"Alphabetic": "Other"}), t00080060=element("CS", "CT"))
    change = mpps.updated(created(), sent, LENIENT)
    assert change.ignored == ("00100010",)
    assert change.step.attributes["00100010"] == begun()["00100010"]
    assert refused_set(created(), sent, STRICT) == (0x0105, {"00100010"})


def test_a_step_is_read_back_as_it_was_stored() -> None:
    step = mpps.updated(created(), discontinued(), LENIENT).step
    assert PerformedStep.of_document(step.document()) == step
