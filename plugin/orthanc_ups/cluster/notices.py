# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the leader wrote, told to the nodes that stand by: some times a second, by NOTIFY.

A notice names addresses only; whoever is told reads what stands there. Notices of an epoch are numbered, so that one
that is lost is missed. They are sent after the writes, not within their transactions, which PostgreSQL would then
commit one by one. That is enough: whoever takes over compares everything anyway.
"""

from __future__ import annotations

import asyncio
from typing import Final, NamedTuple

from ..core.unavailable import StoreUnavailable
from ..store import shelves
from ..store.shelves import Address
from .database import Sessions

CHANNEL: Final = "orthanc_ups_entries"
SHELF_NUMBERS: Final = {name: number for number, name in enumerate(shelves.INSTANCES)}
_PAUSE: Final = 0.02
_ADDRESSES: Final = 600  # a notice has at most 7,999 bytes


class Notice(NamedTuple):
    """Where a leader wrote."""

    epoch: int
    number: int
    addresses: tuple[Address, ...]

    def __str__(self) -> str:
        """As it is sent."""
        places = " ".join(f"{shelf}.{slot}" for shelf, slot in self.addresses)
        return f"{self.epoch} {self.number} {places}"

    @classmethod
    def parse(cls, text: str) -> Notice:
        """Read what ``str`` wrote. Raises ValueError."""
        epoch, number, *places = text.split()
        pairs = (address.partition(".") for address in places)
        return cls(int(epoch), int(number), tuple(Address(int(shelf), int(slot)) for shelf, _, slot in pairs))


class Notices:
    """Sends notices while this node leads. ``wrote`` is called on the loop after each write."""

    def __init__(self, sessions: Sessions, epoch: int) -> None:
        self._sessions = sessions
        self._epoch = epoch
        self._number = 0
        self._waiting: set[Address] = set()
        self._sending: asyncio.Task[None] | None = None

    def wrote(self, address: Address) -> None:
        """Something was written there, or deleted."""
        self._waiting.add(address)
        if self._sending is None or self._sending.done():
            self._sending = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        while self._waiting:
            await asyncio.sleep(_PAUSE)
            addresses = tuple(self._waiting)[:_ADDRESSES]
            self._waiting.difference_update(addresses)
            self._number += 1
            notice = Notice(self._epoch, self._number, addresses)
            try:
                await self._sessions.rows("SELECT pg_notify(%s, %s)", (CHANNEL, str(notice)))
            except StoreUnavailable:
                return  # the number that is missing is noticed with the next one
