# SPDX-License-Identifier: AGPL-3.0-or-later
"""The services of the UPS SOP classes and Verification: wire → command → answer (PS3.4 CC.2, Table CC.2-1)."""

from __future__ import annotations

import contextlib
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from types import MappingProxyType
from typing import Final, cast

from ..core import statuses, tags
from ..core.commands import Create, Update
from ..core.dataset import DataSet, text, values
from ..core.decide import is_uid
from ..core.dictionary import VR_OF
from ..core.matching import Query
from ..core.selection import creator_of, holds_times
from ..core.statuses import Status, UpsError
from ..orthanc.refusal_log import Refusal, RefusalLog
from ..worklist.ports import WorklistPort
from .arguments import ACTION_TYPES, Action, command
from .association import Gone
from .exchange import Exchange, comment_on
from .message import ACTION_TYPE, ATTRIBUTE_LIST, RESPONSE, CommandField
from .negotiation import FIND_CLASSES, UPS_CLASSES, VERIFICATION
from .policy import Policy, Wish

_log = logging.getLogger("orthanc_ups.dimse")

_PENDING: Final = 0xFF00
_PENDING_KEYS_UNSUPPORTED: Final = 0xFF01
CANCELED: Final = 0xFE00
"""Status of a C-FIND that was canceled (PS3.4 Table CC.2.8-2)."""
PENDING: Final = frozenset({_PENDING, _PENDING_KEYS_UNSUPPORTED})
"""Statuses behind which more answers follow."""
_MATCHES_AT_ONCE: Final = 10

_SERVICES: Final[Mapping[str, frozenset[CommandField]]] = MappingProxyType(
    {
        tags.PUSH: frozenset({CommandField.N_CREATE, CommandField.N_ACTION, CommandField.N_GET}),
        tags.WATCH: frozenset({CommandField.N_ACTION, CommandField.N_GET, CommandField.C_FIND}),
        tags.PULL: frozenset(
            {CommandField.C_FIND, CommandField.N_GET, CommandField.N_SET, CommandField.N_ACTION}
        ),
        tags.QUERY: frozenset({CommandField.C_FIND}),
        tags.EVENT: frozenset(),
        VERIFICATION: frozenset({CommandField.C_ECHO}),
    }
)
"""DIMSE services on a context of each SOP class (PS3.4 Table CC.2-1)."""

_WISHES: Final[Mapping[CommandField, Wish]] = MappingProxyType(
    {CommandField.C_ECHO: Wish.ECHO, CommandField.C_FIND: Wish.FIND}
)
_ACTIONS: Final[Mapping[str, frozenset[int]]] = MappingProxyType(
    {tags.PUSH: frozenset({2}), tags.WATCH: frozenset({2, 3, 4, 5}), tags.PULL: frozenset({1})}
)

_FIND_STATUSES: Final[Mapping[int, Status]] = MappingProxyType(
    {
        statuses.RESOURCE_LIMITATION.code: statuses.OUT_OF_RESOURCES,
        statuses.INVALID_VALUE.code: statuses.IDENTIFIER_MISMATCH,
        statuses.PROCESSING_FAILURE.code: statuses.OUT_OF_RESOURCES,
    }
)
"""C-FIND has statuses of its own (PS3.4 Table CC.2.8-2)."""


@dataclass(frozen=True, slots=True)
class FurtherService:
    """A SOP class that is none of UPS, served by another part.

    Attributes:
        fields: the DIMSE services on a context of it.
        classes: SOP Class UIDs that a message on the context may name.
        serve: answers a request of an AE that may use UPS; refuses by raising UpsError.
    """

    fields: frozenset[CommandField]
    classes: frozenset[str]
    serve: Callable[[Exchange], Awaitable[None]]


