# SPDX-License-Identifier: AGPL-3.0-or-later
"""Makes the shelves in Orthanc, protects them, and knows which of them are complete."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Set
from typing import Final, TypeVar

from ..orthanc.loopback import Loopback, refused
from . import shelves
from .port import ShelvesLost, StoreUnavailable
from .shelves import Address, Uploads, Version

_log = logging.getLogger("orthanc_ups.store")
_AT_ONCE: Final = 8

_DELETIONS: Final = 3
_WITHIN: Final = 600.0  # seconds; a router that waits for stable studies acts a minute after each upload
DELETED_AGAIN: Final = (
    f"the worklist in Orthanc's metadata was deleted {_DELETIONS} times within ten minutes, it seems by a router or "
    f'script that deletes what it has forwarded: exclude the Patient ID "{shelves.PATIENT_ID}" there, or set '
    '"Ups.Store" to "key-value" (Orthanc 1.12.8 or later with SQLite), and restart Orthanc'
)

T = TypeVar("T")


class StoreMisconfigured(Exception):
    """Orthanc's configuration does not let it keep a worklist. The text names the key."""


class RepeatedDeletions:
    """Recognizes a router that deletes each shelf as soon as it was made, so that no more are made for it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock``: seconds since some moment."""
        self._clock = clock
        self._made: set[int] = set()
        self._times: deque[float] = deque(maxlen=_DELETIONS)
        self.recognized = False

    def made(self, shelf: int) -> None:
        """The shelf was sent to Orthanc."""
        self._made.add(shelf)

    def absent(self, numbers: Set[int]) -> None:
        """These shelves are not in Orthanc now. Raises StoreMisconfigured from the third deletion on."""
        if self._made & numbers:
            self._made -= numbers
            self._times.append(self._clock())
        if len(self._times) == _DELETIONS and self._times[-1] - self._times[0] <= _WITHIN:
            self.recognized = True
        if self.recognized and numbers:
            raise StoreMisconfigured(DELETED_AGAIN)


async def in_flight(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Do the work for every item, a few at a time.

    The first failure ends it and is raised, once all that was begun has ended: nothing of it happens later.
    """
    waiting = iter(items)
    failures: list[Exception] = []

    async def worker() -> None:
        for item in waiting:
            try:
                await work(item)
            except Exception as error:
                failures.append(error)
            if failures:
                return

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(worker())
    if failures:
        raise failures[0]


class ShelfSet:
    """The shelves as a whole; what stands on them is OrthancEntries' matter."""

    def __init__(self, loopback: Loopback, uploads: Uploads) -> None:
        self._loopback = loopback
        self._uploads = uploads
        self.deletions = RepeatedDeletions()

    async def make_missing(self) -> frozenset[int]:
        """Send the shelves that Orthanc does not have, protect the patient, and return which they were.

        Raises:
            StoreMisconfigured: somebody deletes them whenever they were made.
            StoreUnavailable: Orthanc did not take one, with its reason.
        """
        present = await self.present()
        absent = frozenset(range(shelves.SHELVES)) - present
        self.deletions.absent(absent)
        await in_flight(self._send, sorted(absent))
        await self._protect()
        if absent:
            _log.info("Made %d of %d shelves for the worklist", len(absent), shelves.SHELVES)
        return absent

    async def present(self) -> frozenset[int]:
        """The shelves that Orthanc has, complete or not."""
        reply = await self._loopback.request("GET", f"/series/{shelves.SERIES}")
        if reply.status == 404:
            return frozenset()
        if reply.status != 200:
            raise refused(reply, "cannot list the shelves of the worklist")
        instances = set(reply.json()["Instances"])
        return frozenset(shelf for shelf, name in enumerate(shelves.INSTANCES) if name in instances)

    async def _send(self, shelf: int) -> None:
        self._uploads.expect(shelf)
        try:
            reply = await self._loopback.request("POST", "/instances", shelves.dicom_file(shelf))
        finally:
            self._uploads.done(shelf)
        status = reply.json().get("Status", "") if reply.status == 200 else ""
        if status not in ("Success", "AlreadyStored"):
            what = f"cannot make shelf {shelf} of the worklist"
            raise StoreUnavailable(f"{what}: Orthanc answered {reply} {status}", certain=True)
        self.deletions.made(shelf)

    async def _protect(self) -> None:
        reply = await self._loopback.request("PUT", f"/patients/{shelves.PATIENT}/protected", b"1")
        if reply.status != 200:
            _log.warning(
                'The patient "%s" cannot be protected (%s): Orthanc may recycle it when its storage is full',
                shelves.PATIENT_ID,
                reply,
            )

    async def mark_complete(self, numbers: Iterable[int]) -> None:
        """Say of shelves that all their entries are there."""
        await in_flight(self._mark, numbers)

    async def _mark(self, shelf: int) -> None:
        reply = await self._loopback.request("PUT", _mark_of(shelf), shelves.MARK)
        if reply.status == 409 and await self.is_complete(shelf):
            return
        if reply.status != 200:
            raise refused(
                reply, f"cannot mark shelf {shelf} of the worklist (its metadata {shelves.MARK_SLOT})"
            )

    async def is_complete(self, shelf: int) -> bool:
        """Whether the shelf is there with all its entries."""
        reply = await self._loopback.request("GET", _mark_of(shelf))
        if reply.status not in (200, 404):
            raise refused(reply, f"cannot read shelf {shelf} of the worklist")
        return reply.status == 200 and reply.body == shelves.MARK

    async def incomplete(self) -> frozenset[int]:
        """The shelves that are gone, or not filled, or emptied. Looks at each."""
        incomplete: set[int] = set(range(shelves.SHELVES)) - await self.present()

        async def look(shelf: int) -> None:
            if not await self.is_complete(shelf):
                incomplete.add(shelf)

        await in_flight(look, sorted(set(range(shelves.SHELVES)) - incomplete))
        return frozenset(incomplete)

    async def counts_revisions(self) -> bool:
        """Try out how this Orthanc compares and sets, on a slot kept back for it.

        True if its database counts revisions; False if it goes by the content only (SQLite before 1.12.8,
        where an ETag always begins with ``0-``).

        Raises:
            StoreMisconfigured: it overwrites without asking, as ``CheckRevisions`` is off.
        """
        path = shelves.path(Address(0, secrets.choice(shelves.PROBE_SLOTS)))
        await self._clear(path)
        try:
            first = await self._put(path, b"first", None)
            if (await self._loopback.request("PUT", path, b"second")).status == 200:
                raise StoreMisconfigured(
                    '"CheckRevisions" is false or absent in orthanc.json, expected true: '
                    "without it Orthanc overwrites a workitem that another request has just changed"
                )
            await self._put(path, b"third", first)
            return Version.parse((await self._loopback.request("GET", path)).etag).revision == 1
        finally:
            await self._clear(path)

    async def _put(self, path: str, value: bytes, etag: str | None) -> str:
        headers = {"If-Match": f'"{etag}"'} if etag else None
        reply = await self._loopback.request("PUT", path, value, headers)
        if reply.status == 404:
            raise ShelvesLost("the first shelf of the worklist is gone")
        if reply.status != 200:
            raise refused(reply, "cannot try out the store of the worklist")
        return reply.etag

    async def _clear(self, path: str) -> None:
        reply = await self._loopback.request("GET", path)
        if reply.status == 200:
            await self._loopback.request("DELETE", path, headers={"If-Match": f'"{reply.etag}"'})


def _mark_of(shelf: int) -> str:
    return shelves.path(Address(shelf, shelves.MARK_SLOT))
