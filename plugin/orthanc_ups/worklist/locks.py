# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who may write when: one command at a time per workitem, and a barrier for acts on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from ..core.statuses import RESOURCE_LIMITATION, UpsError

PATIENCE: Final = 10.0
"""Seconds that a command waits for those before it."""


class CommandLocks:
    """Commands on workitems pass side by side, ordered per workitem; a global act passes alone.

    A global act decides about every workitem at once. It waits for running commands to end and holds new
    ones back for its one write, so that each workitem is clearly before or behind it. Nobody waits for ever:
    who is not in after ``patience`` seconds gets UpsError (0213, 503), and nothing has changed.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._alone = asyncio.Lock()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def workitem(self, uid: str) -> AsyncIterator[None]:
        """Pass for one workitem; commands on the same one queue in order of arrival. Raises UpsError."""
        async with _in_time(self.patience):
            await self._enter(uid)
        try:
            yield
        finally:
            self._locks[uid][0].release()
            self._leave(uid)

    async def _enter(self, uid: str) -> None:
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        lock, users = self._locks.get(uid) or (asyncio.Lock(), 0)
        self._locks[uid] = lock, users + 1
        try:
            await lock.acquire()
        except BaseException:
            self._leave(uid)
            raise

    def _leave(self, uid: str) -> None:
        lock, users = self._locks.pop(uid)
        if users > 1:
            self._locks[uid] = lock, users - 1
        self._inside -= 1
        if not self._inside:
            self._empty.set()

    @asynccontextmanager
    async def everything(self, *, patiently: bool = False) -> AsyncIterator[None]:
        """Pass alone. Raises UpsError, unless ``patiently``: then it waits as long as it takes."""
        patience = None if patiently else self.patience
        async with _in_time(patience):
            await self._alone.acquire()
        try:
            self._open.clear()
            async with _in_time(patience):
                await self._empty.wait()
            yield
        finally:
            self._open.set()
            self._alone.release()


@asynccontextmanager
async def _in_time(patience: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(patience):
            yield
    except TimeoutError:
        detail = "Orthanc's store has not answered an earlier request yet; try again later"
        raise UpsError(RESOURCE_LIMITATION, detail) from None
