# SPDX-License-Identifier: AGPL-3.0-or-later
"""The services of the UPS SOP classes and Verification: request, command, answer (PS3.4 CC.2, Table CC.2-1)."""

from __future__ import annotations

import contextlib
import logging
import re
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import tzinfo
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol, cast

from ..codecs.corrections import Corrections
from ..core import statuses, tags
from ..core.commands import (
    ChangeState,
    Command,
    Create,
    RequestCancel,
    Requester,
    Subscribe,
    Suspend,
    Unsubscribe,
    Update,
    unexpected,
)
from ..core.dataset import DataSet, text, values
from ..core.decide import is_uid
from ..core.dictionary import VR_OF
from ..core.events import CANCEL_INFORMATION
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.outcome import Outcome
from ..core.refusals import refusal, refusal_of
from ..core.representations import REPRESENTATIONS
from ..core.selection import creator_of, holds_times
from ..core.statuses import INVALID_ARGUMENT, MISTYPED_ARGUMENT, NO_SUCH_ARGUMENT, Fault, Status, UpsError
from ..orthanc.refusal_log import Refusal, RefusalLog
from ..worklist.ports import WorklistPort
from .association import Gone
from .data_sets import Codec
from .message import (
    ACTION_TYPE,
    AFFECTED_CLASS,
    AFFECTED_INSTANCE,
    ATTRIBUTE_LIST,
    COMMAND_FIELD,
    ERROR_COMMENT,
    ERROR_ID,
    EVENT_TYPE,
    MESSAGE_ID,
    OFFENDING_ELEMENT,
    REQUESTED_CLASS,
    REQUESTED_INSTANCE,
    RESPONDED_ID,
    RESPONSE,
    STATUS,
    CommandField,
    Message,
    Value,
)
from .negotiation import FIND_CLASSES, UPS_CLASSES, VERIFICATION, Context
from .policy import Operation, Policy

_log = logging.getLogger("orthanc_ups.dimse")

# --- a request and its answers (PS3.7 §9.3, §10.3, Annex C) ---

_ABOUT_ATTRIBUTES: Final = frozenset({0x0105, 0x0106, 0x0107, 0x0116, 0x0120, 0x0121, 0xC309})
"""Statuses with an Attribute Identifier List (PS3.7 §C.5), and that of a wrong state at creation (C309)."""


class Requesting(Protocol):
    """The association of a request, as its answers need it."""

    calling: str
    called: str

    @property
    def address(self) -> str:
        """IP address of the requester."""
        ...

    @property
    def contexts(self) -> Mapping[int, Context]:
        """The accepted presentation contexts by their IDs."""
        ...

    def is_canceled(self, message: Message) -> bool:
        """True if C-CANCEL has arrived for a request."""
        ...

    async def send(self, *messages: Message) -> None:
        """Send answers. Raises Gone or OSError if the association has ended."""
        ...


