# SPDX-License-Identifier: AGPL-3.0-or-later
"""Creates the shelves in Orthanc, protects them, and knows how many there are and which of them are complete.

The first shelf says how many there are, so that the plugin notices one that was deleted while it was off.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Set
from datetime import datetime
from typing import Final, TypeVar

from ..orthanc.loopback import Loopback, refused
from . import shelves
from .port import ShelvesLost, StoreUnavailable
from .shelves import Address, StudyMoment, Uploads, Version

_log = logging.getLogger("orthanc_ups.store")
_AT_ONCE: Final = 8

_DELETIONS: Final = 3
_WITHIN: Final = 600.0  # seconds; a router that waits for stable studies acts a minute after each upload
DELETED_AGAIN: Final = (
    f"the worklist in Orthanc's metadata was deleted {_DELETIONS} times within ten minutes, apparently by a router or "
    f'script that deletes what it has forwarded: exclude the Patient ID "{shelves.PATIENT_ID}" or the label '
    f'"{shelves.LABEL}" there, or set '
    '"Ups.Store" to "key-value" (Orthanc 1.12.8 or later with SQLite), and restart Orthanc'
)

WITHOUT_CHECK_REVISIONS: Final = (
    '"CheckRevisions" is false or absent, expected true: without it Orthanc overwrites a workitem that another request '
    'has just changed (only the store "metadata" needs it; "Ups.Store": "key-value" does not)'
)

T = TypeVar("T")


class StoreMisconfigured(Exception):
    """Orthanc's configuration does not allow it to store a worklist. The text names the setting."""


class RepeatedDeletions:
    """Recognizes a router that deletes each shelf soon after it was created, so that no more are created."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` returns seconds since an arbitrary moment."""
        self._clock = clock
        self._sent: set[int] = set()
        self._times: deque[float] = deque(maxlen=_DELETIONS)
        self.recognized = False

    def note_sent(self, shelf: int) -> None:
        """The shelf was sent to Orthanc."""
        self._sent.add(shelf)

    def absent(self, numbers: Set[int]) -> None:
        """These shelves are not in Orthanc now. Raises StoreMisconfigured from the third deletion on."""
        if self._sent & numbers:
            self._sent -= numbers
            self._times.append(self._clock())
        if len(self._times) == _DELETIONS and self._times[-1] - self._times[0] <= _WITHIN:
            self.recognized = True
        if self.recognized and numbers:
            raise StoreMisconfigured(DELETED_AGAIN)


