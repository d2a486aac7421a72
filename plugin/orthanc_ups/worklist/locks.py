# SPDX-License-Identifier: AGPL-3.0-or-later
"""Locks: one command at a time on each workitem, and a barrier for global acts, which concern all workitems."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

from ..core.statuses import RESOURCE_LIMITATION, UpsError

PATIENCE: Final = 10.0
"""Seconds that a command waits for the lock."""


class CommandLocks:
    """Commands on different workitems run side by side, those on one workitem in turn; a global act runs alone.

    A global act concerns every workitem. It waits until running commands have ended and holds new ones back during
    its write, so that each command on a workitem is clearly before or after it. No command waits forever: if the lock
    is not free within ``patience`` seconds, UpsError (0213, 503) is raised, and nothing has changed.
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.patience = patience
        self._commands = 0
        self._no_global_act = asyncio.Event()
        self._no_global_act.set()
        self._no_commands = asyncio.Event()
        self._no_commands.set()
        self._global_act = asyncio.Lock()
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    @property
    def commands(self) -> int:
        """How many commands hold a lock or wait for one."""
        return self._commands

    @property
    def is_global(self) -> bool:
        """True while a global act runs, or waits for running commands to end."""
        return self._global_act.locked()

    @asynccontextmanager
    async def workitem(self, uid: str) -> AsyncIterator[None]:
        """Hold the lock of one workitem; commands on it queue in order of arrival. Entering raises UpsError."""
        await self._enter(uid)
        try:
            yield
        finally:
            self._leave(uid)

    async def _enter(self, uid: str) -> None:
        # Most commands find no other on their workitem.
        if self._no_global_act.is_set() and uid not in self._queues:
            self._queues[uid] = deque()
            self._commands += 1
            self._no_commands.clear()
            return
        async with _in_time(self.patience):
            while not self._no_global_act.is_set():
                await self._no_global_act.wait()
            self._commands += 1
            self._no_commands.clear()
            queue = self._queues.get(uid)
            if queue is None:
                self._queues[uid] = deque()
                return
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            queue.append(turn)
            try:
                await turn
            except BaseException:
                if turn.done() and not turn.cancelled():
                    self._leave(uid)
                else:
                    with suppress(ValueError):  # _leave may have skipped it
                        queue.remove(turn)
                    self._count_down()
                raise

    def _leave(self, uid: str) -> None:
        """Hand the lock to the next in the queue."""
        queue = self._queues[uid]
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)
                break
        else:
            del self._queues[uid]
        self._count_down()

    def _count_down(self) -> None:
        self._commands -= 1
        if not self._commands:
            self._no_commands.set()

    @asynccontextmanager
    async def everything(self, *, patiently: bool = False) -> AsyncIterator[None]:
        """Hold all locks. Raises UpsError, unless ``patiently``: then it waits as long as it takes."""
        patience = None if patiently else self.patience
        async with _in_time(patience):
            await self._global_act.acquire()
        try:
            self._no_global_act.clear()
            async with _in_time(patience):
                await self._no_commands.wait()
            yield
        finally:
            self._no_global_act.set()
            self._global_act.release()


@asynccontextmanager
async def _in_time(patience: float | None) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(patience):
            yield
    except TimeoutError:
        detail = "Orthanc's store has not answered an earlier request yet; try again later"
        raise UpsError(RESOURCE_LIMITATION, detail) from None
