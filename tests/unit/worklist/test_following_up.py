# SPDX-License-Identifier: AGPL-3.0-or-later
"""A workitem that replaces another inherits its subscribers; one whose outputs are missing stays open."""

from __future__ import annotations

from collections.abc import Sequence

from orthanc_ups.core import tags
from orthanc_ups.core.commands import ChangeState, Close, Create
from orthanc_ups.core.dataset import DataSet, element, items, text
from orthanc_ups.settings import Settings
from tests.support.service import LOCK, NO_LOCK, NONE, SCHEDULER, TRANSACTION, ServiceRig, on_loop
from tests.support.workitems import minimal, performed, uid

INHERIT = Settings(inherit_subscribers=True)


def replacing(number: int) -> DataSet:
    item: DataSet = {"00081150": element("UI", tags.PUSH), "00081155": element("UI", uid(number))}
    return dict(sorted((minimal() | {tags.REPLACED: element("SQ", item)}).items()))


@on_loop
async def test_a_workitem_that_replaces_another_has_its_subscribers_from_the_beginning() -> None:
    """PS3.17 GGG.3.1.2: an SCP may subscribe the watchers of the step that was given up to the one that replaces it."""
    rig = await ServiceRig("A", "B", "C", settings=INHERIT).start()
    await rig.create(1)
    await rig.subscribe("A", 1, lock=True)
    await rig.subscribe("B", 1)
    await rig.do(Create(SCHEDULER, uid(2), replacing(1)))
    assert [rig.subscription(ae, 2) for ae in "ABC"] == [LOCK, NO_LOCK, NONE]
    assert rig.heard("A")[-1] == "2: SCHEDULED" and rig.heard("B")[-1] == "2: SCHEDULED"
    await rig.restart()
    assert [rig.subscription(ae, 2) for ae in "ABC"] == [LOCK, NO_LOCK, NONE]
    await rig.unsubscribe("A", 2)
    assert [rig.subscription("A", number) for number in (1, 2)] == [LOCK, NONE]


@on_loop
async def test_who_is_subscribed_to_everything_stays_so_and_nothing_else() -> None:
    rig = await ServiceRig("A", settings=INHERIT).start()
    await rig.subscribe("A")
    await rig.create(1)
    await rig.do(Create(SCHEDULER, uid(2), replacing(1)))
    assert rig.workitem(2).acts == {} and rig.subscription("A", 2) is NO_LOCK


@on_loop
async def test_without_the_setting_nobody_is_subscribed_unasked() -> None:
    rig = await ServiceRig("A").start()
    await rig.create(1)
    await rig.subscribe("A", 1)
    await rig.do(Create(SCHEDULER, uid(2), replacing(1)))
    await rig.do(Create(SCHEDULER, uid(3), replacing(77)))
    assert rig.subscription("A", 2) is NONE


class Archive:
    """Has no instance but those that it is told."""

    def __init__(self, *there: str) -> None:
        self.there = {*there}

    async def missing(self, references: Sequence[DataSet]) -> Sequence[str]:
        uids = [text(reference, "00081155") for item in references for reference in items(item, "00081199")]
        return [referenced_uid for referenced_uid in uids if referenced_uid not in self.there]


def done(*outputs: str) -> DataSet:
    referenced = [
        {"00081150": element("UI", "1.2.3"), "00081155": element("UI", referenced_uid)}
        for referenced_uid in outputs
    ]
    item: DataSet = {
        "00081199": element("SQ", *referenced),
        "0020000D": element("UI", "1.2.3.4"),
        "0020000E": element("UI", "1.2.3.5"),
        "0040E020": element("CS", "DICOM"),
        "0040E021": element("SQ", {"00080054": element("AE", "ORTHANC")}),
    }
    return performed(t00404033=element("SQ", item))


@on_loop
async def test_outputs_that_are_not_in_this_orthanc_are_named_and_keep_a_workitem_open() -> None:
    """``Ups.CheckOutputs``: C304, with every instance that is missing."""
    rig = await ServiceRig().start()
    archive = Archive("1.2.1")
    rig.service.worklist.outputs = archive
    await rig.create(1)
    await rig.claim(1)
    await rig.update(done("1.2.1", "1.2.2", "1.2.3"), 1)
    complete = ChangeState(SCHEDULER, uid(1), "COMPLETED", TRANSACTION)
    error = await rig.refused(complete)
    assert error.status.code == 0xC304
    assert "1.2.2" in error.detail and "1.2.3" in error.detail and "1.2.1 " not in error.detail
    assert [fault.path for fault in error.faults] == ["00741216.00404033.00081199.00081155"] * 2
    archive.there |= {"1.2.2", "1.2.3"}
    await rig.do(complete)
    assert rig.state(1) == "COMPLETED"


@on_loop
async def test_closing_on_behalf_is_held_to_the_same() -> None:
    rig = await ServiceRig().start()
    rig.service.worklist.outputs = Archive()
    await rig.create(1)
    await rig.claim(1)
    error = await rig.refused(Close(SCHEDULER, uid(1), "COMPLETED", done("1.2.9")))
    assert error.status.code == 0xC304 and "1.2.9" in error.detail
    await rig.do(Close(SCHEDULER, uid(1), "COMPLETED", performed(t00404033=element("SQ"))))


@on_loop
async def test_who_does_not_own_it_hears_of_that_first_and_a_cancellation_needs_no_outputs() -> None:
    rig = await ServiceRig().start()
    rig.service.worklist.outputs = Archive()
    await rig.create(1)
    await rig.claim(1)
    await rig.update(done("1.2.9"), 1)
    stranger = await rig.refused(ChangeState(SCHEDULER, uid(1), "COMPLETED", "1.2.3.99"))
    assert stranger.status.code == 0xC301
    await rig.do(ChangeState(SCHEDULER, uid(1), "CANCELED", TRANSACTION))
