# SPDX-License-Identifier: AGPL-3.0-or-later
"""Moves a worklist from one store to another when ``Ups.Store`` changes, before anybody reads it.

The entry ``move`` in the target says how far the move is. It makes each step repeatable after a kill at any moment:

=============  ==========================================================================================
entry          what holds
=============  ==========================================================================================
absent         no move: at most one of the stores has a worklist, and it is whole
``copying``    the source is whole, the target is not: begin again with an empty target
``emptying``   the target is whole: what is left in the source goes
=============  ==========================================================================================

Example: ``metadata`` held the worklist and ``key-value`` is chosen. ``move`` is created in the key-value store with
``copying``, each entry is copied, ``move`` is replaced by ``emptying``, the pseudo patient is deleted, ``move`` is
removed. If the choice goes back in between, the unfinished copy is dropped, or the finished one is moved back.
"""

from __future__ import annotations

from typing import Final, Protocol

from .port import Entries

_MOVE: Final = "move"
_COPYING: Final = b"copying"
_EMPTYING: Final = b"emptying"


class TwoWorklists(Exception):
    """Both stores hold a worklist of their own, and nobody can tell which one is in use."""


class MovableEntries(Entries, Protocol):
    """Entries that can be deleted all at once. Every method may raise StoreUnavailable."""

    async def exists(self) -> bool:
        """Whether Orthanc holds anything of this store; False proves that there are no entries."""
        ...

    async def discard(self) -> None:
        """Delete every entry and whatever the store needs to hold them: nothing of it is left in Orthanc."""
        ...


async def move_worklist(source: MovableEntries, target: MovableEntries) -> int:
    """Make the target hold the worklist and the source nothing; return how many entries were copied.

    Does nothing if the source is empty. May be repeated after a failure or a crash at any moment. The target is open.

    Raises:
        TwoWorklists: both hold one, and neither is the unfinished copy of the other.
        StoreUnavailable: not finished; call again.
    """
    if not await source.exists():
        await _end(target)
        return 0
    await _settle_opposite_move(source, target)
    step = await target.read(_MOVE)
    if step is not None and step.document == _EMPTYING:
        await source.discard()
        await _end(target)
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
    await _end(target)
    return copied


async def _settle_opposite_move(source: MovableEntries, target: MovableEntries) -> None:
    """A move out of the target was interrupted: drop its unfinished copy, or finish it, so that it can go back."""
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
        if any(entry.key != _MOVE for entry in chunk):
            return False
    return True


async def _clear(entries: MovableEntries) -> None:
    """Remove every entry, ``move`` last: until then it says what the others are."""
    async for chunk in entries.load():
        for entry in chunk:
            if entry.key != _MOVE:
                await entries.remove(entry.key, entry.version)
    await _end(entries)


async def _copy(source: MovableEntries, target: MovableEntries) -> int:
    copied = 0
    async for chunk in source.load():
        for entry in chunk:
            if entry.key != _MOVE:
                await target.create(entry.key, entry.document)
                copied += 1
    return copied


async def _end(target: MovableEntries) -> None:
    step = await target.read(_MOVE)
    if step is not None:
        await target.remove(_MOVE, step.version)
