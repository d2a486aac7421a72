# SPDX-License-Identifier: AGPL-3.0-or-later
"""Applies a rule to everything that is already in Orthanc."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Final, Protocol

from ..core.states import State
from ..core.statuses import UpsError
from ..store.port import StoreUnavailable
from .archive import Archive
from .causes import Cause, When
from .definitions import SiteRule
from .engine import Engine
from .follower import EndedWorkitems, end_of

_log = logging.getLogger("orthanc_ups.rules")
_REST: Final = 1.0
_PAUSE: Final = 2.0
_PAGE: Final = 200


class Surroundings(Protocol):
    """The part of ``Environment`` that a backfill needs."""

    @property
    def is_own(self) -> Callable[[str], bool]:
        """Whether an Orthanc identifier is of what the worklist stores."""
        ...

    @property
    def now(self) -> Callable[[], datetime]:
        """The current time, aware, in the time zone of the server."""
        ...


class Backfill:
    """One run of a rule over all resources. It rests half of the time, so that Orthanc can serve others.

    Attributes:
        task: while it runs.
        total: about how many causes there are; ``done``: how many were looked at, ``fired``: how many did something.
    """

    def __init__(
        self,
        rule: SiteRule,
        engine: Engine,
        archive: Archive,
        ended: EndedWorkitems,
        surroundings: Surroundings,
    ) -> None:
        self._rule, self._engine, self._archive = rule, engine, archive
        self._ended, self._surroundings = ended, surroundings
        self.task: asyncio.Task[None] | None = None
        self.total = self.done = self.fired = 0
        self.began_at = surroundings.now().timestamp()
        self.ended_at: float | None = None
        self.error = ""

    @property
    def is_running(self) -> bool:
        """True until it has finished, was stopped or has failed."""
        return self.task is not None and not self.task.done()

    def begin(self) -> None:
        """Start in the background."""
        self.task = asyncio.ensure_future(self._run())

    def stop(self) -> None:
        """Stop; what was done stays."""
        if self.task is not None:
            self.task.cancel()

    async def _run(self) -> None:
        try:
            await self._go_through()
        except asyncio.CancelledError:
            self.error = "stopped"
            raise
        except Exception as error:
            _log.exception('The backfill of rule "%s" failed', self._rule.name)
            self.error = f"internal error ({type(error).__name__}); see Orthanc's log"
        finally:
            self.ended_at = self._surroundings.now().timestamp()

    async def _go_through(self) -> None:
        when = self._rule.when
        if when.is_of_images:
            self.total = await self._archive.count(when.level)
        async for cause in self._causes():
            began = time.monotonic()
            self.fired += await self._patiently(cause)
            self.done += 1
            await asyncio.sleep(min(time.monotonic() - began, _REST))
        self.total = self.done

    async def _patiently(self, cause: Cause) -> int:
        while True:
            try:
                fired = await self._engine.react(cause, [self._rule])
            except (StoreUnavailable, UpsError) as error:
                self.error = f"waits: {error}"
                await asyncio.sleep(_PAUSE)
            else:
                self.error = ""
                return fired

    async def _causes(self) -> AsyncIterator[Cause]:
        when = self._rule.when
        if when in (When.COMPLETED, When.CANCELED):
            async for cause in self._ends(State(when.value.upper())):
                yield cause
            return
        async for identifier in self._archive.all(when.level):
            if self._surroundings.is_own(identifier):
                continue
            read = await self._archive.cause(when, identifier)
            if read is not None:
                yield read

    async def _ends(self, state: State) -> AsyncIterator[Cause]:
        after, before = (0.0, 0), self._surroundings.now().timestamp() + 1.0
        while page := self._ended.ended(after, before, _PAGE):
            for workitem in page:
                if workitem.state is state:
                    yield end_of(workitem, self._surroundings.now().tzinfo)
            after = (page[-1].ended or 0.0, page[-1].created)
            await asyncio.sleep(0)
