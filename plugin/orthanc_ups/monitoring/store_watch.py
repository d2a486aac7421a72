# SPDX-License-Identifier: AGPL-3.0-or-later
"""Detects that Orthanc's store fails before a request does, and that it works again."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, Protocol

from ..store.port import StoreUnavailable

_log = logging.getLogger("orthanc_ups")
_EVERY: Final = 5.0  # seconds
PATIENCE: Final = 5.0  # seconds


class StoreUser(Protocol):
    """The part that writes to the store."""

    @property
    def store_trouble(self) -> str:
        """Why the last write failed, "" if it did not."""

    async def prove_store(self) -> None:
        """Write something harmless. Raises StoreUnavailable."""


class StoreWatch:
    """Reads from Orthanc's database every few seconds; after a failed write it also writes."""

    def __init__(self, service: StoreUser, read: Callable[[], Awaitable[None]]) -> None:
        """``read`` reads something from Orthanc's database; it may raise StoreUnavailable."""
        self._service = service
        self._read = read
        self._read_failure = ""

    @property
    def trouble(self) -> str:
        """Why nothing can be stored now, in words; "" if it can."""
        return self._read_failure or self._service.store_trouble

    async def check(self) -> None:
        """Check now."""
        before = self.trouble
        try:
            async with asyncio.timeout(PATIENCE):
                await self._read()
                self._read_failure = ""
                if self._service.store_trouble:
                    await self._service.prove_store()
        except TimeoutError:
            self._read_failure = f"Orthanc's database does not answer within {PATIENCE:g} s"
        except StoreUnavailable as error:
            self._read_failure = self._read_failure if self._service.store_trouble else str(error)
        if self.trouble and not before:
            _log.error("Nothing can be stored now: %s", self.trouble)
        elif before and not self.trouble:
            _log.warning("Orthanc's store works again")

    async def run(self) -> None:
        """Check every few seconds, forever."""
        while True:
            await self.check()
            await asyncio.sleep(_EVERY)
