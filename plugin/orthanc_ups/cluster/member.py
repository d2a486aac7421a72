# SPDX-License-Identifier: AGPL-3.0-or-later
"""One node's part in the cluster, for use on the worklist's loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import psycopg

from ..core.events import Event
from ..delivery.port import Fence, Unreachable
from ..dicomweb.origins import Origins
from ..dicomweb.request import WebHandler
from ..dicomweb.rights import Rights
from ..dicomweb.websocket import NotificationSessions
from ..dimse.data_sets import Codec
from ..dimse.policy import Policy
from ..dimse.services import Services
from ..management.answers import NodesJson
from ..management.routing import Admission
from ..orthanc.descriptors import Share
from ..orthanc.refusal_log import RefusalLog
from ..projection.projection import Projection
from ..settings import OrthancSettings, Settings
from ..store.documents import UnreadableDocument
from ..store.shelves import Uploads
from . import envelopes
from .database import CannotShare as CannotShare
from .database import Database, Session, Sessions, connection_string
from .envelopes import EVENT_LOG, SEEN
from .inner_port import Answer, EventLog, Find, InnerPort, LeaderParts, offer
from .lease import RENEW_EVERY, Leadership, LeaseKeeper
from .notices import Notices
from .relay import (
    AnswerLost,
    NoLeader,
    Relay,
    RelayedApi,
    RelayedModalityWorklists,
    RelayedServices,
    RelayedSessions,
    RelayedUpsRs,
)
from .rows import FencedLoopback
from .standby import FollowedEntries, StandbyIndex

_log = logging.getLogger("orthanc_ups.cluster")
_LOCAL: Final = "127.0.0.1"
_EVERYWHERE: Final = "0.0.0.0"  # noqa: S104 - other nodes may connect to an address that this machine does not know


class Cluster:
    """The part of this node in the cluster. Repeat ``elected`` and ``until_lost``; finally ``close``."""

    def __init__(self, settings: Settings, database: Database, about: Mapping[str, Any]) -> None:
        """``about`` describes this node to the others: name and versions."""
        self._settings = settings
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._elected: asyncio.Queue[Leadership] = asyncio.Queue()
        self._lost = asyncio.Event()
        self._reason = ""
        self._offer: dict[str, Any] = {}
        self.keeper = LeaseKeeper(database, about, self._note_election, self._note_loss)
        self.relay = Relay(lambda: self.keeper.holder, lambda: self.keeper.is_fresh)
        self.sessions = Sessions(database)
        self.port: InnerPort
        self._index: StandbyIndex | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @classmethod
    async def join(
        cls,
        settings: Settings,
        orthanc_settings: OrthancSettings,
        about: Mapping[str, Any],
        share: Share,
        refusals: RefusalLog,
    ) -> Cluster:
        """Prepare the database, open the port for other nodes, and start to watch the lease.

        Raises:
            CannotShare: the user lacks a privilege, or Orthanc's tables lack a column.
            StoreUnavailable: PostgreSQL does not answer.
            OSError: the port cannot be opened.
        """
        database = Database(connection_string(settings, orthanc_settings), "orthanc-ups")
        await database.prepare()
        cluster = cls(settings, database, about)
        own, configured = await cluster._address(), settings.cluster.address
        cluster.port = InnerPort(settings, _EVERYWHERE if configured else own, share, refusals)
        await cluster.port.start()
        cluster._offer = offer(cluster.port, configured or own)
        cluster.keeper.start()
        cluster._begin(cluster._live())
        return cluster

    async def _address(self) -> str:
        with contextlib.suppress(psycopg.Error, OSError):
            async with await self._database.connect() as session:
                return _own_address(session)
        return _LOCAL

    async def _live(self) -> None:
        while True:
            self.keeper.alive()
            await asyncio.sleep(RENEW_EVERY)

    async def close(self) -> None:
        """Release the lease, and close the port and all connections."""
        await self.keeper.close()
        await self.relay.close()
        await self.sessions.close()
        await self.port.stop()
        for task in list(self._tasks):
            task.cancel()

    # --- leading ---

    def _note_election(self, leadership: Leadership) -> None:
        self._loop.call_soon_threadsafe(self._elected.put_nowait, leadership)

    def _note_loss(self, reason: str) -> None:
        self._loop.call_soon_threadsafe(self.lose, reason)

    def lose(self, reason: str) -> None:
        """Note that this node no longer leads, and why."""
        self._reason = self._reason or reason
        self._lost.set()

    async def elected(self) -> Leadership:
        """Stand for election, and wait until this node leads."""
        while not self._elected.empty():
            self._elected.get_nowait()
        self._reason = ""
        self._lost.clear()
        self.keeper.stand(self._offer)
        return await self._elected.get()

    async def until_lost(self) -> str:
        """Wait until this node no longer leads; returns why."""
        await self._lost.wait()
        return self._reason

    def fence(self) -> Fence:
        """A fence that stops events from being sent once this leadership is over."""
        keeper, epoch = self.keeper, self.keeper.epoch

        def fence() -> None:
            if not keeper.leads or keeper.epoch != epoch:
                raise Unreachable("this node no longer leads the worklist")

        return fence

    def loopback(self, orthanc_settings: OrthancSettings, token: str) -> FencedLoopback:
        """Orthanc's REST API, which refuses to write until ``write_under`` is called."""
        loopback = FencedLoopback.of(orthanc_settings, token)
        loopback.under(self.sessions, 0, lambda: False, lambda: None)
        return loopback

    def write_under(self, loopback: FencedLoopback, epoch: int) -> None:
        """Let the store write, under this epoch only, and notify the standby nodes of each write."""
        loopback.under(
            self.sessions,
            epoch,
            lambda: self.keeper.leads and self.keeper.epoch == epoch,
            lambda: self.lose("another node has taken the worklist over"),
            Notices(self.sessions, epoch).wrote,
        )

    def standby_index(
        self, loopback: FencedLoopback, uploads: Uploads, open_projection: Callable[[], Projection]
    ) -> StandbyIndex:
        """What keeps the search index up to date while this node does not lead."""
        entries = FollowedEntries(loopback, uploads, self.sessions)
        index = StandbyIndex(self._database, self.sessions, entries, open_projection, self._logged_after)
        self.keeper.details = lambda: {"lag": round(index.lag, 3)}
        self._index = index
        return index

    async def _logged_after(self, sequence: int) -> list[Event] | None:
        try:
            content = await self.relay.ask(EVENT_LOG, str(sequence).encode(), safe=True)
            return envelopes.to_events(content)
        except (NoLeader, AnswerLost, UnreadableDocument, struct.error):
            return None

    def leader_in_words(self) -> str:
        """The leader's name, host and process, or why there is no leader; for ``GET /ups/health``."""
        holder = self.keeper.holder
        if not self.has_leader:
            return self.keeper.trouble or "no node leads"
        about = holder.about
        return f"{about.get('name', '?')} on {about.get('host', '?')} (process {about.get('pid', '?')}) leads"

    def report(self) -> NodesJson:
        """Epoch, lease and live nodes, the leader first; for ``GET /ups/api/nodes``."""
        keeper = self.keeper
        listed = sorted(
            keeper.nodes, key=lambda node: (node.about.get("role") != "leader", node.about.get("name"))
        )
        return {
            "epoch": keeper.holder.epoch,
            "lease": round(keeper.remaining, 3),
            "nodes": [
                {
                    "name": str(node.about.get("name", "")),
                    "host": str(node.about.get("host", "")),
                    "process": int(node.about.get("pid", 0)),
                    "version": str(node.about.get("version", "")),
                    "role": str(node.about.get("role", "")),
                    "since": str(node.about.get("since", "")),
                    "seen_before": round(node.silence, 3),
                    "lag": float(node.about.get("lag", 0.0)),
                }
                for node in listed
            ],
        }

    @property
    def lag(self) -> float:
        """Seconds by which the search index is behind the store; 0 if this node leads."""
        return self._index.lag if self._index is not None and not self.keeper.leads else 0.0

    @property
    def has_leader(self) -> bool:
        """True if a node leads, as far as this one can tell."""
        return bool(self.keeper.holder.run) and self.keeper.is_fresh

    @property
    def has_standby(self) -> bool:
        """True if another node could take over."""
        return self.keeper.has_others()

    @property
    def survives_this_node(self) -> bool:
        """True if the worklist stays available when this node stops."""
        return not self.keeper.leads or self.keeper.has_others()

    # --- while this node leads: what answers relayed requests ---

    def serve(
        self,
        ups_rs: WebHandler,
        api: Answer,
        sessions: NotificationSessions,
        services: Services,
        codec: Codec,
        seen: Callable[[str], object],
        find: Find | None,
        event_log: EventLog,
    ) -> None:
        """Answer relayed requests with these parts."""
        self.port.serve(LeaderParts(ups_rs.answer, api, sessions, services, codec, seen, find, event_log))

    def serve_nothing(self) -> None:
        """Refuse relayed requests: this node does not lead."""
        self.port.serve(None)

    # --- while another node leads: what relays requests to it ---

    def ups_rs(self) -> RelayedUpsRs:
        """UPS-RS, relayed to the leader."""
        return RelayedUpsRs(self.relay)

    def modality_worklists(self) -> RelayedModalityWorklists:
        """Modality worklist queries, relayed to the leader."""
        return RelayedModalityWorklists(self.relay)

    def notification_sessions(self) -> RelayedSessions:
        """Notification connections, relayed to the leader."""
        return RelayedSessions(self.relay)

    def api(self, ae_title: str, rights: Rights, origins: Origins, admission: Admission) -> RelayedApi:
        """The management API, relayed to the leader."""
        return RelayedApi(self.relay, ae_title, rights, origins, admission)

    def services(self, policy: Policy, refusals: RefusalLog) -> RelayedServices:
        """The DIMSE services, relayed to the leader."""
        mpps = self._settings.modality_worklist.enable
        return RelayedServices(self.relay, policy, refusals, performed_steps=mpps)

    def seen(self, ae_title: str) -> None:
        """Report to the leader that this AE is reachable, so that it retries deliveries to it."""
        self._begin(self._report_presence(ae_title))

    async def _report_presence(self, ae_title: str) -> None:
        with contextlib.suppress(NoLeader, AnswerLost):
            await self.relay.ask(SEEN, ae_title.encode(), safe=True)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _own_address(session: Session) -> str:
    """The local address of this session: other nodes can probably reach this one there."""
    with socket.socket(fileno=socket.dup(session.pgconn.socket)) as own:
        if own.family not in (socket.AF_INET, socket.AF_INET6):
            return _LOCAL
        return str(own.getsockname()[0])
