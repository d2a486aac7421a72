# SPDX-License-Identifier: AGPL-3.0-or-later
"""Requests of UPS-RS as commands, the same ones that DIMSE-N requests become (PS3.18 §11.4–§11.12).

What Orthanc's own port drops with the query of a POST may be in the body instead: the UID and the Transaction
UID as attributes, a subscription's Deletion Lock (0074,1230) and keys as in N-ACTION 3.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from ..core import tags
from ..core.attributes import UPS_CLASSES
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
from ..core.dataset import DataSet, Element, element
from ..core.events import CANCEL_INFORMATION
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.refusals import refusal
from ..core.statuses import (
    INVALID_ARGUMENT,
    INVALID_VALUE,
    NO_SUCH_ARGUMENT,
    NO_SUCH_SOP_CLASS,
    Service,
    UpsError,
)
from . import lost_queries
from .parameters import (
    DELETION_LOCK,
    REQUESTER,
    TRANSACTION_UID,
    WORKITEM,
    Parameters,
    filter_arguments,
    ignored_warning,
    is_attribute,
    key_warnings,
    supported,
)
from .resources import Resource, is_filtered
from .response import HttpProblem
from .rights import Rights

_AFFECTED_SOP_CLASS: Final = "00000002"
_AFFECTED_SOP_INSTANCE: Final = "00001000"


@dataclass(frozen=True, slots=True)
class CommandCall:
    """A request that was received but not interpreted yet.

    Attributes:
        body: the data set of the body, or None if there was none.
        tokens: names of parameters that belong to other software.
        warnings: sentences for its sender, besides the answer.
        corrections: what was corrected while the body was read, a sentence each.
        drops_queries: True if its query may have been dropped on the way.
        strict: as ``Ups.Strict``.
    """

    resource: Resource
    parameters: Parameters
    body: DataSet | None
    user: str | None
    rights: Rights
    tokens: Collection[str] = ()
    warnings: list[str] = field(default_factory=list)
    corrections: tuple[str, ...] = ()
    drops_queries: bool = False
    strict: bool = False

    def warn(self, text: str) -> None:
        """Warn the sender about parameters that may have been lost."""
        if self.drops_queries:
            self.warnings.append(text)


def _create(call: CommandCall) -> Command:
    attributes = dict(_expected(call, "a workitem"))
    uid_text = call.parameters.value(*WORKITEM) or call.parameters.bare_uid()
    sop_class = _taken(attributes, tags.SOP_CLASS_UID, _AFFECTED_SOP_CLASS)
    if sop_class and sop_class != tags.PUSH:
        _check_class(call, sop_class)
        attributes[tags.SOP_CLASS_UID] = element("UI", sop_class)  # which the worklist corrects and reports
    inside = _taken(attributes, tags.SOP_INSTANCE_UID, _AFFECTED_SOP_INSTANCE)
    uid = _same("the SOP Instance UID", uid_text, inside)
    if not uid:
        uid = f"2.25.{uuid.uuid4().int}"
        call.warn(lost_queries.without_workitem_uid(uid))
    return Create(_requester(call), uid, attributes, call.corrections)


def _update(call: CommandCall) -> Command:
    attributes = dict(_expected(call, "the changed attributes"))
    transaction = _transaction(call, attributes)
    return Update(_requester(call), call.resource.uid, attributes, transaction, call.corrections)


def _change_state(call: CommandCall) -> Command:
    information = dict(_expected(call, "Transaction UID (0008,1195) and Procedure Step State (0074,1000)"))
    transaction = _transaction(call, information)
    state = _taken(information, tags.STATE)
    call.warnings.extend(call.corrections)
    _check_rest(call, information, ())
    if not state:
        raise UpsError(INVALID_ARGUMENT, "Procedure Step State (0074,1000) is missing", tags.STATE)
    return ChangeState(_requester(call), call.resource.uid, state, transaction)


def _request_cancel(call: CommandCall) -> Command:
    body = call.body or {}
    _check_rest(call, body, CANCEL_INFORMATION)
    information = {tag: attribute for tag, attribute in body.items() if tag in CANCEL_INFORMATION}
    requester = _requester(call)
    if not call.resource.ae and call.parameters.value(*REQUESTER) is None:
        call.warn(lost_queries.without_requester(requester.ae))
    return RequestCancel(requester, call.resource.uid, information, corrections=call.corrections)


def _subscribe(call: CommandCall) -> Command:
    body = dict(call.body or {})
    if tags.DELETION_LOCK not in body and call.parameters.value(*DELETION_LOCK) is None:
        call.warn(lost_queries.without_deletion_lock())
    lock = _lock(_taken(body, tags.DELETION_LOCK)) or call.parameters.flag(*DELETION_LOCK)
    if not is_filtered(Service.SUBSCRIBE, call.resource):
        _check_unfiltered(call, body)
        return Subscribe(_requester(call), call.resource.uid, call.resource.ae, lock)
    filter_query = filter_arguments(call.parameters, call.tokens)
    call.warnings.append(ignored_warning(filter_query.ignored))
    keys = {**body, **filter_query.identifier}
    if not keys:
        call.warn(lost_queries.without_matching_keys())
        raise UpsError(INVALID_ARGUMENT, "a filtered subscription needs at least one matching key")
    call.warnings.extend(_key_warnings(keys, filter_query.mechanisms))
    return Subscribe(
        _requester(call), call.resource.uid, call.resource.ae, lock, keys, mechanisms=filter_query.mechanisms
    )


def _key_warnings(keys: DataSet, mechanisms: Mechanisms) -> list[str]:
    """Warnings about keys; malformed ones have none, because the worklist refuses them."""
    try:
        return key_warnings(Query.of(keys, mechanisms=mechanisms))
    except UpsError:
        return []


def _unsubscribe(call: CommandCall) -> Command:
    return Unsubscribe(_requester(call), call.resource.uid, call.resource.ae)


def _suspend(call: CommandCall) -> Command:
    return Suspend(_requester(call), call.resource.uid, call.resource.ae)


_READERS: Final[Mapping[Service, Callable[[CommandCall], Command]]] = MappingProxyType(
    {
        Service.CREATE: _create,
        Service.UPDATE: _update,
        Service.CHANGE_STATE: _change_state,
        Service.REQUEST_CANCEL: _request_cancel,
        Service.SUBSCRIBE: _subscribe,
        Service.UNSUBSCRIBE: _unsubscribe,
        Service.SUSPEND: _suspend,
    }
)
_ABOUT_SUBSCRIPTIONS: Final = frozenset({Service.SUBSCRIBE, Service.UNSUBSCRIBE, Service.SUSPEND})


def command(service: Service, call: CommandCall) -> Command:
    """The command of a request.

    Raises:
        HttpProblem: 400 for parameters that contradict each other or the body, or a body that is missing.
        UpsError: 400 or 403 with the attribute at fault.
    """
    if service in _ABOUT_SUBSCRIPTIONS:
        call.rights.check(call.user, call.resource.ae)
    return _READERS[service](call)


def _requester(call: CommandCall) -> Requester:
    in_path = call.resource.ae if "subscribers" not in call.resource.kind.value else ""
    return call.rights.requester(call.user, call.parameters.value(*REQUESTER) or in_path)


def _transaction(call: CommandCall, attributes: dict[str, Element]) -> str | None:
    """The Transaction UID of the query or the body, from which it is removed; if both have one, they must agree."""
    uid_text = call.parameters.value(*TRANSACTION_UID) or call.parameters.bare_uid()
    return _same("the Transaction UID", uid_text, _taken(attributes, tags.TRANSACTION_UID))


def _expected(call: CommandCall, what: str) -> DataSet:
    if call.body is None:
        raise HttpProblem(400, f"the body is empty, expected {what}")
    return call.body


def _taken(attributes: DataSet, *tagged: str) -> str | None:
    """Remove attributes with a single value from a data set; their values must agree. None if none has a value."""
    listed = {tag: attributes.pop(tag).get("Value", []) for tag in tagged if tag in attributes}
    texts = set()
    for tag, values in listed.items():
        if len(values) > 1 or not all(isinstance(value, str) for value in values):
            raise UpsError(INVALID_VALUE, f"({tag[:4]},{tag[4:]}) is not one text", tag)
        texts |= {value.strip(" \0") for value in values}
    if len(texts) > 1:
        raise HttpProblem(400, f"{' and '.join(listed)} differ from each other")
    return texts.pop() if texts else None


def _same(what: str, in_url: str | None, in_body: str | None) -> str | None:
    if in_url and in_body and in_url.strip() != in_body:
        raise HttpProblem(400, f"{what} in the URL differs from the one in the body")
    return (in_url or "").strip() or in_body


def _check_class(call: CommandCall, sop_class: str) -> None:
    if call.strict or sop_class not in UPS_CLASSES:
        detail = f"SOP Class UID (0008,0016) is {sop_class[:64]}, expected {tags.PUSH}"
        raise UpsError(NO_SUCH_SOP_CLASS, detail, tags.SOP_CLASS_UID)


def _check_rest(call: CommandCall, information: DataSet, own: Collection[str]) -> None:
    tag = unexpected(information, own, lenient=not call.strict)
    if tag:
        raise refusal(NO_SUCH_ARGUMENT, (), tag, "is not expected in this request")


def _lock(text: str | None) -> bool:
    text = text and text.upper()
    if text is not None and text not in ("TRUE", "FALSE"):
        raise UpsError(
            INVALID_ARGUMENT, "Deletion Lock (0074,1230) is neither TRUE nor FALSE", tags.DELETION_LOCK
        )
    return text == "TRUE"


def _check_unfiltered(call: CommandCall, body: DataSet) -> None:
    """Refuse a filter that would be ignored, because its sender relies on it."""
    own = supported(Service.SUBSCRIBE) - {"filter"} | set(call.tokens)
    names = [name for name, _ in call.parameters.without(own)]
    keys = [name for name in names if name.lower() == "filter" or is_attribute(name)]
    key = unexpected(body, (), lenient=not call.strict, keys=True)
    if key:
        keys.append(key)
    if keys:
        raise HttpProblem(400, f"{keys[0][:64]}: matching keys are only for {tags.FILTERED_SUBSCRIPTION}")