class Services:
    """Serves exchanges; one instance for all associations.

    Attributes:
        further: services of other SOP classes, by SOP Class UID.
    """

    def __init__(
        self,
        worklist: WorklistPort,
        policy: Policy,
        seen: Callable[[str], object],
        refusals: RefusalLog,
        zone: tzinfo | None = None,
        *,
        strict: bool = False,
        further: Mapping[str, FurtherService] = MappingProxyType({}),
    ) -> None:
        """``seen`` is called with the AE title of each C-ECHO; ``zone`` is that of keys without an offset; ``strict``
        as ``Ups.Strict``.
        """
        self._strict = strict
        self.further = further
        self._refusals = refusals
        self._worklist = worklist
        self._policy = policy
        self._seen = seen
        self._zone = zone
        self._handlers: Mapping[int, Callable[[Exchange], Awaitable[None]]] = {
            CommandField.C_ECHO: self._echo,
            CommandField.C_FIND: self._find,
            CommandField.N_CREATE: self._create,
            CommandField.N_SET: self._set,
            CommandField.N_GET: self._get,
            CommandField.N_ACTION: self._action,
        }

    async def serve(self, exchange: Exchange) -> None:
        """Answer a request, whatever it is. Raises Gone if the peer has left."""
        if exchange.field & RESPONSE:
            _log.debug("%s sent an unexpected response", exchange.calling)
            return
        try:
            self._check_service(exchange)
            await self._check_allowed(exchange)
            further = self.further.get(exchange.context.abstract)
            await (further.serve if further else self._handlers[exchange.field])(exchange)
        except UpsError as error:
            self._refusals.add(_refusal(exchange, error))
            await exchange.refuse(error)
        except (Gone, OSError):
            raise
        except Exception:
            _log.exception("request %04X of %s failed", exchange.field, exchange.calling)
            await exchange.refuse(_unforeseen(exchange))

    # --- may it be asked at all ---

    def _check_service(self, exchange: Exchange) -> None:
        """The message may name any UPS class (PS3.4 CC.3.1), but the service must belong to that of the context."""
        context, sop_class = exchange.context.abstract, exchange.sop_class
        is_find = exchange.field == CommandField.C_FIND
        further = self.further.get(context)
        if exchange.field not in (further.fields if further else _SERVICES[context]):
            status = statuses.SOP_CLASS_UNSUPPORTED if is_find else statuses.UNRECOGNIZED_OPERATION
            raise UpsError(status, f"this service is not one of SOP Class {context}")
        if context == VERIFICATION:
            _check_class(sop_class, (VERIFICATION, ""), VERIFICATION, statuses.SOP_CLASS_UNSUPPORTED)
        elif further:
            _check_class(sop_class, further.classes, context, statuses.NO_SUCH_SOP_CLASS)
        elif is_find:
            _check_class(sop_class, FIND_CLASSES, context, statuses.SOP_CLASS_UNSUPPORTED)
        else:
            _check_class(sop_class, UPS_CLASSES, tags.PUSH, statuses.NO_SUCH_SOP_CLASS)

    async def _check_allowed(self, exchange: Exchange) -> None:
        wish = {CommandField.C_ECHO: Wish.ECHO, CommandField.C_FIND: Wish.FIND}.get(
            CommandField(exchange.field), Wish.UPS
        )
        objection = await self._policy.objection(wish, exchange.calling, exchange.address)
        if objection:
            raise UpsError(statuses.NOT_AUTHORIZED, objection)

    # --- the services ---

    async def _echo(self, exchange: Exchange) -> None:
        self._seen(exchange.calling)
        await exchange.answer(statuses.SUCCESS)

    async def _create(self, exchange: Exchange) -> None:
        """N-CREATE (PS3.4 CC.2.5). A missing Affected SOP Instance UID is chosen here (PS3.7 §10.1.5.1.4)."""
        attributes, corrections = await exchange.corrected_data_set()
        repeated = text(attributes, tags.SOP_INSTANCE_UID)
        uid = exchange.instance or repeated or f"2.25.{uuid.uuid4().int}"
        if repeated and repeated != uid:
            detail = "SOPInstanceUID (0008,0018) is not Affected SOP Instance UID"
            raise UpsError(statuses.INVALID_VALUE, detail, tags.SOP_INSTANCE_UID)
        outcome = await self._worklist.execute(Create(exchange.requester, uid, attributes, corrections))
        await exchange.answer(outcome.status, outcome.uid, outcome.attributes, comment_on(outcome))

    async def _set(self, exchange: Exchange) -> None:
        """N-SET (PS3.4 CC.2.6)."""
        uid = _needed_instance(exchange)
        dataset, corrections = await exchange.corrected_data_set()
        attributes = dict(dataset)
        transaction = _transaction(attributes)
        attributes.pop(tags.TRANSACTION_UID, None)
        update = Update(exchange.requester, uid, attributes, transaction, corrections)
        outcome = await self._worklist.execute(update)
        await exchange.answer(outcome.status, uid, outcome.attributes, comment_on(outcome))

    async def _get(self, exchange: Exchange) -> None:
        """N-GET (PS3.4 CC.2.7): the requested attributes, or all of them, but never Transaction UID."""
        uid = _needed_instance(exchange)
        workitem = await self._worklist.retrieve(uid)
        requested = exchange.message.tags(ATTRIBUTE_LIST)
        attributes = _selected(workitem, requested)
        missing = [tag for tag in requested if tag not in attributes and tag != tags.SPECIFIC_CHARACTER_SET]
        status = statuses.OPTIONAL_UNSUPPORTED if missing else statuses.SUCCESS
        comment = f"not supported: {', '.join(f'({tag[:4]},{tag[4:]})' for tag in missing)}"
        await exchange.answer(status, uid, attributes, comment)

    async def _action(self, exchange: Exchange) -> None:
        """N-ACTION 1 to 5 (PS3.4 CC.2.1 to CC.2.3)."""
        action_type = exchange.message.number(ACTION_TYPE)
        if action_type not in ACTION_TYPES or action_type not in _ACTIONS[exchange.context.abstract]:
            detail = f"action type {action_type} is not one of SOP Class {exchange.context.abstract}"
            raise UpsError(statuses.NO_SUCH_ACTION, detail)
        uid = _needed_instance(exchange)
        information = await _as_arguments(exchange)
        action = Action(exchange.requester, uid, information, exchange.context.mechanisms, not self._strict)
        outcome = await self._worklist.execute(command(action_type, action))
        await exchange.answer(outcome.status, uid, None, comment_on(outcome))

    async def _find(self, exchange: Exchange) -> None:
        """C-FIND (PS3.4 CC.2.8)."""
        try:
            await self._answer_matches(exchange, await self._query(exchange))
        except UpsError as error:
            status = _FIND_STATUSES.get(error.status.code, error.status)
            raise error.under(status) from error

    async def _query(self, exchange: Exchange) -> Query:
        if exchange.message.data is None and not exchange.message.oversized:
            raise UpsError(statuses.IDENTIFIER_MISMATCH, "C-FIND has no identifier")
        try:
            identifier = await exchange.data_set()
        except UpsError as error:
            if error.status is statuses.PROCESSING_FAILURE:
                raise error.under(statuses.IDENTIFIER_MISMATCH) from error
            raise
        return Query.of(identifier, mechanisms=exchange.context.mechanisms, timezone=self._zone)

    async def _answer_matches(self, exchange: Exchange, query: Query) -> None:
        """Send pending answers as fast as the peer takes them, checking for C-CANCEL before each chunk."""
        pending = _PENDING_KEYS_UNSUPPORTED if query.unsupported else _PENDING
        if query.has_keys:
            matches = cast("AsyncGenerator[list[DataSet], None]", self._worklist.find(query))
            async with contextlib.aclosing(matches):
                async for chunk in matches:
                    if exchange.is_canceled or not await _sent(exchange, pending, chunk):
                        return await exchange.end_of_matches(CANCELED)
        return await exchange.end_of_matches(statuses.SUCCESS.code)


