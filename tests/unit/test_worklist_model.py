# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist against a naive model: any commands, any failures of the store, crashes at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from copy import deepcopy
from typing import Any, Final

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from orthanc_ups.core import tags
from orthanc_ups.core.commands import (
    ChangeState,
    Close,
    Command,
    Create,
    Purge,
    ReleaseLock,
    RequestCancel,
    Subscribe,
    Suspend,
    Unsubscribe,
    Update,
)
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.events import Event
from orthanc_ups.core.statuses import RESOURCE_LIMITATION, UpsError
from orthanc_ups.settings import Settings
from tests.support.delivery import settle
from tests.support.service import FILTERED, GLOBAL, SCHEDULER, TRANSACTION, Desk, grows
from tests.support.workitems import minimal, performed, progress, uid
from tests.support.worklist_model import Model, Told

AES: Final = ("A", "B", "C")
NUMBERS: Final = range(1, 6)
_PRIORITY: Final = {True: element("CS", "HIGH"), False: element("CS", "LOW")}
_READINESS: Final = {True: element("CS", "READY"), False: element("CS", "UNAVAILABLE")}

Asked = tuple[Command, Callable[[Model], bool]]
aes = st.sampled_from(AES)
numbers = st.sampled_from(NUMBERS)
flags = st.booleans()


def _create(number: int, urgent: bool) -> Asked:
    attributes = minimal(t00741200=_PRIORITY[urgent])
    return Create(SCHEDULER, uid(number), attributes), lambda model: model.create(number, urgent)


def _claim(number: int) -> Asked:
    claim = ChangeState(SCHEDULER, uid(number), "IN PROGRESS", TRANSACTION)
    return claim, lambda model: model.claim(number)


def _close(number: int, completed: bool) -> Asked:
    state = "COMPLETED" if completed else "CANCELED"
    attributes = performed() if completed else {}
    return Close(SCHEDULER, uid(number), state, attributes), lambda model: model.close(number, state)


def _cancel(number: int) -> Asked:
    return RequestCancel(SCHEDULER, uid(number)), lambda model: model.request_cancel(number)


def _readiness(number: int, ready: bool) -> Asked:
    attributes: DataSet = {tags.READINESS: _READINESS[ready]}
    update = Update(SCHEDULER, uid(number), attributes, TRANSACTION)
    return update, lambda model: model.set_readiness(number, ready)


def _progress(number: int, percent: int) -> Asked:
    update = Update(SCHEDULER, uid(number), progress(str(percent)), TRANSACTION)
    return update, lambda model: model.set_progress(number, percent)


def _subscribe(ae: str, number: int, lock: bool) -> Asked:
    command = Subscribe(SCHEDULER, uid(number), ae, lock)
    return command, lambda model: model.subscribe(ae, number, lock)


def _unsubscribe(ae: str, number: int) -> Asked:
    return Unsubscribe(SCHEDULER, uid(number), ae), lambda model: model.unsubscribe(ae, number)


def _release(ae: str, number: int) -> Asked:
    return ReleaseLock(SCHEDULER, uid(number), ae), lambda model: model.release_lock(ae, number)


def _subscribe_all(ae: str, lock: bool) -> Asked:
    return Subscribe(SCHEDULER, GLOBAL, ae, lock), lambda model: model.subscribe_all(ae, lock)


def _subscribe_some(ae: str, urgent: bool, lock: bool) -> Asked:
    command = Subscribe(SCHEDULER, FILTERED, ae, lock, {tags.PRIORITY: _PRIORITY[urgent]})
    return command, lambda model: model.subscribe_some(ae, urgent, lock)


def _end(ae: str, filters: bool, suspend: bool) -> Asked:
    to = FILTERED if filters else GLOBAL
    command = Suspend(SCHEDULER, to, ae) if suspend else Unsubscribe(SCHEDULER, to, ae)
    names = {
        (False, False): "unsubscribe_all",
        (False, True): "suspend_all",
        (True, False): "unsubscribe_some",
        (True, True): "suspend_some",
    }
    return command, lambda model: bool(getattr(model, names[filters, suspend])(ae))


COMMANDS: Final = st.one_of(
    st.builds(_create, numbers, flags),
    st.builds(_create, numbers, flags),
    st.builds(_claim, numbers),
    st.builds(_close, numbers, flags),
    st.builds(_cancel, numbers),
    st.builds(_readiness, numbers, flags),
    st.builds(_progress, numbers, st.integers(1, 3)),
    st.builds(_subscribe, aes, numbers, flags),
    st.builds(_unsubscribe, aes, numbers),
    st.builds(_release, aes, numbers),
    st.builds(_subscribe_all, aes, flags),
    st.builds(_subscribe_some, aes, flags, flags),
    st.builds(_end, aes, flags, flags),
)


