# SPDX-License-Identifier: AGPL-3.0-or-later
"""What tells standby nodes where the leader wrote: NOTIFY, up to 50 times a second.

A notice has addresses only; a standby reads the rows itself. Notices are numbered within an epoch, so a lost one shows
as a gap. They are sent after the writes, not in the same transactions, because PostgreSQL commits transactions that
notify one at a time. A lost notice does no harm: the node that takes over compares everything anyway.
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
    """Addresses to which the leader wrote, or at which it deleted."""

    epoch: int
    number: int
    addresses: tuple[Address, ...]

    def __str__(self) -> str:
        """The payload of NOTIFY: epoch, number, and ``shelf.slot`` for each address."""
        addresses = " ".join(f"{shelf}.{slot}" for shelf, slot in self.addresses)
        return f"{self.epoch} {self.number} {addresses}"

    @classmethod
    def parse(cls, text: str) -> Notice:
        """Parse the payload of NOTIFY. Raises ValueError."""
        epoch, number, *addresses = text.split()
        pairs = (address.partition(".") for address in addresses)
        return cls(int(epoch), int(number), tuple(Address(int(shelf), int(slot)) for shelf, _, slot in pairs))


class Notices:
    """Sends notices while this node leads."""

    def __init__(self, sessions: Sessions, epoch: int) -> None:
        self._sessions = sessions
        self._epoch = epoch
        self._number = 0
        self._waiting: set[Address] = set()
        self._sending: asyncio.Task[None] | None = None

    def wrote(self, address: Address) -> None:
        """Note that an entry was written or deleted. Called on the loop, after each write."""
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
                return  # standby nodes notice the missing number when the next notice arrives
