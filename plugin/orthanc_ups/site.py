# SPDX-License-Identifier: AGPL-3.0-or-later
"""The service with its network: builds every interface, opens them in order, and closes them again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

import aiohttp

from . import __version__
from .codecs import event_json
from .core.ae_titles import AeTitles
from .core.pauses import growing
from .delivery.port import Channel, Fence, SystemClock, no_fence
from .delivery.receivers import KnownReceivers
from .dicomweb import tls as web_tls
from .dicomweb.authorization import Authorization, OrthancQuestions
from .dicomweb.http_port import HttpPort, unavailable
from .dicomweb.http_service import HttpParts, HttpService
from .dicomweb.origins import Origins
from .dicomweb.orthanc_port import OrthancRoutes
from .dicomweb.orthanc_requests import OrthancRequests, send
from .dicomweb.request import WebHandler, WebRequest
from .dicomweb.response import WebResponse
from .dicomweb.rights import Rights
from .dicomweb.ups_rs import UpsRs
from .dicomweb.websocket import NotificationSessions, WebSocketSessions
from .dicomweb.websocket_channel import WebSocketChannel
from .dimse import tls as dimse_tls
from .dimse.data_sets import Codec
from .dimse.policy import Policy, Resolver
from .dimse.scp import MORE_CONNECTIONS, DimseServer
from .dimse.scu import DimseChannel
from .dimse.services import Services
from .health import Health, Role
from .management import operating
from .management.alerts import Alert, service_alerts
from .management.api import ManagementApi
from .management.explorer_files import serve
from .management.pages import OrthancAdmission, OrthancPages, answer_closed
from .management.sentences import OTHER_PLUGIN, Sentence
from .management.templates import late_policy, read_templates
from .modality.performances import Performances
from .modality.performed_step_service import PerformedStepService
from .modality.self_test import OTHER_IS_FIRST, SelfTest
from .modality.stations import Stations
from .modality.worklist import ModalityWorklists
from .modality.worklist_callback import WorklistRequests
from .monitoring.audit import AuditLog
from .monitoring.disk_space import LEAST, DiskSpace
from .monitoring.metrics import Instruments, Interfaces, Metrics, meters, sources
from .monitoring.store_watch import StoreWatch
from .orthanc import collector
from .orthanc.descriptors import Descriptors
from .orthanc.local_zone import local_zone
from .orthanc.loop_thread import LoopThread
from .orthanc.loopback import Loopback, refused
from .orthanc.modalities import OrthancModalities
from .orthanc.refusal_log import RefusalLog
from .orthanc.request_filters import judges_by_path, loaded_plugins
from .orthanc.sdk import KeyValueStore, RestOutput, RestRequest
from .projection.projection import Projection
from .rules.archive import Archive
from .rules.automation import Automation, Environment
from .rules.bell import Bell
from .rules.definitions import read_rules
from .rules.outputs import OutputsInArchive
from .service import UpsService
from .settings import OrthancSettings, Settings
from .store import shelves
from .store.choice import StoreConditions, StoreEntries, open_store
from .store.copy import Copies, EntriesCopy, path_beside
from .store.key_value import KeyValueEntries
from .store.metadata import OrthancEntries
from .store.node import NodeFile, NodeMark
from .store.port import Entry, StoreUnavailable
from .store.shelf_set import StoreMisconfigured
from .store.shelves import Uploads
from .webhook import subscriptions as webhook_subscriptions
from .webhook.channel import WebhookChannel, webhook_channels
from .worklist.late_watch import LateWatch

if TYPE_CHECKING:
    from .cluster.member import Cluster
    from .cluster.standby import StandbyIndex

_T = TypeVar("_T")
_log = logging.getLogger("orthanc_ups")
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 10.0
_AUDIT_ENDS: Final = 1.0
_A_MOMENT: Final = 0.02
_NODES_EVERY: Final = 2.0


class Site:
    """Everything that lives on the loop. ``run`` opens it, ``stop`` closes it, each exactly once."""

    def __init__(
        self,
        settings: Settings,
        orthanc_settings: OrthancSettings,
        uploads: Uploads,
        authorization: str,
        thread: LoopThread,
        instruments: Instruments,
        key_values: KeyValueStore | None,
        worklists: WorklistRequests | None = None,
        bell: Bell | None = None,
    ) -> None:
        """Prepare, without touching loop or network.

        ``authorization`` is the token for Orthanc's own port; ``key_values`` None if the SDK has no such calls;
        ``worklists`` answers worklist queries on Orthanc's DICOM port, None if it shall not;
        ``bell`` rings when images arrive, None if there are no rules.

        Raises:
            OSError: the certificate of Orthanc's HTTP server cannot be used.
            TlsError: the same for DICOM.
        """
        self._descriptors = Descriptors.of_process(
            settings.maximum_connections + settings.maximum_associations + MORE_CONNECTIONS
        )
        self._refusals = RefusalLog()
        self._requests = OrthancRequests(thread.submit, settings, orthanc_settings, self._refusals)
        self.health = Health()
        self._web_context = web_tls.server_context(orthanc_settings)
        self._dimse_context = dimse_tls.server_context(orthanc_settings)
        self._routes: OrthancRoutes | None = None
        self._pages: OrthancPages | None = None
        self._instruments = instruments
        self._bell = bell
        self._settings = settings
        self._orthanc_settings = orthanc_settings
        self._loopback = Loopback.of(orthanc_settings, authorization)
        self._token, self._uploads = authorization, uploads
        self._metadata = OrthancEntries(self._loopback, uploads)
        self._key_value = KeyValueEntries(key_values) if key_values is not None else None
        self._entries: StoreEntries
        self._titles = AeTitles(strict=orthanc_settings.strict_aet_comparison)
        self._modalities = OrthancModalities(self._loopback, self._titles)
        self._worklists = worklists
        self._stations = Stations(settings.modality_worklist, self._titles)
        self._zone = local_zone()
        index = Path(orthanc_settings.index_folder)
        self._disk_space = DiskSpace((index, self._projection_file().parent))
        self._own_ae = settings.aet or orthanc_settings.dicom_aet
        self._node, self._worklist = Opened(), Opened()
        self._opening: asyncio.Task[None] | None = None
        self._warnings: list[Alert] = []
        self._performed_steps: PerformedStepService | None = None
        self._mark: NodeMark | None = None
        self._shared: SharedParts | None = None
        self._continues = False
        self.service: UpsService | None = None
        self._automation: Automation | None = None

    # --- what Orthanc tells ---

    def shelves_deleted(self) -> None:
        """Somebody deleted something of ours in Orthanc."""
        if self.service is not None:
            self.service.shelves_deleted()

    def modalities_changed(self) -> None:
        """``DicomModalities`` were changed at run time."""
        self._modalities.changed()

    # --- requests on Orthanc's own port, on Orthanc's threads ---

    def answer_ups_rs(self, output: RestOutput, uri: str, **request: Unpack[RestRequest]) -> None:
        """Answer a request below ``/dicom-web``."""
        if self._routes is None:
            send(output, unavailable(self.health.report()))
        else:
            self._routes.answer(output, uri, **request)

    def answer_page(self, output: RestOutput, uri: str, **request: Unpack[RestRequest]) -> None:
        """Answer a request below ``/ups``."""
        if self._pages is None:
            answer_closed(output, uri, self.health.report(), request)
        else:
            self._pages.answer(output, uri, **request)

    # --- opening ---

    async def run(self) -> None:
        """Read the worklist in and open every port; whatever is missing is waited for."""
        self._opening = asyncio.current_task()
        http = HttpPort(
            self._settings,
            self._orthanc_settings,
            self._descriptors.share(),
            self.health.report,
            self._refusals,
            self._web_context,
        )
        self._node.add(http.stop)
        listening = asyncio.ensure_future(self._patiently("the DICOMweb port", http.start))
        self._node.add_task(listening)
        try:
            await self._open_node(http)
            await self._open(http, listening)
        except (StoreMisconfigured, ValueError) as error:
            self._fail(str(error))
        except Exception as error:
            _log.exception("Opening the UPS service failed")
            self._fail(f"internal error ({type(error).__name__}); see Orthanc's log")

    def _fail(self, reason: str) -> None:
        self.health.failed(reason)
        _log.error("The UPS service cannot start: %s", reason)

    async def _open_node(self, http: HttpPort) -> None:
        """What this Orthanc needs to know who calls, whoever keeps the worklist."""
        self._http = http
        self._node.add(self._loopback.close)
        if self._key_value is not None:
            self._node.add(self._key_value.close)
        await self._patiently("Orthanc's modalities", self._modalities.refresh)
        for work in (self._modalities.keep_fresh, self._disk_space.run, self._refusals.run):
            self._node.keep(work)
        self._resolver = Resolver()
        self._policy = Policy(
            self._settings, self._orthanc_settings, self._modalities, self._resolver, self._titles
        )
        anonymous = Loopback.of(self._orthanc_settings, "")
        self._node.add(anonymous.close)
        await self._patiently("Orthanc's list of plugins", self._list_plugins)
        self._authorization = Authorization(
            OrthancQuestions(anonymous),
            self._settings,
            self._orthanc_settings,
            asyncio.get_running_loop().time,
            judges_by_path=judges_by_path(self._orthanc_settings, self._plugins),
        )
        self._rights = Rights(self._settings.users, self._titles)
        self._origins = Origins(self._settings.allowed_origins)

    async def _list_plugins(self) -> None:
        self._plugins = await loaded_plugins(self._loopback)

    async def _open(self, http: HttpPort, listening: Awaitable[None]) -> None:
        if self._orthanc_settings.shares_postgresql and await self._joined():
            await self._share(http, listening)
        elif self._orthanc_settings.shares_database:
            await self._take_turns(http, listening)
        else:
            self._node.add(self._close_worklist)
            await self._open_worklist(http, listening)

    def _node_mark(self, *, leased: bool = False) -> NodeMark:
        if self._mark is None:
            self._node_file = NodeFile(f"{self._projection_file()}.node")
            node = replace(self._node_file.node, leased=leased)
            self._mark = NodeMark(self._metadata, node, SystemClock(), self.health.stands_by)
        self._node.add(self._mark.release)
        return self._mark

    # --- several nodes on PostgreSQL: one leads, the others pass on to it what they are asked ---

    async def _joined(self) -> bool:
        """Join the nodes on this PostgreSQL; False if that cannot be, and the log says why."""
        try:
            from .cluster.member import CannotShare, Cluster  # a single Orthanc loads nothing of it
        except ImportError as error:
            _log.error(
                "This node cannot share the worklist with others, it can only take turns: the Python package %s is "
                "missing (requirements.txt)",
                error.name,
            )
            return False
        codec = Codec(self._settings, self._orthanc_settings)
        share = self._descriptors.share()
        self._shared, self._continues = None, False

        async def join() -> None:
            facts_now = await operating.operating_facts(self._loopback)
            about = {"name": facts_now.name, "version": __version__, "orthanc": facts_now.version}
            cluster = await Cluster.joined(
                self._settings, self._orthanc_settings, about, share, self._refusals
            )
            server = self._dimse_server(cluster.services(self._policy, self._refusals), codec, cluster.seen)
            self._shared = SharedParts(cluster, server, codec)

        try:
            await self._patiently("the lease of the worklist", join)
        except CannotShare as error:
            _log.error("This node cannot share the worklist with others, it can only take turns: %s", error)
            return False
        return True

    async def _share(self, http: HttpPort, listening: Awaitable[None]) -> None:
        assert self._shared is not None
        cluster, server = self._shared.cluster, self._shared.server
        self._node.add(cluster.close)
        mark = self._node_mark(leased=True)
        self._node.add(self._close_worklist)
        self._node.add(server.stop)
        self._node.keep(self._tell_of_nodes)
        self._stand_by()
        await asyncio.gather(self._patiently("the DIMSE port", server.start), listening)
        while True:
            loopback = cluster.loopback(self._orthanc_settings, self._token)
            index = cluster.standby_index(loopback, self._uploads, self._open_projection)
            self._worklist.add(loopback.close)
            self._worklist.add(index.close)
            following = asyncio.ensure_future(index.run())
            try:
                leadership = await cluster.elected()
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            _log.warning("This node leads the worklist now (epoch %d)", leadership.epoch)
            self.health.leads()
            self._continues = leadership.continues
            cluster.write_under(loopback, leadership.epoch)
            self._metadata = index.entries
            reason = await self._lead(
                self._open_with_mark(mark, index, http, listening), cluster.until_lost()
            )
            self.health.stands_by(reason)
            _log.warning("This node does not lead the worklist any more: %s", reason)
            await self._close_worklist()
            self._stand_by()

    async def _open_with_mark(
        self, mark: NodeMark, index: StandbyIndex, http: HttpPort, listening: Awaitable[None]
    ) -> None:
        """Also those who can only take turns must see that this node keeps the worklist."""
        clock = asyncio.get_running_loop().time
        begun = clock()
        is_proven = await index.prove()
        if not is_proven:
            await index.close()
        proven = clock()
        await self._patiently("Orthanc's metadata", index.entries.open)
        mark.write_to(index.entries)
        await self._patiently("the worklist", mark.acquire)
        self._worklist.begin(self._keep_mark(mark))
        await self._open_worklist(http, listening, index if is_proven else None)
        what = "took the worklist over" if is_proven else "read the worklist anew"
        _log.warning(
            "This node %s in %.2f s, of which comparing %.2f s", what, clock() - begun, proven - begun
        )

    async def _keep_mark(self, mark: NodeMark) -> None:
        assert self._shared is not None
        await mark.keep()
        self._shared.cluster.lose("a node that does not know the lease has taken the worklist over")

    def _stand_by(self) -> None:
        assert self._shared is not None
        cluster = self._shared.cluster
        facts = self._settings.aet or self._orthanc_settings.dicom_aet
        admission = OrthancAdmission(self._authorization)
        self._serve(
            cluster.ups_rs(),
            cluster.sessions_of_leader(),
            cluster.api(facts, self._rights, self._origins, admission).answer,
        )
        self._shared.server.serve(cluster.services(self._policy, self._refusals))
        self._modalities.moved = cluster.seen
        if self._worklists is not None:
            self._worklists.find = cluster.modality_worklists().find
        self.health.follows(cluster.leader_in_words, lambda: cluster.has_leader)

    def _nodes(self) -> int:
        return len(self._shared.cluster.keeper.nodes) if self._shared else 1

    async def _tell_of_nodes(self) -> None:
        """What a node publishes that does not lead."""
        while True:
            if self.health.role is not Role.LEADER:
                self._instruments.publish("ups_leader", 0)
                self._instruments.publish("ups_nodes", self._nodes())
                self._instruments.publish(
                    "ups_lag_seconds", self._shared.cluster.lag if self._shared else 0.0
                )
            await asyncio.sleep(_NODES_EVERY)

    def _goes_down(self) -> bool:
        """False if the worklist goes on, on another node."""
        return self._shared is None or not self._shared.cluster.goes_on

    # --- several nodes otherwise ---

    async def _take_turns(self, http: HttpPort, listening: Awaitable[None]) -> None:
        """Of several Orthancs on one database only one may keep the worklist: wait until it is this one, again and
        again.
        """
        self._metadata = OrthancEntries(self._loopback, self._uploads)
        await self._patiently("Orthanc's metadata", self._metadata.open)
        mark = self._node_mark()
        mark.write_to(self._metadata)
        self._node.add(self._close_worklist)
        while True:
            await self._patiently("the worklist", mark.acquire)
            self.health.leads()
            await self._lead(self._open_worklist(http, listening), mark.keep())
            self.health.stands_by("another node has taken the worklist over")
            self._metadata.refused_because = "another node holds the worklist"
            await self._close_worklist()
            self._metadata.refused_because = ""

    async def _lead(self, opening: Coroutine[Any, Any, None], leading: Coroutine[Any, Any, _T]) -> _T:
        """Open the worklist and keep it while ``leading`` lasts. Raises what keeps it from being opened."""
        lasting, begun = asyncio.ensure_future(leading), asyncio.ensure_future(opening)
        try:
            done, _ = await asyncio.wait((lasting, begun), return_when=asyncio.FIRST_COMPLETED)
            if begun in done:
                begun.result()
            return await lasting
        finally:
            lasting.cancel()
            begun.cancel()
            await asyncio.gather(lasting, begun, return_exceptions=True)

    def _open_projection(self) -> Projection:
        return Projection.open(self._projection_file(), timezone=self._zone)

    async def _open_worklist(
        self, http: HttpPort, listening: Awaitable[None], index: StandbyIndex | None = None
    ) -> None:
        """``index``: what has kept the search index while this node stood by, and has proven it complete."""
        others: list[list[Entry]] = []
        if index is None:
            self._projection = self._open_projection()
        else:
            self._projection, entries = index.hand_over()
            others.append(entries)
        self._copy = EntriesCopy(path_beside(self._projection.path))
        self._worklist.add(self._close_files)
        await self._patiently("the store of the worklist", self._open_store)
        codec = self._shared.codec if self._shared else Codec(self._settings, self._orthanc_settings)
        fence = self._shared.cluster.fence() if self._shared else no_fence
        dimse = self._dimse_channel(codec, self._resolver, fence)
        sockets = WebSocketChannel(self._settings, fence)
        service = self._service((dimse, sockets, *self._webhooks(fence)))

        async def start() -> None:
            await service.start(restarted=not self._continues, followed=others.pop() if others else None)

        await self._patiently("the worklist", start)
        self.service = service
        collector.settle()
        self._worklist.add(lambda: service.stop(goes_down=self._goes_down()))
        await webhook_subscriptions.subscribe(
            service.worklist, service.subscriptions, self._settings.webhooks, self._titles
        )
        self._performed_steps = self._performed_step_service(service)
        self._tell_of_unknown_receivers()
        self._modalities.moved = self._seen
        services = self._services(service)
        server = self._shared.server if self._shared else self._dimse_server(services, codec, self._seen)
        if self._shared is None:
            self._worklist.add(server.stop)
        watch = StoreWatch(service, self._read_of_the_store)
        self._worklist.keep(watch.run)
        policy = late_policy(self._settings, read_templates(self._settings.templates))
        late = LateWatch(service.projection, policy, service.clock.now)
        self._tell(
            service,
            Interfaces(server, dimse, http, self.health, sockets, self._rules_waiting, self._nodes),
            late,
        )
        self._check_outputs(service)
        await self._open_rules(service)
        api = await self._api(service, dimse, late, lambda: self._alerts(server, http, watch))
        if self._worklists is not None:
            await self._open_worklists(service, self._worklists)
        self._serve(self._ups_rs(service), self._sessions(service, sockets), api.answer)
        if self._shared is not None:
            parts = self._ups_rs(service), api.answer, self._sessions(service, sockets), services, codec
            find = self._worklists.find if self._worklists else None
            self._shared.cluster.serve(*parts, self._seen, find)
            server.serve(services)
        self.health.opened(lambda: watch.trouble or "; ".join(self._disk_space.warnings()))
        if self._shared is None:
            await asyncio.gather(self._patiently("the DIMSE port", server.start), listening)
        # At the level at which Orthanc tells of its own ports: an operator sees it without --verbose.
        _log.warning(
            "Worklist %s is open with %d workitems: DIMSE on port %d, DICOMweb on port %d",
            self._own_ae,
            service.workitems.count(),
            self._settings.dicom_port,
            self._settings.http_port,
        )

    async def _close_worklist(self) -> None:
        self._routes, self._pages = None, None
        self._http.serve(None)
        if self._shared is not None:
            self._shared.cluster.serve_nothing()
        await self._worklist.close()
        self.service = None

    async def _close_files(self) -> None:
        if self.service is None:  # it was not opened to the end
            self._projection.close()
            self._copy.close()

    async def _read_of_the_store(self) -> None:
        """Something of Orthanc's database that costs little. Raises StoreUnavailable."""
        reply = await self._loopback.request("GET", f"/patients/{shelves.PATIENT}/protected")
        if reply.status >= 500:
            raise refused(reply, "cannot read Orthanc's database")
        if (
            reply.status == 404 and self._entries.exposed
        ):  # deleted through another node, which tells us nothing
            self.shelves_deleted()

    def _tell(self, service: UpsService, interfaces: Interfaces, late: LateWatch) -> None:
        figures = sources(service, meters(interfaces, self._instruments), late)
        self._worklist.keep(Metrics(figures, self._instruments.publish).run)
        if self._instruments.emit is not None:
            audit = AuditLog(self._instruments.emit, _in_a_moment)
            audit.start()
            service.worklist.observers.append(audit.accepted)
            self._worklist.add(lambda: _ended(audit))

    async def _patiently(self, what: str, step: Callable[[], Awaitable[None]]) -> None:
        for pause in growing(_FIRST_PAUSE, _LONGEST_PAUSE):
            try:
                await step()
            except (StoreUnavailable, OSError) as error:
                reason = f"cannot open {what}: {_in_words(error)}"
                self.health.waits_for(reason)
                _log.error("%s; trying again in %g s", reason, pause)
                await asyncio.sleep(pause)
            else:
                return

    # --- parts ---

    async def _open_store(self) -> None:
        conditions = StoreConditions(
            self._settings.store,
            self._orthanc_settings.check_revisions,
            self._orthanc_settings.shares_database,
        )
        copies = Copies(self._copy, self._projection.documents)
        self._entries = await open_store(conditions, self._loopback, self._key_value, self._metadata, copies)

    def _service(self, channels: tuple[Channel, ...]) -> UpsService:
        clock = SystemClock()
        self._receivers = receivers = KnownReceivers(self._modalities, channels, self._subscribers)
        return UpsService(
            self._settings,
            self._own_ae,
            self._entries,
            self._projection,
            channels,
            receivers,
            clock,
            titles=self._titles,
            copy=self._copy,
        )

    def _listens(self, ae_title: str) -> None:
        """An AE opened a WebSocket: its spelling is taken."""
        self._seen(self._titles.use(ae_title))

    def _seen(self, ae_title: str) -> None:
        """An AE shows that it is there: deliver to it what waits."""
        if self.service is not None:
            self.service.delivery.seen(self._titles.spelled(ae_title))

    def _tell_of_unknown_receivers(self) -> None:
        titles = map(self._titles.spelled, self._settings.status_change_receivers)
        for ae in self._receivers.unknown(dict.fromkeys(titles)):
            _log.warning(
                '"Ups.StatusChangeReceivers" names %s, which is not in DicomModalities, has no webhook and never '
                "subscribed: nothing reaches it unless it opens a WebSocket",
                ae,
            )

    def _subscribers(self) -> frozenset[str]:
        return self.service.subscriptions.all_known() if self.service else frozenset()

    def _projection_file(self) -> Path:
        chosen = self._settings.projection_file
        return Path(chosen) if chosen else Path(self._orthanc_settings.index_folder) / "orthanc-ups.sqlite"

    def _webhooks(self, fence: Fence) -> tuple[WebhookChannel, ...]:
        if not self._settings.webhooks:
            return ()
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self._worklist.add(session.close)
        return tuple(
            webhook_channels(
                self._settings.webhooks, self._titles, session, event_json.encode, SystemClock(), fence
            )
        )

    def _dimse_channel(self, codec: Codec, resolver: Resolver, fence: Fence) -> DimseChannel:
        return DimseChannel(
            self._settings,
            self._orthanc_settings,
            self._modalities,
            codec,
            resolver,
            lambda: dimse_tls.client_context(self._orthanc_settings),
            fence,
        )

    def _services(self, service: UpsService) -> Services:
        return Services(
            service.worklist,
            self._policy,
            self._seen,
            self._refusals,
            self._zone,
            strict=self._settings.strict,
            further=self._performed_steps.services() if self._performed_steps else {},
        )

    def _dimse_server(self, services: Services, codec: Codec, seen: Callable[[str], object]) -> DimseServer:
        share = self._descriptors.share()
        context, refusals = self._dimse_context, self._refusals
        return DimseServer(self._settings, self._policy, services, codec, seen, share, refusals, context)

    def _ups_rs(self, service: UpsService) -> UpsRs:
        return UpsRs(
            service.worklist,
            self._settings,
            self._rights,
            timezone=self._zone,
            ignored_parameters=self._authorization.query_tokens,
        )

    def _sessions(self, service: UpsService, sockets: WebSocketChannel) -> WebSocketSessions:
        tokens = self._authorization.query_tokens
        return WebSocketSessions(sockets, service.delivery.replay, self._listens, tokens)

    def _serve(
        self,
        handler: WebHandler,
        sessions: NotificationSessions,
        api: Callable[[WebRequest], Awaitable[WebResponse]],
    ) -> None:
        """From now on both HTTP ports are answered by these, behind the checks of who calls."""
        authorization, rights = self._authorization, self._rights
        routes = OrthancRoutes(
            handler, authorization, rights, self._requests, self._settings, self._orthanc_settings
        )
        self._routes = routes
        self._pages = OrthancPages(self._requests, api, serve, authorization, routes.service, self._origins)
        parts = HttpParts(handler, sessions, authorization, rights)
        self._http.serve(HttpService(parts, self._settings, self._orthanc_settings, self._refusals).answer)

    def _alerts(self, server: DimseServer, http: HttpPort, watch: StoreWatch) -> list[Alert]:
        """What of the service itself does not work now."""
        ports = (
            ("DIMSE", self._settings.dicom_port, server.is_open),
            ("DICOMweb", self._settings.http_port, http.is_open),
        )
        alerts = service_alerts(
            [(name, port) for name, port, is_open in ports if not is_open],
            [(str(folder), free, LEAST) for folder, free in self._disk_space.full().items()],
            watch.trouble,
            is_alone=self._shared is not None and not self._shared.cluster.has_standby,
        )
        return [*alerts, *self._warnings]

    async def _api(
        self, service: UpsService, dimse: DimseChannel, late: LateWatch, alerts: Callable[[], Sequence[Alert]]
    ) -> ManagementApi:
        answers = await operating.operating_facts(self._loopback)
        fixed = operating.facts(self._settings, self._orthanc_settings, answers)
        api, activity = operating.management(
            service,
            self._modalities,
            dimse,
            self._loopback,
            late,
            fixed,
            self._rights,
            self._origins,
            OrthancAdmission(self._authorization),
            alerts,
            self._instruments.uploads_refused,
            self._automation,
            self._performed_steps.steps if self._performed_steps else None,
            self._shared.cluster.report if self._shared else None,
        )
        self._worklist.keep(activity.run)
        return api

    def _performed_step_service(self, service: UpsService) -> PerformedStepService | None:
        """MPPS, with what is kept of it; None if it is not enabled."""
        if not self._settings.modality_worklist.enable:
            return None
        archive_ae = self._orthanc_settings.dicom_aet
        performances = Performances(
            service.worklist, service.workitems, self._stations, service.identity, archive_ae, self._zone
        )
        performed_steps = PerformedStepService(
            service.performed_steps,
            performances,
            self._settings,
            lambda: datetime.now(self._zone),
            service.counters,
        )
        self._worklist.keep(performed_steps.run)
        return performed_steps

    async def _open_worklists(self, service: UpsService, requests: WorklistRequests) -> None:
        """Answer worklist queries, and test whether Orthanc asks us at all."""
        worklist = ModalityWorklists(
            self._settings.modality_worklist,
            service.workitems,
            self._stations,
            self._zone,
            service.counters,
        )
        requests.find = worklist.find
        self._worklist.add(self._close_worklists)
        test = SelfTest(
            self._orthanc_settings,
            self._own_ae,
            self._modalities.all,
            lambda: dimse_tls.client_context(self._orthanc_settings),
        )
        requests.is_self_test = test.recognizes
        self._worklist.begin(self._test_worklists(requests, test))

    async def _test_worklists(self, requests: WorklistRequests, test: SelfTest) -> None:
        answered = await test.is_asked()
        if answered is False or (answered is None and not requests.is_first):
            _log.warning("%s", OTHER_IS_FIRST)
            self._warnings.append(Alert(Sentence(OTHER_PLUGIN)))

    async def _close_worklists(self) -> None:
        assert self._worklists is not None
        self._worklists.find = None
        self._warnings.clear()

    def _rules_waiting(self) -> int:
        return self._automation.waiting if self._automation is not None else 0

    def _check_outputs(self, service: UpsService) -> None:
        """Have outputs looked for before workitems are completed, if that is wished."""
        if self._settings.check_outputs:
            orthanc_settings = self._orthanc_settings
            service.worklist.outputs = OutputsInArchive(
                Archive(self._loopback, orthanc_settings.dicom_aet, lambda: datetime.now(self._zone)),
                (orthanc_settings.dicom_aet, self._own_ae),
                self._settings.public_url,
                (orthanc_settings.http_port, self._settings.http_port),
            )

    async def _open_rules(self, service: UpsService) -> None:
        """Last, as rules act like any other client; closed first."""
        if self._bell is None:
            return
        settings = self._settings
        environment = Environment(
            own_ae=self._own_ae,
            archive_ae=self._orthanc_settings.dicom_aet,
            stable_age=float(self._orthanc_settings.stable_age),
            shares_database=self._orthanc_settings.shares_database,
            is_own=shelves.is_ours,
            now=lambda: datetime.now(self._zone),
        )
        rules = read_rules(settings.rules, read_templates(settings.templates), settings.public_url)
        self._automation = Automation(rules, service, self._loopback, self._bell, environment)
        await self._patiently("the rules", self._automation.open)
        self._automation.start()
        self._worklist.add(self._automation.close)

    # --- closing ---

    async def stop(self) -> None:
        """Close everything in the opposite order, and let nothing of it stop the rest."""
        self.health.stopping()
        if self._opening is not None:
            self._opening.cancel()
        await self._node.close()

    def open_again(self) -> None:
        """Open everything after a ``stop``."""
        self.health.starting()
        self._opening = asyncio.ensure_future(self.run())


