# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which store keeps the worklist (``Ups.Store``), and the move of the worklist when that changes.

``key-value`` needs an Orthanc whose index has key-value stores, and leaves no trace in the PACS. ``metadata`` works
everywhere and has compare-and-set for several nodes, at the price of a pseudo patient. ``auto`` takes key-value where
Orthanc has it, unless several Orthancs may share the database: key-value stores have no compare-and-set.

A move happens before the worklist is read. The entry ``move`` in the target says how far it is, so that each step can
be repeated if the process is killed at any moment:

=============  ==========================================================================================
``move``       state
=============  ==========================================================================================
absent         no move: at most one of the stores has a worklist, and it is complete
``copying``    the source is complete, the target is not: start again with an empty target
``emptying``   the target is complete: delete what remains in the source
=============  ==========================================================================================

Example: ``metadata`` held the worklist and ``key-value`` is chosen. ``move`` is created in the key-value store with
``copying``, each entry is copied, ``move`` is replaced by ``emptying``, the pseudo patient is deleted, ``move`` is
removed. If the choice is reverted in between, the unfinished copy is dropped, or the finished one is moved back.

Both stores may hold a worklist of their own, for instance after an older Orthanc was used for a while. Then one is used
and the other set aside: it is left as it is, except for the entry ``aside``, by which later starts recognize it. The
choice says which one is used; ``auto`` keeps the one that was used last.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from ..orthanc.loopback import Loopback
from ..settings import AUTO, KEY_VALUE, METADATA
from . import keys, shelves
from .copy import Copies
from .key_value import KeyValueEntries
from .metadata import OrthancEntries
from .port import Entries, Entry, ShelvesLost, StoreUnavailable
from .shelf_set import WITHOUT_CHECK_REVISIONS, StoreMisconfigured

_MOVE: Final = "move"
_ASIDE: Final = "aside"
_CONTROL: Final = frozenset({_MOVE, _ASIDE, keys.INDEX_MARK})
_COPYING: Final = b"copying"
_EMPTYING: Final = b"emptying"


class TwoWorklists(Exception):
    """Both stores have a worklist of their own, and nothing says which one is in use."""


class MovableEntries(Entries, Protocol):
    """Entries that can be deleted all at once. Every method may raise StoreUnavailable."""

    async def exists(self) -> bool:
        """True if Orthanc has anything of this store; False proves that there are no entries."""
        ...

    async def discard(self) -> None:
        """Delete every entry and everything else of the store: nothing of it remains in Orthanc."""
        ...


async def move_worklist(source: MovableEntries, target: MovableEntries) -> int:
    """Move the worklist to the target, and return how many entries were copied.

    Does nothing if the source is empty. May be repeated after a failure or a crash at any moment. The target is open.

    Raises:
        TwoWorklists: both have one, and neither is the unfinished copy of the other.
        StoreUnavailable: not finished; call it again.
    """
    if not await source.exists():
        await _remove(target, _MOVE)
        return 0
    await _settle_opposite_move(source, target)
    step = await target.read(_MOVE)
    if step is not None and step.document == _EMPTYING:
        await source.discard()
        await _remove(target, _MOVE)
        return 0
    if await _is_empty(source):
        await source.discard()
        return 0
    if step is None and not await _is_empty(target):
        raise TwoWorklists
    await _clear(target)
    version = await target.create(_MOVE, _COPYING)
    copied = await _copy(source, target)
    await target.replace(_MOVE, _EMPTYING, version)
    await source.discard()
    await _remove(target, _MOVE)
    return copied


async def _settle_opposite_move(source: MovableEntries, target: MovableEntries) -> None:
    """A move out of the target was interrupted: drop its unfinished copy, or finish it, so that it can be undone."""
    step = await source.read(_MOVE)
    if step is None:
        return
    if step.document == _COPYING:
        await _clear(source)
        return
    await _clear(target)
    await source.remove(_MOVE, step.version)


async def _is_empty(entries: MovableEntries) -> bool:
    async for chunk in entries.load():
        if any(entry.key not in _CONTROL for entry in chunk):
            return False
    return True


