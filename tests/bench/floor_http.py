# SPDX-License-Identifier: AGPL-3.0-or-later
"""The floor for HTTP: the server under the plugin's listener, with constant answers and a broadcast to open sockets.

``GET`` and the like answer the constant in the file that is named; ``POST /broadcast`` tells every socket first, by the
server's own call for that; ``POST /frames`` writes one prepared frame to each, as fast as it goes.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from aiohttp.web import BaseRequest, StreamResponse, WebSocketResponse

from orthanc_ups.dicomweb import websocket_frames
from orthanc_ups.dicomweb.aiohttp_server import LimitedServer, ServerLimits, as_aiohttp
from orthanc_ups.dicomweb.response import WebResponse
from orthanc_ups.orthanc.refusal_log import RefusalLog


class _Floor:
    def __init__(self, constant: bytes, message: bytes) -> None:
        self._constant = constant
        self._message = message.decode()
        self._frame = websocket_frames.text(message)
        self._sockets: set[WebSocketResponse] = set()
        self._transports: set[asyncio.WriteTransport] = set()

    async def answer(self, request: BaseRequest) -> StreamResponse:
        if request.headers.get("Upgrade"):
            return await self._stay(request)
        await request.read()
        if request.path == "/broadcast":
            for socket in list(self._sockets):
                await socket.send_str(self._message)
        elif request.path == "/frames":
            for transport in self._transports:
                transport.write(self._frame)
        return as_aiohttp(WebResponse(200, (), self._constant, "application/dicom+json"))

    async def _stay(self, request: BaseRequest) -> StreamResponse:
        socket = WebSocketResponse(compress=False)
        await socket.prepare(request)
        transport = request.transport
        assert transport is not None
        self._sockets.add(socket)
        self._transports.add(transport)
        async for _ in socket:
            pass
        self._sockets.discard(socket)
        self._transports.discard(transport)
        return socket


async def _serve(floor: _Floor) -> None:
    server = LimitedServer(floor.answer, ServerLimits(5_000, 16_384, 75.0), RefusalLog())
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, backlog=1024)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(_Floor(Path(sys.argv[1]).read_bytes(), Path(sys.argv[2]).read_bytes())))
