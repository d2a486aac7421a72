# SPDX-License-Identifier: AGPL-3.0-or-later
"""Who leads: a row in PostgreSQL that its holder renews, and that others watch.

No two clocks are compared. The holder counts ``LEASE`` seconds from the moment before it sent its last successful
renewal; a watcher counts them from the moment at which it saw the row change, which is later. So whoever takes the
lease over does so after its holder has ended itself. The clock counts on while a machine sleeps.

A leadership has an *epoch*, which only grows. The row ``fence`` has the epoch under which may be written: each write
shares that row's lock with its own transaction (``rows.py``), and whoever takes over must change it first. So what a
former leader sent before it was stopped is either written before the new leader reads anything, or never.

The keeper runs on a loop and a thread of its own, so that nothing that keeps the worklist busy delays a renewal; if the
worklist's loop itself is silent for ``STUCK_AFTER`` seconds it is not renewed any more.
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
from .database import TABLE, Database, Session, in_words

_log = logging.getLogger("orthanc_ups.cluster")

LEASE: Final = 2.0
"""Seconds that a leadership lasts without a renewal."""
RENEW_EVERY: Final = 0.5
STUCK_AFTER: Final = 10.0
"""Seconds of silence of the worklist's loop after which its node leads no more, once the worklist is open."""
OPENING: Final = 300.0
"""The same before, as rebuilding a large search index keeps the loop busy."""
_ANSWER_WITHIN: Final = 1.0
_GONE_AFTER: Final = 10.0  # seconds without a sign of life after which a node is not listed any more
_CONTINUES_WITHIN: Final = 10.0
CHANNEL: Final = "orthanc_ups"


def clock() -> float:
    """Seconds since some moment; never set back, and counting while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Holder:
    """The row ``lease`` as it was read.

    Attributes:
        run: of the leader; "" if nobody leads.
        about: how the leader is reached.
    """

    epoch: int = 0
    run: str = ""
    beat: int = 0
    about: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LiveNode:
    """A node that shows signs of life.

    Attributes:
        seen: seconds since the last one.
        about: its role, since when, host, process, version.
    """

    run: str
    seen: float
    about: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Leadership:
    """One time of leading.

    Attributes:
        continues: True if the worklist was open on another node until now: subscribers need not be told.
    """

    epoch: int
    continues: bool


class _Watch:
    """Since when a row did not change, by our own clock."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[object, float]] = {}

    def quiet(self, name: str, value: object, now: float) -> float:
        """Seconds for which this row has had this value."""
        earlier = self._seen.get(name)
        if earlier is None or earlier[0] != value:
            self._seen[name] = (value, now)
            return 0.0
        return now - earlier[1]

    def forget_all_but(self, names: set[str]) -> None:
        """Rows that are gone."""
        for name in [name for name in self._seen if name not in names]:
            del self._seen[name]