class Exchange:
    """A request on its association, and how it is answered.

    Attributes:
        message: the request.
        context: its presentation context.
        calling, called: AE title of the requester, and the one it called.
        address: IP address of the requester.
        requester: the requester, in the form that commands take.
        field: Command Field (0000,0100) of the request.
        sop_class: Affected or Requested SOP Class UID.
        instance: Affected or Requested SOP Instance UID, empty if there is none.
    """

    def __init__(self, association: Requesting, message: Message, codec: Codec) -> None:
        self.message = message
        self.context: Context = association.contexts[message.context]
        self.calling = association.calling
        self.called = association.called
        self.address = association.address
        self.requester = Requester(self.calling, "DIMSE")
        self.field = message.field
        self.sop_class = message.text(AFFECTED_CLASS) or message.text(REQUESTED_CLASS)
        self.instance = message.text(REQUESTED_INSTANCE) or message.text(AFFECTED_INSTANCE)
        self._association = association
        self._codec = codec

    @property
    def is_canceled(self) -> bool:
        """True if C-CANCEL has arrived for this request."""
        return self._association.is_canceled(self.message)

    async def corrected_data_set(self) -> tuple[DataSet, tuple[str, ...]]:
        """The data set, read leniently, and a sentence for each correction. The answer must report them."""
        corrections = self._codec.corrections()
        dataset = await self.data_set(corrections)
        return dataset, corrections.sentences

    async def data_set(self, corrections: Corrections | None = None) -> DataSet:
        """The data set of the request, empty if there is none. Raises UpsError if it is broken or too large."""
        if self.message.oversized:
            raise self._codec.too_large()
        if self.message.data is None:
            return {}
        return await self._codec.decoded(self.message.data, self.context.syntax, corrections)

    # --- answers ---

    async def send(self, *messages: Message) -> None:
        """Send complete answers."""
        await self._association.send(*messages)

    async def answer(
        self, status: Status, instance: str = "", attributes: DataSet | None = None, comment: str = ""
    ) -> None:
        """Send the only answer to a DIMSE-N request or a C-ECHO."""
        command = self._head(status.code, instance or self.instance)
        if comment and status.code:
            command[ERROR_COMMENT] = shortened(comment)
        await self._association.send(self._message(command, attributes))

    async def refuse(self, error: UpsError) -> None:
        """Send a failure, with every attribute at fault (PS3.7 Annex C).

        Offending Element names the attributes themselves, Attribute Identifier List the top-level attributes that
        contain them.
        """
        command = self._head(error.status.code, self.instance)
        command[ERROR_COMMENT] = comment_of(error)
        if error.status.error_id:
            command[ERROR_ID] = error.status.error_id
        paths = [fault.path.split(".") for fault in error.faults]
        if paths:
            command[OFFENDING_ELEMENT] = tuple(dict.fromkeys(path[-1] for path in paths))
            if error.status.code in _ABOUT_ATTRIBUTES:
                command[ATTRIBUTE_LIST] = tuple(dict.fromkeys(path[0] for path in paths))
        await self._association.send(self._message(command, None))

    async def send_matches(self, code: int, identifiers: Iterable[DataSet]) -> None:
        """Send some matches of C-FIND and wait until the peer has taken them, while other associations are served."""
        command = self._head(code, "")
        await self._association.send(*(self._message(command, identifier) for identifier in identifiers))

    async def end_of_matches(self, code: int) -> None:
        """Send the final answer to C-FIND."""
        await self._association.send(self._message(self._head(code, ""), None))

    def _head(self, code: int, instance: str) -> dict[int, Value]:
        """The command set of an answer.

        Its class is UPS Push in every DIMSE-N message about a UPS (PS3.4 CC.3.1); C-FIND and C-ECHO repeat that of the
        request.
        """
        is_normalized = self.field >= CommandField.N_EVENT_REPORT
        sop_class = self.sop_class or self.context.abstract
        command: dict[int, Value] = {
            AFFECTED_CLASS: tags.PUSH if is_normalized and self.sop_class in UPS_CLASSES else sop_class,
            COMMAND_FIELD: self.field | RESPONSE,
            RESPONDED_ID: self.message.number(MESSAGE_ID) or 0,
            STATUS: code,
        }
        if instance and is_normalized:
            command[AFFECTED_INSTANCE] = instance
        for element in (ACTION_TYPE, EVENT_TYPE):
            number = self.message.number(element)
            if number is not None:
                command[element] = number
        return command

    def _message(self, command: dict[int, Value], attributes: DataSet | None) -> Message:
        data = self._codec.encoded(attributes, self.context.syntax) if attributes else None
        return Message(self.message.context, command, data)


# --- Error Comment (0000,0902): 64 characters of ASCII, so tags come before words (PS3.7 Annex C) ---

_LONGEST: Final = 64
_SPELLED_TAG: Final = re.compile(r"(?:, (?=\())? ?\(([0-9A-F]{4},[0-9A-F]{4})\)")


def comment_of(error: UpsError) -> str:
    """What is wrong: the tags of the attributes at fault, as many as fit, then the first reason."""
    if not error.faults:
        return shortened(error.detail)
    if error.faults[0].comment:
        return shortened(error.faults[0].comment)
    paths = list(dict.fromkeys(fault.path for fault in error.faults))
    return shortened(f"{_spelled(paths)} {_SPELLED_TAG.sub('', error.faults[0].reason).strip()}")


def comment_on(outcome: Outcome) -> str:
    """What was corrected, in the form of ``comment_of``; the meaning of the status if nothing was."""
    if not outcome.details:
        return shortened(outcome.status.meaning)
    sentences = "; ".join(outcome.details)
    tags = list(dict.fromkeys(tag.replace(",", "") for tag in _SPELLED_TAG.findall(sentences)))
    return shortened(f"{_spelled(tags)} {_SPELLED_TAG.sub('', sentences).strip()}".strip())


