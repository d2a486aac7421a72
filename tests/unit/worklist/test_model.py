# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist against a naive model: any commands, any failures of the store, crashes at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from copy import deepcopy
from itertools import pairwise, permutations
from random import Random
from typing import Any, Final
from unittest.mock import patch

from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from orthanc_ups.core.commands import Command, Create, Purge, RequestCancel, Update
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.core.statuses import RESOURCE_LIMITATION, UpsError
from orthanc_ups.settings import Settings
from orthanc_ups.worklist import order as worklist_order
from orthanc_ups.worklist import overflows
from tests.support.delivery import settle
from tests.support.examples import examples
from tests.support.projections import break_projection
from tests.support.service import SCHEDULER, TRANSACTION, ServiceRig, grows
from tests.support.workitems import uid
from tests.support.worklist_commands import AES, COMMANDS, NUMBERS, Asked, aes, creation, flags, number_of
from tests.support.worklist_model import Model, reached

LIMITS: Final = (
    # so low that they are reached
    (overflows, "SPILL_ABOVE", 8),
    (overflows, "SPILLED_AT_ONCE", 5),
    (worklist_order, "SEQUENCES", 40),
    (worklist_order, "CREATIONS", 4),
)

Trouble = Callable[["Working"], None]


def _bad_day(request: Asked, requests: int, answers: int, conflicts: int) -> Trouble:
    return lambda working: working.on_a_bad_day(request, requests, answers, conflicts)


def _at_once(requests: list[Asked], seed: int) -> Trouble:
    return lambda working: working.at_once(requests, seed)


def _without_store(request: Asked) -> Trouble:
    return lambda working: working.without_store(request)


def _crash_during(request: Asked, written: bool) -> Trouble:
    return lambda working: working.crash_during(request, written)


def _go_by(seconds: float) -> Trouble:
    return lambda working: working.go_by(seconds)


def _away(ae: str) -> Trouble:
    return lambda working: working.away(ae)


def _simple(name: str) -> Trouble:
    def trouble(working: Working) -> None:
        getattr(working, name)()

    return trouble


some = st.integers(0, 2)
TROUBLES: Final = st.one_of(
    st.builds(_at_once, st.lists(COMMANDS, min_size=3, max_size=4), st.integers(0, 99)),
    st.builds(_at_once, st.lists(COMMANDS, min_size=3, max_size=4), st.integers(0, 99)),
    st.builds(_bad_day, COMMANDS, some, some, some),
    st.builds(_without_store, COMMANDS),
    st.builds(_crash_during, COMMANDS, flags),
    st.builds(_go_by, st.sampled_from([0.3, 1.0, 3.0])),
    st.builds(_away, aes),
    st.builds(_away, aes),
    st.builds(_simple, st.sampled_from(["crash", "stop_in_order", "lose_shelves", "break_projection"])),
    st.builds(_simple, st.just("all_back")),
)


