# SPDX-License-Identifier: AGPL-3.0-or-later
"""When waiting events become dead letters, and how."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from ..store.port import StoreUnavailable
from .dead_letters import BATCH
from .line import Line, Waiting, is_transient, kind_of
from .port import Endpoint
from .state import DeliveryState
from .tally import Tally

_log = logging.getLogger("orthanc_ups.delivery")


class Expiry:
    """Gives up events of one waiting line: they are stored as dead letters before the line lets go of them."""

    __slots__ = ("_endpoint", "_failing", "_is_told", "_line", "_moved", "_state", "_tally")

    def __init__(
        self, endpoint: Endpoint, line: Line, tally: Tally, state: DeliveryState, moved: Callable[[], None]
    ) -> None:
        self._endpoint = endpoint
        self._line = line
        self._tally = tally
        self._state = state
        self._moved = moved
        self._is_told = False
        self._failing = False

    @property
    def is_due(self) -> bool:
        """True if more events wait than may."""
        return len(self._line) > self._state.settings.maximum_pending_per_subscriber

    def ends(self) -> None:
        """The receiver takes events again: what is given up next is news for the log."""
        self._is_told = False

    async def give_up_what_is_due(self) -> None:
        """Give up what waited too long, and the oldest of what is too much.

        Of what is too much, up to a tenth goes at once (at most 100 events), to spare writes. While the
        store takes nothing, everything stays in the line.
        """
        try:
            await self._give_up_what_is_due()
        except StoreUnavailable as error:
            if not self._failing:
                _log.error("Dead letters of %s cannot be stored and wait on: %s", self._endpoint, error)
            self._failing = True
        else:
            self._failing = False

    async def _give_up_what_is_due(self) -> None:
        settings = self._state.settings
        moment = self._state.clock.now() - settings.dead_letter_after
        while settings.dead_letter_after and (old := self._line.older_than(moment, BATCH)):
            await self.give_up(old, f"not delivered within {in_words(settings.dead_letter_after)}")
        maximum = settings.maximum_pending_per_subscriber
        while self.is_due:
            oldest = self._line.oldest(min(BATCH, max(1, maximum // 10)))
            await self.give_up(oldest, f"more than {maximum} events waited")

    async def give_up(self, items: Sequence[Waiting], reason: str) -> None:
        """Make some of the line dead letters, but no SCP Status Change: a later one makes it worthless.

        Raises StoreUnavailable; then they stay in the line.
        """
        lasting = [item for item in items if not is_transient(item)]
        if lasting:
            await self._state.dead.add(self._endpoint, lasting, reason)
            self._tell(reason)
        self._line.strike(items)
        for item in items:
            counts = self._state.counts.of(self._endpoint.channel)
            (counts.lost if is_transient(item) else counts.dead)[kind_of(item)] += 1
        self._tally.dead += len(lasting)
        self._moved()

    def _tell(self, reason: str) -> None:
        if not self._is_told:
            self._is_told = True
            _log.error("Events for %s go to the dead letters: %s", self._endpoint, reason)


def in_words(seconds: float) -> str:
    """A duration for people."""
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} seconds"
