# SPDX-License-Identifier: AGPL-3.0-or-later
"""Performed procedure steps and workitems in a whole service: crashes between the two writes, repeats, doubts."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, element, items, text
from orthanc_ups.core.unavailable import StoreUnavailable
from orthanc_ups.rules.archive import reference
from orthanc_ups.settings import Settings
from tests.support import workitems
from tests.support.modality import STUDY, discontinued, ended, scheduled
from tests.support.performing import STEP, Modality, scheduled_workitem
from tests.support.service import ServiceRig, on_loop


@on_loop
async def test_a_step_that_was_stored_before_a_crash_claims_its_workitem_at_the_next_start() -> None:
    rig = await ServiceRig().start()
    item = await scheduled_workitem(rig)
    modality = Modality(rig)
    rig.entries.broken_keys.add(f"workitem/{workitems.uid(1)}")
    assert await modality.begin(item) == 0
    assert rig.state() == "SCHEDULED"
    await rig.crash()
    await rig.restart()
    again = Modality(rig)
    await again.service.resume()
    assert rig.state() == "IN PROGRESS"
    assert await again.begin(item) == 0x0111
    assert await again.report(ended()) == 0
    assert rig.state() == "COMPLETED"


@on_loop
async def test_a_step_that_ended_before_a_crash_completes_its_workitem_at_the_next_start() -> None:
    rig = await ServiceRig().start()
    item = await scheduled_workitem(rig)
    modality = Modality(rig)
    await modality.begin(item)
    rig.entries.broken_keys.add(f"workitem/{workitems.uid(1)}")
    assert await modality.report(discontinued()) == 0
    await rig.crash()
    await rig.restart()
    await Modality(rig).service.resume()
    assert rig.state() == "CANCELED"


@on_loop
async def test_a_store_that_fails_for_a_moment_is_tried_again() -> None:
    rig = await ServiceRig().start()
    item = await scheduled_workitem(rig)
    modality = Modality(rig)
    rig.entries.broken_keys.add(f"workitem/{workitems.uid(1)}")
    await modality.begin(item)
    rig.entries.broken_keys.clear()
    await modality.service.resume()
    assert rig.state() == "IN PROGRESS"


@on_loop
async def test_a_step_that_cannot_be_stored_changes_nothing_and_can_be_sent_again() -> None:
    rig = await ServiceRig().start()
    item = await scheduled_workitem(rig)
    modality = Modality(rig)
    rig.entries.broken_keys.add(f"note/mpps/{STEP}")
    assert await modality.begin(item) == 0x0213
    assert rig.state() == "SCHEDULED"
    rig.entries.broken_keys.clear()
    assert await modality.begin(item) == 0
    assert rig.state() == "IN PROGRESS"


@on_loop
async def test_resuming_what_is_done_writes_nothing() -> None:
    rig = await ServiceRig().start()
    modality = Modality(rig)
    await modality.begin(await scheduled_workitem(rig))
    await modality.report(ended())
    before = rig.entries.documents()
    await Modality(rig).service.resume()
    assert rig.entries.documents() == before


@on_loop
async def test_the_transaction_uid_of_a_step_is_stored_nowhere() -> None:
    rig = await ServiceRig().start()
    modality = Modality(rig)
    await modality.begin(await scheduled_workitem(rig))
    step = modality.steps.get(STEP)
    assert step is not None
    transaction = modality.performances.transaction_of(step)
    assert rig.workitem().compare(transaction).value == "right"
    assert not [key for key, document in rig.entries.documents().items() if transaction.encode() in document]


@on_loop
async def test_a_second_step_for_a_workitem_does_not_count() -> None:
    rig = await ServiceRig().start()
    item = await scheduled_workitem(rig)
    modality = Modality(rig)
    await modality.begin(item)
    await modality.begin(item, uid="2.25.502")
    assert modality.note(uid="2.25.502") == "the workitem is already IN PROGRESS, by another performer"
    await modality.report(ended())
    assert (rig.state(), modality.note()) == ("COMPLETED", "")


@on_loop
async def test_without_a_step_id_the_station_decides() -> None:
    rig = await ServiceRig().start()
    await scheduled_workitem(rig)
    reading = element("SQ", workitems.code("READING1", "99H", "Reading"))
    await rig.create(2, workitems.minimal(t00404025=reading, t0020000D=element("UI", STUDY)))
    modality = Modality(rig)
    assert await modality.begin(scheduled()) == 0
    assert (rig.state(1), rig.state(2)) == ("IN PROGRESS", "SCHEDULED")


@on_loop
async def test_two_workitems_that_may_be_meant_are_both_left_alone() -> None:
    rig = await ServiceRig().start()
    await scheduled_workitem(rig, 1)
    await scheduled_workitem(rig, 2)
    modality = Modality(rig)
    await modality.begin(scheduled())
    assert (rig.state(1), rig.state(2)) == ("SCHEDULED", "SCHEDULED")
    assert modality.note("") == "2 workitems of this study or order are scheduled at this station"


@on_loop
async def test_a_reference_to_the_workitem_counts_before_everything_else() -> None:
    rig = await ServiceRig().start()
    await scheduled_workitem(rig, 1)
    await scheduled_workitem(rig, 2)
    reference: DataSet = {
        "00081150": element("UI", tags.PUSH),
        "00081155": element("UI", workitems.uid(2)),
    }
    modality = Modality(rig)
    await modality.begin(scheduled(t00081110=element("SQ", reference)))
    assert (rig.state(1), rig.state(2)) == ("SCHEDULED", "IN PROGRESS")


@on_loop
async def test_a_series_without_instances_is_no_output_and_no_hindrance() -> None:
    rig = await ServiceRig().start()
    modality = Modality(rig)
    await modality.begin(await scheduled_workitem(rig))
    hollow: DataSet = {"0020000E": element("UI", "2.25.1"), "00081140": element("SQ")}
    await modality.report(ended(t00400340=element("SQ", hollow)))
    assert rig.state() == "COMPLETED"
    [performed] = items(rig.workitem().attributes, tags.PERFORMED_PROCEDURE)
    assert items(performed, "00404033") == []


class Images:
    """An archive that has a series."""

    def __init__(self) -> None:
        self.is_silent = True

    async def series(self, uid: str) -> list[DataSet]:
        if self.is_silent:
            raise StoreUnavailable("no answer", certain=True)
        return [reference(STUDY, uid, [(workitems.CT_IMAGE, f"{uid}.1")], "DICOM", "ORTHANC")]


@on_loop
async def test_what_a_series_has_that_names_no_instances_orthanc_is_asked_at_the_end() -> None:
    rig, images = await ServiceRig().start(), Images()
    modality = Modality(rig, archive=images)
    await modality.begin(await scheduled_workitem(rig))
    hollow: DataSet = {"0020000E": element("UI", "2.25.1"), "00081140": element("SQ")}
    assert await modality.report({"00400340": element("SQ", hollow)}) == 0, "before the end nobody asks"
    assert await modality.report(ended(t00400340=element("SQ", hollow))) == 0
    assert rig.state() == "IN PROGRESS" and "not yet" in modality.note()
    images.is_silent = False
    await modality.service.resume()
    assert rig.state() == "COMPLETED"
    [performed] = items(rig.workitem().attributes, tags.PERFORMED_PROCEDURE)
    [output] = items(performed, "00404033")
    assert text(output, "0020000E") == "2.25.1"


@on_loop
async def test_what_was_performed_is_coded_by_the_modality_for_want_of_a_code() -> None:
    rig = await ServiceRig().start()
    modality = Modality(rig)
    await modality.begin(await scheduled_workitem(rig))
    await modality.report(ended(t00400340=element("SQ")))
    [performed] = items(rig.workitem().attributes, tags.PERFORMED_PROCEDURE)
    assert text(items(performed, "00404019")[0], tags.CODE_VALUE) == "CT"
    assert text(items(performed, "00404028")[0], tags.CODE_VALUE) == "CTROOM1"


@on_loop
async def test_steps_are_forgotten_as_workitems_are() -> None:
    rig = await ServiceRig().start()
    modality = Modality(rig)
    await modality.begin(scheduled(), uid="2.25.1")
    await modality.begin(scheduled(), uid="2.25.2")
    await modality.report(ended(), uid="2.25.2")
    later = rig.service.clock.now() + timedelta(days=8).total_seconds()
    await modality.steps.forget(later - 7 * 86_400, later - 30 * 86_400)
    assert list(modality.steps.newest()) == ["2.25.1"]
    assert list(rig.entries.documents("note/mpps/")) == ["note/mpps/2.25.1"]


@on_loop
async def test_a_step_that_nobody_can_read_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    rig = await ServiceRig().start()
    modality = Modality(rig)
    await modality.begin(scheduled())
    rig.entries.tamper(f"note/mpps/{STEP}", b"{}")
    await rig.crash()
    await rig.restart()
    assert len(Modality(rig).steps) == 0
    assert "is not readable" in caplog.text


class Outputs:
    """Whether the outputs of a workitem have arrived."""

    def __init__(self) -> None:
        self.absent = ["2.25.4711.1.1"]

    async def missing(self, references: Sequence[DataSet]) -> Sequence[str]:
        return self.absent


@on_loop
async def test_a_workitem_whose_outputs_have_not_arrived_is_completed_once_they_have() -> None:
    rig = await ServiceRig().start()
    rig.service.worklist.outputs = outputs = Outputs()
    modality = Modality(rig)
    await modality.begin(await scheduled_workitem(rig))
    assert await modality.report(ended()) == 0
    assert rig.state() == "IN PROGRESS"
    assert modality.note().startswith("not yet: ")
    outputs.absent = []
    await Modality(rig).service.resume()
    assert (rig.state(), Modality(rig).note()) == ("COMPLETED", "")


@on_loop
async def test_strict_settings_let_a_whole_step_through() -> None:
    strict = Settings(strict=True)
    rig = await ServiceRig(settings=strict).start()
    modality = Modality(rig, strict)
    assert await modality.begin(await scheduled_workitem(rig)) == 0
    assert await modality.report(ended()) == 0
    assert (rig.state(), modality.note()) == ("COMPLETED", "")
