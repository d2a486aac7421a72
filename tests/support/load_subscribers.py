# SPDX-License-Identifier: AGPL-3.0-or-later
"""Subscribers in a process of their own: DIMSE listeners, and WebSockets that reconnect.

Each event is a line ``AE UID change`` (and for a WebSocket its sequence) of the record. The first line of the output
names the ports of the listeners as JSON. The first line of the input is the port for the sockets; then the second
line of the output says that all of them are open. The process ends when its input does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import sys
from typing import Any, TextIO

import orjson

from orthanc_ups.core.dataset import text
from orthanc_ups.dimse.message import AFFECTED_INSTANCE, EVENT_TYPE, Message
from tests.support.load_plan import change_in
from tests.support.raw_dimse import EventListener, decoded
from tests.support.raw_http import Broken, Socket

_PAUSE = 0.05
_SEQUENCE = "00771001"


class Record:
    """Writes down which AE received which change."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def report(self, receiving_ae: str, message: Message) -> None:
        """Record an N-EVENT-REPORT."""
        change = change_in(message.number(EVENT_TYPE) or 0, decoded(message.data))
        self._say(f"{receiving_ae}\t{message.text(AFFECTED_INSTANCE)}\t{change}")

    def event(self, receiving_ae: str, payload: bytes) -> int:
        """Record an event from a WebSocket; return its sequence."""
        content: Any = orjson.loads(payload)
        change = change_in(content["00001002"]["Value"][0], content)
        sequence = int(text(content, _SEQUENCE))
        self._say(f"{receiving_ae}\t{content['00001000']['Value'][0]}\t{change}\t{sequence}")
        return sequence

    def _say(self, line: str) -> None:
        self._file.write(f"{line}\n")
        self._file.flush()


class Watcher:
    """Keeps one WebSocket open; with ``resumes`` it requests the events that it missed."""

    def __init__(self, receiving_ae: str, port: int, record: Record, *, resumes: bool) -> None:
        self._receiving_ae, self._port, self._record = receiving_ae, port, record
        self._resumes = resumes
        self._last = 0
        self.first = asyncio.Event()

    def _took(self, payload: bytes) -> None:
        self._last = max(self._last, self._record.event(self._receiving_ae, payload))

    async def run(self) -> None:
        """Reconnect for ever."""
        while True:
            with contextlib.suppress(OSError, Broken):
                since = f"?since={self._last}" if self._resumes and self._last else ""
                path = f"/dicom-web/subscribers/{self._receiving_ae}{since}"
                socket = await Socket.open(self._port, path, self._took)
                self.first.set()
                await socket.ended
            await asyncio.sleep(_PAUSE)


def _listener(named: str, record: Record) -> EventListener:
    """``AE`` or ``AE:port``."""
    name, _, port = named.partition(":")
    return EventListener(name, record.report, int(port or 0))


async def _run(options: argparse.Namespace) -> None:
    with open(options.record, "a", encoding="ascii") as file:  # noqa: ASYNC230  # its lines are short
        record = Record(file)
        listeners = [_listener(name, record) for name in options.dimse]
        for listener in listeners:
            await listener.start()
        print(json.dumps({listener.ae_title: listener.port for listener in listeners}), flush=True)
        loop = asyncio.get_running_loop()
        port = int(await loop.run_in_executor(None, sys.stdin.readline) or 0)
        watchers = [Watcher(name, port, record, resumes=False) for name in options.sockets]
        watchers += [Watcher(name, port, record, resumes=True) for name in options.resuming]
        running = [asyncio.create_task(watcher.run()) for watcher in watchers]
        await asyncio.gather(*(watcher.first.wait() for watcher in watchers))
        print("ready", flush=True)
        await loop.run_in_executor(None, sys.stdin.read)
        for task in running:
            task.cancel()
        await asyncio.gather(*(listener.stop() for listener in listeners))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--dimse", action="append", default=[])
    parser.add_argument("--sockets", action="append", default=[])
    parser.add_argument("--resuming", action="append", default=[])
    parser.add_argument("--record", required=True)
    asyncio.run(_run(parser.parse_args()))


if __name__ == "__main__":
    main()
