# SPDX-License-Identifier: AGPL-3.0-or-later
"""The guarantee, against anything that may happen in any order.

Every endpoint gets every event that is addressed to it, first occurrences in growing sequence, or the event is
a dead letter; repeats happen only after a crash; nobody gets what is not addressed to him. A small worklist
plays its part: it stores events before it offers them, and forgets those that delivery calls settled.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from orthanc_ups.core.events import Event, EventType
from orthanc_ups.delivery.port import WEBSOCKET, Burst
from orthanc_ups.settings import Settings
from tests.support.delivery import Bench, TwinChannel, event, restarted, settle
from tests.support.examples import examples

AES = ("DIMSE", "BOTH", "HOOK", "SOCKET")
KINDS = st.sampled_from([EventType.STATE_REPORT, EventType.PROGRESS_REPORT, EventType.PROGRESS_REPORT])
RECEIVERS = st.lists(st.sampled_from(AES), min_size=1, max_size=3, unique=True).map(tuple)
UIDS = st.sampled_from(["1.2.1", "1.2.2", "1.2.3"])
HOUR = 3_600.0


class Delivering(RuleBasedStateMachine):
    """Addresses stay as they are: DIMSE has one, HOOK one and a webhook, BOTH one and a socket at times."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.dimse = TwinChannel("dimse", {"DIMSE", "BOTH", "HOOK"})
        self.hook = TwinChannel("webhook:X", {"HOOK"})
        self.sockets = TwinChannel(WEBSOCKET)
        self.channels = (self.dimse, self.hook, self.sockets)
        self.next = 1
        self.documents: dict[str, list[Event]] = {}
        self.unreleased: list[Event | Burst] = []
        self.bursts: list[Burst] = []
        self.addressed: dict[str, dict[int, Event]] = {ae: {} for ae in AES}
        self.crashes = 0

    @initialize(takes=st.sampled_from([1, 3, 1_000]))
    def begin(self, takes: int) -> None:
        for channel in self.channels:
            channel.takes = takes
        limits = Settings(dead_letter_after=HOUR, maximum_pending_per_subscriber=12)
        self.bench = Bench(*self.channels, settings=limits)

    def do(self, work: Coroutine[Any, Any, Any]) -> None:
        self.loop.run_until_complete(work)

    # --- the worklist ---

    @rule(receivers=RECEIVERS, uid=UIDS, kind=KINDS, release=st.booleans(), count=st.integers(1, 4))
    def change(
        self, receivers: tuple[str, ...], uid: str, kind: EventType, release: bool, count: int
    ) -> None:
        now = self.bench.clock.now()
        new = [event(self.next + offset, *receivers, kind=kind, uid=uid, at=now) for offset in range(count)]
        self.next += count + 1
        waiting = [
            queued for queued in self.documents.get(uid, []) if not self.bench.delivery.settled(queued)
        ]
        self.documents[uid] = [*waiting, *new]
        self._expect(new)
        self.unreleased += new
        if release:
            self.release()

    @rule(receiver=st.sampled_from(AES), through=st.integers(1, 7))
    def subscribe_globally_with_lock(self, receiver: str, through: int) -> None:
        burst = Burst(receiver, self.next, through, self.next, self.bench.clock.now())
        self.next += through + 1
        self.bursts.append(burst)
        reports = [
            event(burst.first + number, receiver, uid=f"1.2.{number}") for number in range(1, through + 1)
        ]
        self._expect(reports)
        self.unreleased.append(burst)
        self.release()

    def _expect(self, events: list[Event]) -> None:
        for sent in events:
            for receiver in sent.receivers:
                self.addressed[receiver][sent.sequence] = sent

    @rule()
    def release(self) -> None:
        self.do(self.bench.offer(*self.unreleased))
        self.unreleased.clear()

    @rule(receivers=RECEIVERS)
    def status_change(self, receivers: tuple[str, ...]) -> None:
        self.unreleased.append(restarted(self.next, *receivers, at=self.bench.clock.now()))
        self.next += 1
        self.release()

    # --- the world ---

    @rule(seconds=st.sampled_from([0.1, 1.0, 30.0, 600.0, 1.2 * HOUR]))
    def time_passes(self, seconds: float) -> None:
        self.do(self.bench.clock.advance(seconds))

    @rule(which=st.integers(0, 2), receiver=st.sampled_from(AES))
    def goes_down(self, which: int, receiver: str) -> None:
        self.channels[which].down[receiver] = "connection refused"

    @rule(which=st.integers(0, 2), receiver=st.sampled_from(AES))
    def comes_up(self, which: int, receiver: str) -> None:
        self.channels[which].down.pop(receiver, None)

    @rule(which=st.integers(0, 2), receiver=st.sampled_from(AES), echoed=st.booleans())
    def hangs_or_goes_on(self, which: int, receiver: str, echoed: bool) -> None:
        held = self.channels[which].holds.pop(receiver, None)
        if held:
            held.set()
        else:
            self.channels[which].holds[receiver] = asyncio.Event()

    @rule(receiver=st.sampled_from(AES))
    def is_seen(self, receiver: str) -> None:
        self.bench.delivery.retry_soon(receiver)
        self.do(settle())

    @rule(receiver=st.sampled_from(["BOTH", "SOCKET"]))
    def socket_opens_or_closes(self, receiver: str) -> None:
        self.sockets.ae_titles ^= {receiver}
        if receiver in self.sockets.ae_titles:
            self.is_seen(receiver)

    @rule(which=st.integers(0, 1), ahead=st.integers(0, 5))
    def will_be_refused(self, which: int, ahead: int) -> None:
        self.channels[which].refuses.add(self.next + ahead)

    @rule(switched=st.booleans(), trouble=st.sampled_from(["lost_answers", "lost_requests", "conflicts"]))
    def the_store_has_trouble(self, switched: bool, trouble: str) -> None:
        if switched:
            self.bench.entries.unavailable = not self.bench.entries.unavailable
        else:
            setattr(self.bench.entries, trouble, 1)

    @rule()
    def crash(self) -> None:
        self.crashes += 1
        self._start()

    @precondition(lambda self: not self.bench.entries.unavailable)
    @rule()
    def clean_restart(self) -> None:
        entries = self.bench.entries
        troubled = entries.lost_answers or entries.lost_requests or entries.conflicts
        hanging = any(channel.holds for channel in self.channels)
        self.crashes += bool(troubled or hanging)
        stopping = self.bench.delivery.going_down(restarted(self.next, *AES), 3.0)
        self.do(self._stop(stopping))
        self.next += 1
        self._start()

    async def _stop(self, stopping: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(stopping)
        await self.bench.clock.advance(4.0)
        assert task.done()

    def _start(self) -> None:
        self.bench.entries.unavailable = False
        self.unreleased.clear()
        stored = [sent for events in self.documents.values() for sent in events]
        self.do(self.bench.restart(stored, self.bursts))

    # --- the guarantee ---

    @invariant()
    def nobody_gets_what_is_not_addressed_to_him(self) -> None:
        for channel in self.channels:
            for receiver, events in channel.events.items():
                for sent in events:
                    transient = sent.type is EventType.SCP_STATUS_CHANGE
                    assert receiver in sent.receivers
                    assert transient or sent.sequence in self.addressed[receiver]

    @invariant()
    def first_occurrences_are_in_order(self) -> None:
        for channel in self.channels:
            for receiver in AES:
                firsts = list(dict.fromkeys(self._sequences(channel, receiver)))
                assert firsts == sorted(firsts), (channel.name, receiver)

    @invariant()
    def repeats_need_a_crash(self) -> None:
        for channel in self.channels:
            for receiver in AES:
                sequences = self._sequences(channel, receiver)
                assert self.crashes or len(sequences) == len(set(sequences)), (channel.name, receiver)

    @staticmethod
    def _sequences(channel: TwinChannel, receiver: str) -> list[int]:
        events = channel.events.get(receiver, [])
        return [sent.sequence for sent in events if sent.type is not EventType.SCP_STATUS_CHANGE]

    def teardown(self) -> None:
        try:
            self.heal()
            self.check_completeness()
        finally:
            self.do(self.bench.delivery.going_down(None))
            self.loop.close()

    def heal(self) -> None:
        """Everything works again, and there is time."""
        self.bench.entries.unavailable = False
        self.release()
        for channel in self.channels:
            channel.down.clear()
            for held in channel.holds.values():
                held.set()
            channel.holds.clear()
        self.sockets.ae_titles |= {"BOTH", "SOCKET"}
        for receiver in AES:
            self.is_seen(receiver)
        self.do(self.bench.clock.advance(0.5 * HOUR))

    def check_completeness(self) -> None:
        ways = {"DIMSE": [self.dimse], "BOTH": [self.dimse], "HOOK": [self.dimse, self.hook]}
        for receiver in AES:
            for channel in ways.get(receiver, [self.sockets]):
                self.check(receiver, {*self._sequences(channel, receiver)}, {channel.name})

    def check(self, receiver: str, sequences: set[int], channels: set[str]) -> None:
        """Everything was told or is dead; a Progress Report may have made way for a newer one."""
        letters = self.bench.management.dead_letters(receiver, 0, 100_000)
        dead = {letter.sequence for letter in letters if letter.endpoint.channel in channels}
        for burst in self.bursts:
            if burst.first in dead:
                dead.update(range(burst.first + 1, burst.last + 1))
        newest: dict[str, int] = {}
        for sequence in sorted(sequences | dead):
            sent = self.addressed[receiver].get(sequence)
            if sent is not None and sent.type is EventType.PROGRESS_REPORT:
                newest[sent.uid] = sequence
        for sequence, sent in self.addressed[receiver].items():
            made_way = sent.type is EventType.PROGRESS_REPORT and newest.get(sent.uid, 0) > sequence
            assert made_way or sequence in sequences | dead, (receiver, sequence, channels)
            assert self.bench.delivery.settled(sent)


class DeliveringOnChangingChannels(Delivering):
    """DIMSE addresses come and go, also while the plugin is down: nothing is lost, though it may come late."""

    @rule(receiver=st.sampled_from(AES))
    def the_address_comes_or_goes(self, receiver: str) -> None:
        self.dimse.ae_titles ^= {receiver}

    @invariant()
    def first_occurrences_are_in_order(self) -> None:
        """Not promised across channels."""

    @invariant()
    def repeats_need_a_crash(self) -> None:
        """Not promised across channels."""

    def heal(self) -> None:
        self.sockets.ae_titles |= {*AES}
        self.dimse.ae_titles.add("HOOK")
        super().heal()

    def check_completeness(self) -> None:
        for receiver in AES:
            sequences = {
                sequence for channel in self.channels for sequence in self._sequences(channel, receiver)
            }
            self.check(receiver, sequences, {channel.name for channel in self.channels})


_BOUNDED = hypothesis_settings(
    max_examples=examples(40),
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
Delivering.TestCase.settings = _BOUNDED
DeliveringOnChangingChannels.TestCase.settings = _BOUNDED
TestDelivering = Delivering.TestCase
TestDeliveringOnChangingChannels = DeliveringOnChangingChannels.TestCase