@dataclass(frozen=True, slots=True)
class SharedParts:
    """What a node has for as long as it runs if it shares the worklist with others."""

    cluster: Cluster
    server: DimseServer
    codec: Codec


class Opened:
    """What was opened or begun, to be closed in the opposite order."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], Awaitable[None]]] = []
        self._tasks: list[asyncio.Future[None]] = []

    def add(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have something closed that was opened."""
        self._closers.append(close)

    def add_task(self, task: asyncio.Future[None]) -> None:
        """Have a task canceled."""
        self._tasks.append(task)

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Begin a task."""
        self.add_task(asyncio.ensure_future(work))

    def keep(self, work: Callable[[], Awaitable[None]]) -> None:
        """Begin what never ends; it begins again whenever it does end."""
        self.begin(_for_ever(work))

    async def close(self) -> None:
        """Cancel the tasks and close everything; whatever fails does not stop the rest."""
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.cancel()
        while self._closers:
            close = self._closers.pop()
            try:
                await close()
            except Exception:
                _log.exception("Closing a part of the UPS service failed")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, return_exceptions=True)


async def _for_ever(work: Callable[[], Awaitable[None]]) -> None:
    """Do what never ends; begin again whenever it does end."""
    for pause in growing(_FIRST_PAUSE, _LONGEST_PAUSE):
        try:
            await work()
            _log.error("A part of the UPS service ended; restarting it in %g s", pause)
        except Exception:
            _log.exception("A part of the UPS service failed; restarting it in %g s", pause)
        await asyncio.sleep(pause)


def _in_words(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def _in_a_moment(work: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(_A_MOMENT, work)


async def _ended(audit: AuditLog) -> None:
    audit.hand_over()
    await asyncio.to_thread(audit.stop, _AUDIT_ENDS)
