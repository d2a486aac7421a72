# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orthanc's metadata, read and written in its PostgreSQL, fenced by the leader's epoch.

Each write is one statement, hence one transaction: it locks the row ``fence`` FOR SHARE if that row has our epoch,
compares, and sets. A node that takes over the lease updates that row first. A former leader's write is therefore
committed before the new leader reads anything, or not at all, however long the former leader was suspended. Responses
are those of Orthanc's REST API, which still serves all other requests.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..core.unavailable import StoreUnavailable
from ..orthanc.loopback import Loopback, Reply
from ..store.shelves import Address, md5
from .database import MANY_ROWS_WITHIN, TABLE, Sessions
from .notices import SHELF_NUMBERS

_ENTRY: Final = re.compile(r"/instances/([0-9a-f-]{44})/metadata/(\d+)")
_SHELF: Final = re.compile(r"/instances/([0-9a-f-]{44})/metadata\?expand&numeric")
_VERSION: Final = re.compile(r'"(\d+)-([0-9a-f]{32})"')
_INSTANCE: Final = 3  # resource type in Orthanc's tables

_FENCED: Final = f"""
WITH fence AS MATERIALIZED (SELECT 1 FROM {TABLE} WHERE name = 'fence' AND epoch = %s FOR SHARE),
shelf AS MATERIALIZED (SELECT internalid FROM resources WHERE publicid = %s AND resourcetype = {_INSTANCE}),
written AS (
"""  # noqa: S608
_OUTCOME: Final = """)
SELECT (SELECT count(*) FROM fence), (SELECT count(*) FROM shelf), (SELECT revision FROM written)
"""
_INSERT: Final = f"""{_FENCED}
  INSERT INTO metadata (id, type, value, revision)
  SELECT internalid, %s, %s, 0 FROM shelf WHERE EXISTS (SELECT 1 FROM fence)
  ON CONFLICT DO NOTHING RETURNING revision{_OUTCOME}"""  # noqa: S608
_UPDATE: Final = f"""{_FENCED}
  UPDATE metadata SET value = %s, revision = metadata.revision + 1 FROM shelf
  WHERE metadata.id = shelf.internalid AND metadata.type = %s AND metadata.revision = %s
    AND md5(metadata.value) = %s AND EXISTS (SELECT 1 FROM fence) RETURNING metadata.revision{_OUTCOME}"""  # noqa: S608
_DELETE: Final = f"""{_FENCED}
  DELETE FROM metadata USING shelf
  WHERE metadata.id = shelf.internalid AND metadata.type = %s AND metadata.revision = %s
    AND md5(metadata.value) = %s AND EXISTS (SELECT 1 FROM fence) RETURNING metadata.revision{_OUTCOME}"""  # noqa: S608
_READ: Final = f"""
SELECT value, revision, md5(value) FROM metadata JOIN resources ON resources.internalid = metadata.id
WHERE publicid = %s AND resourcetype = {_INSTANCE} AND type = %s
"""  # noqa: S608
_READ_SHELF: Final = f"""
SELECT type, value FROM resources LEFT JOIN metadata ON resources.internalid = metadata.id
WHERE publicid = %s AND resourcetype = {_INSTANCE}
"""  # noqa: S608


class NotLeading(StoreUnavailable):
    """Nothing was written: another node leads, or may lead by now."""

    def __init__(self) -> None:
        super().__init__("another node leads the worklist", certain=True)


@dataclass(frozen=True, slots=True)
class _Rows(Reply):
    """A response built from rows, without JSON in between."""

    content: Mapping[str, str] | None = None

    def json(self) -> Any:
        """The contents of the shelf, by slot."""
        return self.content


class FencedLoopback(Loopback):
    """Orthanc's REST API, with entries on shelves read and written by SQL under the fence.

    ``under`` must be called before the first request.
    """

    _sessions: Sessions
    _epoch: int
    _leads: Callable[[], bool]
    _fenced: Callable[[], None]
    _wrote: Callable[[Address], object]

    def under(
        self,
        sessions: Sessions,
        epoch: int,
        leads: Callable[[], bool],
        fenced: Callable[[], None],
        wrote: Callable[[Address], object] = lambda address: None,
    ) -> None:
        """Write under this epoch while ``leads`` returns True.

        ``fenced`` is called if the fence turns out to have another epoch, ``wrote`` after each write.
        """
        self._sessions, self._epoch, self._leads, self._fenced = sessions, epoch, leads, fenced
        self._wrote = wrote

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """As Loopback.request. Raises NotLeading, with nothing written, once the lease is over."""
        entry = _ENTRY.fullmatch(path)
        if entry is not None:
            return await self._entry(method, entry[1], int(entry[2]), body or b"", headers or {})
        shelf = _SHELF.fullmatch(path) if method == "GET" else None
        if shelf is not None:
            return await self._whole_shelf(shelf[1])
        if method != "GET":
            self._check()
        return await super().request(method, path, body, headers)

    def _check(self) -> None:
        if not self._leads():
            raise NotLeading

    async def _entry(
        self, method: str, shelf: str, slot: int, body: bytes, headers: Mapping[str, str]
    ) -> Reply:
        if method == "GET":
            return await self._read(shelf, slot)
        self._check()
        version = _VERSION.fullmatch(headers.get("If-Match", ""))
        if version is None:
            if method != "PUT":
                return Reply(409, b"")
            return await self._write(_INSERT, slot, (shelf, slot, body.decode()), body)
        expected = (slot, int(version[1]), version[2])
        if method == "PUT":
            return await self._write(_UPDATE, slot, (shelf, body.decode(), *expected), body)
        return await self._write(_DELETE, slot, (shelf, *expected))

    async def _write(
        self, statement: str, slot: int, parameters: tuple[Any, ...], body: bytes = b""
    ) -> Reply:
        rows = await self._sessions.rows(statement, (self._epoch, *parameters))
        fence, shelf, revision = rows[0]
        if not fence:
            self._fenced()
            raise NotLeading
        if not shelf:
            return Reply(404, b"")
        if revision is None:
            return Reply(409, b"")
        self._wrote(Address(SHELF_NUMBERS[parameters[0]], slot))
        return Reply(200, b"", f"{revision}-{md5(body)}")

    async def _read(self, shelf: str, slot: int) -> Reply:
        rows = await self._sessions.rows(_READ, (shelf, slot))
        if not rows:
            return Reply(404, b"")
        value, revision, digest = rows[0]
        return Reply(200, value.encode(), f"{revision}-{digest}")

    async def _whole_shelf(self, shelf: str) -> Reply:
        rows = await self._sessions.rows(_READ_SHELF, (shelf,), MANY_ROWS_WITHIN)
        if not rows:
            return Reply(404, b"")
        return _Rows(200, b"", "", {str(slot): value for slot, value in rows if slot is not None})
