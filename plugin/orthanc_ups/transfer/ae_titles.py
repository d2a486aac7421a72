# SPDX-License-Identifier: AGPL-3.0-or-later
"""Brings the AE titles of an export under the spellings that they have here, and joins those that are the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from ..core.events import Event
from ..core.subscriptions import Log, joined, strongest
from ..core.workitem import SpecificAct, Workitem
from ..delivery.documents import Batch, Progress
from ..delivery.line import Waiting
from .records import Reach, Record


class Respelling:
    """Respells the records of one export, which come in the order in which an export has them."""

    def __init__(self, spelled: Callable[[str], str]) -> None:
        """``spelled``: the one spelling here of an AE title."""
        self._spelled = spelled
        self._logs: dict[str, Log] = {}
        self._reaches: dict[str, Reach] = {}

    def respelled(self, record: Record) -> Record:
        """The record with the spellings of here; what came under other spellings before is joined to it."""
        if isinstance(record, Log):
            return self._log(record)
        if isinstance(record, Reach):
            return self._reach(record)
        if isinstance(record, Workitem):
            return self._workitem(record)
        return self._batch(record) if isinstance(record, Batch) else record

    def _log(self, log: Log) -> Log:
        title = self._spelled(log.receiving_ae)
        self._logs[log.receiving_ae] = log
        logs = [other for name, other in self._logs.items() if self._spelled(name) == title]
        return joined(title, logs) if len(logs) > 1 else replace(log, receiving_ae=title)

    def _reach(self, reach: Reach) -> Reach:
        title = self._spelled(reach.receiving_ae)
        other = self._reaches.get(title)
        channels = reach.channels if other is None else _joined_channels(other.channels, reach.channels)
        self._reaches[title] = Reach(title, channels)
        return self._reaches[title]

    def _workitem(self, workitem: Workitem) -> Workitem:
        names: dict[str, list[str]] = {}
        for name in (*workitem.acts, *self._logs):
            names.setdefault(self._spelled(name), []).append(name)
        acts = {
            title: self._act(list(dict.fromkeys(own)), workitem)
            for title, own in names.items()
            if not workitem.acts.keys().isdisjoint(own)
        }
        return replace(workitem, acts=acts, events=tuple(map(self._event, workitem.events)))

    def _act(self, names: list[str], workitem: Workitem) -> SpecificAct:
        acts = [workitem.acts[name] for name in names if name in workitem.acts]
        if len(names) == 1:
            return acts[0]
        return replace(strongest(names, self._logs, workitem), sequence=max(act.sequence for act in acts))

    def _event(self, event: Event) -> Event:
        return replace(event, receivers=tuple(sorted({self._spelled(name) for name in event.receivers})))

    def _batch(self, batch: Batch) -> Batch:
        title = self._spelled(batch.endpoint.receiving_ae)
        letters = tuple(self._letter(letter, title) for letter in batch.letters)
        return replace(batch, endpoint=replace(batch.endpoint, receiving_ae=title), letters=letters)

    def _letter(self, letter: Waiting, title: str) -> Waiting:
        if isinstance(letter, Event):
            return replace(letter, receivers=(title,))
        return replace(letter, burst=replace(letter.burst, receiving_ae=title))


def _joined_channels(first: Mapping[str, Progress], second: Mapping[str, Progress]) -> dict[str, Progress]:
    """The lower cursors: rather an event twice than one too few. What either gave up, both gave up."""
    return {name: _joined_progress(first.get(name), second.get(name)) for name in {**first, **second}}


def _joined_progress(first: Progress | None, second: Progress | None) -> Progress:
    if first is None or second is None:
        present = first or second
        assert present is not None
        return present
    cursors = [progress.cursor for progress in (first, second) if progress.cursor is not None]
    dropped = tuple(sorted({*first.dropped} & {*second.dropped}))
    return Progress(min(cursors, default=None), dropped, first.tally)
