# SPDX-License-Identifier: AGPL-3.0-or-later
"""The node's mark: one entry that says which of several Orthancs on one database keeps the worklist.

Each node keeps subscriptions, cursors and numbers in memory, so only one may work at a time. The mark is written by
compare-and-set, and renewed while its owner lives. A node that finds the mark of another one watches it: if it is not
renewed for ``STALE_AFTER`` seconds by the watcher's own clock, its owner is gone. No two clocks are compared.
"""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import orjson

from . import keys
from .documents import FORMAT
from .port import Entries, Entry, StoreUnavailable
from .writer import CompareAndSet, Conflict

RENEW_EVERY: Final = 10.0
"""Seconds; Orthanc notes each renewal in ``/changes``."""
STALE_AFTER: Final = 30.0
_LOOK_EVERY: Final = 2.0
_RETRY_EVERY: Final = 1.0

_log = logging.getLogger("orthanc_ups.store")


class MonotonicClock(Protocol):
    """The clock of the mark."""

    def monotonic(self) -> float:
        """Seconds since an arbitrary moment; never set back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@dataclass(frozen=True, slots=True)
class Node:
    """One installation of the plugin, and one run of it.

    Attributes:
        name: stays the same over restarts, so that a node that was killed takes over its own mark at once.
        run: differs for each start.
        leased: True if it leads by a lease; another node with a lease may then take over the mark at once.
    """

    name: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    leased: bool = False

    def __str__(self) -> str:
        return f"{self.host} (process {self.pid})"


class NodeFile:
    """The file that gives a node its name. Locked by this process until ``close``.

    Nodes that share a folder must not share a name, or one would take the other's mark for its own: a process that
    finds the file in use gets a name for this run only.
    """

    def __init__(self, path: str | Path) -> None:
        """Open or create the file. Raises OSError if that is not possible."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self.node = Node(uuid.uuid4().hex)
        else:
            self.node = Node(self._lasting_name())

    def _lasting_name(self) -> str:
        name = os.pread(self._file, 100, 0).decode("ascii", "replace").strip()
        if not name:
            name = uuid.uuid4().hex
            os.pwrite(self._file, name.encode(), 0)
        return name

    def close(self) -> None:
        """Unlock the name for other processes."""
        os.close(self._file)


class NodeMark:
    """The mark, as one node sees it. Call ``acquire``, then ``keep`` in a task of its own, and ``release`` at last."""

    def __init__(
        self, entries: Entries, node: Node, clock: MonotonicClock, on_wait: Callable[[str], None]
    ) -> None:
        """``on_wait`` is called with the reason when this node has to wait for another one."""
        self._entries = entries
        self._node = node
        self._clock = clock
        self._mark = CompareAndSet(entries, keys.NODE)
        self._renewals = 0
        self._on_wait = on_wait
        self._rival = ""
        self._holder: Node | None = None

    def write_to(self, entries: Entries) -> None:
        """Write the mark through these entries from now on."""
        self._entries, self._mark = entries, CompareAndSet(entries, keys.NODE)

    async def acquire(self) -> None:
        """Wait until no other node holds the worklist, and mark it as ours. Raises StoreUnavailable."""
        watched, since = "", 0.0
        while (entry := await self._mark_of_another()) is not None:
            self._report(entry)
            if entry.version != watched:
                watched, since = entry.version, self._clock.monotonic()
            elif self._clock.monotonic() - since >= STALE_AFTER and await self._take_over(entry):
                break
            await self._clock.sleep(_LOOK_EVERY)
        if self._holder is not None:
            _log.warning("%s has given up the worklist; this node keeps it now", self._holder)
        self._holder = None

    def _report(self, entry: Entry) -> None:
        holder = _node_in(entry)
        if self._holder is not None and self._holder.run == holder.run:
            return
        reason = f"another node holds the worklist on this database: {holder}"
        self._on_wait(reason)
        if self._holder is None or self._holder.name != holder.name:  # a restart of it is not logged
            _log.warning("The UPS service is not open, because %s; waiting until that node is gone", reason)
        self._holder = holder

    async def _mark_of_another(self) -> Entry | None:
        """The mark of another node; None once this node has it."""
        while (entry := await self._claim(None)) is not None:
            holder = _node_in(entry)
            if holder.run == self._node.run:
                self._mark = CompareAndSet(self._entries, keys.NODE, entry.version)
                return None
            is_free = holder.leased and self._node.leased
            if not is_free and (holder.name != self._node.name or holder.run == self._rival):
                return entry
            if await self._take_over(entry):
                return None
        return None

    async def _claim(self, version: str | None) -> Entry | None:
        """Replace a version of the mark by this node's. Returns None on success, else the mark that is stored."""
        while True:
            mark = CompareAndSet(self._entries, keys.NODE, version)
            try:
                await mark.write(self._document())
            except Conflict as conflict:
                if conflict.entry is not None:
                    return conflict.entry
                version = None
            else:
                self._mark = mark
                return None

    async def _take_over(self, entry: Entry) -> bool:
        return await self._claim(entry.version) is None

    def _document(self) -> bytes:
        self._renewals += 1
        node = self._node
        content = {
            "format": FORMAT,
            "node": node.name,
            "host": node.host,
            "pid": node.pid,
            "run": node.run,
            "renewed": self._renewals,
            "leased": node.leased,
        }
        return orjson.dumps(content)

    async def keep(self) -> None:
        """Renew the mark until another node has taken it over."""
        pause = RENEW_EVERY
        while True:
            await self._clock.sleep(pause)
            try:
                if not await self._renewed():
                    return
                pause = RENEW_EVERY
            except StoreUnavailable:
                pause = _RETRY_EVERY

    async def _renewed(self) -> bool:
        """Write the mark again, even if it was deleted; False if another node has it."""
        while True:
            try:
                await self._mark.write(self._document())
                return True
            except Conflict as conflict:
                holder = None if conflict.entry is None else _node_in(conflict.entry)
            if holder is not None and holder.run != self._node.run:
                self._mark, self._rival = CompareAndSet(self._entries, keys.NODE), holder.run
                _log.error("Another node has taken the worklist over: %s", holder)
                return False

    async def release(self) -> None:
        """Let another node take over at once. A mark that cannot be removed becomes stale by itself."""
        try:
            await self._mark.remove()
        except (Conflict, StoreUnavailable) as error:
            _log.info("Cannot remove the mark of this node: %s", error)
        self._mark = CompareAndSet(self._entries, keys.NODE)


def _node_in(entry: Entry) -> Node:
    try:
        content = orjson.loads(entry.document)
        leased = bool(content.get("leased", False))
        return Node(
            str(content["node"]), str(content["host"]), int(content["pid"]), str(content["run"]), leased
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError):
        return Node("?", "a node whose mark cannot be read", 0, "")
