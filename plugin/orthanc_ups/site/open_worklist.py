# SPDX-License-Identifier: AGPL-3.0-or-later
"""The worklist while it is open on this node: its store, its service, and everything that serves it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final, TypeAlias

import aiohttp

from ..codecs import event_json
from ..delivery.port import Channel, Fence, SystemClock, no_fence
from ..delivery.receivers import KnownReceivers
from ..dicomweb.request import WebHandler, WebRequest
from ..dicomweb.response import WebResponse
from ..dicomweb.ups_rs import UpsRs
from ..dicomweb.websocket import NotificationSessions, WebSocketSessions
from ..dicomweb.websocket_channel import WebSocketChannel
from ..dimse import tls as dimse_tls
from ..dimse.data_sets import Codec
from ..dimse.scp import DimseServer
from ..dimse.scu import DimseChannel
from ..dimse.services import Services
from ..management import operating
from ..management.alerts import Alert, service_alerts
from ..management.api import ManagementApi
from ..management.pages import OrthancAdmission
from ..management.sentences import OTHER_PLUGIN, Sentence
from ..management.templates import late_policy, read_templates
from ..modality.performances import Performances
from ..modality.performed_step_service import PerformedStepService
from ..modality.self_test import OTHER_IS_FIRST, SelfTest
from ..modality.worklist import ModalityWorklists
from ..modality.worklist_callback import WorklistRequests
from ..monitoring.audit import AuditLog
from ..monitoring.disk_space import MINIMUM_FREE
from ..monitoring.metrics import Interfaces, Metrics, meters, sources
from ..monitoring.store_watch import StoreWatch
from ..orthanc import collector
from ..orthanc.loopback import refused
from ..rules.archive import Archive
from ..rules.automation import Automation, Environment
from ..rules.definitions import read_rules
from ..rules.outputs import OutputsInArchive
from ..service import UpsService
from ..store import shelves
from ..store.choice import StoreConditions, open_store
from ..store.copy import Copies, EntriesCopy, path_beside
from ..store.metadata import OrthancEntries
from ..store.port import Entry
from ..webhook import subscriptions as webhook_subscriptions
from ..webhook.channel import WebhookChannel, webhook_channels
from ..worklist.late_watch import LateWatch
from .lifetime import Lifetime
from .node import OpenNode, SharedParts

if TYPE_CHECKING:
    from ..cluster.standby import StandbyIndex


Serve: TypeAlias = Callable[
    [WebHandler, NotificationSessions, Callable[[WebRequest], Awaitable[WebResponse]]], None
]

_log = logging.getLogger("orthanc_ups")
_AUDIT_TIMEOUT: Final = 1.0
_AUDIT_DELAY: Final = 0.02


class OpenWorklist:
    """Everything that exists only while this node keeps the worklist. Call ``open`` once; ``lifetime`` closes it.

    Attributes:
        service: None until the worklist has been read.
    """

    def __init__(
        self,
        node: OpenNode,
        shared: SharedParts | None,
        metadata: OrthancEntries,
        serve: Serve,
        lifetime: Lifetime,
        index: StandbyIndex | None = None,
        *,
        continues: bool = False,
    ) -> None:
        """Open the search index.

        Args:
            node: the node that opens the worklist.
            shared: None unless nodes share the worklist.
            metadata: the store for Orthanc's metadata.
            serve: directs the requests on both HTTP ports here.
            lifetime: closes whatever is opened here.
            index: kept the search index current while this node was on standby, and proved it complete.
            continues: True if another node had the worklist open until now.
        """
        self._node = node
        self._shared = shared
        self._metadata = metadata
        self._serve = serve
        self._lifetime = lifetime
        self._continues = continues
        self._followed: list[Entry] | None = None
        if index is None:
            self._projection = node.open_projection()
        else:
            self._projection, self._followed = index.hand_over()
        self._copy = EntriesCopy(path_beside(self._projection.path))
        self._warnings: list[Alert] = []
        self._performed_steps: PerformedStepService | None = None
        self._automation: Automation | None = None
        self.service: UpsService | None = None
        lifetime.add(self._close_files)

    async def open(self) -> None:
        """Read the worklist and serve it on every interface, waiting for whatever is missing."""
        node, shared = self._node, self._shared
        await node.retry("the store of the worklist", self._open_store)
        codec = shared.codec if shared else Codec(node.settings, node.orthanc_settings)
        fence = shared.cluster.fence() if shared else no_fence
        dimse = self._dimse_channel(codec, fence)
        sockets = WebSocketChannel(node.settings, fence)
        channels: tuple[Channel, ...] = (dimse, sockets, *self._webhooks(fence))
        receivers = KnownReceivers(node.modalities, channels, self._subscribers)
        service = await self._start_service(channels, receivers)
        self._performed_steps = self._performed_step_service(service)
        self._warn_of_unknown_receivers(receivers)
        node.modalities.moved = self._seen
        services = self._services(service)
        server = shared.server if shared else node.dimse_server(services, codec, self._seen)
        if shared is None:
            self._lifetime.add(server.stop)
        watch = StoreWatch(service, self._probe_store)
        self._lifetime.supervise(watch.run)
        policy = late_policy(node.settings, read_templates(node.settings.templates))
        late = LateWatch(service.projection, policy, service.clock.now)
        interfaces = Interfaces(
            server, dimse, node.http, node.health, sockets, self._rules_waiting, self._nodes
        )
        self._publish(service, interfaces, late)
        self._check_outputs(service)
        await self._open_rules(service)
        api = await self._api(service, dimse, late, lambda: self._alerts(server, watch))
        if node.worklists is not None:
            await self._open_worklists(service, node.worklists)
        ups_rs, sessions = self._ups_rs(service), self._sessions(service, sockets)
        self._serve(ups_rs, sessions, api.answer)
        if shared is not None:
            find = node.worklists.find if node.worklists else None
            log = service.projection.events
            shared.cluster.serve(ups_rs, api.answer, sessions, services, codec, self._seen, find, log)
            server.serve(services)
        node.health.opened(lambda: watch.trouble or "; ".join(node.disk_space.warnings()))
        if shared is None:
            await asyncio.gather(node.retry("the DIMSE port", server.start), node.listening)
        self._log_opening(service)

    async def _start_service(self, channels: tuple[Channel, ...], receivers: KnownReceivers) -> UpsService:
        """Read the worklist, and subscribe the webhooks."""
        node, service = self._node, self._new_service(channels, receivers)

        async def start() -> None:
            followed, self._followed = self._followed, None
            await service.start(restarted=not self._continues, followed=followed)

        await node.retry("the worklist", start)
        self.service = service
        collector.settle()
        self._lifetime.add(lambda: service.stop(goes_down=self._goes_down()))
        await webhook_subscriptions.subscribe(
            service.worklist, service.subscriptions, node.settings.webhooks, node.titles
        )
        return service

    def _log_opening(self, service: UpsService) -> None:
        # At the level of Orthanc's lines about its own ports: an operator sees it without --verbose.
        _log.warning(
            "Worklist %s is open with %d workitems: DIMSE on port %d, DICOMweb on port %d",
            self._node.own_ae,
            service.workitems.count(),
            self._node.settings.dicom_port,
            self._node.settings.http_port,
        )

    def shelves_deleted(self) -> None:
        """Handle the deletion of the plugin's own instances in Orthanc."""
        if self.service is not None:
            self.service.shelves_deleted()

    def _nodes(self) -> int:
        return len(self._shared.cluster.keeper.nodes) if self._shared else 1

    def _goes_down(self) -> bool:
        """False if the worklist continues on another node."""
        return self._shared is None or not self._shared.cluster.survives_this_node

    async def _close_files(self) -> None:
        if self.service is None:  # it was not opened completely
            self._projection.close()
            self._copy.close()

    async def _probe_store(self) -> None:
        """Read something small from Orthanc's database. Raises StoreUnavailable."""
        reply = await self._node.loopback.request("GET", f"/patients/{shelves.PATIENT}/protected")
        if reply.status >= 500:
            raise refused(reply, "cannot read Orthanc's database")
        if reply.status == 404 and self.service is not None and self.service.entries.exposed:
            self.shelves_deleted()  # through another node, which does not notify this one

    def _publish(self, service: UpsService, interfaces: Interfaces, late: LateWatch) -> None:
        figures = sources(service, meters(interfaces, self._node.instruments), late)
        self._lifetime.supervise(Metrics(figures, self._node.instruments.publish).run)
        if self._node.instruments.emit is not None:
            audit = AuditLog(self._node.instruments.emit, _later)
            audit.start()
            service.worklist.observers.append(audit.accepted)
            self._lifetime.add(lambda: _stop(audit))

    # --- parts ---

    async def _open_store(self) -> None:
        conditions = StoreConditions(
            self._node.settings.store,
            self._node.orthanc_settings.check_revisions,
            self._node.orthanc_settings.shares_database,
        )
        copies = Copies(self._copy, self._projection.documents)
        self._entries = await open_store(
            conditions, self._node.loopback, self._node.key_value, self._metadata, copies
        )

    def _new_service(self, channels: tuple[Channel, ...], receivers: KnownReceivers) -> UpsService:
        return UpsService(
            self._node.settings,
            self._node.own_ae,
            self._entries,
            self._projection,
            channels,
            receivers,
            SystemClock(),
            titles=self._node.titles,
            copy=self._copy,
        )

    def _adopt_title(self, ae_title: str) -> None:
        """Adopt the spelling of an AE title with which a WebSocket was opened, and deliver what waits for the AE."""
        self._seen(self._node.titles.use(ae_title))

    def _seen(self, ae_title: str) -> None:
        """Deliver what waits for an AE that has shown that it is alive."""
        if self.service is not None:
            self.service.delivery.retry_soon(self._node.titles.spelled(ae_title))

    def _warn_of_unknown_receivers(self, receivers: KnownReceivers) -> None:
        titles = map(self._node.titles.spelled, self._node.settings.status_change_receivers)
        for ae in receivers.unknown(dict.fromkeys(titles)):
            _log.warning(
                '"Ups.StatusChangeReceivers" names %s, which is not in DicomModalities, has no webhook and has never '
                "subscribed: nothing reaches it unless it opens a WebSocket",
                ae,
            )

    def _subscribers(self) -> frozenset[str]:
        return self.service.subscriptions.aes() if self.service else frozenset()

    def _webhooks(self, fence: Fence) -> tuple[WebhookChannel, ...]:
        if not self._node.settings.webhooks:
            return ()
        session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())
        self._lifetime.add(session.close)
        return tuple(
            webhook_channels(
                self._node.settings.webhooks,
                self._node.titles,
                session,
                event_json.encode,
                SystemClock(),
                fence,
            )
        )

    def _dimse_channel(self, codec: Codec, fence: Fence) -> DimseChannel:
        return DimseChannel(
            self._node.settings,
            self._node.orthanc_settings,
            self._node.modalities,
            codec,
            self._node.resolver,
            lambda: dimse_tls.client_context(self._node.orthanc_settings),
            fence,
        )

    def _services(self, service: UpsService) -> Services:
        return Services(
            service.worklist,
            self._node.policy,
            self._seen,
            self._node.refusals,
            self._node.zone,
            strict=self._node.settings.strict,
            further=self._performed_steps.services() if self._performed_steps else {},
        )

    def _ups_rs(self, service: UpsService) -> UpsRs:
        return UpsRs(
            service.worklist,
            self._node.settings,
            self._node.rights,
            timezone=self._node.zone,
            ignored_parameters=self._node.authorization.query_tokens,
        )

    def _sessions(self, service: UpsService, sockets: WebSocketChannel) -> WebSocketSessions:
        tokens = self._node.authorization.query_tokens
        return WebSocketSessions(sockets, service.delivery.replay, self._adopt_title, tokens)

    def _alerts(self, server: DimseServer, watch: StoreWatch) -> list[Alert]:
        """Warnings about the service itself."""
        ports = (
            ("DIMSE", self._node.settings.dicom_port, server.is_open),
            ("DICOMweb", self._node.settings.http_port, self._node.http.is_open),
        )
        alerts = service_alerts(
            [(name, port) for name, port, is_open in ports if not is_open],
            [(str(folder), free, MINIMUM_FREE) for folder, free in self._node.disk_space.full().items()],
            watch.trouble,
            is_alone=self._shared is not None and not self._shared.cluster.has_standby,
        )
        return [*alerts, *self._warnings]

    async def _api(
        self, service: UpsService, dimse: DimseChannel, late: LateWatch, alerts: Callable[[], Sequence[Alert]]
    ) -> ManagementApi:
        orthanc_facts = await operating.read_orthanc_facts(self._node.loopback)
        server_facts = operating.facts(self._node.settings, self._node.orthanc_settings, orthanc_facts)
        api, activity = operating.management(
            service,
            self._node.modalities,
            dimse,
            self._node.loopback,
            late,
            server_facts,
            self._node.rights,
            self._node.origins,
            OrthancAdmission(self._node.authorization),
            alerts,
            self._node.instruments.uploads_refused,
            self._automation,
            self._performed_steps.steps if self._performed_steps else None,
            self._shared.cluster.report if self._shared else None,
        )
        self._lifetime.supervise(activity.run)
        return api

    def _performed_step_service(self, service: UpsService) -> PerformedStepService | None:
        """MPPS with its stored steps; None if it is not enabled."""
        if not self._node.settings.modality_worklist.enable:
            return None
        archive_ae = self._node.orthanc_settings.dicom_aet
        performances = Performances(
            service.worklist,
            service.workitems,
            self._node.stations,
            service.identity,
            archive_ae,
            self._node.zone,
            self._archive(),
        )
        performed_steps = PerformedStepService(
            service.performed_steps,
            performances,
            self._node.settings,
            lambda: datetime.now(self._node.zone),
            service.counters,
        )
        self._lifetime.supervise(performed_steps.run)
        return performed_steps

    async def _open_worklists(self, service: UpsService, requests: WorklistRequests) -> None:
        """Answer worklist queries, and test whether Orthanc passes them to the plugin."""
        worklist = ModalityWorklists(
            self._node.settings.modality_worklist,
            service.workitems,
            self._node.stations,
            self._node.zone,
            service.counters,
        )
        requests.find = worklist.find
        self._lifetime.add(self._close_worklists)
        test = SelfTest(
            self._node.orthanc_settings,
            self._node.own_ae,
            self._node.modalities.all,
            lambda: dimse_tls.client_context(self._node.orthanc_settings),
        )
        requests.is_self_test = test.recognizes
        self._lifetime.start(self._test_worklists(requests, test))

    async def _test_worklists(self, requests: WorklistRequests, test: SelfTest) -> None:
        answered = await test.is_asked()
        if answered is False or (answered is None and not requests.is_first):
            _log.warning("%s", OTHER_IS_FIRST)
            self._warnings.append(Alert(Sentence(OTHER_PLUGIN)))

    async def _close_worklists(self) -> None:
        assert self._node.worklists is not None
        self._node.worklists.find = None
        self._warnings.clear()

    def _rules_waiting(self) -> int:
        return self._automation.waiting if self._automation is not None else 0

    def _archive(self) -> Archive:
        node = self._node
        return Archive(node.loopback, node.orthanc_settings.dicom_aet, lambda: datetime.now(node.zone))

    def _check_outputs(self, service: UpsService) -> None:
        """Check outputs before workitems are completed, if ``Ups.CheckOutputs`` is true."""
        if self._node.settings.check_outputs:
            orthanc_settings = self._node.orthanc_settings
            service.worklist.outputs = OutputsInArchive(
                self._archive(),
                (orthanc_settings.dicom_aet, self._node.own_ae),
                self._node.settings.public_url,
                (orthanc_settings.http_port, self._node.settings.http_port),
            )

    async def _open_rules(self, service: UpsService) -> None:
        """Start the rules last, because they act like any other client; they are closed first."""
        if self._node.change_listener is None:
            return
        settings = self._node.settings
        environment = Environment(
            own_ae=self._node.own_ae,
            archive_ae=self._node.orthanc_settings.dicom_aet,
            stable_age=float(self._node.orthanc_settings.stable_age),
            shares_database=self._node.orthanc_settings.shares_database,
            is_own=shelves.is_own,
            now=lambda: datetime.now(self._node.zone),
        )
        rules = read_rules(settings.rules, read_templates(settings.templates), settings.public_url)
        self._automation = Automation(
            rules, service, self._node.loopback, self._node.change_listener, environment
        )
        await self._node.retry("the rules", self._automation.open)
        self._automation.start()
        self._lifetime.add(self._automation.close)


def _later(work: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(_AUDIT_DELAY, work)


async def _stop(audit: AuditLog) -> None:
    audit.hand_over()
    await asyncio.to_thread(audit.stop, _AUDIT_TIMEOUT)
