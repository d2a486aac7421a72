# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads the whole worklist as records, while it remains in use."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Final

from ..core.workitem import Workitem
from ..delivery.queue import sequence_of
from ..modality.performed_step_store import PerformedSteps
from ..worklist.commits import Commits
from ..worklist.state import WorklistState
from .records import AeCursors, Head, Purged, Record, Tail

_CHUNK: Final = 100
_NO_LIMIT: Final = 2**62


@dataclass(frozen=True, slots=True)
class Position:
    """A position in an export: after the record ``key`` of a ``section``. ``str`` returns it as text."""

    section: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.section}/{self.key}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Parse the text of a position. Raises ValueError."""
        section, separator, key = text.partition("/")
        number = key.rpartition("\n")[2] if section in _NUMBERED else "0"
        if not separator or section not in SECTIONS or (key and not _is_number(number)):
            raise ValueError(f"not a position of an export: {text[:80]!r}")
        return cls(section, key)


SECTIONS: Final = (
    "head",
    "subscribers",
    "deliveries",
    "workitems",
    "purged",
    "performed_steps",
    "dead_letters",
)
_NUMBERED: Final = ("workitems", "dead_letters")


class Exporter:
    """Produces the records of an export. Runs on the loop, and yields to it after every hundred records."""

    def __init__(self, state: WorklistState, commits: Commits, steps: PerformedSteps) -> None:
        self._state = state
        self._commits = commits
        self._steps = steps

    async def records(self, after: Position | None = None) -> AsyncIterator[tuple[Record, Position]]:
        """Every record after a position (None: from the beginning), each with its own position.

        Raises:
            UpsError: the search index is being rebuilt; continue later from the last position.
        """
        if after is None:
            yield self._head(), Position("head")
        start = after or Position("head")
        for section in SECTIONS[max(1, SECTIONS.index(start.section)) :]:
            key = start.key if section == start.section else ""
            async for record, record_key in self._section(section, key):
                yield record, Position(section, record_key)
        yield Tail(self._state.order.next, self._commits.next_creation), Position(SECTIONS[-1], _END)

    async def _section(self, section: str, after: str) -> AsyncIterator[tuple[Record, str]]:
        if section == "workitems":
            async for workitem in self._workitems(int(after or 0)):
                yield workitem, str(workitem.created)
            return
        readers = {
            "subscribers": self._logs,
            "deliveries": self._cursors,
            "purged": self._purged,
            "performed_steps": self._performed_steps,
            "dead_letters": self._dead_letters,
        }
        for count, record_and_key in enumerate(readers[section](after)):
            yield record_and_key
            if count % _CHUNK == 0:
                await asyncio.sleep(0)

    def _head(self) -> Head:
        state = self._state
        counts = {
            "subscribers": len(state.subscriptions.logs()),
            "workitems": state.workitems.count(),
            "purged": len(state.workitems.tombstones),
            "performed_steps": len(self._steps),
            "dead_letters": sum(map(state.delivery.dead.count, state.delivery.dead.endpoints())),
        }
        return Head(
            state.worklist_entry.identity,
            state.order.next,
            self._commits.next_creation,
            state.now().timestamp(),
            counts,
            state.worklist_entry.origins,
        )

    def _logs(self, after: str) -> Iterator[tuple[Record, str]]:
        logs = {log.receiving_ae: log for log in self._state.subscriptions.logs() if log.receiving_ae > after}
        yield from ((logs[name], name) for name in sorted(logs))

    def _cursors(self, after: str) -> Iterator[tuple[Record, str]]:
        for name, channels in self._state.delivery.progress():
            if name > after:
                yield AeCursors(name, channels), name

    async def _workitems(self, after: int) -> AsyncIterator[Workitem]:
        while workitems := self._state.workitems.created(after, _NO_LIMIT, _CHUNK):
            for workitem in workitems:
                yield self._with_all_events(workitem)
            after = workitems[-1].created
            await asyncio.sleep(0)

    def _with_all_events(self, workitem: Workitem) -> Workitem:
        """The workitem with the events of its overflow entries, by sequence."""
        overflows = self._state.overflows.of(workitem.uid)
        events = {event.sequence: event for overflow in overflows for event in overflow.events}
        events.update((event.sequence, event) for event in workitem.events)
        return replace(workitem, events=tuple(events[sequence] for sequence in sorted(events)), spilled=())

    def _purged(self, after: str) -> Iterator[tuple[Record, str]]:
        tombstones = self._state.workitems.tombstones
        while uids := heapq.nsmallest(_CHUNK, (uid for uid in tombstones if uid > after)):
            yield from ((Purged(uid, tombstones[uid].last), uid) for uid in uids if uid in tombstones)
            after = uids[-1]

    def _performed_steps(self, after: str) -> Iterator[tuple[Record, str]]:
        identity = self._state.worklist_entry.identity
        for uid in sorted(uid for uid in self._steps.newest() if uid > after):
            step = self._steps.get(uid)
            if step is not None:
                yield replace(step, worklist=step.worklist or identity), uid

    def _dead_letters(self, after: str) -> Iterator[tuple[Record, str]]:
        """Dead letters by endpoint and age. AE titles and names of channels contain no line feed."""
        dead = self._state.delivery.dead
        exported, _, last = after.rpartition("\n")
        for endpoint in sorted(
            dead.endpoints(), key=lambda endpoint: (endpoint.receiving_ae, endpoint.channel)
        ):
            name = f"{endpoint.receiving_ae}\n{endpoint.channel}"
            for batch in dead.batches(endpoint) if name >= exported else ():
                first = min(map(sequence_of, batch.letters), default=0)
                if batch.letters and (name > exported or first > int(last)):
                    yield batch, f"{name}\n{first}"


_END: Final = "\uffff\n0"


def _is_number(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 19
