# SPDX-License-Identifier: AGPL-3.0-or-later
"""A whole UPS service without a network: store and channels in memory, virtual time, crashes on demand."""

from __future__ import annotations

import asyncio
import functools
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from datetime import tzinfo
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, ParamSpec

import pytest

from orthanc_ups.core import tags
from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.commands import (
    ChangeState,
    Command,
    Create,
    Purge,
    ReleaseLock,
    RequestCancel,
    Requester,
    Subscribe,
    Suspend,
    Unsubscribe,
    Update,
)
from orthanc_ups.core.dataset import DataSet, text
from orthanc_ups.core.events import Event, EventType
from orthanc_ups.core.lateness import LatePolicy
from orthanc_ups.core.outcome import Outcome
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.core.workitem import Subscription, Workitem
from orthanc_ups.projection.projection import Projection
from orthanc_ups.service import UpsService
from orthanc_ups.settings import Settings
from orthanc_ups.store.port import Entry, StoreUnavailable
from orthanc_ups.worklist.late_watch import LateWatch
from orthanc_ups.worklist.worklist import ReceivingAes
from tests.support.delivery import TwinChannel, VirtualClock, settle
from tests.support.memory_store import InMemoryEntries
from tests.support.workitems import minimal, performed, uid

GLOBAL: Final = tags.GLOBAL_SUBSCRIPTION
FILTERED: Final = tags.FILTERED_SUBSCRIPTION
SCHEDULER: Final = Requester("SCHEDULER", "DIMSE")
TRANSACTION: Final = "1.2.826.0.1.3680043.10.1999.7.1"
OTHER_TRANSACTION: Final = "1.2.826.0.1.3680043.10.1999.7.2"
NONE, LOCK, NO_LOCK = Subscription.NONE, Subscription.LOCK, Subscription.NO_LOCK
_REAL_PATIENCE: Final = 0.02
_P = ParamSpec("_P")
_OPENED: ContextVar[list[ServiceRig]] = ContextVar("opened")


class SlowEntries(InMemoryEntries):
    """A store whose writes let other tasks run before and after them.

    Attributes:
        before, after: per key (or ``""`` for all) what a write waits for, before it is done and before it answers.
        broken_keys: entries that the store cannot write now.
        pauses: gives for how long others run before and after a write, in turns of the loop.
    """

    def __init__(self, beside: InMemoryEntries | None = None) -> None:
        super().__init__(beside)
        self.before: dict[str, asyncio.Event] = {}
        self.after: dict[str, asyncio.Event] = {}
        self.broken_keys: set[str] = set()
        self.pauses: Callable[[], int] = lambda: 1

    async def create(self, key: str, document: bytes) -> str:
        async with self._slowly(key):
            return await super().create(key, document)

    async def replace(self, key: str, document: bytes, version: str) -> str:
        async with self._slowly(key):
            return await super().replace(key, document, version)

    async def remove(self, key: str, version: str) -> None:
        async with self._slowly(key):
            await super().remove(key, version)

    def on_write(self, key: str) -> None:
        """Called before each write."""

    @asynccontextmanager
    async def _slowly(self, key: str) -> AsyncIterator[None]:
        self.on_write(key)
        await self._wait(self.before, key)
        if key in self.broken_keys:
            raise StoreUnavailable("disk full, says a test", certain=True)
        try:
            yield
        finally:
            await self._wait(self.after, key)

    async def _wait(self, holds: dict[str, asyncio.Event], key: str) -> None:
        for _ in range(self.pauses()):
            await asyncio.sleep(0)
        for name in ("", key):
            if name in holds:
                await holds[name].wait()

    # --- changes from outside ---

    def documents(self, prefix: str = "") -> dict[str, bytes]:
        """The documents of the entries whose keys have this prefix."""
        result = self.shared.documents.items()
        return {key: document for key, (document, _) in result if key.startswith(prefix)}

    def tamper(self, key: str, document: bytes | None) -> None:
        """Overwrite (or, with None, delete) an entry, as an administrator could."""
        if document is None:
            del self.shared.documents[key]
        else:
            self.shared.put(key, document)


class KnownAes:
    """Knows every AE that a channel serves."""

    def __init__(self, ae_titles: Collection[str]) -> None:
        self._known = ae_titles

    async def is_known(self, receiving_ae: str, requester: Requester) -> bool:
        return receiving_ae in self._known