async def _clear(entries: MovableEntries) -> None:
    """Remove every entry, ``move`` last, because it says what the rest is."""
    async for chunk in entries.load():
        for entry in chunk:
            if entry.key != _MOVE:
                await entries.remove(entry.key, entry.version)
    await _remove(entries, _MOVE)


async def _copy(source: MovableEntries, target: MovableEntries) -> int:
    copied = 0
    async for chunk in source.load():
        for entry in chunk:
            if entry.key not in _CONTROL:
                await target.create(entry.key, entry.document)
                copied += 1
    return copied


async def _remove(entries: MovableEntries, key: str) -> None:
    entry = await entries.read(key)
    if entry is not None:
        await entries.remove(key, entry.version)


_log = logging.getLogger("orthanc_ups.store")

TWO_WORKLISTS: Final = (
    "both Orthanc's key-value store and its metadata hold a worklist, and it is unknown which one was used last: set "
    '"Ups.Store" to "key-value" or "metadata" to choose one; the other one is set aside, and can be exported '
    "by choosing it for a while"
)
WITHOUT_KEY_VALUE_STORES: Final = (
    '"Ups.Store" is "key-value", but this Orthanc or its index has no key-value stores '
    '(Orthanc 1.12.8 or later with SQLite); use "auto" or "metadata"'
)
SHARED_KEY_VALUE_STORE: Final = (
    '"Ups.Store" is "key-value", but "Lock" of the index plugin is false: several Orthancs may open the '
    'database, and key-value stores have no compare-and-set; use "auto" or "metadata"'
)

StoreEntries: TypeAlias = KeyValueEntries | OrthancEntries


@dataclass(frozen=True, slots=True)
class StoreConditions:
    """The settings that decide which store can be used.

    Attributes:
        choice: ``Ups.Store``: ``auto``, ``key-value`` or ``metadata``.
        check_revisions: ``CheckRevisions`` of Orthanc.
        shares_database: True if other Orthancs may open the same database (``PostgreSQL.Lock`` is false).
    """

    choice: str
    check_revisions: bool
    shares_database: bool


async def open_store(
    conditions: StoreConditions,
    loopback: Loopback,
    key_value: KeyValueEntries | None,
    metadata: OrthancEntries,
    copies: Copies,
) -> StoreEntries:
    """Open the chosen store, after moving the worklist into it if the other one has it. Can be repeated.

    ``key_value`` is None if the Python plugin has no calls for key-value stores. ``copies`` has the
    entries that somebody may have deleted from metadata.

    Raises:
        StoreMisconfigured: the chosen store cannot be used; the text names the setting.
        StoreUnavailable: try again later.
    """
    usable = key_value if await _has_key_value_stores(loopback) else None
    if conditions.choice == KEY_VALUE and usable is None:
        raise StoreMisconfigured(WITHOUT_KEY_VALUE_STORES)
    if conditions.choice == KEY_VALUE and conditions.shares_database:
        raise StoreMisconfigured(SHARED_KEY_VALUE_STORE)
    if usable is not None and _prefers_key_value(conditions):
        await usable.open()
        surviving = SurvivingEntries(metadata, copies)
        choose = last_used if conditions.choice == AUTO else None
        if await settle(surviving, usable, copies, choose) is usable:
            return usable
    if not conditions.check_revisions:
        raise StoreMisconfigured(WITHOUT_CHECK_REVISIONS)
    await metadata.open()
    if usable is not None:
        await usable.open()
        if await usable.exists():
            await _complete_if_new(metadata)
            await settle(usable, metadata, copies)
        await usable.close()
    return metadata


async def _complete_if_new(metadata: OrthancEntries) -> None:
    """Mark new shelves as complete, so that they can be written to."""
    entries = [entry async for chunk in metadata.load() for entry in chunk]
    if metadata.incomplete and not entries:
        await metadata.restore(_no_entries())


async def _no_entries() -> AsyncIterator[Entry]:
    empty: tuple[Entry, ...] = ()
    for entry in empty:
        yield entry


def _prefers_key_value(conditions: StoreConditions) -> bool:
    return conditions.choice == KEY_VALUE or (conditions.choice == AUTO and not conditions.shares_database)


