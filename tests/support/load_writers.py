# SPDX-License-Identifier: AGPL-3.0-or-later
"""Writers that never give up, as a process of their own: each takes workitems through their life, over DIMSE or HTTP.

What was certainly done goes into a journal, one line ``UID change`` each: because it was answered with success, or
because the workitem shows it after the answer was lost. A change that the worklist forgot is a line ``! …``.
The process ends when its input does; each writer then finishes what it has begun.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence
from typing import Protocol, TextIO

import orjson

from orthanc_ups.core.dataset import DataSet
from tests.support import raw_http
from tests.support.load_plan import CREATED, Change, as_json, changes, has_happened, uids, with_transaction
from tests.support.raw_dimse import RawScu, Refused, decoded, encoded
from tests.support.raw_http import Broken, RawHttp

_PAUSE = 0.05
_COERCED = (0x0000, 0xB300, 0xB305)
_LATER = (0x0213, 503)
_ABSENT = (0xC307, 404)
_UNKNOWN = (0x0110, 500, 502)
"""The store did not answer, or the node that leads ended: nobody knows yet whether it was carried out."""


class NoAnswer(Exception):
    """The connection broke: nobody knows whether the last request was carried out."""


class WriterClient(Protocol):
    """Changes and reads workitems for a writer."""

    async def send(self, uid: str, transaction: str, change: Change) -> int:
        """Request a change; return 0 or a status. Raises NoAnswer."""
        ...

    async def look(self, uid: str) -> DataSet | None:
        """The present workitem, None if there is none. Raises NoAnswer."""
        ...


class DimseWriterClient:
    """Uses one association, opened when needed."""

    def __init__(self, port: int, calling: str) -> None:
        self._port, self._calling = port, calling
        self._scu: RawScu | None = None
        self._creation = encoded(changes(0)[0].attributes)

    async def _opened(self) -> RawScu:
        if self._scu is None or not self._scu.association.is_open:
            self._scu = await RawScu.open(self._port, self._calling)
        return self._scu

    async def send(self, uid: str, transaction: str, change: Change) -> int:
        try:
            scu = await self._opened()
            if change.name == CREATED:
                status = await scu.create(uid, self._creation)
            else:
                data = encoded(with_transaction(change.attributes, transaction))
                status = await (scu.action(1, uid, data) if change.is_state else scu.set(uid, data))
        except (OSError, Refused) as error:
            raise NoAnswer(str(error)) from error
        if status in _UNKNOWN:
            raise NoAnswer(f"answered {status:04X}")
        return 0 if status in _COERCED else status

    async def look(self, uid: str) -> DataSet | None:
        try:
            status, data = await (await self._opened()).get(uid)
        except (OSError, Refused) as error:
            raise NoAnswer(str(error)) from error
        if status in _LATER:
            raise NoAnswer("busy")
        return None if status in _ABSENT else decoded(data)


class HttpWriterClient:
    """Uses one keep-alive connection, opened when needed."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connection: RawHttp | None = None

    async def _asked(self, request: bytes) -> tuple[int, bytes]:
        try:
            if self._connection is None:
                self._connection = await RawHttp.open(self._port)
            status, body = await self._connection.send(request)
            if status in _UNKNOWN:
                raise NoAnswer(f"answered {status}")
            return status, body
        except (OSError, Broken) as error:
            if self._connection:
                self._connection.close()
            self._connection = None
            raise NoAnswer(str(error)) from error

    async def send(self, uid: str, transaction: str, change: Change) -> int:
        path = f"/dicom-web/workitems/{uid}"
        if change.name == CREATED:
            request = raw_http.request("POST", f"/dicom-web/workitems?{uid}", as_json(change.attributes))
        elif change.is_state:
            body = as_json(with_transaction(change.attributes, transaction))
            request = raw_http.request("PUT", f"{path}/state", body)
        else:
            request = raw_http.request("POST", f"{path}?{transaction}", as_json(change.attributes))
        status, _ = await self._asked(request)
        return 0 if status in (200, 201) else status

    async def look(self, uid: str) -> DataSet | None:
        request = raw_http.request("GET", f"/dicom-web/workitems/{uid}", Accept="application/dicom+json")
        status, body = await self._asked(request)
        if status in _LATER:
            raise NoAnswer("busy")
        result: list[DataSet] = orjson.loads(body) if status == 200 else []
        return result[0] if result else None


class Writer:
    """Creates, changes and completes one workitem after another."""

    def __init__(
        self, number: int, client: WriterClient, plan: Sequence[Change], journal: TextIO, pace: float
    ) -> None:
        self._client = client
        self._plan = plan
        self._journal = journal
        self._pace = pace
        self._uids = uids(number)
        self._done: Change | None = None
        self.is_ending = False

    async def run(self) -> None:
        """Run until ``is_ending``, then complete the present workitem."""
        while not self.is_ending:
            uid, transaction = next(self._uids)
            self._done = None
            for change in self._plan:
                await self._bring_about(uid, transaction, change)
                if self._pace:
                    await asyncio.sleep(self._pace)

    async def _bring_about(self, uid: str, transaction: str, change: Change) -> None:
        """Repeat a change until it has happened. If an answer was lost, the workitem is read."""
        while True:
            try:
                status = await self._client.send(uid, transaction, change)
            except NoAnswer:
                if await self._has_happened(uid, change):
                    break
                continue
            if status == 0:
                break
            if status not in _LATER:
                if await self._has_happened(uid, change):  # by the request whose answer was lost
                    break
                self._say(f"! {uid} {change.name} refused with {status:04X} ({status})")
                return
            await asyncio.sleep(_PAUSE)
        self._done = change
        self._say(f"{uid} {change.name}")

    async def _has_happened(self, uid: str, change: Change) -> bool:
        workitem = await self._patient_look(uid)
        if has_happened(workitem, change):
            return True
        if self._done is not None and not has_happened(workitem, self._done):
            self._say(f"! {uid} lost {self._done.name}, which was answered with success")
        return False

    async def _patient_look(self, uid: str) -> DataSet | None:
        while True:
            try:
                return await self._client.look(uid)
            except NoAnswer:
                await asyncio.sleep(_PAUSE)

    def _say(self, line: str) -> None:
        self._journal.write(f"{line}\n")
        self._journal.flush()


async def _run(options: argparse.Namespace) -> None:
    plan = changes(options.reports)
    with open(options.journal, "a", encoding="ascii") as journal:  # noqa: ASYNC230  # its lines are short
        writers = []
        for number in range(options.first, options.first + options.dimse + options.http):
            over_dimse = number < options.first + options.dimse
            client: WriterClient = (
                DimseWriterClient(options.dimse_port, f"WRITER{number}")
                if over_dimse
                else HttpWriterClient(options.http_port)
            )
            writers.append(Writer(number, client, plan, journal, options.pace))
        running = asyncio.gather(*(writer.run() for writer in writers))
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for writer in writers:
            writer.is_ending = True
        await running


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("dimse-port", "http-port", "dimse", "http", "reports", "first"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--pace", type=float, default=0.0)
    parser.add_argument("--journal", required=True)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