class Working(RuleBasedStateMachine):
    """Commands come in runs, so that there is something for the failures to hurt."""

    def __init__(self) -> None:
        super().__init__()
        self.limits = ExitStack()
        for module, name, limit in LIMITS:
            self.limits.enter_context(patch.object(module, name, limit))
        self.loop = asyncio.new_event_loop()
        self.rig = ServiceRig(*AES, settings=Settings(replace_waiting_progress=False))
        self.model = Model(*AES)
        self.crashed_at: list[dict[str, int]] = []
        self.run(self.rig.start())

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    # --- commands ---

    @rule(run=st.lists(COMMANDS, min_size=4, max_size=10), trouble=TROUBLES)
    def live(self, run: list[Asked], trouble: Trouble) -> None:
        for request in run:
            self.prepare(request[0])
            self.command(request)
        trouble(self)
        self.check_everything()

    def prepare(self, command: Command) -> None:
        """A workitem that there never was is made first: that says more than C307."""
        number = number_of(command)
        existed = number in self.model.workitems or number in self.model.gone
        if number in NUMBERS and not existed and not isinstance(command, Create):
            self.command(creation(number, number % 2 == 1))

    def command(self, request: Asked) -> None:
        command, letter = request
        error = self.ask(command)
        if error is not None and "not delivered" in error.detail:
            assert isinstance(command, Purge)
            assert self.rig.channel.down
            return
        assert letter(self.model) is (error is None), (command, error)
        self.check_everything()

    def ask(self, command: Command) -> UpsError | None:
        """Carry it out; the error if it was refused."""
        try:
            self.run(self.rig.do(self.fitting(command)))
        except UpsError as error:
            return error
        return None

    def fitting(self, command: Command) -> Command:
        """With the Transaction UID that the state asks for: none while SCHEDULED."""
        if isinstance(command, Update):
            ups = self.model.workitems.get(number_of(command))
            scheduled = ups is not None and ups.state == "SCHEDULED"
            return Update(SCHEDULER, command.uid, command.attributes, None if scheduled else TRANSACTION)
        return command

    # --- what happens to a command ---

    def on_a_bad_day(self, request: Asked, requests: int, answers: int, conflicts: int) -> None:
        self.prepare(request[0])
        entries = self.rig.entries
        entries.lost_requests, entries.lost_answers, entries.conflicts = requests, answers, conflicts
        self.command(request)
        entries.lost_requests = entries.lost_answers = entries.conflicts = 0

    def at_once(self, requests: list[Asked], seed: int) -> None:
        """Some commands at the same time: there must be an order in which the letter says the same."""
        for command, _ in requests:
            self.prepare(command)
        requests = [request for request in requests if not isinstance(request[0], (Update, Purge))]
        chance = Random(seed)
        self.rig.entries.pauses = lambda: chance.randrange(5)
        accepted = self.run(self.all_at_once([command for command, _ in requests]))
        self.rig.entries.pauses = lambda: 1
        orders = permutations(zip(requests, accepted, strict=True))
        explained = filter(None, (self.explained(order) for order in orders))
        model = next(explained, None)
        assert model is not None, (requests, accepted)
        self.model = model

    async def all_at_once(self, commands: list[Command]) -> list[bool]:
        execute = self.rig.service.worklist.execute
        everything = asyncio.gather(*map(execute, commands), return_exceptions=True)
        await self.rig.until_done(everything)
        await settle()
        return [not isinstance(result, UpsError) for result in await everything]

    def explained(self, order: tuple[tuple[Asked, bool], ...]) -> Model | None:
        """What the letter says if the commands came in this order; None if that is not what happened."""
        model, mine = deepcopy(self.model), self.model
        if any(letter(model) is not accepted for (_, letter), accepted in order):
            return None
        try:
            self.model = model
            self.check_everything()
        except AssertionError:
            return None
        finally:
            self.model = mine
        return model

    def without_store(self, request: Asked) -> None:
        self.prepare(request[0])
        before = self.rig.stored()
        self.rig.entries.unavailable = True
        error = self.ask(request[0])
        self.rig.entries.unavailable = False
        assert self.rig.stored() == before
        refused = error is not None and error.status is not RESOURCE_LIMITATION
        assert not refused or isinstance(request[0], Purge) or not request[1](deepcopy(self.model))

    def crash_during(self, request: Asked, written: bool) -> None:
        self.prepare(request[0])
        if self.run(self.crashed_during(self.fitting(request[0]), written)):
            assert request[1](self.model)

    async def crashed_during(self, command: Command, written: bool) -> bool:
        """True if the store has changed."""
        rig, entries, before = self.rig, self.rig.entries, self.rig.stored()
        entries.lost_answers, entries.lost_requests = int(written), int(not written)
        waiting = asyncio.ensure_future(rig.service.worklist.execute(command))
        await rig.until(lambda: waiting.done() or not entries.lost_answers + entries.lost_requests)
        await rig.crash()
        self.note_crash()
        if not waiting.cancelled():
            waiting.exception()
        done = rig.stored() != before
        await rig.start()
        return done

    # --- what happens around ---

    def note_crash(self) -> None:
        self.crashed_at.append({ae: len(events) for ae, events in self.rig.channel.events.items()})

    def crash(self) -> None:
        async def crash() -> None:
            await self.rig.crash()
            self.note_crash()
            await self.rig.start()

        self.run(crash())

    def stop_in_order(self) -> None:
        async def stop() -> None:
            await self.rig.stop()
            if self.rig.channel.down:  # what was half made for them is made once more
                self.note_crash()
            await self.rig.restart()

        self.run(stop())

    def go_by(self, seconds: float) -> None:
        self.run(self.rig.pass_by(seconds))

    def away(self, ae: str) -> None:
        self.rig.channel.down[ae] = "switched off"

    def all_back(self) -> None:
        async def back() -> None:
            self.rig.channel.down.clear()
            for ae in AES:
                self.rig.service.delivery.retry_soon(ae)
            await self.rig.pass_by(0.5)

        self.run(back())

    def lose_shelves(self) -> None:
        async def lose() -> None:
            self.rig.entries.lose()
            await self.rig.service.look_after_shelves()
            await settle()

        self.run(lose())

    def break_projection(self) -> None:
        async def fail() -> None:
            break_projection(self.rig.service.projection)
            error = await self.rig.refused_now(RequestCancel(SCHEDULER, uid(1)))
            assert error.status is RESOURCE_LIMITATION
            await self.rig.until(lambda: not self.rig.service.workitems.broken)

        self.run(fail())

    # --- what must hold ---

    def check_everything(self) -> None:
        self.check_states()
        for ae in AES:
            self.check_told(ae, complete=not self.rig.channel.down)

    def check_states(self) -> None:
        assert self.rig.service.workitems.count() == len(self.model.workitems)
        for number, ups in self.model.workitems.items():
            workitem = self.rig.workitem(number)
            assert workitem.state.value == ups.state
            states = {ae: self.rig.service.subscriptions.state(ae, workitem) for ae in AES}
            assert states == ups.subscriptions, number

    def runs(self, ae: str) -> Iterator[list[Event]]:
        """What an AE was told between two crashes; behind each, some of it may be told once more."""
        events = self.rig.channel.events.get(ae, [])
        ends = [*(crash.get(ae, 0) for crash in self.crashed_at), len(events)]
        for start, end in pairwise([0, *ends]):
            yield [event for event in events[start:end] if event.type is not EventType.SCP_STATUS_CHANGE]

    def check_told(self, ae: str, *, complete: bool) -> None:
        events = self.rig.events_for(ae)
        for run in self.runs(ae):
            assert grows([event.sequence for event in run]), "out of order"
        first = {event.sequence: event for event in reversed(events)}
        assert self.crashed_at or len(first) == len(events), "told twice without a crash"
        expected = self.model.aes[ae].expected
        furthest = max(reached([first[sequence] for sequence in sorted(first)], expected))
        rest = expected[furthest:]
        assert not complete or not any(expectation.must_come for expectation in rest), f"a gap at {ae}"

    def teardown(self) -> None:
        async def end() -> None:
            self.rig.channel.down.clear()
            for ae in AES:
                self.rig.service.delivery.retry_soon(ae)
            await self.rig.pass_by(1.0)

        try:
            self.run(end())
            for ae in AES:
                self.check_told(ae, complete=True)
        finally:
            self.run(self.rig.crash())
            self.loop.close()
            self.limits.close()


TestWorking = Working.TestCase
TestWorking.settings = hypothesis_settings(
    max_examples=examples(10),
    stateful_step_count=15,
    derandomize=True,
    phases=[Phase.generate],  # making the failing example smaller would take minutes
    suppress_health_check=list(HealthCheck),
)
