# SPDX-License-Identifier: AGPL-3.0-or-later
"""A DICOMweb listener in this process, with the whole worklist behind it and a store in memory."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote

import msgspec

from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.events import Event
from orthanc_ups.delivery.port import SystemClock
from orthanc_ups.delivery.receivers import KnownReceivers
from orthanc_ups.dicomweb import tls as web_tls
from orthanc_ups.dicomweb.authorization import Authorization
from orthanc_ups.dicomweb.http_port import HttpPort
from orthanc_ups.dicomweb.http_service import HttpParts, HttpService
from orthanc_ups.dicomweb.rights import Rights
from orthanc_ups.dicomweb.ups_rs import UpsRs
from orthanc_ups.dicomweb.websocket import WebSocketSessions
from orthanc_ups.dicomweb.websocket_channel import WebSocketChannel
from orthanc_ups.health import Health
from orthanc_ups.orthanc.descriptors import Descriptors
from orthanc_ups.orthanc.loop_thread import LoopThread
from orthanc_ups.orthanc.modalities import Modality, OrthancModalities
from orthanc_ups.orthanc.refusal_log import RefusalLog
from orthanc_ups.projection.projection import Projection
from orthanc_ups.service import UpsService
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.memory_store import InMemoryEntries
from tests.support.ports import free_port
from tests.support.web_client import TIMEOUT, WebClient, basic

DIMSE_AE = "SCOPE"
"""An AE title that the service knows by DIMSE."""


class LettingIn:
    """Replaces Orthanc when authorization is checked: admits everybody, or only users with a password."""

    def __init__(self, passwords: Mapping[str, str] | None = None) -> None:
        self.passwords = passwords
        self.asked = 0

    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked += 1
        visible = unquote(path.partition("?")[0]).encode()
        if self.passwords is None:
            return 200, visible
        good = {basic(*pair) for pair in self.passwords.items()}
        return (200, visible) if headers.get("authorization") in good else (401, b"")


class _Modalities(OrthancModalities):
    def __init__(self) -> None:
        """Knows a single AE, without Orthanc."""

    def by_ae_title(self, ae_title: str) -> tuple[Modality, ...]:
        modality = Modality("scope", DIMSE_AE, "127.0.0.1", 104)
        return (modality,) if ae_title == DIMSE_AE else ()

    async def lookup(self, ae_title: str) -> tuple[Modality, ...]:
        return self.by_ae_title(ae_title)


class RecordingChannel:
    """Replaces DIMSE: records the events for each AE."""

    name = "dimse"

    def __init__(self) -> None:
        self.events: dict[str, list[Event]] = {}

    def serves(self, receiving_ae: str) -> bool:
        return receiving_ae == DIMSE_AE

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        self.events.setdefault(receiving_ae, []).extend(events)
        return len(events)

    async def close(self) -> None:
        pass


class WebService(WebClient):
    """One listener, and a client of it.

        with WebService() as service:
            service.get("/workitems")

    Attributes:
        origin: scheme, host and port.
        upstream: what stands for Orthanc.
        dimse: what stands for the DIMSE channel.
        trouble: why nothing can be stored, as the health route tells it.
    """

    def __init__(self, settings: Settings | None = None, orthanc_settings: OrthancSettings | None = None,
                 upstream: LettingIn | None = None) -> None:  # fmt: skip
        self.settings = msgspec.structs.replace(
            settings or Settings(), http_port=free_port(), bind_address="127.0.0.1"
        )
        self.orthanc_settings = orthanc_settings or OrthancSettings(remote_access_allowed=True)
        self.upstream = upstream or LettingIn()
        self.dimse = RecordingChannel()
        self.trouble = ""
        scheme = "https" if self.orthanc_settings.http_tls else "http"
        root = self.settings.root.rstrip("/")
        self.origin = f"{scheme}://127.0.0.1:{self.settings.http_port}"
        super().__init__(f"{self.origin}{root}")
        self._folder = Path(tempfile.mkdtemp(prefix="web-service-"))
        self._thread = LoopThread("web-service")
        self._closers: list[Any] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.call(self._start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.session.close()
        try:
            self.call(self._stop())
        finally:
            self._thread.stop(TIMEOUT)
            shutil.rmtree(self._folder)

    def call(self, work: Any) -> Any:
        """Run a coroutine on the service's loop."""
        return self._thread.submit(work).result(TIMEOUT)

    async def _start(self) -> None:
        self.sockets = WebSocketChannel(self.settings)
        channels = (self.dimse, self.sockets)
        receivers = KnownReceivers(_Modalities(), channels, tuple)
        projection = Projection.open(self._folder / "projection.sqlite")
        self.service = UpsService(
            self.settings, "WORKLIST", InMemoryEntries(), projection, channels, receivers, SystemClock()
        )
        await self.service.start()
        self.health = Health()
        self.health.opened(lambda: self.trouble)
        tls = web_tls.server_context(self.orthanc_settings)
        share = Descriptors(4096).share()
        self.refusals = RefusalLog()
        self.listener = HttpPort(
            self.settings, self.orthanc_settings, share, self.health.report, self.refusals, tls
        )
        self.listener.serve(self._http().answer)
        await self.listener.start()

    def _http(self) -> HttpService:
        clock = asyncio.get_running_loop().time
        authorization = Authorization(self.upstream, self.settings, self.orthanc_settings, clock)
        rights = Rights(self.settings.users, AeTitles())
        handler = UpsRs(
            self.service.worklist, self.settings, rights, ignored_parameters=authorization.query_tokens
        )
        sessions = WebSocketSessions(
            self.sockets,
            self.service.delivery.replay,
            self.service.delivery.retry_soon,
            authorization.query_tokens,
        )
        parts = HttpParts(handler, sessions, authorization, rights)
        return HttpService(parts, self.settings, self.orthanc_settings, self.refusals)

    async def _stop(self) -> None:
        await self.listener.stop()
        await self.service.stop(0.2)
