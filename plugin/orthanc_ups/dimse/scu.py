# SPDX-License-Identifier: AGPL-3.0-or-later
"""Event reports on associations of its own: the channel ``dimse`` of delivery (PS3.4 CC.2.4, PS3.7 §10.1.1)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ..core import tags
from ..core.events import Event
from ..core.statuses import REGISTER
from ..delivery.port import Fence, Refused, Unreachable, no_fence
from ..orthanc.modalities import Modality, OrthancModalities
from ..settings import OrthancSettings, Settings
from .association import Gone, Wire
from .data_sets import Codec, Syntax
from .message import (
    ABORT_BY_USER,
    AFFECTED_CLASS,
    AFFECTED_INSTANCE,
    COMMAND_FIELD,
    ERROR_COMMENT,
    EVENT_TYPE,
    STATUS,
    CommandField,
    CommandSet,
    Message,
    PduType,
    ProtocolError,
    read_rejection,
)
from .negotiation import VERIFICATION, Agreement, objection_to, read_answer, request
from .policy import Resolver
from .requestor import EncodedRequest, Requestor
from .tls import TlsError

_log = logging.getLogger("orthanc_ups.dimse")

_MAX_ANSWER: Final = 512 * 1024  # bytes of an A-ASSOCIATE-AC
_DEFAULT_TIMEOUT: Final = 10.0  # seconds, unless Orthanc's settings say otherwise
_RELEASE_PATIENCE: Final = 1.0  # seconds
_ONLY_CONTEXT: Final = 1  # ID of the one presentation context that is proposed
_ENCODED_EVENTS: Final = 64  # events whose encoding is cached for further receivers

_TRANSIENT: Final = frozenset({0x0110, 0x0210, 0x0213})
_TRANSIENT_CLASSES: Final = frozenset({0xA, 0xC, 0xF})  # Axxx, Cxxx, FFxx by their highest digit
_WARNINGS: Final = frozenset({0x0001, 0x0107, 0x0116})
_MEANINGS: Final[Mapping[int, str]] = MappingProxyType(
    {
        **{status.code: status.meaning for status in REGISTER.values()},
        0x0112: "No such SOP Instance",
        0x0119: "Class-Instance conflict",
        0x0210: "Duplicate invocation",
        0x0211: "Unrecognized operation",
    }
)
_MEANINGS_OF_CLASSES: Final = MappingProxyType(
    {0xA7: "Out of resources", 0xC: "Unable to process", 0xFF: "Pending"}
)


@dataclass(slots=True)
class _Receiver:
    """State of one Receiving AE.

    Attributes:
        association: kept open for some time after an event.
        used_at: when it was last used, by the loop's clock.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    association: Requestor | None = None
    modality: Modality | None = None
    used_at: float = 0.0
    idle_timer: asyncio.TimerHandle | None = None


@dataclass(frozen=True, slots=True)
class _Report:
    """An event, encoded for all receivers with the same context, transfer syntax and greatest PDU."""

    event: Event
    request: EncodedRequest


