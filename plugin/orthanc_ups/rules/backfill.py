# SPDX-License-Identifier: AGPL-3.0-or-later
"""Applies a rule to everything that is already in Orthanc."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from ..core.states import State
from ..core.statuses import UpsError
from ..store.port import StoreUnavailable
from .archive import Archive
from .causes import Cause, When
from .definitions import SiteRule
from .engine import Engine
from .follower import end_of
from .worklist_access import WorklistAccess

_log = logging.getLogger("orthanc_ups.rules")
_LONGEST_REST: Final = 1.0
_PAUSE: Final = 2.0
_PAGE: Final = 200


class Backfill:
    """One run of a rule over all resources. It rests half of the time, so that Orthanc can serve others.

    Attributes:
        total: the approximate number of causes.
        done: causes so far; ``fired``: those for which the rule did something.
        error: why it failed or waits; empty if it does neither.
    """

    def __init__(
        self,
        rule: SiteRule,
        engine: Engine,
        archive: Archive,
        worklist: WorklistAccess,
        is_own: Callable[[str], bool],
    ) -> None:
        """``is_own``: whether an identifier of Orthanc is that of a resource in which the worklist is stored."""
        self._rule, self._engine, self._archive = rule, engine, archive
        self._worklist, self._is_own = worklist, is_own
        self.task: asyncio.Task[None] | None = None
        self.total = self.done = self.fired = 0
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
            await self._process()
        except asyncio.CancelledError:
            self.error = "stopped"
            raise
        except Exception as error:
            _log.exception('The backfill of rule "%s" failed', self._rule.name)
            self.error = f"internal error ({type(error).__name__}); see Orthanc's log"

    async def _process(self) -> None:
        when = self._rule.when
        if when.is_of_images:
            self.total = await self._archive.count(when.level)
        async for cause in self._causes():
            began = time.monotonic()
            self.fired += await self._react(cause)
            self.done += 1
            await asyncio.sleep(min(time.monotonic() - began, _LONGEST_REST))
        self.total = self.done

    async def _react(self, cause: Cause) -> int:
        """Fire the rule. While this is not possible, try again."""
        while True:
            try:
                fired = await self._engine.react(cause, [self._rule])
            except (StoreUnavailable, UpsError) as error:
                self.error = f"waiting: {error}"
                await asyncio.sleep(_PAUSE)
            else:
                self.error = ""
                return fired

    async def _causes(self) -> AsyncIterator[Cause]:
        when = self._rule.when
        if when in (When.COMPLETED, When.CANCELED):
            async for end in self._ends(State(when.value.upper())):
                yield end
            return
        async for identifier in self._archive.all(when.level):
            cause = None if self._is_own(identifier) else await self._archive.cause(when, identifier)
            if cause is not None:
                yield cause

    async def _ends(self, state: State) -> AsyncIterator[Cause]:
        after, before = (0.0, 0), self._worklist.now().timestamp() + 1.0
        while page := self._worklist.ended(after, before, _PAGE):
            for workitem in page:
                if workitem.state is state:
                    yield end_of(workitem, self._worklist.now().tzinfo)
            after = (page[-1].ended or 0.0, page[-1].created)
            await asyncio.sleep(0)
