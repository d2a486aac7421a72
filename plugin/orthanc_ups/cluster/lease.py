# SPDX-License-Identifier: AGPL-3.0-or-later
"""The lease: a row in PostgreSQL that the leader renews and the other nodes watch.

Clocks of different machines are never compared. The leader counts ``LEASE`` seconds from just before it sent its last
successful renewal; a watcher counts them from when it saw the row change, which is later. A node therefore takes the
lease over only after the leader has stopped leading by itself. The clock keeps running while a machine is suspended.

Each leadership has an *epoch*, which only grows. The row ``fence`` has the only epoch that may write: each write locks
that row FOR SHARE in its own transaction (``rows.py``), and a node that takes over must update it first. What a former
leader sent is therefore written before the new leader reads anything, or never.

The keeper has a thread and a loop of its own, so that load on the worklist does not delay a renewal. If the worklist's
loop shows no sign of life for ``STUCK_AFTER`` seconds, the lease is not renewed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import psycopg

from ..orthanc.loop_thread import LoopThread
from .database import TABLE, Database, Session, first_line

_log = logging.getLogger("orthanc_ups.cluster")

LEASE: Final = 2.0
"""Seconds that a leadership lasts without a renewal."""
RENEW_EVERY: Final = 0.5
STUCK_AFTER: Final = 10.0
"""Seconds without a sign of life from the loop of an open worklist, after which the lease is not renewed."""
OPENING: Final = 300.0
"""The same while the worklist is being opened: rebuilding a large search index keeps the loop busy."""
_ANSWER_WITHIN: Final = 1.0
_GONE_AFTER: Final = 10.0  # seconds without a sign of life, after which a node is not listed
_CONTINUES_WITHIN: Final = 10.0
CHANNEL: Final = "orthanc_ups"


def clock() -> float:
    """Seconds of a monotonic clock that keeps running while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Holder:
    """The row ``lease``.

    Attributes:
        epoch: of the current leadership, or of the last one.
        run: the leader's; "" if no node leads.
        beat: grows with each renewal.
        about: the leader's name, host and process, and how to reach it.
    """

    epoch: int = 0
    run: str = ""
    beat: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node that has shown a sign of life lately.

    Attributes:
        silence: seconds since its last sign of life.
        about: name, host, process, version, role and since when.
    """

    run: str
    silence: float
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Leadership:
    """A period in which this node leads.

    Attributes:
        continues: True if another node led until now: subscribers need not be notified of a restart.
    """

    epoch: int
    continues: bool


class _Watch:
    """For how long each row has not changed, by this node's own clock."""

    def __init__(self) -> None:
        self._changes: dict[str, tuple[object, float]] = {}

    def unchanged_for(self, name: str, value: object, now: float) -> float:
        """Seconds since this row was first read with this value."""
        change = self._changes.get(name)
        if change is None or change[0] != value:
            self._changes[name] = (value, now)
            return 0.0
        return now - change[1]

    def retain(self, names: set[str]) -> None:
        """Forget all rows but these."""
        for name in self._changes.keys() - names:
            del self._changes[name]