class DimseChannel:
    """Delivers events by N-EVENT-REPORT on the asyncio loop; receivers never wait for one another."""

    name = "dimse"

    def __init__(
        self,
        settings: Settings,
        orthanc_settings: OrthancSettings,
        modalities: OrthancModalities,
        codec: Codec,
        resolver: Resolver,
        tls: Callable[[], ssl.SSLContext],
        fence: Fence = no_fence,
    ) -> None:
        """``tls`` creates the context for modalities with ``UseDicomTls``; it may raise TlsError."""
        self._settings = settings
        self._own_ae = settings.aet or orthanc_settings.dicom_aet
        self._timeout = orthanc_settings.dicom_scu_timeout or _DEFAULT_TIMEOUT
        self._modalities = modalities
        self._codec = codec
        self._resolver = resolver
        self._tls = tls
        self._fence = fence
        self._tls_context: ssl.SSLContext | None = None
        self._receivers: dict[str, _Receiver] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._reports: dict[tuple[int, int, str, int], _Report] = {}

    @property
    def associations(self) -> int:
        """The number of open associations."""
        associations = (receiver.association for receiver in self._receivers.values())
        return sum(association is not None and association.is_open for association in associations)

    def serves(self, receiving_ae: str) -> bool:
        """True if Orthanc knows an address of the AE."""
        return bool(self._modalities.by_ae_title(receiving_ae))

    async def deliver(self, receiving_ae: str, events: Sequence[Event]) -> int:
        """Report events in order, each after the answer to the one before. Returns how many were accepted.

        Raises:
            Unreachable: no connection, no association, no answer, or a transient failure.
            Refused: the receiver will never accept the first event.
        """
        receiver = self._receivers.setdefault(receiving_ae, _Receiver())
        async with receiver.lock:
            try:
                return await self._deliver_all(receiving_ae, receiver, events)
            finally:
                self._schedule_release(receiving_ae, receiver)

    async def _deliver_all(self, receiving_ae: str, receiver: _Receiver, events: Sequence[Event]) -> int:
        count = 0
        for event in events:
            try:
                await self._deliver_one(receiving_ae, receiver, event)
            except (Unreachable, Refused):
                if count:
                    break
                raise
            count += 1
        return count

    async def echo(self, receiving_ae: str) -> float:
        """Send C-ECHO to the AE on an association of its own. Returns the seconds that this took.

        Raises:
            Unreachable: it failed; the text says why.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        association, _ = await self._opened(receiving_ae, VERIFICATION)
        command: CommandSet = {
            AFFECTED_CLASS: VERIFICATION,
            COMMAND_FIELD: int(CommandField.C_ECHO),
        }
        echo = EncodedRequest.of(_ONLY_CONTEXT, command, None, association.max_sent)
        try:
            status = _status_of(await association.ask(echo, self._settings.dimse_timeout))
            if status:
                raise Unreachable(f"C-ECHO answered {_named(status)}")
            return loop.time() - start
        except Gone as error:
            raise Unreachable(f"C-ECHO: {error}") from error
        finally:
            await association.release(_RELEASE_PATIENCE)

    async def close(self) -> None:
        """Release every association, within two seconds."""
        for task in list(self._tasks):
            task.cancel()
        receivers, self._receivers = self._receivers, {}
        await asyncio.gather(
            *(self._release(receiver) for receiver in receivers.values()), return_exceptions=True
        )

    # --- one event ---

    async def _deliver_one(self, receiving_ae: str, receiver: _Receiver, event: Event) -> None:
        """Use the open association; if it turns out to have ended, try once more on a new one."""
        is_reused = await self._connect(receiving_ae, receiver)
        try:
            await self._report(receiver, event)
        except Gone as error:
            await self._release(receiver)
            if not is_reused:
                raise Unreachable(f"N-EVENT-REPORT not answered: {error}") from error
            await self._deliver_one(receiving_ae, receiver, event)
        except Unreachable:
            await self._release(receiver)
            raise

    async def _report(self, receiver: _Receiver, event: Event) -> None:
        association, modality = receiver.association, receiver.modality
        assert association is not None
        assert modality is not None
        request = self._request(association, event)
        patience = modality.timeout or self._settings.dimse_timeout
        self._fence()  # no await between this and the first byte
        _check_status(_status_of(await association.ask(request, patience)))

    def _request(self, association: Requestor, event: Event) -> EncodedRequest:
        """The N-EVENT-REPORT, encoded once for all receivers that negotiated the same."""
        context = association.agreement.context_for(tags.EVENT) or _ONLY_CONTEXT
        syntax = association.agreement.contexts[context].syntax
        key = (event.sequence, context, syntax.uid, association.max_sent)
        report = self._reports.get(key)
        if report is None or report.event.information is not event.information:
            report = _Report(event, self._encoded(context, syntax, event, association.max_sent))
            self._reports[key] = report
            if len(self._reports) > _ENCODED_EVENTS:
                del self._reports[next(iter(self._reports))]
        return report.request

    def _encoded(self, context: int, syntax: Syntax, event: Event, max_pdu: int) -> EncodedRequest:
        command: CommandSet = {
            AFFECTED_CLASS: tags.PUSH,
            COMMAND_FIELD: int(CommandField.N_EVENT_REPORT),
            AFFECTED_INSTANCE: event.uid,
            EVENT_TYPE: int(event.type),
        }
        data = self._codec.encoded(event.information, syntax) if event.information else None
        return EncodedRequest.of(context, command, data, max_pdu)

    # --- associations ---

    async def _connect(self, receiving_ae: str, receiver: _Receiver) -> bool:
        """Ensure that the receiver has an association. Returns True if it already had one."""
        association = receiver.association
        if (
            association
            and association.is_open
            and receiver.modality in self._modalities.by_ae_title(receiving_ae)
        ):
            return True
        await self._release(receiver)
        receiver.association, receiver.modality = await self._opened(receiving_ae, tags.EVENT)
        return False

    async def _opened(self, receiving_ae: str, abstract: str) -> tuple[Requestor, Modality]:
        """An association to the first entry of the AE that accepts one."""
        modalities = self._modalities.by_ae_title(receiving_ae) or await self._modalities.lookup(receiving_ae)
        problem = Unreachable(f"AE title {receiving_ae} is not in DicomModalities")
        for modality in modalities:
            try:
                return await self._associated(modality, abstract), modality
            except Unreachable as error:
                problem = error
        raise problem

    async def _associated(self, modality: Modality, abstract: str) -> Requestor:
        wire = await self._connected(modality)
        try:
            async with asyncio.timeout(self._settings.association_handshake_timeout):
                return await self._negotiated(wire, modality, abstract)
        except BaseException as error:
            await wire.close()
            if isinstance(error, TimeoutError):
                raise Unreachable(f"{_at(modality)} did not answer the association request") from error
            if isinstance(error, (ProtocolError, EOFError, OSError)):
                raise Unreachable(f"{_at(modality)} broke off the association request") from error
            raise

    async def _negotiated(self, wire: Wire, modality: Modality, abstract: str) -> Requestor:
        calling = modality.local_aet or self._own_ae
        max_pdu = self._settings.maximum_pdu_size
        as_scp = abstract == tags.EVENT
        wire.write(request(calling, modality.ae_title, abstract, max_pdu, as_scp=as_scp))
        kind, length = await wire.header()
        body = await wire.body(length, _MAX_ANSWER)
        if kind is PduType.ASSOCIATE_RJ:
            raise Unreachable(f"{_at(modality)} rejected the association: {read_rejection(body).words}")
        if kind is not PduType.ASSOCIATE_AC:
            raise Unreachable(f"{_at(modality)} aborted the association request")
        answer = bytes((kind, 0)) + length.to_bytes(4, "big") + body
        agreement = read_answer(answer, abstract, as_scp=as_scp)
        objection = _objection(agreement, abstract)
        if objection:
            wire.write(ABORT_BY_USER)
            raise Unreachable(f"{_at(modality)} {objection}")
        _log.debug("Association to %s opened", _at(modality))
        return Requestor(wire, agreement, max_pdu)

    async def _connected(self, modality: Modality) -> Wire:
        patience = modality.timeout or self._timeout
        problem = f"host {modality.host} has no address"
        try:
            async with asyncio.timeout(patience):
                for address in await self._resolver.addresses(modality.host):
                    try:
                        return await Wire.connect(address, modality.port, self._context(modality))
                    except OSError as error:
                        problem = f"cannot connect to {_at(modality)}: {_in_words(error)}"
        except TimeoutError:
            problem = f"{_at(modality)} did not answer within {patience:g} s"
        except TlsError as error:
            problem = f"no TLS to {_at(modality)}: {error}"
        raise Unreachable(problem)

    def _context(self, modality: Modality) -> ssl.SSLContext | None:
        if not modality.use_dicom_tls:
            return None
        if self._tls_context is None:
            self._tls_context = self._tls()
        return self._tls_context

    # --- idle associations ---

    def _schedule_release(self, receiving_ae: str, receiver: _Receiver) -> None:
        """A timer that is already running checks ``used_at`` when it fires."""
        loop = asyncio.get_running_loop()
        receiver.used_at = loop.time()
        if receiver.idle_timer is None:
            idle = self._settings.event_association_idle_timeout
            receiver.idle_timer = loop.call_later(idle, self._release_if_idle, receiving_ae, receiver)

    def _release_if_idle(self, receiving_ae: str, receiver: _Receiver) -> None:
        receiver.idle_timer = None
        if receiver.lock.locked():
            return
        loop = asyncio.get_running_loop()
        until = receiver.used_at + self._settings.event_association_idle_timeout
        if loop.time() < until:
            receiver.idle_timer = loop.call_at(until, self._release_if_idle, receiving_ae, receiver)
            return
        if self._receivers.get(receiving_ae) is receiver:
            del self._receivers[receiving_ae]
        task = asyncio.create_task(self._release(receiver))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _release(self, receiver: _Receiver) -> None:
        association, receiver.association = receiver.association, None
        if receiver.idle_timer:
            receiver.idle_timer.cancel()
            receiver.idle_timer = None
        if association:
            with contextlib.suppress(Gone, OSError):
                await association.release(_RELEASE_PATIENCE)


def _objection(agreement: Agreement, abstract: str) -> str | None:
    """Why an association is useless, or None if it is not."""
    if not agreement.contexts:
        name = "UPS Event" if abstract == tags.EVENT else "Verification"
        return f"does not accept the {name} SOP Class: {agreement.refused or 'no answer to it'}"
    objection = objection_to(agreement.max_pdu)
    return f"cannot be sent messages: {objection}" if objection else None


def _status_of(answer: Message) -> int:
    status = answer.number(STATUS)
    if status is None:
        raise Gone("the answer has no status")
    if status and answer.text(ERROR_COMMENT):
        _log.debug("Answered %04X: %s", status, answer.text(ERROR_COMMENT))
    return status


def _check_status(status: int) -> None:
    """Raise Refused or Unreachable unless the event was accepted: success or a warning (PS3.7 §10.1.1.1.8).

    A transient failure is not a refusal. Out of resources (A7xx), unable to process (Cxxx) and pending (FFxx) are
    statuses of other services that receivers nevertheless send; they say nothing about the event.
    """
    if status == 0 or status in _WARNINGS or status >> 12 == 0xB:
        return
    text = f"N-EVENT-REPORT answered {_named(status)}"
    is_transient = status in _TRANSIENT or status >> 12 in _TRANSIENT_CLASSES
    raise Unreachable(text) if is_transient else Refused(text)


def _named(status: int) -> str:
    otherwise = _MEANINGS_OF_CLASSES.get(status >> 8 if status >> 12 != 0xC else 0xC, "Unknown status")
    return f"{status:04X} {_MEANINGS.get(status, otherwise)}"


def _at(modality: Modality) -> str:
    return f"{modality.ae_title} at {modality.host}:{modality.port}"


def _in_words(error: OSError) -> str:
    """``Connection refused``; asyncio's own text names addresses instead."""
    if isinstance(error, ssl.SSLError) or not error.errno or error.errno < 0:
        return error.strerror or str(error)
    return os.strerror(error.errno)