def _spelled(paths: list[str]) -> str:
    """``(0074,1204) (0040,4018)>(0008,0102),(0008,0104)``: neighbours in one sequence share it."""
    text, shared = "", None
    for path in paths:
        above, _, tag = path.rpartition(".")
        if shared is not None and above == shared and above:
            text += f",{_tag(tag)}"
        else:
            text += f" {'>'.join(map(_tag, path.split('.')))}"
        shared = above
    return text.strip()


def _tag(tag: str) -> str:
    return f"({tag[:4]},{tag[4:]})"


def shortened(comment: str) -> str:
    """A text cut to the 64 characters of Error Comment, between words where that loses little."""
    plain = comment.replace("\\", "/").replace("…", "...").encode("ascii", errors="replace").decode("ascii")
    if len(plain) <= _LONGEST:
        return plain
    cut = plain[: _LONGEST - 2]
    words = cut.rpartition(" ")[0]
    return (words if len(words) > _LONGEST // 2 else cut) + ".."


# --- the services ---

_PENDING: Final = 0xFF00
_PENDING_KEYS_UNSUPPORTED: Final = 0xFF01
CANCELED: Final = 0xFE00
"""Status of a C-FIND that was canceled (PS3.4 Table CC.2.8-2)."""
PENDING: Final = frozenset({_PENDING, _PENDING_KEYS_UNSUPPORTED})
"""Statuses after which more answers follow."""
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

_OPERATIONS: Final[Mapping[int, Operation]] = MappingProxyType(
    {CommandField.C_ECHO: Operation.ECHO, CommandField.C_FIND: Operation.FIND}
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
    """A SOP class in addition to those of UPS, such as MPPS.

    Attributes:
        fields: the DIMSE services on a context of it.
        classes: SOP Class UIDs that a message on the context may name.
        serve: answers a request of an AE that may use UPS; raises UpsError to refuse it.
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
        note_peer: Callable[[str], object],
        refusals: RefusalLog,
        zone: tzinfo | None = None,
        *,
        strict: bool = False,
        further: Mapping[str, FurtherService] = MappingProxyType({}),
    ) -> None:
        """Args:
        note_peer: called with the AE title of each C-ECHO.
        zone: the time zone of matching keys without an offset.
        strict: ``Ups.Strict``.
        """
        self._strict = strict
        self.further = further
        self._refusals = refusals
        self._worklist = worklist
        self._policy = policy
        self._note_peer = note_peer
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
        """Answer any request. Raises Gone or OSError if the association has ended."""
        if exchange.field & RESPONSE:
            _log.debug("%s sent an unexpected response", exchange.calling)
            return
        try:
            self._check_service(exchange)
            operation = _OPERATIONS.get(exchange.field, Operation.UPS)
            objection = await self._policy.objection(operation, exchange.calling, exchange.address)
            if objection:
                raise UpsError(statuses.NOT_AUTHORIZED, objection)
            further = self.further.get(exchange.context.abstract)
            await (further.serve if further else self._handlers[exchange.field])(exchange)
        except UpsError as error:
            self._refusals.add(_refusal(exchange, error))
            await exchange.refuse(error)
        except (Gone, OSError):
            raise
        except Exception:
            _log.exception("request %04X of %s failed", exchange.field, exchange.calling)
            await exchange.refuse(_internal_error(exchange))

    def _check_service(self, exchange: Exchange) -> None:
        """Raise UpsError unless the context's SOP class has this service; the message may name any (PS3.4 CC.3.1)."""
        context, sop_class = exchange.context.abstract, exchange.sop_class
        is_find = exchange.field == CommandField.C_FIND
        further = self.further.get(context)
        if exchange.field not in (further.fields if further else _SERVICES[context]):
            status = statuses.SOP_CLASS_UNSUPPORTED if is_find else statuses.UNRECOGNIZED_OPERATION
            raise UpsError(status, f"this service is not one of SOP Class {context}")
        classes: Collection[str] = UPS_CLASSES
        expected, status = tags.PUSH, statuses.NO_SUCH_SOP_CLASS
        if context == VERIFICATION:
            classes, expected, status = (VERIFICATION, ""), VERIFICATION, statuses.SOP_CLASS_UNSUPPORTED
        elif further:
            classes, expected = further.classes, context
        elif is_find:
            classes, expected, status = FIND_CLASSES, context, statuses.SOP_CLASS_UNSUPPORTED
        if sop_class not in classes:
            raise UpsError(status, f"SOP Class UID {sop_class or 'is missing'}, expected {expected}")

    # --- each service ---

    async def _echo(self, exchange: Exchange) -> None:
        self._note_peer(exchange.calling)
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
        uid = _required_instance(exchange)
        dataset, corrections = await exchange.corrected_data_set()
        attributes = dict(dataset)
        transaction = _transaction(attributes)
        attributes.pop(tags.TRANSACTION_UID, None)
        update = Update(exchange.requester, uid, attributes, transaction, corrections)
        outcome = await self._worklist.execute(update)
        await exchange.answer(outcome.status, uid, outcome.attributes, comment_on(outcome))

    async def _get(self, exchange: Exchange) -> None:
        """N-GET (PS3.4 CC.2.7): the requested attributes, or all of them, but never Transaction UID."""
        uid = _required_instance(exchange)
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
        if action_type not in _COMMANDS or action_type not in _ACTIONS[exchange.context.abstract]:
            detail = f"action type {action_type} is not one of SOP Class {exchange.context.abstract}"
            raise UpsError(statuses.NO_SUCH_ACTION, detail)
        uid = _required_instance(exchange)
        try:
            information = await exchange.data_set()
        except UpsError as error:
            if error.status is statuses.INVALID_VALUE:  # as an invalid argument (0115)
                raise error.under(statuses.INVALID_ARGUMENT) from error
            raise
        action = Action(exchange.requester, uid, information, exchange.context.mechanisms, not self._strict)
        outcome = await self._worklist.execute(_COMMANDS[action_type](action))
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


async def _sent(exchange: Exchange, pending: int, chunk: list[DataSet]) -> bool:
    """Send a chunk of matches, a few at a time. Returns False if C-CANCEL has arrived."""
    for start in range(0, len(chunk), _MATCHES_AT_ONCE):
        await exchange.send_matches(pending, chunk[start : start + _MATCHES_AT_ONCE])
        if exchange.is_canceled:
            return False
    return True


def _required_instance(exchange: Exchange) -> str:
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
    """The requested attributes; those of the UPS IOD that the workitem lacks are empty.

    As in C-FIND, dates and times come with their Timezone Offset From UTC (PS3.3 §C.12.1.1.8), and
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


def _internal_error(exchange: Exchange) -> UpsError:
    is_find = exchange.field == CommandField.C_FIND
    return UpsError(statuses.OUT_OF_RESOURCES if is_find else statuses.PROCESSING_FAILURE, "internal error")


# --- the arguments of N-ACTION (PS3.4 Tables CC.2.1-1 to CC.2.3-1) ---

_TEXT_VRS: Final = frozenset({"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UI", "UT"})
_NAMES: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        tags.STATE: ("CS", "Procedure Step State"),
        tags.TRANSACTION_UID: ("UI", "Transaction UID"),
        tags.RECEIVING_AE: ("AE", "Receiving AE"),
        tags.DELETION_LOCK: ("LO", "Deletion Lock"),
    }
)


@dataclass(frozen=True, slots=True)
class Action:
    """A decoded N-ACTION, not yet validated.

    Attributes:
        mechanisms: the extended matching that a filtered subscription uses.
        lenient: ignore arguments of other actions, and accept any text VR for arguments that have a text VR.
    """

    requester: Requester
    uid: str
    information: DataSet
    mechanisms: Mechanisms = Mechanisms.NONE
    lenient: bool = False


def _change_state(action: Action) -> Command:
    """Both values go to the core unchecked: it accepts other spellings of a state, and answers C301 for a bad UID."""
    _check_rest(action, (tags.STATE, tags.TRANSACTION_UID))
    state = _single_value(action, tags.STATE)
    if state is None:
        raise _missing(action, tags.STATE)
    transaction = _single_value(action, tags.TRANSACTION_UID)
    return ChangeState(action.requester, action.uid, state, transaction)


def _request_cancel(action: Action) -> Command:
    _check_rest(action, CANCEL_INFORMATION)
    information = {tag: element for tag, element in action.information.items() if tag in CANCEL_INFORMATION}
    return RequestCancel(action.requester, action.uid, information)


def _subscribe(action: Action) -> Command:
    receiving_ae, lock = _read_all(partial(_required, action, tags.RECEIVING_AE), partial(_lock, action))
    own = (tags.RECEIVING_AE, tags.DELETION_LOCK)
    if action.uid != tags.FILTERED_SUBSCRIPTION:
        _check_rest(action, own, keys=True)
        return Subscribe(action.requester, action.uid, receiving_ae, lock == "TRUE")
    keys = {tag: element for tag, element in action.information.items() if tag not in own}
    if not keys:
        raise UpsError(INVALID_ARGUMENT, "a filtered subscription needs at least one matching key")
    return Subscribe(action.requester, action.uid, receiving_ae, lock == "TRUE", keys, action.mechanisms)


def _lock(action: Action) -> str:
    lock = _required(action, tags.DELETION_LOCK)
    if action.lenient:
        lock = lock.upper()
    if lock not in ("TRUE", "FALSE"):
        raise _bad_argument(tags.DELETION_LOCK, "is neither TRUE nor FALSE")
    return lock


def _unsubscribe(action: Action) -> Command:
    _check_nothing_else(action)
    return Unsubscribe(action.requester, action.uid, _required(action, tags.RECEIVING_AE))


def _suspend(action: Action) -> Command:
    _check_nothing_else(action)
    return Suspend(action.requester, action.uid, _required(action, tags.RECEIVING_AE))


_COMMANDS: Final[Mapping[int, Callable[[Action], Command]]] = MappingProxyType(
    {1: _change_state, 2: _request_cancel, 3: _subscribe, 4: _unsubscribe, 5: _suspend}
)
"""The function that builds the command of an N-ACTION, by Action Type ID.

Each raises UpsError: 0114 for an argument that the action does not have, 0115 for a missing or wrong one, 0212 for
one with a wrong VR.
"""


def _check_rest(action: Action, own: Collection[str], *, keys: bool = False) -> None:
    tag = unexpected(action.information, own, lenient=action.lenient, keys=keys)
    if tag:
        raise refusal(NO_SUCH_ARGUMENT, (), tag, "is not an argument of this action")


def _check_nothing_else(action: Action) -> None:
    """Extra arguments of Unsubscribe and Suspend, such as a Deletion Lock, are refused only in strict mode."""
    if not action.lenient:
        _check_rest(action, (tags.RECEIVING_AE,))


def _read_all(*readers: Callable[[], str]) -> list[str]:
    """The values of all readers. Raises one UpsError that names every argument at fault."""
    arguments: list[str] = []
    faults: list[Fault] = []
    for reader in readers:
        try:
            arguments.append(reader())
        except UpsError as error:
            faults += error.faults
    if faults:
        raise refusal_of(faults)
    return arguments


def _required(action: Action, tag: str) -> str:
    value = _optional(action, tag)
    if value is None:
        raise _missing(action, tag)
    return value


def _missing(action: Action, tag: str) -> UpsError:
    return _bad_argument(tag, "is missing" if tag not in action.information else "is empty")


def _optional(action: Action, tag: str) -> str | None:
    """The value of an argument, or None if it is absent or empty. Raises UpsError if it is invalid."""
    value, vr = _single_value(action, tag), _NAMES[tag][0]
    if value is not None and not REPRESENTATIONS[vr].valid(value):
        raise _bad_argument(tag, f"is not valid: expected {REPRESENTATIONS[vr].form}")
    return value


def _single_value(action: Action, tag: str) -> str | None:
    """The value of an argument, valid or not, or None if it is absent or empty. Raises UpsError if it has several."""
    vr, _ = _NAMES[tag]
    element = action.information.get(tag)
    if element is None:
        return None
    if element["vr"] != vr and not (action.lenient and element["vr"] in _TEXT_VRS):
        raise _bad_argument(tag, f"has VR {element['vr']}, expected {vr}", mistyped=True)
    listed = values(action.information, tag)
    if len(listed) > 1:
        raise _bad_argument(tag, f"has {len(listed)} values, expected one")
    return str(listed[0]).strip(" ") or None if listed else None


def _bad_argument(tag: str, what: str, *, mistyped: bool = False) -> UpsError:
    text = f"{_NAMES[tag][1]} ({tag[:4]},{tag[4:]}) {what}"
    return UpsError(MISTYPED_ARGUMENT if mistyped else INVALID_ARGUMENT, text, tag)