class LeaseKeeper:
    """Watches and renews the lease for as long as the plugin runs. Attributes may be read from any thread.

    Attributes:
        run: identifies this start of this node.
        holder: the row ``lease`` as last read.
        nodes: the live nodes, this one included.
        trouble: why PostgreSQL cannot be reached; "" if it can.
        details: returns what to add to this node's row, such as its lag.
    """

    def __init__(
        self,
        database: Database,
        about: Mapping[str, Any],
        on_elected: Callable[[Leadership], None],
        on_lost: Callable[[str], None],
        thread: LoopThread | None = None,
    ) -> None:
        """``about`` describes this node. The callbacks run on the keeper's thread; ``on_lost`` gets the reason."""
        self.run = uuid.uuid4().hex
        self.holder = Holder()
        self.nodes: tuple[LiveNode, ...] = ()
        self.trouble = ""
        self._database = database
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), **about}
        self._offer: Mapping[str, Any] | None = None
        self._on_elected, self._on_lost = on_elected, on_lost
        self._thread = thread or LoopThread("ups-lease")
        self._epoch = 0
        self._valid_until = 0.0
        self._alive_at = clock()
        self._is_open = False
        self._watch = _Watch()
        self._beat = 0
        self._since = _now()
        self._session: Session | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake: asyncio.Event | None = None
        self._last_renewal = 0.0
        self._unrenewed_for = 0.0
        self.details: Callable[[], Mapping[str, Any]] = dict

    # --- called on the worklist's thread ---

    @property
    def epoch(self) -> int:
        """The epoch under which this node leads; 0 if it does not lead."""
        return self._epoch

    @property
    def leads(self) -> bool:
        """True while this node certainly leads. Check it before each write and each delivery."""
        return self._epoch > 0 and clock() < self._valid_until

    @property
    def remaining(self) -> float:
        """Seconds until this node's lease expires; 0 if it does not lead."""
        return max(0.0, self._valid_until - clock()) if self._epoch else 0.0

    @property
    def is_fresh(self) -> bool:
        """True if this node has lately read a change of the lease row."""
        return not self.trouble and self._unrenewed_for < 2 * LEASE

    @property
    def since(self) -> str:
        """When this node took its present role: ISO 8601, UTC."""
        return self._since

    def alive(self) -> None:
        """Note that the worklist's loop runs."""
        self._alive_at = clock()

    def opened(self) -> None:
        """Note that the worklist is open: from now on ``STUCK_AFTER`` applies."""
        self._alive_at, self._is_open = clock(), True

    def stand(self, offer: Mapping[str, Any]) -> None:
        """Stand for election. ``offer`` tells other nodes how to reach this one."""
        self._offer, self._is_open = offer, False
        self._thread.call_soon(self._wake_up)

    def has_others(self) -> bool:
        """True if there are other live nodes."""
        return any(node.run != self.run for node in self.nodes)

    # --- start and stop ---

    def start(self) -> None:
        """Start watching the lease."""
        self._thread.start()
        self._thread.call_soon(self._begin)

    def _begin(self) -> None:
        self._wake = asyncio.Event()
        self._task = asyncio.ensure_future(self._keep())

    def _wake_up(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def resign(self) -> None:
        """Release the lease, if this node has it, so that another node can take it at once; stop standing for it."""
        self._offer = None
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.wrap_future(self._thread.submit(self._resign())), 2 * LEASE)

    async def _resign(self) -> None:
        epoch, self._epoch = self._epoch, 0
        if epoch and self._session is not None:
            try:
                await self._run(_RELEASE, (epoch, self.run))
                await self._run("SELECT pg_notify(%s, '')", (CHANNEL,))
            except (psycopg.Error, OSError) as error:
                _log.info("Cannot release the lease, which will expire: %s", first_line(error))

    async def close(self) -> None:
        """Resign, remove this node's row and stop the thread."""
        await self.resign()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.wrap_future(self._thread.submit(self._leave())), LEASE)
        await asyncio.to_thread(self._thread.stop, LEASE)

    async def _leave(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._session is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await self._run(_FORGET, ([f"node/{self.run}"],))
            await self._session.close()

    # --- on the keeper's thread ---

    async def _keep(self) -> None:
        while True:
            start = clock()
            try:
                await self._round()
                self.trouble = ""
            except (psycopg.Error, OSError) as error:
                await self._lose_session(first_line(error))
            except Exception:
                _log.exception("Cannot keep the lease: internal error")
                await self._drop_session()
            self._check()
            await self._pause(RENEW_EVERY - (clock() - start))

    async def _lose_session(self, trouble: str) -> None:
        if not self.trouble:
            _log.warning("Cannot read from PostgreSQL which node leads: %s", trouble)
        self.trouble = trouble
        await self._drop_session()

    async def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _pause(self, seconds: float) -> None:
        """Wait until the next renewal is due, or until another node releases the lease."""
        assert self._wake is not None
        deadline = clock() + max(seconds, 0.05)
        while not self._wake.is_set() and (remaining := deadline - clock()) > 0:
            if self._session is None or self._epoch:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), remaining)
                break
            if await self._is_notified(remaining):
                break
        self._wake.clear()

    async def _is_notified(self, seconds: float) -> bool:
        assert self._session is not None
        try:
            async for _ in self._session.notifies(timeout=min(seconds, 0.1), stop_after=1):
                return True
        except (psycopg.Error, OSError):
            await self._drop_session()
        return False

    async def _run(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        assert self._session is not None
        async with asyncio.timeout(_ANSWER_WITHIN):
            cursor = await self._session.execute(statement, parameters)
            return await cursor.fetchall() if cursor.description else []

    async def _round(self) -> None:
        if self._session is None:
            self._session = await self._database.connect()
            await self._run(f"LISTEN {CHANNEL}")
        if self._epoch:
            await self._renew()
        await self._read_rows()
        if not self._epoch and self._offer is not None and self._is_free():
            await self._take()

    async def _renew(self) -> None:
        patience = STUCK_AFTER if self._is_open else OPENING
        if clock() - self._alive_at > patience:
            _log.error("The worklist's thread has not responded for %g s: this node stops leading", patience)
            return
        if not self.leads:  # it has expired: never renew it under this epoch again
            return
        sent = clock()
        renewed = await self._run(_RENEW, (self._epoch, self.run))
        if renewed:
            self._valid_until = sent + LEASE
        else:
            self._end("another node has taken the worklist over")

    def _check(self) -> None:
        """Stop leading once the lease has expired, whatever PostgreSQL does."""
        if self._epoch and clock() >= self._valid_until:
            self._end(f"the lease could not be renewed for {LEASE:g} s")

    def _end(self, reason: str) -> None:
        self._epoch, self._offer = 0, None
        self._since = _now()
        self._on_lost(reason)

    async def _read_rows(self) -> None:
        self._beat += 1
        about = {
            **self._about,
            "role": "leader" if self._epoch else "standby",
            "since": self._since,
            **self.details(),
        }
        rows = await self._run(
            _BEAT, (f"node/{self.run}", self.run, self._beat, orjson.dumps(about).decode())
        )
        now = clock()
        nodes, gone = [], []
        for name, epoch, run, beat, description in rows:
            silence = self._watch.unchanged_for(name, (epoch, run, beat), now)
            if name == "lease":
                self._note_holder(Holder(epoch, run, beat, description), silence, now)
            elif silence > _GONE_AFTER:
                gone.append(name)
            else:
                nodes.append(LiveNode(run, silence, description))
        self._watch.retain({row[0] for row in rows})
        self.nodes = tuple(nodes)
        if gone and self._epoch:
            await self._run(_FORGET, (gone,))

    def _note_holder(self, holder: Holder, unrenewed_for: float, now: float) -> None:
        earlier = self.holder
        is_released = bool(earlier.run) and not holder.run and earlier.epoch == holder.epoch
        is_changed = (earlier.epoch, earlier.run, earlier.beat) != (holder.epoch, holder.run, holder.beat)
        is_renewed = bool(holder.run and earlier.epoch) and is_changed  # the first row read proves no renewal
        if is_released or is_renewed:
            self._last_renewal = now
        self.holder = holder
        self._unrenewed_for = unrenewed_for

    def _is_free(self) -> bool:
        return not self.holder.run or self._unrenewed_for >= LEASE

    async def _take(self) -> None:
        holder, now = self.holder, clock()
        about = orjson.dumps({**self._about, **(self._offer or {})}).decode()
        rows = await self._run(_TAKE, (self.run, about, holder.epoch, holder.beat, holder.run))
        if not rows:
            return
        self._valid_until = now + LEASE
        self._since = _now()
        continues = self._last_renewal > 0 and now - self._last_renewal <= _CONTINUES_WITHIN
        self._epoch = int(rows[0][0])
        self.holder = Holder(self._epoch, self.run, 0, orjson.loads(about))
        self._on_elected(Leadership(self._epoch, continues=continues))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_RENEW: Final = f"""
UPDATE {TABLE} SET beat = beat + 1 WHERE name = 'lease' AND epoch = %s AND holder = %s RETURNING beat
"""  # noqa: S608
_RELEASE: Final = f"""
UPDATE {TABLE} SET holder = '', beat = beat + 1 WHERE name = 'lease' AND epoch = %s AND holder = %s RETURNING beat
"""  # noqa: S608
_BEAT: Final = f"""
WITH beat AS (
  INSERT INTO {TABLE} (name, holder, beat, about) VALUES (%s, %s, %s, %s::jsonb)
  ON CONFLICT (name) DO UPDATE SET beat = EXCLUDED.beat, about = EXCLUDED.about RETURNING name)
SELECT name, epoch, holder, beat, about FROM {TABLE} WHERE name <> 'fence'
"""  # noqa: S608
_TAKE: Final = f"""
WITH lease AS (
  UPDATE {TABLE} SET epoch = epoch + 1, holder = %s, beat = 0, about = %s::jsonb
  WHERE name = 'lease' AND epoch = %s AND beat = %s AND holder = %s RETURNING epoch),
fence AS (
  UPDATE {TABLE} SET epoch = lease.epoch FROM lease WHERE name = 'fence' RETURNING {TABLE}.epoch)
SELECT epoch FROM fence
"""  # noqa: S608
_FORGET: Final = f"DELETE FROM {TABLE} WHERE name = ANY (%s)"  # noqa: S608
