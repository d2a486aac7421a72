# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules act once per cause, whatever is repeated or interrupted, and lose nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.commands import ChangeState, RequestCancel, Requester, Update
from orthanc_ups.core.dataset import DataSet, element, items, text
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.workitem import Workitem
from orthanc_ups.orthanc.identifiers import identifier_of
from orthanc_ups.rules.archive import reference
from orthanc_ups.rules.effects import INPUT, OUTPUT, REPLACED, derived_uid
from orthanc_ups.settings import Settings
from orthanc_ups.store.port import StoreUnavailable
from tests.support.delivery import settle
from tests.support.rules import OWN, STABLE_AGE, RulesRig
from tests.support.service import SCHEDULER, TRANSACTION, ServiceRig, on_loop
from tests.support.transfer import moved
from tests.support.workitems import minimal, performed, uid


def ai(**more: Any) -> dict[str, Any]:
    create = {"Attributes": {"ProcedureStepLabel": "AI of {PatientID}", "WorklistLabel": "AI"}, **more}
    return {"Name": "AI", "When": "StableSeries", "If": {"Modality": "CT"}, "Create": create}


async def rig(*rules: dict[str, Any], settings: Settings | None = None) -> RulesRig:
    return await RulesRig(await ServiceRig("A", settings=settings).start(), rules).open()


def inputs(workitem: Workitem) -> list[str]:
    return [
        text(reference, "00081155")
        for item in items(workitem.attributes, INPUT)
        for reference in items(item, "00081199")
    ]


def labelled(label: str, **keys: str) -> DataSet:
    content = minimal() | {tags.WORKLIST_LABEL: element("LO", label)}
    content |= {tags.PATIENT_ID: element("LO", keys.get("patient", "P"))}
    return dict(sorted(content.items()))


# --- stability ---


@on_loop
async def test_a_series_fires_once_nothing_arrived_for_it_for_the_stable_age() -> None:
    rules = await rig(ai())
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE - 5)
    assert rules.workitems() == []
    rules.archive.arrive("1.9.2", Modality="CT")
    await rules.round()
    await rules.round(10)
    assert rules.workitems() == []
    await rules.round(STABLE_AGE)
    (workitem,) = rules.workitems()
    assert inputs(workitem) == ["1.9.1", "1.9.2"]
    assert text(workitem.attributes, tags.LABEL) == "AI of P"
    assert workitem.history[0].who == "WORKLIST by rules"
    assert workitem.history[0].why == 'rule "AI": series 1.8.1 is stable'
    await rules.round(STABLE_AGE)
    assert len(rules.workitems()) == 1


@on_loop
async def test_while_uploads_go_on_series_that_are_stable_take_at_most_half_of_the_time() -> None:
    rules = await rig(ai())
    for number in range(3):
        rules.archive.arrive(f"1.9.{number}", series=f"1.8.{number}", Modality="CT")
    await rules.round()
    rules.change_notes.tell()
    await rules.rig.clock.advance(STABLE_AGE + 5)
    firing = asyncio.ensure_future(rules.follower.round())
    await settle()
    assert len(rules.workitems()) == 1
    while not firing.done():
        await rules.rig.clock.advance(1.0)
    assert len(rules.workitems()) == 3