async def in_flight(work: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Do the work for every item, eight at a time.

    The first failure stops this, and is raised once all work that was begun has ended.
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
    """The shelves as a whole; OrthancEntries writes what is on them.

    Attributes:
        count: the number of shelves that should exist; 1 before ``make_missing``.
    """

    def __init__(self, loopback: Loopback, uploads: Uploads) -> None:
        self._loopback = loopback
        self._uploads = uploads
        self._created: StudyMoment | None = None
        self.count = 1
        self.deletions = RepeatedDeletions()

    async def make_missing(self) -> frozenset[int]:
        """Send the shelves that Orthanc does not have, protect the patient, and return which they were.

        Raises:
            StoreMisconfigured: they are deleted each time they are created.
            StoreUnavailable: Orthanc did not take one, with its reason.
        """
        present = await self.present()
        stored = await self.recount(present)
        absent = frozenset(range(self.count)) - present
        self.deletions.absent(absent)
        await in_flight(self._send, sorted(absent))
        if stored != self.count:
            await self._note_count(self.count)
        await self._protect()
        await self._label()
        if absent:
            _log.info("Created %d of %d shelves for the worklist", len(absent), self.count)
        return absent

    async def add(self) -> int:
        """Create another shelf, and return its number. Raises StoreUnavailable if that failed; call it again."""
        shelf = self.count
        await self._send(shelf)
        await self._mark(shelf)
        await self._note_count(shelf + 1)
        self.count = shelf + 1
        return shelf

    def start_over(self) -> None:
        """All shelves were deleted on purpose: begin with one."""
        self.count, self._created = 1, None

    async def present(self) -> frozenset[int]:
        """The shelves that Orthanc has, complete or not."""
        reply = await self._loopback.request("GET", f"/series/{shelves.SERIES}")
        if reply.status == 404:
            return frozenset()
        if reply.status != 200:
            raise refused(reply, "cannot list the shelves of the worklist")
        instances = set(reply.json()["Instances"])
        return frozenset(shelf for shelf, name in enumerate(shelves.INSTANCES) if name in instances)

    # --- how many ---

    async def recount(self, present: frozenset[int]) -> int | None:
        """Update ``count``, because another node may have added shelves; return the stored number."""
        stored = await self._stored_count() if 0 in present else None
        counted = stored if stored is not None else await self._count_without_note(present)
        self.count = max(self.count, counted, max(present, default=0) + 1)
        return stored

    async def _stored_count(self) -> int | None:
        """The number of shelves that is stored on the first shelf, None if there is none."""
        reply = await self._loopback.request("GET", _COUNT)
        if reply.status not in (200, 404):
            raise refused(reply, "cannot read the number of shelves of the worklist")
        if reply.status == 404:
            return None
        text = reply.body.decode("ascii", "replace")
        return min(int(text), shelves.SHELVES) if text.isdigit() else 0

    async def _count_without_note(self, present: frozenset[int]) -> int:
        """256 if version 1.0.0.dev0 made the shelves; else 0: the first is lost, and any entry may have been on it."""
        is_old = 0 in present and await self.is_complete(0)
        return shelves.SHELVES if is_old else 0

    async def _note_count(self, count: int) -> None:
        stored = await self._loopback.request("GET", _COUNT)
        headers = {"If-Match": f'"{stored.etag}"'} if stored.status == 200 else None
        reply = await self._loopback.request("PUT", _COUNT, str(count).encode(), headers)
        if reply.status == 404:
            raise ShelvesLost("the first shelf of the worklist is gone")
        if reply.status != 200:
            raise refused(reply, "cannot note the number of shelves of the worklist")

    # --- one by one ---

    async def _send(self, shelf: int) -> None:
        created = await self._moment()
        self._uploads.expect(shelf)
        try:
            reply = await self._loopback.request("POST", "/instances", shelves.dicom_file(shelf, created))
        finally:
            self._uploads.done(shelf)
        status = reply.json().get("Status", "") if reply.status == 200 else ""
        if status not in ("Success", "AlreadyStored"):
            raise StoreUnavailable(
                f"cannot create shelf {shelf} of the worklist: Orthanc answered {reply} {status}",
                certain=True,
            )
        self.deletions.note_sent(shelf)

    async def _moment(self) -> StudyMoment:
        """When the study was created, from its attributes; now if it does not exist."""
        if self._created is None:
            reply = await self._loopback.request("GET", f"/studies/{shelves.STUDY}")
            if reply.status not in (200, 404):
                raise refused(reply, "cannot read the study of the worklist")
            study = reply.json()["MainDicomTags"] if reply.status == 200 else _now()
            self._created = StudyMoment(study.get("StudyDate", ""), study.get("StudyTime", ""))
        return self._created

    async def _protect(self) -> None:
        reply = await self._loopback.request("PUT", f"/patients/{shelves.PATIENT}/protected", b"1")
        if reply.status != 200:
            _log.warning(
                'The patient "%s" cannot be protected (%s): Orthanc may recycle it when its storage is full',
                shelves.PATIENT_ID,
                reply,
            )

    async def _label(self) -> None:
        """Label patient and study, so that routers can exclude them; Orthanc before 1.12.0 has no labels."""
        for resource in (f"/patients/{shelves.PATIENT}", f"/studies/{shelves.STUDY}"):
            reply = await self._loopback.request("PUT", f"{resource}/labels/{shelves.LABEL}")
            if reply.status != 200:
                _log.info("Cannot label the pseudo patient of the worklist: Orthanc answered %s", reply)
                return

    async def mark_complete(self, numbers: Iterable[int]) -> None:
        """Mark shelves as having all their entries."""
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
        """True if a shelf exists and has all its entries."""
        reply = await self._loopback.request("GET", _mark_of(shelf))
        if reply.status not in (200, 404):
            raise refused(reply, f"cannot read shelf {shelf} of the worklist")
        return reply.status == 200 and reply.body == shelves.MARK

    async def incomplete(self, complete: Set[int]) -> frozenset[int]:
        """The shelves that are gone or not filled. Those in ``complete`` are not read if they exist."""
        numbers = frozenset(range(self.count))  # a shelf that is added meanwhile is complete
        present = await self.present() & numbers
        incomplete = set(numbers - present)

        async def look(shelf: int) -> None:
            if not await self.is_complete(shelf):
                incomplete.add(shelf)

        await in_flight(look, sorted(present - complete))
        return frozenset(incomplete)

    async def counts_revisions(self) -> bool:
        """Test how this Orthanc compares versions, in a slot reserved for this.

        True if its database counts revisions; False if it compares the content only (SQLite before 1.12.8,
        where an ETag always begins with ``0-``).

        Raises:
            StoreMisconfigured: it overwrites without comparing, because ``CheckRevisions`` is off.
        """
        path = shelves.path(Address(0, secrets.choice(shelves.PROBE_SLOTS)))
        await self._clear(path)
        try:
            first = await self._put(path, b"first", None)
            if (await self._loopback.request("PUT", path, b"second")).status == 200:
                raise StoreMisconfigured(WITHOUT_CHECK_REVISIONS)
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
            raise refused(reply, "cannot test the store of the worklist")
        return reply.etag

    async def _clear(self, path: str) -> None:
        reply = await self._loopback.request("GET", path)
        if reply.status == 200:
            await self._loopback.request("DELETE", path, headers={"If-Match": f'"{reply.etag}"'})


_COUNT: Final = shelves.path(Address(0, shelves.COUNT_SLOT))


def _now() -> dict[str, str]:
    now = datetime.now().astimezone()
    return {"StudyDate": f"{now:%Y%m%d}", "StudyTime": f"{now:%H%M%S}"}


def _mark_of(shelf: int) -> str:
    return shelves.path(Address(shelf, shelves.MARK_SLOT))
