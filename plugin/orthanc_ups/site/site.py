# SPDX-License-Identifier: AGPL-3.0-or-later
"""The service with its network: opens this node, and the worklist once this node may keep it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar, Unpack

from .. import __version__
from ..core.ae_titles import AeTitles
from ..delivery.port import SystemClock
from ..dicomweb import tls as web_tls
from ..dicomweb.authorization import Authorization, OrthancQuestions
from ..dicomweb.http_port import HttpPort, unavailable
from ..dicomweb.http_service import HttpParts, HttpService
from ..dicomweb.origins import Origins
from ..dicomweb.orthanc_port import OrthancRoutes
from ..dicomweb.orthanc_requests import OrthancRequests, send
from ..dicomweb.request import WebHandler, WebRequest
from ..dicomweb.response import WebResponse
from ..dicomweb.rights import Rights
from ..dicomweb.websocket import NotificationSessions
from ..dimse import tls as dimse_tls
from ..dimse.data_sets import Codec
from ..dimse.policy import Policy, Resolver
from ..dimse.scp import MORE_CONNECTIONS
from ..health import Health, Role
from ..management import operating
from ..management.explorer_files import serve
from ..management.pages import OrthancAdmission, OrthancPages, answer_closed
from ..modality.stations import Stations
from ..modality.worklist_callback import WorklistRequests
from ..monitoring.disk_space import DiskSpace
from ..monitoring.metrics import Instruments
from ..orthanc.descriptors import Descriptors
from ..orthanc.local_zone import local_zone
from ..orthanc.loop_thread import LoopThread
from ..orthanc.loopback import Loopback
from ..orthanc.modalities import OrthancModalities
from ..orthanc.refusal_log import RefusalLog
from ..orthanc.request_filters import judges_by_path, loaded_plugins
from ..orthanc.sdk import KeyValueStore, RestOutput, RestRequest
from ..rules.change_listener import ChangeListener
from ..settings import OrthancSettings, Settings
from ..store.key_value import KeyValueEntries
from ..store.metadata import OrthancEntries
from ..store.node import NodeFile, NodeMark
from ..store.shelf_set import StoreMisconfigured
from ..store.shelves import Uploads
from .lifetime import Lifetime, retry
from .node import OpenNode, SharedParts, projection_file
from .open_worklist import OpenWorklist

if TYPE_CHECKING:
    from ..cluster.standby import StandbyIndex

_T = TypeVar("_T")
_log = logging.getLogger("orthanc_ups")
_NODES_EVERY: Final = 2.0


class Site:
    """The service on the loop. ``run`` opens it and ``stop`` closes it; after that ``open_again`` opens it once more.

    A single node opens the worklist at once. Of several on one PostgreSQL, the one with the lease opens it, and
    the others relay requests to it. On other databases, the one with the node mark opens it, and the others wait.
    """

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
        change_listener: ChangeListener | None = None,
    ) -> None:
        """Prepare, without using the loop or the network.

        ``authorization`` is the token for Orthanc's own port; ``key_values`` is None if the SDK has no such functions;
        ``worklists`` answers worklist queries on Orthanc's DICOM port, None if that is off;
        ``change_listener`` is notified of arriving images, None if there are no rules.

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
        self._change_listener = change_listener
        self._settings = settings
        self._orthanc_settings = orthanc_settings
        self._loopback = Loopback.of(orthanc_settings, authorization)
        self._token, self._uploads = authorization, uploads
        self._metadata = OrthancEntries(self._loopback, uploads)
        self._key_value = KeyValueEntries(key_values) if key_values is not None else None
        self._titles = AeTitles(strict=orthanc_settings.strict_aet_comparison)
        self._modalities = OrthancModalities(self._loopback, self._titles)
        self._worklists = worklists
        self._stations = Stations(settings.modality_worklist, self._titles)
        self._zone = local_zone()
        index = Path(orthanc_settings.index_folder)
        self._disk_space = DiskSpace((index, projection_file(settings, orthanc_settings).parent))
        self._lifetime, self._worklist_lifetime = Lifetime(), Lifetime()
        self._worklist: OpenWorklist | None = None
        self._opening: asyncio.Task[None] | None = None
        self._mark: NodeMark | None = None
        self._http: HttpPort | None = None

    # --- callbacks of Orthanc ---

    def shelves_deleted(self) -> None:
        """Handle the deletion of the plugin's own instances in Orthanc."""
        if self._worklist is not None:
            self._worklist.shelves_deleted()

    def modalities_changed(self) -> None:
        """Handle a change of ``DicomModalities`` at run time."""
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

    def _serve(
        self,
        node: OpenNode,
        handler: WebHandler,
        sessions: NotificationSessions,
        api: Callable[[WebRequest], Awaitable[WebResponse]],
    ) -> None:
        """Pass requests on both HTTP ports to these handlers, after the checks of callers."""
        authorization, rights = node.authorization, node.rights
        routes = OrthancRoutes(
            handler, authorization, rights, self._requests, self._settings, self._orthanc_settings
        )
        self._routes = routes
        self._pages = OrthancPages(self._requests, api, serve, authorization, routes.service, node.origins)
        parts = HttpParts(handler, sessions, authorization, rights)
        node.http.serve(HttpService(parts, self._settings, self._orthanc_settings, self._refusals).answer)

    def _serve_nothing(self) -> None:
        self._routes, self._pages = None, None
        if self._http is not None:
            self._http.serve(None)

    # --- opening ---

    async def run(self) -> None:
        """Read the worklist and open every port, waiting for whatever is missing."""
        self._opening = asyncio.current_task()
        try:
            await self._open(await self._open_node())
        except (StoreMisconfigured, ValueError) as error:
            self._fail(str(error))
        except Exception as error:
            _log.exception("Opening the UPS service failed")
            self._fail(f"internal error ({type(error).__name__}); see Orthanc's log")

    def _fail(self, reason: str) -> None:
        self.health.failed(reason)
        _log.error("The UPS service cannot start: %s", reason)

    async def _open_node(self) -> OpenNode:
        """Open the parts that do not depend on which node keeps the worklist."""
        settings, orthanc_settings = self._settings, self._orthanc_settings
        self._http = http = self._http_port()
        self._lifetime.add(http.stop)
        listening = asyncio.ensure_future(retry(self.health, "the DICOMweb port", http.start))
        self._lifetime.add_task(listening)
        self._lifetime.add(self._loopback.close)
        if self._key_value is not None:
            self._lifetime.add(self._key_value.close)
        await retry(self.health, "the folder of the search index", self._create_index_folder)
        await retry(self.health, "Orthanc's modalities", self._modalities.refresh)
        for work in (self._modalities.keep_fresh, self._disk_space.run, self._refusals.run):
            self._lifetime.supervise(work)
        resolver = Resolver()
        authorization = await self._authorization()
        return OpenNode(
            settings=settings,
            orthanc_settings=orthanc_settings,
            own_ae=settings.aet or orthanc_settings.dicom_aet,
            zone=self._zone,
            health=self.health,
            instruments=self._instruments,
            descriptors=self._descriptors,
            refusals=self._refusals,
            disk_space=self._disk_space,
            loopback=self._loopback,
            key_value=self._key_value,
            titles=self._titles,
            modalities=self._modalities,
            stations=self._stations,
            worklists=self._worklists,
            change_listener=self._change_listener,
            http=http,
            listening=listening,
            dimse_context=self._dimse_context,
            resolver=resolver,
            policy=Policy(settings, orthanc_settings, self._modalities, resolver, self._titles),
            authorization=authorization,
            rights=Rights(settings.users, self._titles),
            origins=Origins(settings.allowed_origins),
        )

    def _http_port(self) -> HttpPort:
        return HttpPort(
            self._settings,
            self._orthanc_settings,
            self._descriptors.share(),
            self.health.report,
            self._refusals,
            self._web_context,
        )

    async def _authorization(self) -> Authorization:
        """The checks of callers, for which Orthanc is asked without the credentials of the plugin."""
        anonymous = Loopback.of(self._orthanc_settings, "")
        self._lifetime.add(anonymous.close)
        list_plugins = partial(loaded_plugins, self._loopback)
        plugins = await retry(self.health, "Orthanc's list of plugins", list_plugins)
        return Authorization(
            OrthancQuestions(anonymous),
            self._settings,
            self._orthanc_settings,
            asyncio.get_running_loop().time,
            judges_by_path=judges_by_path(self._orthanc_settings, plugins),
        )

    async def _create_index_folder(self) -> None:
        """Create IndexDirectory if needed: Orthanc creates it only with an index on SQLite."""
        folder = projection_file(self._settings, self._orthanc_settings).parent
        folder.mkdir(parents=True, exist_ok=True)

    async def _open(self, node: OpenNode) -> None:
        if self._orthanc_settings.shares_postgresql and (shared := await self._join(node)):
            await self._share(node, shared)
        elif self._orthanc_settings.shares_database:
            await self._take_turns(node)
        else:
            self._lifetime.add(self._close_worklist)
            await self._open_worklist(node)

    async def _open_worklist(
        self,
        node: OpenNode,
        shared: SharedParts | None = None,
        index: StandbyIndex | None = None,
        *,
        continues: bool = False,
    ) -> None:
        self._worklist = OpenWorklist(
            node,
            shared,
            self._metadata,
            partial(self._serve, node),
            self._worklist_lifetime,
            index,
            continues=continues,
        )
        await self._worklist.open()

    async def _close_worklist(self, shared: SharedParts | None = None) -> None:
        self._serve_nothing()
        if shared is not None:
            shared.cluster.serve_nothing()
        await self._worklist_lifetime.close()
        self._worklist = None

    def _node_mark(self, *, leased: bool = False) -> NodeMark:
        if self._mark is None:
            self._node_file = NodeFile(f"{projection_file(self._settings, self._orthanc_settings)}.node")
            node = replace(self._node_file.node, leased=leased)
            self._mark = NodeMark(self._metadata, node, SystemClock(), self.health.stands_by)
        self._lifetime.add(self._mark.release)
        return self._mark

    # --- several nodes on PostgreSQL: one leads, the others relay requests to it ---

    async def _join(self, node: OpenNode) -> SharedParts | None:
        """Join the nodes on this PostgreSQL. Returns None if that is not possible; the log says why."""
        try:
            from ..cluster.member import CannotShare, Cluster  # a single Orthanc does not load it
        except ImportError as error:
            _log_not_sharing(f"the Python package {error.name} is missing (requirements.txt)")
            return None
        codec = Codec(node.settings, node.orthanc_settings)
        share = node.descriptors.share()

        async def join() -> SharedParts:
            facts = await operating.read_orthanc_facts(node.loopback)
            about = {"name": facts.name, "version": __version__, "orthanc": facts.version}
            cluster = await Cluster.join(node.settings, node.orthanc_settings, about, share, node.refusals)
            server = node.dimse_server(cluster.services(node.policy, node.refusals), codec, cluster.seen)
            return SharedParts(cluster, server, codec)

        try:
            return await node.retry("the lease of the worklist", join)
        except CannotShare as error:
            _log_not_sharing(str(error))
            return None

    async def _share(self, node: OpenNode, shared: SharedParts) -> None:
        cluster, server = shared.cluster, shared.server
        self._lifetime.add(cluster.close)
        mark = self._node_mark(leased=True)
        self._lifetime.add(partial(self._close_worklist, shared))
        self._lifetime.add(server.stop)
        self._lifetime.supervise(partial(self._publish_standby, shared))
        self._stand_by(node, shared)
        await asyncio.gather(node.retry("the DIMSE port", server.start), node.listening)
        while True:
            loopback = cluster.loopback(node.orthanc_settings, self._token)
            index = cluster.standby_index(loopback, self._uploads, node.open_projection)
            self._worklist_lifetime.add(loopback.close)
            self._worklist_lifetime.add(index.close)
            following = asyncio.ensure_future(index.run())
            try:
                leadership = await cluster.elected()
            finally:
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)
            _log.warning("This node leads the worklist now (epoch %d)", leadership.epoch)
            self.health.leads()
            cluster.write_under(loopback, leadership.epoch)
            self._metadata = index.entries
            opening = self._open_with_mark(node, shared, mark, index, continues=leadership.continues)
            reason = await self._lead(opening, cluster.until_lost())
            self.health.stands_by(reason)
            _log.warning("This node no longer leads the worklist: %s", reason)
            await self._close_worklist(shared)
            self._stand_by(node, shared)

    async def _open_with_mark(
        self, node: OpenNode, shared: SharedParts, mark: NodeMark, index: StandbyIndex, *, continues: bool
    ) -> None:
        """Open the worklist. The node mark is renewed as well, because nodes that can only take turns rely on it."""
        clock = asyncio.get_running_loop().time
        started_at = clock()
        is_proven = await index.prove()
        if not is_proven:
            await index.close()
        proven_at = clock()
        await node.retry("Orthanc's metadata", index.entries.open)
        mark.write_to(index.entries)
        await node.retry("the worklist", mark.acquire)
        self._worklist_lifetime.start(self._keep_mark(shared, mark))
        await self._open_worklist(node, shared, index if is_proven else None, continues=continues)
        shared.cluster.keeper.opened()
        what = "took the worklist over" if is_proven else "read the whole worklist"
        _log.warning(
            "This node %s in %.2f s, of which comparing %.2f s",
            what,
            clock() - started_at,
            proven_at - started_at,
        )

    async def _keep_mark(self, shared: SharedParts, mark: NodeMark) -> None:
        await mark.keep()
        shared.cluster.lose("a node that ignores the lease has taken the worklist over")

    def _stand_by(self, node: OpenNode, shared: SharedParts) -> None:
        cluster = shared.cluster
        admission = OrthancAdmission(node.authorization)
        self._serve(
            node,
            cluster.ups_rs(),
            cluster.notification_sessions(),
            cluster.api(node.own_ae, node.rights, node.origins, admission).answer,
        )
        shared.server.serve(cluster.services(node.policy, node.refusals))
        node.modalities.moved = cluster.seen
        if node.worklists is not None:
            node.worklists.find = cluster.modality_worklists().find
        node.health.follows(cluster.leader_in_words, lambda: cluster.has_leader)

    async def _publish_standby(self, shared: SharedParts) -> None:
        while True:
            if self.health.role is not Role.LEADER:
                self._instruments.publish("ups_leader", 0)
                self._instruments.publish("ups_nodes", len(shared.cluster.keeper.nodes))
                self._instruments.publish("ups_lag_seconds", shared.cluster.lag)
            await asyncio.sleep(_NODES_EVERY)

    # --- several nodes on other databases ---

    async def _take_turns(self, node: OpenNode) -> None:
        """Keep the worklist whenever it is this node's turn: only one Orthanc on the database may keep it."""
        self._metadata = OrthancEntries(self._loopback, self._uploads)
        await node.retry("Orthanc's metadata", self._metadata.open)
        mark = self._node_mark()
        mark.write_to(self._metadata)
        self._lifetime.add(self._close_worklist)
        while True:
            await node.retry("the worklist", mark.acquire)
            self.health.leads()
            await self._lead(self._open_worklist(node), mark.keep())
            self.health.stands_by("another node has taken the worklist over")
            self._metadata.refused_because = "another node holds the worklist"
            await self._close_worklist()
            self._metadata.refused_because = ""

    async def _lead(self, opening: Coroutine[Any, Any, None], leading: Coroutine[Any, Any, _T]) -> _T:
        """Open the worklist and keep it until ``leading`` ends; returns its result. Raises what ``opening`` raises."""
        leading_task, opening_task = asyncio.ensure_future(leading), asyncio.ensure_future(opening)
        try:
            done, _ = await asyncio.wait((leading_task, opening_task), return_when=asyncio.FIRST_COMPLETED)
            if opening_task in done:
                opening_task.result()
            return await leading_task
        finally:
            leading_task.cancel()
            opening_task.cancel()
            await asyncio.gather(leading_task, opening_task, return_exceptions=True)

    # --- closing ---

    async def stop(self) -> None:
        """Close everything in reverse order, even if some of it fails."""
        self.health.stopping()
        if self._opening is not None:
            self._opening.cancel()
        await self._lifetime.close()

    def open_again(self) -> None:
        """Open everything again after a ``stop``."""
        self.health.starting()
        self._opening = asyncio.ensure_future(self.run())


def _log_not_sharing(reason: str) -> None:
    _log.error(
        "This node cannot share the worklist with other nodes and can only take turns with them: %s", reason
    )