@on_loop
async def test_a_late_instance_updates_the_workitem_that_moved_here_from_another_worklist_twice() -> None:
    first = await rig(ai())
    first.archive.arrive("1.9.1", Modality="CT")
    await first.round()
    await first.round(STABLE_AGE + 1)
    second, third = await ServiceRig().start(), await ServiceRig().start()
    await moved(first.rig, second)
    await second.restart()
    await moved(second, third)
    await third.restart()
    rules = await RulesRig(third, [ai()]).open()
    for instance in ("1.9.1", "1.9.2"):
        rules.archive.arrive(instance, Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    (workitem,) = rules.workitems()
    assert inputs(workitem) == ["1.9.1", "1.9.2"]


@on_loop
async def test_what_arrived_before_a_crash_fires_after_it() -> None:
    rules = await rig(ai())
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    await rules.restart()
    assert rules.memory.unstable or rules.memory.cursor == 0
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    assert len(rules.workitems()) == 1


@on_loop
async def test_what_arrived_while_nobody_looked_fires_at_once_if_it_is_long_ago() -> None:
    rules = await rig(ai())
    await rules.rig.crash()
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.rig.clock.advance(STABLE_AGE * 10)
    await rules.rig.start()
    await rules.open()
    await rules.round()
    assert len(rules.workitems()) == 1


@on_loop
async def test_a_crash_between_an_effect_and_the_cursor_repeats_it_without_effect() -> None:
    rules = await rig(ai())
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    rules.rig.entries.broken_keys.add("note/rules")
    with pytest.raises(StoreUnavailable):
        await rules.round(STABLE_AGE + 1)
    (workitem,) = rules.workitems()
    await rules.restart()
    for _ in range(3):
        await rules.round(STABLE_AGE + 1)
    (same,) = rules.workitems()
    assert (same.uid, same.revision) == (workitem.uid, workitem.revision)


@on_loop
async def test_what_the_worklist_itself_stores_fires_nothing() -> None:
    rules = await rig(ai())
    rules.archive.arrive(f"{OWN}-1", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    assert rules.workitems() == []


@on_loop
async def test_the_first_start_with_rules_leaves_alone_what_is_there_already() -> None:
    rules = RulesRig(await ServiceRig().start(), [ai()])
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.open()
    await rules.round(STABLE_AGE + 1)
    assert rules.workitems() == []


@on_loop
async def test_an_older_index_is_followed_from_its_end_on() -> None:
    rules = await rig(ai())
    rules.archive.arrive("1.9.1", Modality="CT")
    rules.archive.arrive("1.9.2", Modality="CT")
    await rules.round()
    await rules.follower.close()
    rules.archive.rows.clear()
    await rules.restart()
    rules.archive.arrive("1.9.3", series="1.8.3", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    assert [inputs(workitem) for workitem in rules.workitems()] in (
        [["1.9.1", "1.9.2"], ["1.9.3"]],
        [["1.9.3"], ["1.9.1", "1.9.2"]],
    )


# --- late instances ---


@on_loop
async def test_a_late_instance_is_added_to_a_workitem_that_nobody_has_claimed() -> None:
    rules = await rig(ai())
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    rules.archive.arrive("1.9.2", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    (workitem,) = rules.workitems()
    assert inputs(workitem) == ["1.9.1", "1.9.2"]


async def claimed_before_a_late_instance(**more: Any) -> RulesRig:
    rules = await rig(ai(**more))
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    (workitem,) = rules.workitems()
    await rules.rig.do(ChangeState(SCHEDULER, workitem.uid, "IN PROGRESS", TRANSACTION))
    rules.archive.arrive("1.9.2", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    return rules


@on_loop
async def test_a_late_instance_of_a_claimed_workitem_changes_nothing() -> None:
    rules = await claimed_before_a_late_instance()
    (workitem,) = rules.workitems()
    assert inputs(workitem) == ["1.9.1"]


@on_loop
async def test_or_makes_a_workitem_that_replaces_it_and_never_two() -> None:
    """PS3.4 Table CC.2.5-3, Replaced Procedure Step Sequence (0074,1224)."""
    rules = await claimed_before_a_late_instance(LateInstances="replace")
    first, second = rules.workitems()
    assert inputs(second) == ["1.9.1", "1.9.2"]
    (replaced,) = items(second.attributes, REPLACED)
    assert text(replaced, "00081155") == first.uid
    rules.archive.arrive("1.9.3", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    await rules.restart()
    await rules.round(STABLE_AGE + 1)
    assert [inputs(workitem) for workitem in rules.workitems()] == [["1.9.1"], ["1.9.1", "1.9.2", "1.9.3"]]


def test_uids_of_rule_and_cause_are_always_the_same_and_never_those_of_another() -> None:
    first = derived_uid("site", "AI", "series/1")
    assert first == derived_uid("site", "AI", "series/1") and first.startswith("2.25.") and len(first) <= 64
    others = [("site", "AI", "series/2"), ("site", "AI2", "series/1"), ("other", "AI", "series/1")]
    assert (
        len({first, *(derived_uid(*parts) for parts in others), derived_uid("site", "AI", "series/1", 1)})
        == 5
    )


# --- Update, Complete, Cancel ---

PLAN = {
    "Name": "Plan",
    "When": "StoredInstance",
    "If": {"Modality": "RTPLAN"},
    "Update": {
        "Matching": {"WorklistLabel": "RT", "PatientID": "{PatientID}", "InputReadinessState": "INCOMPLETE"},
        "Attributes": {"InputReadinessState": "READY"},
        "AddInputs": "instance",
    },
}
REPORT = {
    "Name": "Report",
    "When": "StoredInstance",
    "If": {"Modality": "SR"},
    "Complete": {
        "Matching": {"WorklistLabel": "REPORTING", "PatientID": "{PatientID}"},
        "Outputs": "instance",
    },
}
CANCEL = {
    "Name": "Superseded",
    "When": "StoredInstance",
    "If": {"Modality": "SR"},
    "Cancel": {"Matching": {"WorklistLabel": "AI", "PatientID": "{PatientID}"}, "Reason": "read already"},
}


@on_loop
async def test_an_instance_updates_what_matches_and_is_an_input_of_it() -> None:
    rules = await rig(PLAN)
    waiting = labelled("RT") | {tags.READINESS: element("CS", "INCOMPLETE")}
    await rules.rig.create(1, dict(sorted(waiting.items())))
    await rules.rig.create(2, labelled("RT", patient="Q") | {tags.READINESS: element("CS", "INCOMPLETE")})
    rules.archive.arrive("1.9.11", Modality="RTPLAN")
    await rules.round()
    assert text(rules.rig.workitem(1).attributes, tags.READINESS) == "READY"
    assert inputs(rules.rig.workitem(1)) == ["1.9.11"]
    assert text(rules.rig.workitem(2).attributes, tags.READINESS) == "INCOMPLETE"


@on_loop
async def test_a_key_that_the_cause_does_not_have_matches_nothing_instead_of_everything() -> None:
    rules = await rig(PLAN)
    await rules.rig.create(1, labelled("RT") | {tags.READINESS: element("CS", "INCOMPLETE")})
    rules.archive.arrive("1.9.11", Modality="RTPLAN", PatientID="")
    rules.archive.arrive("1.9.12", series="1.8.2", Modality="RTPLAN", PatientID="*")
    await rules.round()
    assert text(rules.rig.workitem(1).attributes, tags.READINESS) == "INCOMPLETE"
    record = rules.memory.record("Plan")
    assert record.failed == 2 and "has a wildcard" in record.error


@on_loop
async def test_a_report_claims_and_completes_what_waits_for_it() -> None:
    rules = await rig(REPORT)
    await rules.rig.create(1, labelled("REPORTING"))
    rules.archive.arrive("1.9.21", Modality="SR")
    await rules.round()
    workitem = rules.rig.workitem(1)
    assert rules.rig.state(1) == "COMPLETED"
    (done,) = items(workitem.attributes, tags.PERFORMED_PROCEDURE)
    (output,) = items(done, OUTPUT)
    assert [text(item, "00081155") for item in items(output, "00081199")] == ["1.9.21"]
    assert [entry.what for entry in workitem.history] == ["created", "claimed", "completed on behalf"]
    assert {entry.why for entry in workitem.history[1:]} == {'rule "Report": instance 1.9.21 arrived'}


@on_loop
async def test_a_crash_between_claim_and_completion_is_made_good() -> None:
    rules = await rig(REPORT)
    await rules.rig.create(1, labelled("REPORTING"))
    claim = Requester("WORKLIST", "rules", reason='rule "Report": instance 1.9.21 arrived')
    await rules.rig.do(ChangeState(claim, uid(1), "IN PROGRESS", TRANSACTION))
    rules.archive.arrive("1.9.21", Modality="SR")
    await rules.round()
    assert rules.rig.state(1) == "COMPLETED"


@on_loop
async def test_what_a_performer_has_claimed_is_left_to_them() -> None:
    rules = await rig(REPORT)
    await rules.rig.create(1, labelled("REPORTING"))
    await rules.rig.claim(1)
    rules.archive.arrive("1.9.21", Modality="SR")
    await rules.round()
    assert rules.rig.state(1) == "IN PROGRESS"


@on_loop
async def test_what_nobody_has_claimed_is_canceled_and_a_performer_is_asked_once() -> None:
    rules = await rig(CANCEL)
    await rules.rig.create(1, labelled("AI"))
    await rules.rig.create(2, labelled("AI"))
    await rules.rig.subscribe("A", 2)
    await rules.rig.claim(2)
    rules.archive.arrive("1.9.21", Modality="SR")
    await rules.round()
    assert (rules.rig.state(1), rules.rig.state(2)) == ("CANCELED", "IN PROGRESS")
    why = 'read already (rule "Superseded": instance 1.9.21 arrived)'
    assert rules.rig.workitem(1).history[-1].why == why
    rules.memory.cursor = 0
    await rules.round()
    assert [entry.why for entry in rules.rig.workitem(2).history].count(why) == 1


# --- ends of workitems ---

SECOND = {
    "Name": "Second reading",
    "When": "Completed",
    "If": {"WorklistLabel": "READING"},
    "Create": {
        "Attributes": {"ProcedureStepLabel": "Second", "WorklistLabel": "SECOND"},
        "Inputs": "outputs",
    },
}


@on_loop
async def test_the_end_of_a_workitem_fires_also_if_it_came_while_nobody_looked() -> None:
    rules = await rig(SECOND)
    await rules.rig.create(1, labelled("READING"))
    await rules.rig.complete(1)
    await rules.restart()
    await rules.round()
    await rules.round()
    first, second = rules.workitems()
    assert text(second.attributes, tags.WORKLIST_LABEL) == "SECOND"
    assert text(second.attributes, tags.PATIENT_ID) == "P"
    assert inputs(second) == [
        text(reference, "00081155")
        for done in items(first.attributes, tags.PERFORMED_PROCEDURE)
        for item in items(done, OUTPUT)
        for reference in items(item, "00081199")
    ]


@on_loop
async def test_a_canceled_workitem_is_no_completed_one() -> None:
    rules = await rig(SECOND, {**SECOND, "Name": "Again", "When": "Canceled"})
    await rules.rig.create(1, labelled("READING"))
    await rules.rig.do(RequestCancel(SCHEDULER, uid(1)))
    await rules.round()
    assert [rules.memory.record(name).fired for name in ("Second reading", "Again")] == [0, 1]


@on_loop
async def test_a_rule_that_feeds_itself_by_what_the_cause_has_is_stopped_with_a_line() -> None:
    again = {
        "Name": "Again",
        "When": "Completed",
        "If": {"WorklistLabel": "READING"},
        "Create": {"Attributes": {"ProcedureStepLabel": "Again", "WorklistLabel": "{WorklistLabel}"}},
    }
    rules = await rig(again)
    await rules.rig.create(1, labelled("READING"))
    await rules.rig.complete(1)
    await rules.round()
    _, second = rules.workitems()
    await rules.rig.do(ChangeState(SCHEDULER, second.uid, "IN PROGRESS", TRANSACTION))
    await rules.rig.do(Update(SCHEDULER, second.uid, performed(), TRANSACTION))
    await rules.rig.do(ChangeState(SCHEDULER, second.uid, "COMPLETED", TRANSACTION))
    await rules.round()
    assert len(rules.workitems()) == 2
    assert rules.memory.record("Again").stopped == 1
    assert rules.rig.service.counters["rules_stopped"] == 1


# --- inputs that are gone ---

GONE = {
    "Name": "Input is gone",
    "When": "Deleted",
    "If": {"WorklistLabel": "AI"},
    "Cancel": {"Reason": "its images were deleted"},
}


@pytest.mark.parametrize("away", [False, True])
def test_the_deletion_of_an_input_cancels_the_workitem_also_if_nobody_looked(away: bool) -> None:
    @on_loop
    async def whole() -> None:
        rules = await rig(ai(), GONE)
        rules.archive.arrive("1.9.1", Modality="CT")
        rules.archive.arrive("1.9.2", series="1.8.2", study="1.7.2", Modality="CT")
        await rules.round()
        await rules.round(STABLE_AGE + 1)
        await rules.round(1)
        await rules.follower.close()
        rules.archive.delete_study("1.7.1")
        if away:
            await rules.restart()
        else:
            rules.change_notes.deleted.append("1.7.1")
        await rules.round()
        states = {text(workitem.attributes, tags.STATE): inputs(workitem) for workitem in rules.workitems()}
        assert states == {"CANCELED": ["1.9.1"], "SCHEDULED": ["1.9.2"]}

    whole()


@pytest.mark.parametrize("away", [False, True])
def test_a_deletion_right_after_the_creation_is_seen_though_nobody_had_looked_for_the_study(
    away: bool,
) -> None:
    @on_loop
    async def whole() -> None:
        rules = await rig(ai(), GONE)
        rules.archive.arrive("1.9.1", Modality="CT")
        await rules.round()
        await rules.round(STABLE_AGE + 1)
        (created,) = rules.workitems()
        rules.archive.delete_study("1.7.1")
        if away:
            await rules.restart()
        await rules.round()
        assert text(created.attributes, tags.STATE) == "SCHEDULED"
        assert [text(workitem.attributes, tags.STATE) for workitem in rules.workitems()] == ["CANCELED"]

    whole()


@on_loop
async def test_a_study_that_a_client_names_is_watched_from_its_command_on() -> None:
    rules = await rig(GONE)
    study, image = "1.7.1", ("1.2.840.10008.5.1.4.1.1.2", "1.9.1")
    item = reference(study, "1.8.1", [image], "DICOM", rules.archive.own_ae)
    await rules.rig.create(1, dict(sorted({**labelled("AI"), INPUT: element("SQ", item)}.items())))
    await rules.round()
    assert rules.rig.state(1) == "SCHEDULED", "perhaps its images have yet to come"
    await rules.rig.update({tags.PRIORITY: element("CS", "HIGH")}, 1, None)
    rules.change_notes.deleted.append(identifier_of("P", study))
    await rules.round()
    assert rules.rig.state(1) == "CANCELED"


# --- refusals ---


@on_loop
async def test_a_refusal_is_counted_and_told_and_the_others_go_on() -> None:
    rules = await rig(ai(), {**ai(), "Name": "AI 2"}, settings=Settings(maximum_workitems=1))
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    assert len(rules.workitems()) == 1
    assert rules.memory.record("AI 2").failed == 1 and "full" in rules.memory.record("AI 2").error


@on_loop
async def test_values_of_an_image_that_no_workitem_may_have_do_not_keep_it_from_being_made() -> None:
    rules = await rig(ai())
    rules.archive.arrive("1.9.1", Modality="CT", PatientBirthDate="unknown", AccessionNumber="A" * 40)
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    (workitem,) = rules.workitems()
    assert text(workitem.attributes, "00100030") == ""


@on_loop
async def test_a_store_that_is_silent_is_waited_for() -> None:
    rules = await rig(ai())
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    rules.rig.entries.unavailable = True
    with pytest.raises((StoreUnavailable, UpsError)):
        await rules.round(STABLE_AGE + 1)
    rules.rig.entries.unavailable = False
    await rules.round(1)
    assert len(rules.workitems()) == 1


@on_loop
async def test_what_fails_again_and_again_is_given_up_and_the_rest_goes_on() -> None:
    rules = await rig(ai())
    rules.archive.arrive("1.9.1", Modality="CT")
    rules.archive.arrive("1.9.2", series="1.8.2", Modality="CT")
    rules.archive.unreadable.add("1.8.1")
    await rules.round()
    for _ in range(4):
        with pytest.raises(StoreUnavailable):
            await rules.round(STABLE_AGE + 1)
    await rules.round(STABLE_AGE + 1)
    (workitem,) = rules.workitems()
    assert inputs(workitem) == ["1.9.2"]
    assert rules.memory.unstable == {}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ("StableSeries", [["1.9.1"], ["1.9.2"], ["1.9.3"]]),
        ("StableStudy", [["1.9.1", "1.9.2"], ["1.9.3"]]),
        ("StablePatient", [["1.9.1", "1.9.2", "1.9.3"]]),
    ],
)
def test_what_is_stable_on_each_level_is_the_input_of_its_workitem(
    when: str, expected: list[list[str]]
) -> None:
    @on_loop
    async def whole() -> None:
        rules = await rig({**ai(), "When": when})
        rules.archive.arrive("1.9.1", Modality="CT")
        rules.archive.arrive("1.9.2", series="1.8.2", Modality="CT")
        rules.archive.arrive("1.9.3", series="1.8.3", study="1.7.2", Modality="CT")
        await rules.round()
        await rules.round(STABLE_AGE + 1)
        assert sorted(inputs(workitem) for workitem in rules.workitems()) == expected

    whole()


@on_loop
async def test_a_reference_says_how_its_images_are_retrieved() -> None:
    """PS3.4 Table CC.2.5-3, Referenced Instances and Access: DICOM Retrieval or WADO-RS Retrieval Sequence."""
    url = "https://pacs.example/dicom-web"
    rules = await rig(ai(), {**ai(), "Name": "web", "Retrieve": url})
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    by_dicom, by_web = (items(workitem.attributes, INPUT)[0] for workitem in rules.workitems())
    assert text(items(by_dicom, "0040E021")[0], "00080054") == "ORTHANC" and "0040E025" not in by_dicom
    series = f"{url}/studies/1.7.1/series/1.8.1"
    assert text(items(by_web, "0040E025")[0], "00081190") == series and "0040E021" not in by_web


@on_loop
async def test_a_rule_that_is_not_enabled_does_nothing() -> None:
    rules = await rig({**ai(), "Enable": False})
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    assert rules.workitems() == []


@on_loop
async def test_several_effects_of_a_rule_are_all_done() -> None:
    both = {**ai(), "Cancel": {"Matching": {"WorklistLabel": "OLD", "PatientID": "{PatientID}"}}}
    rules = await rig(both)
    await rules.rig.create(1, labelled("OLD"))
    rules.archive.arrive("1.9.1", Modality="CT")
    await rules.round()
    await rules.round(STABLE_AGE + 1)
    assert [text(workitem.attributes, tags.STATE) for workitem in rules.workitems()] == [
        "CANCELED",
        "SCHEDULED",
    ]
    assert rules.memory.record("AI").fired == 1
