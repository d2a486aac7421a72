# SPDX-License-Identifier: AGPL-3.0-or-later
"""Performed procedure steps of modalities (MPPS) move with the worklist and continue there."""

from __future__ import annotations

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element, items
from orthanc_ups.transfer.lines import NotALine, decode
from tests.support.modality import ended, scheduled
from tests.support.performing import STEP, Modality, scheduled_workitem
from tests.support.service import ServiceRig, on_loop
from tests.support.transfer import changed, exported, imported, moved, of_kind


async def performing() -> tuple[ServiceRig, Modality]:
    """A service with a workitem that a modality performs."""
    rig = await ServiceRig().start()
    modality = Modality(rig)
    assert await modality.begin(await scheduled_workitem(rig)) == 0
    return rig, modality


@on_loop
async def test_f_7_2_2_a_step_in_progress_is_completed_in_the_worklist_that_it_moved_to() -> None:
    source, _ = await performing()
    target = await ServiceRig().start()
    report = await moved(source, target)
    assert report["counts"]["performed_steps"] == {
        "expected": 1, "imported": 1, "unchanged": 0, "conflicts": 0, "left_out": 0,
    }  # fmt: skip
    modality = Modality(target)
    assert await modality.begin(scheduled()) == 0x0111, "it is there already (PS3.7 10.1.5.1.6)"
    assert await modality.report(ended()) == 0
    assert target.state() == "COMPLETED"
    assert items(target.workitem(1).attributes, tags.PERFORMED_PROCEDURE)


@on_loop
async def test_f_7_2_2_a_step_that_moved_twice_and_saw_a_restart_is_still_that_of_its_workitem() -> None:
    first, _ = await performing()
    second, third = await ServiceRig().start(), await ServiceRig().start()
    await moved(first, second)
    await second.restart()
    await moved(second, third)
    await third.restart()
    assert await Modality(third).report(ended()) == 0
    assert third.state() == "COMPLETED"


@on_loop
async def test_a_worklist_that_has_some_takes_steps_over_and_keeps_its_own() -> None:
    source, _ = await performing()
    target = await ServiceRig().start()
    await target.create(7)
    lines = await exported(source)
    assert (await imported(target, lines))["counts"]["performed_steps"]["imported"] == 1
    assert (await imported(target, lines))["counts"]["performed_steps"]["unchanged"] == 1
    assert await Modality(target).report(ended()) == 0
    again = await imported(target, lines)
    assert again["counts"]["performed_steps"]["conflicts"] == 1
    assert target.state() == "COMPLETED"


@on_loop
async def test_a_step_keeps_its_history_its_reasons_and_who_performed_it() -> None:
    source = await ServiceRig().start()
    await Modality(source).begin(scheduled())
    target = await ServiceRig().start()
    await moved(source, target)
    before, after = source.service.performed_steps.get(STEP), target.service.performed_steps.get(STEP)
    assert before is not None and after is not None and before.notes[""]
    assert (after.ae, after.history, after.notes) == (before.ae, before.history, before.notes)
    assert (after.created, after.changed, after.workitems) == (
        before.created,
        before.changed,
        before.workitems,
    )


@on_loop
async def test_each_step_is_exported_once_however_short_the_pages_are() -> None:
    rig = await ServiceRig().start()
    modality = Modality(rig)
    for number in range(3):
        await modality.begin(scheduled(), uid=f"{STEP}.{number}")
    lines = of_kind(await exported(rig, limit=1), "performed_step")
    assert [line["uid"] for line in lines] == [f"{STEP}.{number}" for number in range(3)]


@on_loop
async def test_imported_steps_are_listed_by_the_time_of_their_last_change() -> None:
    source, target = await ServiceRig().start(), await ServiceRig().start()
    for number in (3, 1, 2):
        await Modality(source).begin(scheduled(), uid=f"{STEP}.{number}")
        await source.clock.advance(60)
    await target.clock.advance(600)
    await Modality(target).begin(scheduled(), uid=f"{STEP}.9")
    await moved(source, target)
    assert [*target.service.performed_steps.newest()] == [f"{STEP}.{number}" for number in (9, 2, 1, 3)]


@on_loop
async def test_a_line_that_is_no_step_says_what_is_wrong_with_it() -> None:
    rig = await ServiceRig().start()
    await Modality(rig).begin(scheduled())
    line = next(line for line in await exported(rig) if b"performed_step" in line and b"header" not in line)
    status = {**of_kind([line], "performed_step")[0]["attributes"], "00400252": element("CS", "LOST")}
    for faulty, why in (
        (changed(line, attributes=status), "Performed Procedure Step Status"),
        (changed(line, uid="2.25.1"), "another SOP Instance UID"),
        (changed(line, workitems=["x"]), "expected a UID"),
        (changed(line, worklist=7), "worklist"),
    ):
        with pytest.raises(NotALine, match=why):
            decode(faulty)
