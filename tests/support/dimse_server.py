# SPDX-License-Identifier: AGPL-3.0-or-later
"""The DIMSE interface alone: its server on loopback, before a fake worklist."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec

from orthanc_ups.core import statuses
from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.core.commands import Command
from orthanc_ups.core.dataset import DataSet
from orthanc_ups.core.matching import Query
from orthanc_ups.core.outcome import WHOLE, Outcome, Page, Paging
from orthanc_ups.core.statuses import UpsError
from orthanc_ups.delivery.port import Fence, no_fence
from orthanc_ups.dimse.data_sets import Codec
from orthanc_ups.dimse.policy import Policy, Resolver
from orthanc_ups.dimse.scp import DimseServer
from orthanc_ups.dimse.scu import DimseChannel
from orthanc_ups.dimse.services import FurtherService, Services
from orthanc_ups.dimse.tls import client_context, server_context
from orthanc_ups.orthanc.descriptors import Descriptors
from orthanc_ups.orthanc.modalities import Modality, OrthancModalities
from orthanc_ups.orthanc.refusal_log import RefusalLog
from orthanc_ups.settings import OrthancSettings, Settings
from tests.support.raw_dimse import VERIFICATION, RawPeer
from tests.support.waiting import wait_until

T = TypeVar("T")


class FakeWorklist:
    """Records every command and query; answers with ``outcome``, or raises ``error``."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        self.queries: list[Query] = []
        self.workitems: dict[str, DataSet] = {}
        self.outcome: Callable[[Command], Outcome] = lambda command: Outcome(statuses.SUCCESS, command.uid)
        self.error: Exception | None = None
        self.chunks: list[list[DataSet]] = []
        self.before_chunk: Callable[[], Awaitable[None]] | None = None
        self.before_execute: Callable[[], Awaitable[object]] | None = None
        self.streams_closed = 0
        self.matches_sent = 0

    async def execute(self, command: Command) -> Outcome:
        if self.before_execute:
            await self.before_execute()
        self.commands.append(command)
        if self.error:
            raise self.error
        return self.outcome(command)

    async def retrieve(self, uid: str) -> DataSet:
        if self.error:
            raise self.error
        if uid not in self.workitems:
            raise UpsError(statuses.NO_SUCH_WORKITEM)
        return self.workitems[uid]

    def document_of(self, uid: str) -> bytes:
        raise NotImplementedError

    def text_of(self, uid: str) -> bytes:
        raise NotImplementedError

    async def find(self, query: Query) -> AsyncIterator[list[DataSet]]:
        self.queries.append(query)
        try:
            for chunk in self.chunks:
                if self.before_chunk:
                    await self.before_chunk()
                self.matches_sent += len(chunk)
                yield chunk
            if self.error:
                raise self.error
        finally:
            self.streams_closed += 1

    async def search(self, query: Query, paging: Paging = WHOLE) -> Page[DataSet]:
        raise NotImplementedError

    async def search_texts(self, query: Query, paging: Paging = WHOLE) -> Page[bytes]:
        raise NotImplementedError


@dataclass
class FixedModalities(OrthancModalities):
    """``DicomModalities`` of a test."""

    entries: list[Modality] = field(default_factory=list)
    lookups: list[str] = field(default_factory=list)

    def by_ae_title(self, ae_title: str) -> tuple[Modality, ...]:
        return tuple(entry for entry in self.entries if entry.ae_title == ae_title)

    async def lookup(self, ae_title: str) -> tuple[Modality, ...]:
        self.lookups.append(ae_title)
        return self.by_ae_title(ae_title)


class Loop:
    """An asyncio loop in a thread, for clients that block."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.trouble: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.trouble.append(context))
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float = 20.0) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def close(self) -> None:
        self.run(_let_end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(60)
        self.loop.close()
        assert not self.trouble, self.trouble


async def _let_end() -> None:
    """Give remaining tasks two seconds to end; then fail and name them."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    _, pending = await asyncio.wait(others, timeout=2) if others else (None, set())
    assert not pending, pending


KNOWN = Modality("scu", "SCU", "127.0.0.1", 1)


class DimseRig:
    """Server and event channel around a fake worklist. Use it with ``with``."""

    def __init__(
        self,
        settings: Settings | None = None,
        orthanc_settings: OrthancSettings | None = None,
        modalities: Sequence[Modality] = (KNOWN,),
        further: Mapping[str, FurtherService] | None = None,
        fence: Fence = no_fence,
        port: int = 0,
    ) -> None:
        """``port`` 0 lets the system choose, which config.py would refuse."""
        self.settings = msgspec.structs.replace(
            settings or Settings(), dicom_port=port, bind_address="127.0.0.1"
        )
        self.orthanc_settings = orthanc_settings or OrthancSettings()
        self.modalities = FixedModalities(list(modalities))
        self.worklist = FakeWorklist()
        self.seen: list[str] = []
        self.codec = Codec(self.settings, self.orthanc_settings)
        self.loop = Loop()
        resolver = Resolver()
        titles = AeTitles(strict=self.orthanc_settings.strict_aet_comparison)
        policy = Policy(self.settings, self.orthanc_settings, self.modalities, resolver, titles)
        refusals = RefusalLog()
        services = Services(
            self.worklist,
            policy,
            self.seen.append,
            refusals,
            strict=self.settings.strict,
            further=further or {},
        )
        tls = server_context(self.orthanc_settings)
        self.descriptors = Descriptors(4096)
        self.server = DimseServer(
            self.settings,
            policy,
            services,
            self.codec,
            self.seen.append,
            self.descriptors.share(),
            refusals,
            tls,
        )
        self.channel = DimseChannel(
            self.settings,
            self.orthanc_settings,
            self.modalities,
            self.codec,
            resolver,
            lambda: client_context(self.orthanc_settings),
            fence,
        )

    @property
    def port(self) -> int:
        return self.server.port

    def __enter__(self) -> Self:
        self.loop.run(self.server.start())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.loop.run(self.channel.close())
        self.loop.run(self.server.stop())
        self.codec.close()
        self.loop.close()

    @property
    def connections(self) -> int:
        """How many connections are open, with or without an association."""

        async def counted() -> int:
            return self.descriptors.in_use

        return self.loop.run(counted())

    def still_serves(self) -> None:
        """Check that another peer is served, and that no other association is open."""
        with RawPeer(self.port, VERIFICATION) as peer:
            assert peer.echo() == 0
            peer.release()
        self.wait_for_associations(0)

    def wait_for_associations(self, count: int) -> None:
        """Wait until so many associations are open."""
        wait_until(
            lambda: self.server.associations == count,
            lambda: f"{self.server.associations} associations",
        )