class ServiceRig:
    """A running service, with helpers to use and to damage it.

    Attributes:
        channel: keeps what each AE was told; may be down, slow or refusing.
        entries: the store as the running service sees it; after a crash it is another adapter on the same store.
        receivers: knows which AEs can be told of events.
        path: file of the projection, ``:memory:`` for none that outlives a crash.
        listed: the AE titles of ``DicomModalities``, as they are spelled there.
        strict: Orthanc's ``StrictAetComparison``, heeded at the next start.
    """

    def __init__(self, *ae_titles: str, settings: Settings | None = None, path: str = ":memory:") -> None:
        self.clock = VirtualClock()
        self.settings = settings or Settings()
        self.channel = TwinChannel("dimse", set(ae_titles))
        self.entries = SlowEntries()
        self.receivers: ReceivingAes = KnownAes(self.channel.ae_titles)
        self.path = path
        self.listed: tuple[str, ...] = ()
        self.strict = False
        self.zone: tzinfo | None = None
        self.service: UpsService
        _OPENED.get([]).append(self)

    # --- start and stop ---

    def make(self) -> UpsService:
        """Build a service, not started."""
        titles = AeTitles(strict=self.strict)
        titles.list(self.listed)
        self.service = UpsService(
            self.settings,
            "WORKLIST",
            self.entries,
            Projection.open(self.path, timezone=self.zone),
            [self.channel],
            self.receivers,
            self.clock,
            self.zone,
            titles,
        )
        return self.service

    async def start(self) -> ServiceRig:
        """Start and wait until everything has settled."""
        await self.make().start()
        await settle()
        return self

    async def stop(self) -> None:
        """Stop cleanly."""
        stopping = asyncio.ensure_future(self.service.stop(commands_within=_REAL_PATIENCE))
        await self.until_done(stopping)
        await stopping

    async def crash(self) -> None:
        """End everything between two steps; the store and the file of the projection stay."""
        if not hasattr(self, "service"):
            return
        self.entries.unavailable = True
        path = self._copied_projection()
        alive = asyncio.all_tasks() - {asyncio.current_task()}
        for task in alive:
            task.cancel()
        await asyncio.gather(*alive, return_exceptions=True)
        self.service.projection.close()
        self.path = path
        self.entries = self.entries.another()

    async def restart(self) -> None:
        """Crash and start again."""
        await self.crash()
        await self.start()

    def _copied_projection(self) -> str:
        """A copy of the file as a crash leaves it, before it is closed."""
        if self.path == ":memory:":
            return self.path
        folder = Path(tempfile.mkdtemp(dir=Path(self.path).parent))
        for file in Path(self.path).parent.glob(f"{Path(self.path).name}*"):
            shutil.copy(file, folder / file.name)
        return str(folder / Path(self.path).name)

    # --- time ---

    async def until_done(self, task: asyncio.Future[Any], limit: float = 120.0) -> None:
        """Let virtual time pass until a task is done."""
        passed = 0.0
        await settle()
        while not task.done():
            await asyncio.wait({task}, timeout=_REAL_PATIENCE)  # the searches of a projection run in threads
            if not task.done():
                assert passed < limit, "it never ends"
                await self.clock.advance(0.5)
                passed += 0.5

    async def until(self, condition: Callable[[], bool]) -> None:
        """Run the loop, without time passing, until a condition is true."""
        for _ in range(1_000):
            await settle()
            if condition():
                return
            await asyncio.sleep(_REAL_PATIENCE / 10)
        raise AssertionError("it never happens")

    async def pass_by(self, seconds: float) -> None:
        """Let time pass once running searches have ended: they take real time, in threads."""
        await self.until(lambda: not self.service.projection.searches)
        await self.clock.advance(seconds)

    # --- commands ---

    async def do(self, command: Command) -> Outcome:
        """Carry out a command and let its events be delivered. Raises UpsError."""
        task = asyncio.ensure_future(self.service.worklist.execute(command))
        await self.until_done(task)
        await settle()
        return await task

    async def refused(self, command: Command) -> UpsError:
        """The refusal of a command; entries of workitems and subscribers must be as they were."""
        before = self.stored()
        with pytest.raises(UpsError) as caught:
            await self.do(command)
        assert self.stored() == before
        return caught.value

    async def refused_now(self, command: Command) -> UpsError:
        """The refusal of a command, before any other task runs."""
        with pytest.raises(UpsError) as caught:
            await self.service.worklist.execute(command)
        return caught.value

    def stored(self) -> dict[str, bytes]:
        """The stored documents of workitems and subscribers."""
        return {**self.entries.documents("workitem/"), **self.entries.documents("subscriber/")}

    async def create(self, number: int = 1, attributes: DataSet | None = None) -> Outcome:
        return await self.do(Create(SCHEDULER, uid(number), attributes or minimal()))

    async def claim(self, number: int = 1, transaction: str = TRANSACTION) -> Outcome:
        return await self.do(ChangeState(SCHEDULER, uid(number), "IN PROGRESS", transaction))

    async def update(
        self, attributes: DataSet, number: int = 1, transaction: str | None = TRANSACTION
    ) -> Outcome:
        return await self.do(Update(SCHEDULER, uid(number), attributes, transaction))

    async def complete(self, number: int = 1) -> Outcome:
        """Take a workitem from SCHEDULED to COMPLETED."""
        await self.claim(number)
        await self.update(performed(), number)
        return await self.do(ChangeState(SCHEDULER, uid(number), "COMPLETED", TRANSACTION))

    async def cancel(self, number: int = 1) -> Outcome:
        return await self.do(RequestCancel(SCHEDULER, uid(number)))

    async def purge(self, number: int = 1) -> Outcome:
        return await self.do(Purge(SCHEDULER, uid(number)))

    async def subscribe(
        self, ae: str, to: int | str = GLOBAL, *, lock: bool = False, keys: DataSet | None = None
    ) -> Outcome:
        return await self.do(Subscribe(SCHEDULER, _instance(to), ae, lock, keys))

    async def unsubscribe(self, ae: str, to: int | str = GLOBAL) -> Outcome:
        return await self.do(Unsubscribe(SCHEDULER, _instance(to), ae))

    async def suspend(self, ae: str, to: int | str = GLOBAL) -> Outcome:
        return await self.do(Suspend(SCHEDULER, _instance(to), ae))

    async def release_lock(self, ae: str, number: int = 1) -> Outcome:
        return await self.do(ReleaseLock(SCHEDULER, uid(number), ae))

    # --- the result ---

    def workitem(self, number: int = 1) -> Workitem:
        return self.service.worklist.workitem(uid(number))

    def state(self, number: int = 1) -> str:
        """Procedure Step State."""
        return text(self.workitem(number).attributes, tags.STATE)

    def subscription(self, ae: str, number: int = 1) -> Subscription:
        """The UPS subscription state."""
        return self.service.subscriptions.state(ae, self.workitem(number))

    def events_for(self, ae: str) -> list[Event]:
        """The events of workitems that the AE received, repeats included."""
        answer = self.channel.events.get(ae, [])
        return [event for event in answer if event.type is not EventType.SCP_STATUS_CHANGE]

    def heard(self, ae: str) -> list[str]:
        """Events of workitems that the AE received, in short (``1: SCHEDULED``, ``1: event 5``), without repeats."""
        events: dict[int, Event] = {}
        for event in self.events_for(ae):
            events.setdefault(event.sequence, event)
        return [in_short(event) for event in events.values()]

    def sequences(self, ae: str) -> list[int]:
        """The sequences of the events without repeats. Only after a crash may there be repeats."""
        return list(dict.fromkeys(event.sequence for event in self.events_for(ae)))

    async def entry(self, key: str) -> Entry:
        result = await self.entries.another().read(key)
        assert result is not None
        return result


