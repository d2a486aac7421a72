# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who may write when: one command at a time per workitem, and a barrier for acts on all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Gate:
    """Commands on workitems pass side by side, ordered per workitem; a global act passes alone.

    A global act decides about every workitem at once. It waits for running commands to end and holds new
    ones back for its one write, so that each workitem is clearly before or behind it.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._open = asyncio.Event()
        self._open.set()
        self._empty = asyncio.Event()
        self._empty.set()
        self._alone = asyncio.Lock()
        self._locks: dict[str, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def workitem(self, uid: str) -> AsyncIterator[None]:
        """Pass for one workitem; commands on the same one queue in order of arrival."""
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        self._empty.clear()
        try:
            async with self._locked(uid):
                yield
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def everything(self) -> AsyncIterator[None]:
        """Pass alone."""
        async with self._alone:
            self._open.clear()
            try:
                await self._empty.wait()
                yield
            finally:
                self._open.set()

    @asynccontextmanager
    async def _locked(self, uid: str) -> AsyncIterator[None]:
        lock, users = self._locks.get(uid) or (asyncio.Lock(), 0)
        self._locks[uid] = lock, users + 1
        try:
            async with lock:
                yield
        finally:
            lock, users = self._locks.pop(uid)
            if users > 1:
                self._locks[uid] = lock, users - 1