def _check_class(sop_class: str, allowed: Collection[str], expected: str, status: Status) -> None:
    if sop_class not in allowed:
        raise UpsError(status, f"SOP Class UID {sop_class or 'is missing'}, expected {expected}")


async def _sent(exchange: Exchange, pending: int, chunk: list[DataSet]) -> bool:
    """Send a chunk of matches; False if C-CANCEL came. Other associations get a turn every few matches."""
    for start in range(0, len(chunk), _MATCHES_AT_ONCE):
        await exchange.send_matches(pending, chunk[start : start + _MATCHES_AT_ONCE])
        if exchange.is_canceled:
            return False
    return True


def _needed_instance(exchange: Exchange) -> str:
    uid = exchange.instance
    if not is_uid(uid):
        detail = "Requested SOP Instance UID (0000,1001) is missing or not a UID"
        raise UpsError(statuses.INVALID_INSTANCE, detail)
    return uid


def _transaction(attributes: DataSet) -> str | None:
    listed = values(attributes, tags.TRANSACTION_UID)
    element = attributes.get(tags.TRANSACTION_UID)
    if len(listed) > 1 or (element is not None and element["vr"] != "UI"):
        detail = "Transaction UID (0008,1195) is not one value of VR UI"
        raise UpsError(statuses.INVALID_VALUE, detail, tags.TRANSACTION_UID)
    return listed[0] if listed else None


def _selected(workitem: DataSet, requested: tuple[str, ...]) -> DataSet:
    """What is asked for and known to the UPS IOD is answered, empty if the workitem does not hold it.

    As in C-FIND dates and times come with the Timezone Offset From UTC that holds for them (PS3.3 §C.12.1.1.8), and
    private attributes with their creators (PS3.5 §7.8.1).
    """
    if not requested:
        return {tag: element for tag, element in workitem.items() if tag != tags.TRANSACTION_UID}
    selected = set(requested) - {tags.TRANSACTION_UID, tags.SPECIFIC_CHARACTER_SET}
    empty: DataSet = {tag: {"vr": VR_OF[tag]} for tag in selected if tag in VR_OF}
    selected |= {creator for creator in map(creator_of, selected) if creator in workitem}
    if holds_times(
        dict.fromkeys(selected), {tag: workitem[tag]["vr"] for tag in selected if tag in workitem}
    ):
        selected |= {tags.TIMEZONE_OFFSET} & workitem.keys()
    return {
        tag: workitem.get(tag) or empty[tag] for tag in sorted(selected) if tag in workitem or tag in empty
    }


async def _as_arguments(exchange: Exchange) -> DataSet:
    """The action information; an invalid value is reported as an invalid argument (0115)."""
    try:
        return await exchange.data_set()
    except UpsError as error:
        if error.status is statuses.INVALID_VALUE:
            raise error.under(statuses.INVALID_ARGUMENT) from error
        raise


def _refusal(exchange: Exchange, error: UpsError) -> Refusal:
    name = CommandField(exchange.field).name.replace("_", "-")
    action = exchange.message.number(ACTION_TYPE)
    return Refusal(
        name if action is None else f"{name} {action}",
        exchange.address,
        exchange.calling,
        exchange.instance if is_uid(exchange.instance) else "",
        f"{error.status.code:04X}",
        error.detail,
    )


def _unforeseen(exchange: Exchange) -> UpsError:
    is_find = exchange.field == CommandField.C_FIND
    return UpsError(statuses.OUT_OF_RESOURCES if is_find else statuses.PROCESSING_FAILURE, "internal error")