def late_watch(service: UpsService) -> LateWatch:
    """The late workitems by the default settings."""
    return LateWatch(service.projection, LatePolicy(), service.clock.now)


def on_loop(test: Callable[_P, Coroutine[Any, Any, None]]) -> Callable[_P, None]:
    """Run an asynchronous test on a loop of its own."""

    async def whole(*args: _P.args, **kwargs: _P.kwargs) -> None:
        opened: list[ServiceRig] = []
        _OPENED.set(opened)
        try:
            await test(*args, **kwargs)
        finally:
            for rig in opened:
                await rig.crash()

    @functools.wraps(test)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> None:
        asyncio.run(whole(*args, **kwargs))

    return run


def _instance(to: int | str) -> str:
    return uid(to) if isinstance(to, int) else to


def overwrite(path: str, content: bytes | None) -> None:
    """Overwrite a file, as an administrator could; None deletes it."""
    Path(path).unlink()
    if content is not None:
        Path(path).write_bytes(content)


def in_short(event: Event) -> str:
    """``1: IN PROGRESS`` for a State Report of workitem 1, ``1: event 5`` for others."""
    number = event.uid.rpartition(".")[2]
    if event.type is EventType.STATE_REPORT:
        return f"{number}: {text(event.information, tags.STATE)}"
    return f"{number}: event {int(event.type)}"


def grows(sequences: Sequence[int]) -> bool:
    """True if each number is greater than the one before."""
    return all(earlier < later for earlier, later in pairwise(sequences))
