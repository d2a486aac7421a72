# SPDX-License-Identifier: AGPL-3.0-or-later
"""An application entity is one subscriber, whichever spelling of its AE title a request uses."""

from __future__ import annotations

import pytest

from orthanc_ups.core import statuses
from orthanc_ups.core.commands import Requester, Subscribe, Unsubscribe
from orthanc_ups.core.statuses import UpsError
from tests.support.service import GLOBAL, LOCK, NONE, Desk, on_loop
from tests.support.workitems import uid


def subscribe(spelling: str, target: str = GLOBAL, *, lock: bool = False) -> Subscribe:
    return Subscribe(Requester(spelling, "DIMSE"), target, spelling, lock)


def unsubscribe(spelling: str, target: str = GLOBAL) -> Unsubscribe:
    return Unsubscribe(Requester(spelling, "DIMSE"), target, spelling)


@on_loop
async def test_two_spellings_are_one_subscriber_and_each_event_is_told_once() -> None:
    desk = Desk("SUB4")
    desk.listed = ("SUB4",)
    await desk.start()
    for spelling in ("SUB4", "sub4", "Sub4"):
        await desk.do(subscribe(spelling))
    await desk.create()
    assert desk.service.subscriptions.aes() == {"SUB4"}
    assert desk.heard("SUB4") == ["1: SCHEDULED"]
    assert len(desk.events_for("SUB4")) == 1


@on_loop
async def test_any_spelling_unsubscribes_and_releases_the_lock() -> None:
    desk = Desk("SUB4")
    desk.listed = ("SUB4",)
    await desk.start()
    await desk.create()
    await desk.do(subscribe("sub4", uid(1), lock=True))
    workitem = desk.service.worklist.workitem(uid(1))
    assert desk.service.subscriptions.state("SUB4", workitem) is LOCK
    await desk.do(unsubscribe("Sub4", uid(1)))
    workitem = desk.service.worklist.workitem(uid(1))
    assert desk.service.subscriptions.state("SUB4", workitem) is NONE
    assert list(workitem.acts) == ["SUB4"]


@on_loop
async def test_history_names_a_requester_as_dicom_modalities_spell_it() -> None:
    desk = Desk("SUB4")
    desk.listed = ("SUB4",)
    await desk.start()
    await desk.create()
    await desk.do(subscribe("sub4", uid(1)))
    assert desk.service.worklist.workitem(uid(1)).history[-1].who == "SUB4 by DIMSE"


@pytest.mark.parametrize("ae", ["", ".", "..", "A/B", "A\\B", "SEVENTEEN_LETTERS"])
@on_loop
async def test_a_receiving_ae_that_cannot_be_an_ae_title_is_an_invalid_argument(ae: str) -> None:
    desk = await Desk(ae).start()
    with pytest.raises(UpsError) as caught:
        await desk.do(subscribe(ae))
    assert caught.value.status is statuses.INVALID_ARGUMENT


@on_loop
async def test_a_subscriber_of_before_whose_title_has_a_slash_can_unsubscribe() -> None:
    desk = await Desk("A/B").start()
    desk.service.titles.use("A/B")
    await desk.do(subscribe("A/B"))
    await desk.restart()
    await desk.do(unsubscribe("a/b"))
    assert not desk.service.subscriptions.is_subscribed("A/B")
