# SPDX-License-Identifier: AGPL-3.0-or-later
"""The service with its network: builds every wire, opens them in order, and closes them again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final, Unpack

import aiohttp

from .codecs import event_json
from .core.ae_titles import AeTitles
from .delivery.clock import SystemClock
from .delivery.port import Channel
from .delivery.receivers import KnownReceivers
from .dicomweb import tls as web_tls
from .dicomweb.authorization import Authorization, OrthancQuestions
from .dicomweb.http_listener import Doors, HttpListener
from .dicomweb.orthanc_requests import OrthancDoor, send
from .dicomweb.orthanc_routes import OrthancRoutes
from .dicomweb.response import HttpProblem, WebResponse
from .dicomweb.rights import Rights
from .dicomweb.ups_rs import UpsRs
from .dicomweb.web_socket import WebSocketChannel
from .dicomweb.web_socket_session import WebSocketSessions
from .dimse import tls as dimse_tls
from .dimse.codec import Codec
from .dimse.policy import Policy
from .dimse.resolver import Resolver
from .dimse.scp import MORE_CONNECTIONS, DimseServer
from .dimse.scu import DimseChannel
from .dimse.services import Services
from .management import operating
from .management.explorer_files import serve
from .management.pages import OrthancPages
from .monitoring import measuring
from .monitoring.audit import AuditLog
from .monitoring.disk_space import DiskSpace
from .monitoring.instruments import Instruments, Wires, meters
from .monitoring.metrics import Metrics
from .orthanc import collector
from .orthanc.descriptors import Descriptors
from .orthanc.local_zone import local_zone
from .orthanc.loop_thread import LoopThread
from .orthanc.loopback import Loopback
from .orthanc.orthanc_modalities import OrthancModalities
from .orthanc.refusal_log import RefusalLog
from .orthanc.sdk import RestOutput, RestRequest
from .projection.projection import Projection
from .service import UpsService
from .settings import Settings, Surroundings
from .store.metadata import OrthancEntries
from .store.port import StoreUnavailable
from .store.shelf_keeper import StoreMisconfigured
from .store.shelves import Uploads
from .webhook import subscriptions as webhook_subscriptions
from .webhook.channel import WebhookChannel, webhook_channels

_log = logging.getLogger("orthanc_ups")
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 10.0
_AUDIT_ENDS: Final = 1.0
_A_MOMENT: Final = 0.02


class Site:
    """Everything that lives on the loop. ``run`` opens it, ``stop`` closes it, each exactly once."""

    def __init__(
        self,
        settings: Settings,
        surroundings: Surroundings,
        uploads: Uploads,
        authorization: str,
        thread: LoopThread,
        instruments: Instruments,
    ) -> None:
        """Prepare, without touching loop or network. ``authorization``: the token for Orthanc's own port."""
        self._descriptors = Descriptors.of_process(
            settings.maximum_connections + settings.maximum_associations + MORE_CONNECTIONS
        )
        self._refusals = RefusalLog()
        self._door = OrthancDoor(thread.submit, settings, surroundings, self._refusals)
        self._routes: OrthancRoutes | None = None
        self._pages: OrthancPages | None = None
        self._instruments = instruments
        self._settings = settings
        self._surroundings = surroundings
        self._loopback = Loopback.of(surroundings, authorization)
        self._entries = OrthancEntries(self._loopback, uploads)
        self._titles = AeTitles(strict=surroundings.raw.get("StrictAetComparison") is True)
        self._modalities = OrthancModalities(self._loopback, self._titles)
        self._zone = local_zone()
        index = Path(surroundings.index_directory)
        self._disk_space = DiskSpace((index, self._projection_file().parent))
        self._own_ae = settings.aet or surroundings.dicom_aet
        self._tasks: list[asyncio.Task[None]] = []
        self._opened: list[Callable[[], Awaitable[None]]] = []
        self._opening: asyncio.Task[None] | None = None
        self.service: UpsService | None = None

    # --- what Orthanc tells ---

    def shelves_deleted(self) -> None:
        """Somebody deleted something of ours in Orthanc."""
        if self.service is not None:
            self._tasks.append(asyncio.ensure_future(self.service.look_after_shelves()))

    def modalities_changed(self) -> None:
        """``DicomModalities`` were changed at run time."""
        self._modalities.changed()

    # --- requests on Orthanc's own port, on Orthanc's threads ---

    def answer_ups_rs(self, output: RestOutput, uri: str, **request: Unpack[RestRequest]) -> None:
        """Answer a request below ``/dicom-web``."""
        if self._routes is None:
            send(output, _not_open())
        else:
            self._routes.answer(output, uri, **request)

    def answer_page(self, output: RestOutput, uri: str, **request: Unpack[RestRequest]) -> None:
        """Answer a request below ``/ups``."""
        if self._pages is None:
            send(output, _not_open())
        else:
            self._pages.answer(output, uri, **request)

    # --- opening ---

    async def run(self) -> None:
        """Read the worklist in and open every port; whatever is missing is waited for."""
        self._opening = asyncio.current_task()
        try:
            await self._open()
        except (StoreMisconfigured, dimse_tls.TlsError, ValueError) as error:
            _log.error("The UPS service cannot start: %s", error)
        except Exception:
            _log.exception("The UPS service cannot start by an error of ours")

    async def _open(self) -> None:
        self._opened.append(self._loopback.close)
        await self._patiently("Orthanc's metadata", self._entries.open)
        await self._patiently("Orthanc's modalities", self._modalities.refresh)
        self._keep(self._modalities.keep_fresh())
        self._keep(self._disk_space.run())
        self._keep(self._refusals.run())
        codec, resolver = Codec(self._settings, self._surroundings), Resolver()
        dimse = self._dimse_channel(codec, resolver)
        sockets = WebSocketChannel(self._settings)
        service = self._service((dimse, sockets, *self._webhooks()))
        await self._patiently("the worklist in Orthanc's metadata", service.start)
        self.service = service
        collector.settle()
        self._opened.append(service.stop)
        await webhook_subscriptions.subscribe(
            service.worklist, service.ledger, self._settings.webhooks, self._titles
        )
        sockets.replay, sockets.opened = service.delivery, self._listens
        self._modalities.moved = self._seen
        listener = self._http_listener(service, sockets)
        server = self._dimse_server(service, codec, resolver)
        self._tell(service, Wires(server, dimse, listener, sockets))
        await asyncio.gather(
            self._listen("DIMSE", server),
            self._listen("DICOMweb", listener),
            self._open_pages(service, dimse),
        )
        # At the level at which Orthanc tells of its own ports: an operator sees it without --verbose.
        _log.warning(
            "Worklist %s is open with %d workitems: DIMSE on port %d, DICOMweb on port %d",
            self._own_ae,
            service.shadow.count(),
            self._settings.dicom_port,
            self._settings.http_port,
        )

    def _tell(self, service: UpsService, wires: Wires) -> None:
        figures = measuring.sources(service, meters(wires, self._instruments))
        self._keep(Metrics(figures, self._instruments.publish).run())
        if self._instruments.emit is not None:
            audit = AuditLog(self._instruments.emit, _in_a_moment)
            audit.start()
            service.worklist.observers.append(audit.accepted)
            self._opened.append(lambda: _ended(audit))

    def _keep(self, work: Awaitable[None]) -> None:
        self._tasks.append(asyncio.ensure_future(work))

    async def _patiently(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                return await step()
            except StoreUnavailable as error:
                _log.warning("Cannot open %s yet: %s; trying again in %g s", what, error, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _listen(self, what: str, server: DimseServer | HttpListener) -> None:
        pause = _FIRST_PAUSE
        while True:
            try:
                await server.start()
                self._opened.append(server.stop)
                return
            except OSError as error:
                _log.error("Cannot listen for %s: %s; trying again in %g s", what, error.strerror, pause)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    # --- parts ---

    def _service(self, channels: tuple[Channel, ...]) -> UpsService:
        clock = SystemClock()
        receivers = KnownReceivers(self._modalities, channels, self._subscribers)
        projection = Projection.open(self._projection_file(), timezone=self._zone)
        return UpsService(
            self._settings,
            self._own_ae,
            self._entries,
            projection,
            channels,
            receivers,
            clock,
            titles=self._titles,
        )

    def _listens(self, ae_title: str) -> None:
        """An AE opened a WebSocket: its spelling is taken."""
        self._seen(self._titles.use(ae_title))

    def _seen(self, ae_title: str) -> None:
        """An AE shows that it is there: deliver to it what waits."""
        if self.service is not None:
            self.service.delivery.seen(self._titles.spelled(ae_title))

    def _subscribers(self) -> frozenset[str]:
        return self.service.ledger.all_known() if self.service else frozenset()

    def _projection_file(self) -> Path:
        chosen = self._settings.projection_file
        return Path(chosen) if chosen else Path(self._surroundings.index_directory) / "orthanc-ups.sqlite"

    def _webhooks(self) -> tuple[WebhookChannel, ...]:
        if not self._settings.webhooks:
            return ()
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self._opened.append(session.close)
        return tuple(
            webhook_channels(self._settings.webhooks, self._titles, session, event_json.encode, SystemClock())
        )

    def _dimse_channel(self, codec: Codec, resolver: Resolver) -> DimseChannel:
        return DimseChannel(
            self._settings,
            self._surroundings,
            self._modalities,
            codec,
            resolver,
            lambda: dimse_tls.client_context(self._surroundings),
        )

    def _dimse_server(self, service: UpsService, codec: Codec, resolver: Resolver) -> DimseServer:
        policy = Policy(self._settings, self._surroundings, self._modalities, resolver, self._titles)
        services = Services(service.worklist, policy, self._seen, self._refusals, self._zone)
        tls = dimse_tls.server_context(self._surroundings)
        share = self._descriptors.share()
        return DimseServer(self._settings, policy, services, codec, self._seen, share, self._refusals, tls)

    def _http_listener(self, service: UpsService, sockets: WebSocketChannel) -> HttpListener:
        anonymous = Loopback.of(self._surroundings, "")
        self._opened.append(anonymous.close)
        questions = OrthancQuestions(anonymous)
        clock = asyncio.get_running_loop().time
        self._authorization = authorization = Authorization(
            questions, self._settings, self._surroundings, clock
        )
        rights = Rights(self._settings.users, self._titles)
        handler = UpsRs(
            service.worklist,
            self._settings,
            rights,
            timezone=self._zone,
            ignored_parameters=authorization.query_tokens,
        )
        self._routes = OrthancRoutes(
            handler, authorization, rights, self._door, self._settings, self._surroundings
        )
        sessions = WebSocketSessions(sockets, authorization.query_tokens)
        doors = Doors(handler, sessions, authorization, rights)
        tls = web_tls.server_context(self._surroundings)
        return HttpListener(
            doors, self._settings, self._surroundings, self._descriptors.share(), self._refusals, tls
        )

    async def _open_pages(self, service: UpsService, dimse: DimseChannel) -> None:
        known = await operating.asked(self._loopback)
        fixed = operating.facts(self._settings, self._surroundings, known)
        api, activity = operating.management(
            service, self._modalities, dimse, self._loopback, fixed, self._disk_space.warnings
        )
        self._keep(activity.run())
        self._pages = OrthancPages(self._door, api.answer, serve, self._authorization.user)

    # --- closing ---

    async def stop(self) -> None:
        """Close everything in the opposite order, and let nothing of it stop the rest."""
        for task in (*self._tasks, *((self._opening,) if self._opening else ())):
            task.cancel()
        for close in reversed(self._opened):
            try:
                await close()
            except Exception:
                _log.exception("Closing a part of the UPS service failed")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*self._tasks, return_exceptions=True)


def _in_a_moment(work: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(_A_MOMENT, work)


async def _ended(audit: AuditLog) -> None:
    audit.hand_over()
    await asyncio.to_thread(audit.stop, _AUDIT_ENDS)


def _not_open() -> WebResponse:
    return HttpProblem(503, "the UPS service is not open yet", (("Retry-After", "2"),)).response()
