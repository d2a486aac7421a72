# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin's DICOM port: accepts associations within limits and serves them (PS3.8 §9.2, PS3.4 Annex CC)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, Final

from ..orthanc.descriptors import Share
from ..orthanc.listener import TcpListener
from ..orthanc.refusal_log import Refusal, RefusalLog
from ..settings import Settings
from .association import Association, Gone, Terms, Wire
from .data_sets import Codec
from .message import MemoryBudget, PduType, ProtocolError, Rejection, abort_by_provider
from .negotiation import Request, accept, read_request
from .policy import Policy
from .services import Exchange, Services

_log = logging.getLogger("orthanc_ups.dimse")

_MAX_REQUEST: Final = 256 * 1024  # bytes; 128 presentation contexts with 40 transfer syntaxes have 160,000
_LARGEST_DATA_SETS: Final = 8  # data sets of the greatest size that may arrive at the same time
MORE_CONNECTIONS: Final = 512  # beyond associations: before their request, or being rejected
CROWDED_HANDSHAKE: Final = 1.0  # seconds for a handshake above the maximum of associations
_UNDECIDED: Final = Rejection(2, 3, 1, "Orthanc did not say in time whether it knows the AE")
_FULL: Final = Rejection(2, 3, 2, "too many associations")


class DimseServer:
    """The SCP. It runs on the asyncio loop, without threads.

    Attributes:
        memory: for incoming data sets of AEs that are in ``DicomModalities``.
        memory_of_unlisted: for those of all other AEs.
    """

    def __init__(
        self,
        settings: Settings,
        policy: Policy,
        services: Services,
        codec: Codec,
        note_peer: Callable[[str], object],
        share: Share,
        refusals: RefusalLog,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Args:
        note_peer: called with the AE title of each known AE that opens an association.
        share: how many of the process's file descriptors this port may use.
        """
        self._settings = settings
        self._policy = policy
        self._services = services
        self._codec = codec
        self._note_peer = note_peer
        self._refusals = refusals
        self._listener = TcpListener(
            "DIMSE",
            (settings.bind_address or None, settings.dicom_port),
            self._protocol,
            share,
            refusal=_FULL.pdu,
            tls=tls,
            handshake=settings.association_handshake_timeout,
        )
        self.memory = MemoryBudget(settings.maximum_data_set_size * _LARGEST_DATA_SETS)
        self.memory_of_unlisted = MemoryBudget(settings.maximum_data_set_size)
        self._terms = Terms(
            settings.maximum_pdu_size,
            settings.maximum_data_set_size,
            settings.association_idle_timeout,
            settings.dimse_timeout,
            self.memory,
        )
        self._terms_of_unlisted = replace(self._terms, memory=self.memory_of_unlisted)
        self._open: set[Association] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._leaving: set[asyncio.Task[None]] = set()
        self._is_stopped = False

    def serve(self, services: Services) -> None:
        """Answer requests with these services from now on, including those on open associations."""
        self._services = services

    @property
    def associations(self) -> int:
        """The number of open associations."""
        return len(self._open)

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._listener.port

    @property
    def is_open(self) -> bool:
        """True while the port accepts connections."""
        return self._listener.is_open

    async def start(self) -> None:
        """Listen. Raises OSError if the port is in use or the address is not one of this machine."""
        await self._listener.start()

    async def stop(self) -> None:
        """Stop listening, abort open associations, and wait at most a second until all are closed."""
        self._is_stopped = True
        await self._listener.close()
        await asyncio.gather(
            *(association.abort() for association in list(self._open)), return_exceptions=True
        )
        tasks = (*self._tasks, *self._leaving)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._codec.close()

    # --- connections ---

    def _protocol(self) -> Wire:
        return Wire(self._connected)

    def _connected(self, wire: Wire) -> None:
        if self._is_stopped:
            wire.drop()
            return
        if len(self._tasks) >= self._settings.maximum_associations + MORE_CONNECTIONS:
            self._reject_at_once(wire)
        else:
            self._start(self._served(wire), wire, self._tasks)

    def _reject_at_once(self, wire: Wire) -> None:
        """Reject before any request has arrived. The peer gets time to read it, unless too many are being rejected."""
        wire.write(_FULL.pdu)
        if len(self._leaving) < MORE_CONNECTIONS:
            self._start(wire.close(linger=True), wire, self._leaving)
        else:
            wire.shut()

    def _start(self, work: Coroutine[Any, Any, None], wire: Wire, tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        task.add_done_callback(lambda _: wire.drop())  # even if the task is cancelled before it has begun

    async def _served(self, wire: Wire) -> None:
        try:
            request = await self._received_request(wire)
            rejection = await self._rejection(request, wire)
            if rejection:
                await self._reject(wire, request, rejection)
            else:
                await self._serve(await self._accepted(wire, request))
        except ProtocolError as error:
            self._refusals.add(Refusal("association", wire.address, reason=str(error)))
            wire.write(abort_by_provider(error.reason))
            await wire.close(linger=True)
        except (OSError, EOFError, TimeoutError, Gone) as error:
            _log.debug("Connection of %s ended: %s", wire.address, str(error) or type(error).__name__)
        except Exception:
            _log.exception("Association of %s failed", wire.address)

    async def _received_request(self, wire: Wire) -> Request:
        """The A-ASSOCIATE-RQ. Above the maximum of associations, peers get less time to send it."""
        patience = self._settings.association_handshake_timeout
        is_crowded = len(self._tasks) > self._settings.maximum_associations
        async with asyncio.timeout(min(patience, CROWDED_HANDSHAKE) if is_crowded else patience):
            kind, length = await wire.header()
            if kind is not PduType.ASSOCIATE_RQ:
                raise ProtocolError(f"{kind.name} before an association")
            body = await wire.body(length, _MAX_REQUEST)
        return read_request(bytes((kind, 0)) + length.to_bytes(4, "big") + body)

    async def _rejection(self, request: Request, wire: Wire) -> Rejection | None:
        if self._is_at_limit():
            return _FULL
        if request.rejection:
            return request.rejection
        try:
            async with asyncio.timeout(self._settings.association_handshake_timeout):
                rejection = await self._policy.rejection(request.calling, request.called, wire.address)
        except TimeoutError:
            return _UNDECIDED
        return rejection or (_FULL if self._is_at_limit() else None)

    def _is_at_limit(self) -> bool:
        return len(self._open) >= self._settings.maximum_associations

    async def _reject(self, wire: Wire, request: Request, rejection: Rejection) -> None:
        reason = rejection.words
        if rejection is _FULL:
            reason = f"{self._settings.maximum_associations} are open (Ups.MaximumAssociations)"
        self._refusals.add(Refusal("association", wire.address, request.calling, reason=reason))
        wire.write(rejection.pdu)
        await wire.close(linger=True)

    async def _accepted(self, wire: Wire, request: Request) -> Association:
        agreement, answer = accept(request, self._settings.maximum_pdu_size, self._services.further)
        # Unlisted AEs may be allowed to echo or query. Their data sets arrive before any refusal: from a budget apart.
        terms = self._terms if self._policy.has_cached(request.calling) else self._terms_of_unlisted
        association = Association(wire, agreement, terms, request.calling, request.called)
        self._open.add(association)
        wire.write(answer)
        _log.debug("Association of %s at %s opened", request.calling, wire.address)
        return association

    async def _serve(self, association: Association) -> None:
        noticing = asyncio.create_task(self._notice(association))
        try:
            async with contextlib.aclosing(association.messages()) as messages:
                async for message in messages:
                    await self._services.serve(Exchange(association, message, self._codec))
        finally:
            self._open.discard(association)
            noticing.cancel()
            await association.close()
            _log.debug("Association of %s ended", association.calling)

    async def _notice(self, association: Association) -> None:
        """Report to delivery that a listed AE is reachable. A task of its own, because Orthanc may answer slowly."""
        if await self._policy.knows(association.calling, association.address):
            self._note_peer(association.calling)
