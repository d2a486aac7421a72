# SPDX-License-Identifier: AGPL-3.0-or-later
"""A model of the worklist by the letter of PS3.4: subscription states, and the events that each AE should receive.

Nothing here is derived or clever. Per AE and UPS there is a state as in Table CC.2.3-2, and every action goes
through its row. Every method says whether the request is carried out; if it is not, nothing has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from orthanc_ups.core.events import Event, EventType
from orthanc_ups.core.workitem import Subscription
from tests.support.service import in_short

NONE, LOCK, NO_LOCK = Subscription.NONE, Subscription.LOCK, Subscription.NO_LOCK


@dataclass
class Told:
    """One expected event.

    Attributes:
        initial: of a global subscribe; it tells the state of when it is made.
        due: False for an initial report that is not, as the AE was subscribed already.
        optional: whether it comes or not, as the AE acted on that very UPS before it was made. Of such acts
            only the last is remembered; a State Report too many does no harm, and none is missed, as that
            act was reported itself or ended the subscription.
    """

    number: int
    what: str
    initial: bool = False
    due: bool = True
    optional: bool = False

    @property
    def must_come(self) -> bool:
        """False if it may be missing."""
        return self.due and not self.optional

    @property
    def may_come(self) -> bool:
        """False if it must not be sent."""
        return self.due or self.optional

    def fits(self, event: Event) -> bool:
        """Whether an event is the expected one."""
        if self.initial:
            mine = event.uid.endswith(f".{self.number}")
            return mine and event.type is EventType.STATE_REPORT
        return in_short(event) == f"{self.number}: {self.what}"


@dataclass
class Ups:
    """A UPS; ``taken_by``: the AEs with a filter that matched it."""

    urgent: bool
    state: str = "SCHEDULED"
    ready: bool = True
    progress: int = 0
    subscriptions: dict[str, Subscription] = field(default_factory=dict)
    taken_by: set[str] = field(default_factory=set)


@dataclass
class Ae:
    """The column "Global", the standing filters (does it want urgent ones? with lock?), and what is expected."""

    everything: Subscription = NONE
    filters: list[tuple[bool, Subscription]] = field(default_factory=list)
    expected: list[Told] = field(default_factory=list)


class Model:
    """See above."""

    def __init__(self, *aes: str) -> None:
        self.aes = {ae: Ae() for ae in aes}
        self.workitems: dict[int, Ups] = {}
        self.gone: set[int] = set()

    # --- events ---

    def _tell(self, number: int, what: str) -> None:
        ups = self.workitems[number]
        for name, ae in self.aes.items():
            if ups.subscriptions[name] is not NONE:
                ae.expected.append(Told(number, what))

    def _initial(self, name: str, number: int, due: bool) -> None:
        self.aes[name].expected.append(Told(number, "", initial=True, due=due))

    def _acted(self, name: str, number: int) -> None:
        """The AE acted on this UPS: see ``Told.optional``."""
        for report in self.aes[name].expected:
            if report.initial and report.number == number:
                report.optional = True

    # --- workitems ---

    def create(self, number: int, urgent: bool) -> bool:
        if number in self.workitems or number in self.gone:
            return False
        ups = self.workitems[number] = Ups(urgent)
        for name, ae in self.aes.items():
            locks = [gives for priority, gives in ae.filters if priority is urgent]
            if locks:
                ups.taken_by.add(name)
            filtered = LOCK if LOCK in locks else NO_LOCK if locks else NONE
            ups.subscriptions[name] = filtered if ae.everything is NONE else ae.everything
        self._tell(number, "SCHEDULED")
        return True

    def _go(self, number: int, before: str, after: str) -> bool:
        ups = self.workitems.get(number)
        if ups is None or ups.state != before:
            return False
        ups.state = after
        self._tell(number, after)
        return True

    def claim(self, number: int) -> bool:
        return self._go(number, "SCHEDULED", "IN PROGRESS")

    def close(self, number: int, state: str) -> bool:
        ups = self.workitems.get(number)
        already = ups is not None and ups.state == state  # a warning, and nothing changes
        return already or self._go(number, "IN PROGRESS", state)

    def request_cancel(self, number: int) -> bool:
        ups = self.workitems.get(number)
        if ups is None or ups.state == "COMPLETED":
            return False
        if ups.state == "SCHEDULED":
            self._go(number, "SCHEDULED", "IN PROGRESS")
            self._go(number, "IN PROGRESS", "CANCELED")
        elif ups.state == "IN PROGRESS":
            if all(state is NONE for state in ups.subscriptions.values()):
                return False
            self._tell(number, "event 2")
        return True

    def set_readiness(self, number: int, ready: bool) -> bool:
        ups = self.workitems.get(number)
        if ups is None or ups.state in ("COMPLETED", "CANCELED"):
            return False
        if ups.ready is not ready:
            ups.ready = ready
            self._tell(number, ups.state)
        return True

    def set_progress(self, number: int, percent: int) -> bool:
        ups = self.workitems.get(number)
        if ups is None or ups.state in ("COMPLETED", "CANCELED"):
            return False
        if ups.progress != percent:
            ups.progress = percent
            self._tell(number, "event 3")
        return True

    def purge(self, number: int) -> bool:
        ups = self.workitems.get(number)
        if ups is None or ups.state not in ("COMPLETED", "CANCELED") or LOCK in ups.subscriptions.values():
            return False
        del self.workitems[number]
        self.gone.add(number)
        return True

    # --- Table CC.2.3-2, specific ---

    def subscribe(self, name: str, number: int, lock: bool) -> bool:
        ups = self.workitems.get(number)
        if ups is None:
            return False
        ups.subscriptions[name] = LOCK if lock else NO_LOCK
        self._acted(name, number)
        self.aes[name].expected.append(Told(number, ups.state))
        return True

    def unsubscribe(self, name: str, number: int) -> bool:
        ups = self.workitems.get(number)
        if ups is None:
            return False
        ups.subscriptions[name] = NONE
        self._acted(name, number)
        return True

    def release_lock(self, name: str, number: int) -> bool:
        ups = self.workitems.get(number)
        if ups is None:
            return False
        if ups.subscriptions[name] is LOCK:
            ups.subscriptions[name] = NO_LOCK
            self._acted(name, number)
        return True

    # --- Table CC.2.3-2, global ---

    def subscribe_all(self, name: str, lock: bool) -> bool:
        self.aes[name].everything = LOCK if lock else NO_LOCK
        for number in sorted(self.workitems, key=self._by_creation):
            self._take(name, number, lock)
        return True

    def subscribe_some(self, name: str, urgent: bool, lock: bool) -> bool:
        self.aes[name].filters.append((urgent, LOCK if lock else NO_LOCK))
        for number in sorted(self.workitems, key=self._by_creation):
            if self.workitems[number].urgent is urgent:
                self.workitems[number].taken_by.add(name)
                self._take(name, number, lock)
        return True

    def _by_creation(self, number: int) -> int:
        return list(self.workitems).index(number)

    def _take(self, name: str, number: int, lock: bool) -> None:
        ups = self.workitems[number]
        before = ups.subscriptions[name]
        if before is NONE:
            ups.subscriptions[name] = LOCK if lock else NO_LOCK
        if lock:
            self._initial(name, number, due=before is NONE)

    def suspend_all(self, name: str) -> bool:
        self.aes[name].everything = NONE
        return True

    def suspend_some(self, name: str) -> bool:
        self.aes[name].filters.clear()
        return True

    def unsubscribe_all(self, name: str) -> bool:
        self.aes[name].everything = NONE
        self._forget_filters(name)
        for number, ups in self.workitems.items():
            ups.subscriptions[name] = NONE
            self._acted(name, number)
        return True

    def unsubscribe_some(self, name: str) -> bool:
        for number, ups in self.workitems.items():
            if name in ups.taken_by:
                ups.subscriptions[name] = NONE
                self._acted(name, number)
        self._forget_filters(name)
        return True

    def _forget_filters(self, name: str) -> None:
        self.aes[name].filters.clear()
        for ups in self.workitems.values():
            ups.taken_by.discard(name)


def reached(events: list[Event], expected: list[Told]) -> set[int]:
    """How many of the expected events were received; several answers if some may be missing.

    Fails if something was told that is not expected there.
    """
    result = {0}
    for event in events:
        result = {position + 1 for start in result for position in _places(event, expected, start)}
        assert result, f"{event} was not expected now"
    return result


def _places(event: Event, expected: list[Told], start: int) -> Iterator[int]:
    """The positions at which an event may be expected, if none that must come is skipped."""
    for position in range(start, len(expected)):
        if expected[position].may_come and expected[position].fits(event):
            yield position
        if expected[position].must_come:
            return
