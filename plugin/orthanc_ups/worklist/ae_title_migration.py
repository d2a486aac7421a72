# SPDX-License-Identifier: AGPL-3.0-or-later
"""Joins entries that are stored under several spellings of an AE title, before anything is delivered.

Worklists written before titles were compared as Orthanc compares them may hold several spellings, and the spelling in
``DicomModalities`` may have changed while Orthanc was off. Cursors and dead letters are moved first, then workitems
with their waiting events, and the logs of global acts last, as the state of each workitem follows from them. Each step
writes one entry and can be repeated: if it is interrupted, the next start continues.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Final

from ..core.ae_titles import AeTitles
from ..core.events import Event
from ..core.subscriptions import joined, strongest
from ..core.workitem import SpecificAct, Workitem
from ..delivery.documents import (
    Batch,
    Progress,
    decode_batch,
    decode_progress,
    encode_batch,
    encode_progress,
    joined_titles,
)
from ..delivery.port import Burst, Endpoint
from ..delivery.queue import Waiting, sequence_of
from ..projection.projection import Projection
from ..store import keys
from ..store.documents import UnreadableDocument, encode, encode_events, encode_log
from ..store.port import Entry, StoreUnavailable
from ..store.writer import Conflict, Writer
from .loader import Stored, bursts, unsettled_events
from .subscriptions import Subscriptions

_log = logging.getLogger("orthanc_ups.worklist")
_NEVER: Final = float("inf")


@dataclass(frozen=True, slots=True)
class _Reach:
    """How far delivery had come for one stored title."""

    channels: Mapping[str, Progress]

    def cursor(self, channel: str) -> int:
        """The cursor of a channel; of a channel without one, the cursor of the slowest channel."""
        cursors = {
            name: progress.cursor for name, progress in self.channels.items() if progress.cursor is not None
        }
        return cursors.get(channel, min(cursors.values(), default=0))

    def dropped(self, channel: str) -> tuple[int, ...]:
        return self.channels[channel].dropped if channel in self.channels else ()


class AeTitleMigration:
    """Runs once per start, before delivery is loaded."""

    def __init__(self, writer: Writer, projection: Projection, titles: AeTitles) -> None:
        self._writer = writer
        self._projection = projection
        self._titles = titles

    async def run(self, stored: Stored, subscriptions: Subscriptions, last: int) -> bool:
        """Respell and join what is stored. Returns True if anything was changed; then the store must be read again.

        Args:
            stored: everything but the workitems, which are in the projection.
            subscriptions: knows every AE title that subscribed to anything.
            last: a sequence greater than all that are in use.

        Raises:
            StoreUnavailable: not finished; call it again.
        """
        titles = self._respelled(stored, subscriptions)
        if not titles:
            return False
        for title, names in titles.items():
            others = ", ".join(name for name in names if name != title)
            _log.warning("AE title %s: what was stored as %s is being joined with it", title, others)
        try:
            await _Joining(self._writer, self._projection, stored, titles, last).run()
        except Conflict as conflict:
            raise StoreUnavailable(
                "the worklist was changed while AE titles were joined", certain=True
            ) from conflict
        _log.warning("Joined the spellings of %d AE titles", len(titles))
        return True

    def _respelled(self, stored: Stored, subscriptions: Subscriptions) -> dict[str, tuple[str, ...]]:
        """The stored spellings of each AE title that is stored under any spelling but the one in use."""
        first = {log.receiving_ae: log.acts[0].sequence for log, _ in stored.logs if log.acts}
        names = {*subscriptions.aes(), *_stored_titles(stored.delivery)}
        spellings: dict[str, list[str]] = {}
        for name in sorted(names, key=lambda name: (first.get(name, _NEVER), name)):
            spellings.setdefault(self._titles.use(name), []).append(name)
        return {title: tuple(names) for title, names in spellings.items() if names != [title]}


class _Joining:
    """The steps, in order."""

    def __init__(
        self,
        writer: Writer,
        projection: Projection,
        stored: Stored,
        titles: Mapping[str, Sequence[str]],
        last: int,
    ) -> None:
        self._writer = writer
        self._projection = projection
        self._stored = stored
        self._names = {title: tuple(dict.fromkeys((title, *names))) for title, names in titles.items()}
        self._spelling = {name: title for title, names in self._names.items() for name in names}
        self._last = last
        self._logs = {log.receiving_ae: log for log, _ in stored.logs}
        self._versions = {log.receiving_ae: version for log, version in stored.logs}
        self._batches = list(_batches(stored.delivery))
        self._dead: dict[tuple[str, str], set[int]] = {}
        for _, batch in self._batches:
            key = batch.endpoint.receiving_ae, batch.endpoint.channel
            self._dead.setdefault(key, set()).update(map(sequence_of, batch.letters))

    async def run(self) -> None:
        await self._join_progress()
        await self._join_dead_letters()
        await self._join_workitems()
        await self._respell_overflows()
        self._projection.respell_receivers(self._spelling)
        await self._join_logs()

    # --- delivery ---

    async def _join_progress(self) -> None:
        entries = dict(_progress_entries(self._stored.delivery))
        workitems = self._projection.with_events_after(0)
        events = unsettled_events(workitems, self._stored.overflows)
        for title, names in self._names.items():
            progress = {name: entries[name] for name in names if name in entries}
            if progress.keys() - {title}:
                await self._write_progress(title, progress, events)

    async def _write_progress(
        self, title: str, entries: Mapping[str, Entry], events: Sequence[Event]
    ) -> None:
        done = joined_titles(entries[title].document) if title in entries else frozenset()
        document = self._joined_progress(title, entries, done, events)
        if entries.keys() - {title} - done:
            await self._write(keys.progress(title), document, entries.get(title))
        for name, entry in entries.items():
            if name != title:
                await self._writer.discard(entry.key, entry.version)

    def _joined_progress(
        self, title: str, entries: Mapping[str, Entry], done: frozenset[str], events: Sequence[Event]
    ) -> bytes:
        """``done``: the titles that were joined before the last start was interrupted."""
        decoded = {
            name: decode_progress(entry.document) for name, entry in entries.items() if name not in done
        }
        reaches = {name: _Reach(channels) for name, (_, _, channels) in decoded.items()}
        titles = {*reaches, *done}
        waiting = {name for event in events for name in event.receivers} | self._logs.keys()
        for name in self._names[title]:
            if name in done:
                reaches[name] = reaches[title]
            elif name not in titles and name in waiting:
                reaches[name] = _Reach({})  # nothing is known to have been delivered to it
        channels = {channel: None for reach in reaches.values() for channel in reach.channels}
        revision = max(revision for _, revision, _ in decoded.values()) + 1
        progress = {channel: self._channel(channel, reaches, done, title, events) for channel in channels}
        return encode_progress(title, revision, progress, joined={*done, *entries} - {title})

    def _channel(
        self,
        channel: str,
        reaches: Mapping[str, _Reach],
        done: frozenset[str],
        title: str,
        events: Sequence[Event],
    ) -> Progress:
        cursor = min(reach.cursor(channel) for reach in reaches.values())
        passed = [
            event.sequence
            for event in events
            if event.sequence > cursor and self._is_past(event, channel, reaches)
        ]
        reported = [
            burst.first
            for name, reach in reaches.items()
            for burst in self._bursts(name)
            if cursor < burst.last <= reach.cursor(channel)
        ]
        stored = [
            reaches[name].channels[channel]
            for name in reaches.keys() - done
            if channel in reaches[name].channels
        ]
        durable = any(progress.cursor is not None for progress in stored)
        return Progress(
            cursor if durable else None,
            tuple(sorted({*passed, *reported})),
            _tally([progress.tally for progress in stored]),
        )

    def _bursts(self, name: str) -> Iterator[Burst]:
        return bursts([self._logs[name]] if name in self._logs else [])

    def _is_past(self, event: Event, channel: str, reaches: Mapping[str, _Reach]) -> bool:
        """True if the event was delivered under a title of the receiver, or given up under all of them."""
        addressed = [(name, reaches[name]) for name in event.receivers if name in reaches]
        given_up = [self._is_given_up(event, name, channel, reach) for name, reach in addressed]
        behind = [event.sequence <= reach.cursor(channel) for _, reach in addressed]
        delivered = any(past and not is_given_up for past, is_given_up in zip(behind, given_up, strict=True))
        return bool(addressed) and (delivered or all(given_up))

    def _is_given_up(self, event: Event, name: str, channel: str, reach: _Reach) -> bool:
        return event.sequence in reach.dropped(channel) or event.sequence in self._dead.get(
            (name, channel), ()
        )

    async def _join_dead_letters(self) -> None:
        written: dict[Endpoint, set[int]] = {}
        present = {entry.key: entry for entry, _ in self._batches}
        for (name, channel), sequences in self._dead.items():
            if name in self._names:
                written[Endpoint(name, channel)] = set(sequences)
        for entry, batch in self._batches:
            name = batch.endpoint.receiving_ae
            title = self._spelling.get(name, name)
            if title == name:
                continue
            endpoint = replace(batch.endpoint, receiving_ae=title)
            sequences = written.setdefault(endpoint, set())
            letters = [
                self._letter(letter, title)
                for letter in batch.letters
                if sequence_of(letter) not in sequences
            ]
            if letters:
                await self._write_batch(replace(batch, endpoint=endpoint, letters=tuple(letters)), present)
                sequences.update(map(sequence_of, letters))
            await self._writer.discard(entry.key, entry.version)

    def _letter(self, letter: Waiting, title: str) -> Waiting:
        if isinstance(letter, Event):
            return replace(letter, receivers=(title,))
        return replace(letter, burst=replace(letter.burst, receiving_ae=title))

    async def _write_batch(self, batch: Batch, present: Mapping[str, Entry]) -> None:
        """Store a batch under the key of its first letter, joined with what is stored there."""
        endpoint = batch.endpoint
        key = keys.dead_letters(endpoint.receiving_ae, endpoint.channel, sequence_of(batch.letters[0]))
        if key in present:  # that batch was emptied by hand, or this is the rest of it
            older = decode_batch(present[key].document)
            letters = {sequence_of(letter): letter for letter in (*older.letters, *batch.letters)}
            batch = replace(batch, letters=tuple(letters[name] for name in sorted(letters)))
        await self._write(key, encode_batch(batch, 1), present.get(key))

    # --- workitems ---

    async def _join_workitems(self) -> None:
        written: set[str] = set()
        for workitem in chain(self._projection.with_acts(), self._projection.with_events_after(0)):
            after = self._respelled(workitem)
            if after is not workitem and workitem.uid not in written:
                written.add(workitem.uid)
                before = self._projection.get(workitem.uid)
                assert before is not None
                await self._writer.write(keys.workitem(workitem.uid), encode(after), before.version)

    def _respelled(self, workitem: Workitem) -> Workitem:
        acts = self._acts(workitem)
        events = self._events(workitem.events)
        if acts == workitem.acts and events == workitem.events:
            return workitem
        return replace(workitem, acts=acts, events=events, revision=workitem.revision + 1)

    def _acts(self, workitem: Workitem) -> Mapping[str, SpecificAct]:
        """The acts, in which those of all spellings of a joined title are replaced by their combined effect."""
        titles = {self._spelling[name] for name in workitem.acts if name in self._spelling}
        acts = {name: act for name, act in workitem.acts.items() if name not in self._spelling}
        for title in sorted(titles):
            act = workitem.acts.get(title)
            if act is not None and act.sequence >= self._last:  # joined before the last start was interrupted
                acts[title] = act
            else:
                state = strongest(self._names[title], self._logs, workitem)
                acts[title] = replace(state, sequence=self._last)
        return acts

    def _events(self, events: Iterable[Event]) -> tuple[Event, ...]:
        return tuple(map(self._event, events))

    def _event(self, event: Event) -> Event:
        receivers = tuple(sorted({self._spelling.get(name, name) for name in event.receivers}))
        return event if set(receivers) == set(event.receivers) else replace(event, receivers=receivers)

    async def _respell_overflows(self) -> None:
        for overflow in self._stored.overflows:
            events = self._events(overflow.events)
            if events != overflow.events:
                document = encode_events(overflow.uid, events)
                await self._writer.write(overflow.key, document, overflow.version)

    # --- global acts ---

    async def _join_logs(self) -> None:
        for title, names in self._names.items():
            logs = [self._logs[name] for name in names if name in self._logs]
            if not [log for log in logs if log.receiving_ae != title]:
                continue
            document = encode_log(
                joined(title, logs) if len(logs) > 1 else replace(logs[0], receiving_ae=title)
            )
            await self._writer.write(keys.subscriber(title), document, self._versions.get(title))
            for log in logs:
                if log.receiving_ae != title:
                    await self._writer.discard(
                        keys.subscriber(log.receiving_ae), self._versions[log.receiving_ae]
                    )

    async def _write(self, key: str, document: bytes, entry: Entry | None) -> None:
        await self._writer.write(key, document, entry.version if entry else None)


def _stored_titles(entries: Iterable[Entry]) -> Iterator[str]:
    yield from (name for name, _ in _progress_entries(entries))
    yield from (batch.endpoint.receiving_ae for _, batch in _batches(entries))


def _progress_entries(entries: Iterable[Entry]) -> Iterator[tuple[str, Entry]]:
    for entry in entries:
        if entry.key.startswith(keys.PROGRESS):
            try:
                yield decode_progress(entry.document)[0], entry
            except UnreadableDocument:
                continue  # delivery reports it


def _batches(entries: Iterable[Entry]) -> Iterator[tuple[Entry, Batch]]:
    for entry in entries:
        if entry.key.startswith(keys.DEAD_LETTERS):
            try:
                yield entry, decode_batch(entry.document)
            except UnreadableDocument:
                continue  # delivery reports it


def _tally(tallies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The sum of the counts, and the latest of all other values."""
    if not tallies:
        return {}
    latest = max(tallies, key=lambda tally: tally.get("last_error_at") or 0)
    return {
        **{
            name: sum(int(tally.get(name, 0)) for tally in tallies)
            for name in ("delivered", "failed", "dead")
        },
        "last_success_at": max(tally.get("last_success_at") or 0 for tally in tallies) or None,
        "last_error": latest.get("last_error", ""),
        "last_error_at": latest.get("last_error_at"),
    }