async def _has_key_value_stores(loopback: Loopback) -> bool:
    reply = await loopback.request("GET", "/system")
    if reply.status != 200:
        raise StoreUnavailable(f"cannot read /system: Orthanc answered {reply}", certain=True)
    capabilities: Any = reply.json().get("Capabilities", {})
    return isinstance(capabilities, dict) and capabilities.get("HasKeyValueStores") is True


class SurvivingEntries:
    """The entries to move from metadata, including the copies of those that somebody deleted there."""

    def __init__(self, metadata: OrthancEntries, copies: Copies) -> None:
        self.name = metadata.name
        self._metadata = metadata
        self._copies = copies

    async def exists(self) -> bool:
        """True if there is or was any entry."""
        return await self._metadata.exists() or any(True for _ in self._copies.entries())

    async def load(self) -> AsyncIterator[list[Entry]]:
        """Every stored entry, then the copies of those that were on shelves which are now incomplete."""
        stored: set[str] = set()
        async for chunk in self._metadata.load():
            stored.update(entry.key for entry in chunk)
            yield chunk
        deleted = [
            entry
            for entry in self._copies.entries()
            if entry.key not in stored and self._metadata.incomplete & shelves.shelves_of(entry.key)
        ]
        if deleted:
            _log.warning("Took %d deleted entries of the worklist from the copy", len(deleted))
            yield deleted

    async def read(self, key: str) -> Entry | None:
        """One entry; None if it does not exist or was deleted."""
        try:
            return await self._metadata.read(key)
        except ShelvesLost:
            return None

    async def create(self, key: str, document: bytes) -> str:
        """See ``Entries``."""
        return await self._metadata.create(key, document)

    async def replace(self, key: str, document: bytes, version: str) -> str:
        """See ``Entries``."""
        return await self._metadata.replace(key, document, version)

    async def remove(self, key: str, version: str) -> None:
        """See ``Entries``."""
        await self._metadata.remove(key, version)

    async def discard(self) -> None:
        """Delete the pseudo patient, and forget the copies."""
        await self._metadata.discard()
        self._copies.forget()


class NamedEntries(MovableEntries, Protocol):
    """A store that may have a worklist."""

    @property
    def name(self) -> str:
        """The value of ``Ups.Store`` that chooses it."""
        ...


Choice: TypeAlias = Callable[[NamedEntries, NamedEntries, Copies], Awaitable[NamedEntries]]


async def settle(
    source: NamedEntries, target: NamedEntries, copies: Copies, choose: Choice | None = None
) -> NamedEntries:
    """Move the worklist into one store, the target if possible, and return that store.

    If both have one, ``choose`` says which one is used (None: the target), and the other is set aside.

    Raises:
        StoreMisconfigured: it cannot be decided.
        StoreUnavailable: call again.
    """
    try:
        copied = await move_worklist(source, target)
    except TwoWorklists:
        used = target if choose is None else await choose(source, target, copies)
        await _set_aside(target if used is source else source, used, copies)
        return used
    if copied:
        _log.warning("Moved %d entries of the worklist from %s to %s", copied, source.name, target.name)
    return target


async def last_used(source: NamedEntries, target: NamedEntries, copies: Copies) -> NamedEntries:
    """The one of two worklists that is not set aside, else the one from which the search index was made."""
    for entries, counterpart in ((source, target), (target, source)):
        if await entries.read(_ASIDE) is not None:
            return counterpart
    name = copies.store()
    for entries in (source, target):
        if entries.name == name:
            return entries
    raise StoreMisconfigured(TWO_WORKLISTS)


async def _set_aside(entries: NamedEntries, used: NamedEntries, copies: Copies) -> None:
    await _remove(used, _ASIDE)
    if await entries.read(_ASIDE) is not None:
        _log.info("The worklist in Orthanc's %s was set aside earlier", entries.name)
        return
    with suppress(ShelvesLost):  # somebody has deleted it
        await entries.create(_ASIDE, b"set aside")
    if entries.name == METADATA:
        copies.forget()  # from now on somebody who deletes it intends to
    _log.warning(
        "Orthanc holds two worklists: the one in its %s is used, the one in its %s is set aside and left as it is. "
        'To look at it or to export it, set "Ups.Store" to "%s" for a while',
        used.name,
        entries.name,
        entries.name,
    )