class Working(RuleBasedStateMachine):
    """C is told by a channel that is down at times; the others too, but less often."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.desk = Desk(*AES, settings=Settings(replace_waiting_progress=False))
        self.model = Model(*AES)
        self.crashes = 0
        self.run(self.desk.start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    # --- commands ---

    def ask(self, command: Command) -> UpsError | None:
        """Carry it out; the error if it was refused."""
        try:
            self.run(self.desk.do(self._fitting(command)))
        except UpsError as error:
            return error
        return None

    def _fitting(self, command: Command) -> Command:
        """With the Transaction UID that the state asks for: none while SCHEDULED."""
        if isinstance(command, Update):
            ups = self.model.workitems.get(int(command.uid.rpartition(".")[2]))
            scheduled = ups is not None and ups.state == "SCHEDULED"
            return Update(SCHEDULER, command.uid, command.attributes, None if scheduled else TRANSACTION)
        return command

    @rule(asked=COMMANDS)
    def command(self, asked: Asked) -> None:
        command, letter = asked
        error = self.ask(command)
        assert letter(self.model) is (error is None), (command, error)

    @rule(number=numbers)
    def purge(self, number: int) -> None:
        error = self.ask(Purge(SCHEDULER, uid(number)))
        if error is not None and "not delivered" in error.detail:
            assert self.desk.channel.down
            return
        assert self.model.purge(number) is (error is None), error

    # --- what happens to a command ---

    @rule(asked=COMMANDS, requests=st.integers(0, 2), answers=st.integers(0, 2), conflicts=flags)
    def command_on_a_bad_day(self, asked: Asked, requests: int, answers: int, conflicts: bool) -> None:
        entries = self.desk.entries
        entries.lost_requests, entries.lost_answers = requests, answers
        entries.conflicts = int(conflicts)
        self.command(asked)
        entries.lost_requests = entries.lost_answers = entries.conflicts = 0

    @rule(asked=COMMANDS)
    def command_while_the_store_is_away(self, asked: Asked) -> None:
        before = self.desk.stored()
        self.desk.entries.unavailable = True
        error = self.ask(asked[0])
        self.desk.entries.unavailable = False
        assert self.desk.stored() == before
        assert error is None or error.status is RESOURCE_LIMITATION or not asked[1](deepcopy(self.model))

    @rule(asked=COMMANDS, written=flags)
    def crash_while_a_command_waits_for_its_answer(self, asked: Asked, written: bool) -> None:
        async def crash() -> bool:
            desk, before = self.desk, self.desk.stored()
            desk.entries.lost_answers, desk.entries.lost_requests = int(written), int(not written)
            waiting = asyncio.ensure_future(desk.service.worklist.execute(self._fitting(asked[0])))
            entries = desk.entries
            await desk.until(lambda: waiting.done() or not entries.lost_answers + entries.lost_requests)
            await desk.crash()
            done = desk.stored() != before
            if waiting.done() and not waiting.cancelled():
                waiting.exception()
            await desk.start()
            return done

        if self.run(crash()):
            assert asked[1](self.model)
        self.crashes += 1

    # --- what happens around ---

    @rule()
    def crash(self) -> None:
        self.run(self.desk.restart())
        self.crashes += 1

    @rule()
    def stop_in_order(self) -> None:
        async def stop() -> None:
            await self.desk.stop()
            await self.desk.restart()

        self.run(stop())
        self.crashes += bool(self.desk.channel.down)  # who cannot be told may be told twice

    @rule(seconds=st.sampled_from([0.3, 1.0, 3.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.desk.pass_by(seconds))

    @rule(ae=aes)
    def away(self, ae: str) -> None:
        self.desk.channel.down[ae] = "switched off"

    @precondition(lambda self: self.desk.channel.down)
    @rule()
    def all_back(self) -> None:
        async def back() -> None:
            self.desk.channel.down.clear()
            for ae in AES:
                self.desk.service.delivery.seen(ae)
            await self.desk.pass_by(0.5)

        self.run(back())

    @rule()
    def the_shelves_are_deleted(self) -> None:
        async def lose() -> None:
            self.desk.entries.lose()
            await self.desk.service.look_after_shelves()
            await settle()

        self.run(lose())

    @rule()
    def the_projection_fails(self) -> None:
        async def fail() -> None:
            self.desk.service.projection._broke("says a test")
            error = await self.desk.refused_now(RequestCancel(SCHEDULER, uid(1)))
            assert error.status is RESOURCE_LIMITATION
            await self.desk.until(lambda: not self.desk.service.shadow.broken)

        self.run(fail())

    # --- what must hold ---

    @invariant()
    def states_are_those_of_the_letter(self) -> None:
        assert self.desk.service.shadow.count() == len(self.model.workitems)
        for number, ups in self.model.workitems.items():
            workitem = self.desk.workitem(number)
            assert workitem.state.value == ups.state
            found = {ae: self.desk.service.ledger.state(ae, workitem) for ae in AES}
            assert found == ups.subscriptions, number

    @invariant()
    def everybody_was_told_what_he_was_to_be_told(self) -> None:
        for ae in AES:
            self.check_told(ae, complete=not self.desk.channel.down)

    def check_told(self, ae: str, *, complete: bool) -> None:
        told = self.desk.told(ae)
        assert grows(self.desk.sequences(ae)), "out of order"
        first = {event.sequence: event for event in reversed(told)}
        assert self.crashes or len(first) == len(told), "told twice without a crash"
        left = _unmatched([first[one] for one in sorted(first)], self.model.aes[ae].expected)
        assert not complete or all(one.optional for one in left), f"a gap at {ae}"

    def teardown(self) -> None:
        async def end() -> None:
            self.desk.channel.down.clear()
            for ae in AES:
                self.desk.service.delivery.seen(ae)
            await self.desk.pass_by(1.0)

        try:
            self.run(end())
            for ae in AES:
                self.check_told(ae, complete=True)
        finally:
            self.run(self.desk.crash())
            self.loop.close()


def _unmatched(told: list[Event], expected: list[Told]) -> list[Told]:
    """What is expected behind what was told; fails if something was told that is not expected next."""
    rest = list(expected)
    for event in told:
        while rest and not rest[0].fits(event):
            assert rest.pop(0).optional, f"{event} came instead of what was expected"
        assert rest, f"{event} was not expected"
        rest.pop(0)
    return rest


TestWorking = Working.TestCase
TestWorking.settings = hypothesis_settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