class LeaseKeeper:
    """Watches and renews for as long as the plugin runs. Attributes may be read from any thread.

    Attributes:
        run: names this start of this node.
        holder: the lease as it was last read.
        nodes: who lives, this one included.
        trouble: why PostgreSQL cannot be asked, "" if it can.
    """

    def __init__(
        self,
        database: Database,
        about: Mapping[str, Any],
        taken: Callable[[Leadership], None],
        lost: Callable[[int, str], None],
        thread: LoopThread | None = None,
    ) -> None:
        """``about`` describes this node; ``taken`` and ``lost`` are called on the keeper's thread, the latter with
        the epoch and a reason in words.
        """
        self.run = uuid.uuid4().hex
        self.holder = Holder()
        self.nodes: tuple[LiveNode, ...] = ()
        self.trouble = ""
        self._database = database
        self._about = {"host": socket.gethostname(), "pid": os.getpid(), **about}
        self._offer: Mapping[str, Any] | None = None
        self._taken, self._lost = taken, lost
        self._thread = thread or LoopThread("ups-lease")
        self._epoch = 0
        self._valid_until = 0.0
        self._alive_at = clock()
        self._is_open = False
        self._watch = _Watch()
        self._beat = 0
        self._since = _now()
        self._session: Session | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._wake: asyncio.Event | None = None
        self._last_life = 0.0
        self._quiet = 0.0
        self._handed_over = False
        self.more: Callable[[], Mapping[str, Any]] = dict

    # --- asked by the worklist's thread ---

    @property
    def epoch(self) -> int:
        """Of our leadership; 0 if we do not lead."""
        return self._epoch

    @property
    def leads(self) -> bool:
        """True while this node surely leads. To be asked before each write and each delivery."""
        return self._epoch > 0 and clock() < self._valid_until

    @property
    def remaining(self) -> float:
        """Seconds of our lease."""
        return max(0.0, self._valid_until - clock()) if self._epoch else 0.0

    @property
    def is_fresh(self) -> bool:
        """True if the lease was seen to be renewed in time."""
        return not self.trouble and self._quiet < 2 * LEASE

    @property
    def since(self) -> str:
        """Since when this node has its role, as text."""
        return self._since

    def alive(self) -> None:
        """The worklist's loop runs."""
        self._alive_at = clock()

    def opened(self) -> None:
        """The worklist is open: from now on its loop is never silent for long."""
        self._alive_at, self._is_open = clock(), True

    def stand(self, offer: Mapping[str, Any]) -> None:
        """From now on this node may be elected. ``offer`` is what others are told of how to reach it."""
        self._offer, self._is_open = offer, False
        self._thread.call_soon(self._stir)

    def others(self) -> bool:
        """True if other nodes live."""
        return any(node.run != self.run for node in self.nodes)

    # --- life ---

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()
        self._thread.call_soon(self._begin)

    def _begin(self) -> None:
        self._wake = asyncio.Event()
        self._keeping = asyncio.ensure_future(self._keep())

    def _stir(self) -> None:
        if self._wake is not None:
            self._wake.set()

    async def resign(self) -> None:
        """Give the lease up, if it is ours, so that another node takes it at once; stand for it no more."""
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
                _log.info("the lease was left to expire: %s", in_words(error))

    async def close(self) -> None:
        """Give up what is ours and end the thread."""
        await self.resign()
        with contextlib.suppress(Exception):
            await asyncio.wait_for(asyncio.wrap_future(self._thread.submit(self._leave())), LEASE)
        await asyncio.to_thread(self._thread.stop, LEASE)

    async def _leave(self) -> None:
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
        if self._session is not None:
            with contextlib.suppress(psycopg.Error, OSError):
                await self._run(_FORGET, ([f"node/{self.run}"],))
            await self._session.close()

    # --- the keeper's thread ---

    async def _keep(self) -> None:
        while True:
            begun = clock()
            try:
                await self._round()
                self.trouble = ""
            except (psycopg.Error, OSError) as error:
                await self._trouble(in_words(error))
            except Exception:
                _log.exception("keeping the lease failed: internal error")
                await self._drop_session()
            self._check()
            await self._pause(RENEW_EVERY - (clock() - begun))

    async def _trouble(self, words: str) -> None:
        if not self.trouble:
            _log.warning("PostgreSQL cannot be asked who leads: %s", words)
        self.trouble = words
        await self._drop_session()

    async def _drop_session(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _pause(self, seconds: float) -> None:
        """Until the next renewal, or until somebody gives the lease up."""
        assert self._wake is not None
        deadline = clock() + max(seconds, 0.05)
        while not self._wake.is_set() and (left := deadline - clock()) > 0:
            if self._session is None or self._epoch:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), left)
                break
            if await self._heard(left):
                break
        self._wake.clear()

    async def _heard(self, seconds: float) -> bool:
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
        await self._look()
        if not self._epoch and self._offer is not None and self._is_free():
            await self._take()

    async def _renew(self) -> None:
        patience = STUCK_AFTER if self._is_open else OPENING
        if clock() - self._alive_at > patience:
            _log.error("the worklist's thread is silent for %g s: this node stops leading", patience)
            return
        if not self.leads:  # too late: never again under this epoch
            return
        sent = clock()
        renewed = await self._run(_RENEW, (self._epoch, self.run))
        if renewed:
            self._valid_until = sent + LEASE
        else:
            self._end("another node has taken the worklist over")

    def _check(self) -> None:
        """End our leadership once the lease is over, whatever PostgreSQL does."""
        if self._epoch and clock() >= self._valid_until:
            self._end(f"the lease could not be renewed for {LEASE:g} s")

    def _end(self, reason: str) -> None:
        epoch, self._epoch, self._offer = self._epoch, 0, None
        self._since = _now()
        self._lost(epoch, reason)

    async def _look(self) -> None:
        self._beat += 1
        about = {
            **self._about,
            "role": "leader" if self._epoch else "standby",
            "since": self._since,
            **self.more(),
        }
        rows = await self._run(
            _LOOK, (f"node/{self.run}", self.run, self._beat, orjson.dumps(about).decode())
        )
        now = clock()
        nodes, gone = [], []
        for name, epoch, run, beat, address in rows:
            quiet = self._watch.quiet(name, (epoch, run, beat), now)
            if name == "lease":
                self._see(Holder(epoch, run, beat, address), quiet, now)
            elif quiet > _GONE_AFTER:
                gone.append(name)
            else:
                nodes.append(LiveNode(run, quiet, address))
        self._watch.forget_all_but({row[0] for row in rows})
        self.nodes = tuple(nodes)
        if gone and self._epoch:
            await self._run(_FORGET, (gone,))

    def _see(self, holder: Holder, quiet: float, now: float) -> None:
        earlier = self.holder
        if earlier.run and not holder.run and earlier.epoch == holder.epoch:
            self._handed_over, self._last_life = True, now
        elif holder.run and (earlier.epoch, earlier.run, earlier.beat) != (
            holder.epoch,
            holder.run,
            holder.beat,
        ):
            if earlier.epoch:  # the first look proves no life
                self._last_life = now
            self._handed_over = False
        self.holder = holder
        self._quiet = quiet

    def _is_free(self) -> bool:
        return not self.holder.run or self._quiet >= LEASE

    async def _take(self) -> None:
        holder, now = self.holder, clock()
        about = orjson.dumps({**self._about, **(self._offer or {})}).decode()
        taken = await self._run(_TAKE, (self.run, about, holder.epoch, holder.beat, holder.run))
        if not taken:
            return
        self._valid_until = now + LEASE
        self._since = _now()
        lives = self._last_life > 0 and now - self._last_life <= _CONTINUES_WITHIN
        self._epoch = int(taken[0][0])
        self.holder = Holder(self._epoch, self.run, 0, orjson.loads(about))
        self._taken(Leadership(self._epoch, continues=lives))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


_RENEW: Final = f"""
UPDATE {TABLE} SET beat = beat + 1 WHERE name = 'lease' AND epoch = %s AND holder = %s RETURNING beat
"""  # noqa: S608
_RELEASE: Final = f"""
UPDATE {TABLE} SET holder = '', beat = beat + 1 WHERE name = 'lease' AND epoch = %s AND holder = %s RETURNING beat
"""  # noqa: S608
_LOOK: Final = f"""
WITH mine AS (
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
