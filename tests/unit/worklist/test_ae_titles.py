# SPDX-License-Identifier: AGPL-3.0-or-later
"""An application entity is one subscriber, whichever spelling of its AE title a request uses."""

from __future__ import annotations

import pytest

from orthanc_ups.core import statuses
from orthanc_ups.core.commands import Requester, Subscribe, Unsubscribe
from orthanc_ups.core.statuses import UpsError
from tests.support.service import GLOBAL, LOCK, NONE, ServiceRig, on_loop
from tests.support.workitems import uid


def subscribe(spelling: str, target: str = GLOBAL, *, lock: bool = False) -> Subscribe:
    return Subscribe(Requester(spelling, "DIMSE"), target, spelling, lock)


def unsubscribe(spelling: str, target: str = GLOBAL) -> Unsubscribe:
    return Unsubscribe(Requester(spelling, "DIMSE"), target, spelling)


@on_loop
async def test_two_spellings_are_one_subscriber_and_each_event_is_told_once() -> None:
    rig = ServiceRig("SUB4")
    rig.listed = ("SUB4",)
    await rig.start()
    for spelling in ("SUB4", "sub4", "Sub4"):
        await rig.do(subscribe(spelling))
    await rig.create()
    assert rig.service.subscriptions.aes() == {"SUB4"}
    assert rig.heard("SUB4") == ["1: SCHEDULED"]
    assert len(rig.events_for("SUB4")) == 1


@on_loop
async def test_any_spelling_unsubscribes_and_releases_the_lock() -> None:
    rig = ServiceRig("SUB4")
    rig.listed = ("SUB4",)
    await rig.start()
    await rig.create()
    await rig.do(subscribe("sub4", uid(1), lock=True))
    workitem = rig.service.worklist.workitem(uid(1))
    assert rig.service.subscriptions.state("SUB4", workitem) is LOCK
    await rig.do(unsubscribe("Sub4", uid(1)))
    workitem = rig.service.worklist.workitem(uid(1))
    assert rig.service.subscriptions.state("SUB4", workitem) is NONE
    assert list(workitem.acts) == ["SUB4"]


@on_loop
async def test_history_names_a_requester_as_dicom_modalities_spell_it() -> None:
    rig = ServiceRig("SUB4")
    rig.listed = ("SUB4",)
    await rig.start()
    await rig.create()
    await rig.do(subscribe("sub4", uid(1)))
    assert rig.service.worklist.workitem(uid(1)).history[-1].who == "SUB4 by DIMSE"


@pytest.mark.parametrize("ae", ["", ".", "..", "A/B", "A\\B", "SEVENTEEN_LETTERS"])
@on_loop
async def test_a_receiving_ae_that_cannot_be_an_ae_title_is_an_invalid_argument(ae: str) -> None:
    rig = await ServiceRig(ae).start()
    with pytest.raises(UpsError) as caught:
        await rig.do(subscribe(ae))
    assert caught.value.status is statuses.INVALID_ARGUMENT


@on_loop
async def test_a_subscriber_of_before_whose_title_has_a_slash_can_unsubscribe() -> None:
    rig = await ServiceRig("A/B").start()
    rig.service.titles.use("A/B")
    await rig.do(subscribe("A/B"))
    await rig.restart()
    await rig.do(unsubscribe("a/b"))
    assert not rig.service.subscriptions.is_subscribed("A/B")
