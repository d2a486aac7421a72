# SPDX-License-Identifier: AGPL-3.0-or-later
"""Action information of N-ACTION as commands (PS3.4 Table CC.2.1-1 to CC.2.3-1)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final

from ..core import tags
from ..core.arguments import unexpected
from ..core.commands import ChangeState, Command, RequestCancel, Requester, Subscribe, Suspend, Unsubscribe
from ..core.dataset import DataSet, values
from ..core.events import CANCEL_INFORMATION
from ..core.mechanisms import Mechanisms
from ..core.refusals import refusal, refusal_of
from ..core.representations import REPRESENTATIONS
from ..core.statuses import INVALID_ARGUMENT, MISTYPED_ARGUMENT, NO_SUCH_ARGUMENT, Fault, UpsError

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
    """An N-ACTION, decoded but not yet understood.

    ``lenient``: arguments of other actions are ignored, and those of text VRs may have any of these. A filter
    matches by ``mechanisms``.
    """

    requester: Requester
    uid: str
    information: DataSet
    mechanisms: Mechanisms = Mechanisms.NONE
    lenient: bool = False


def _change_state(action: Action) -> Command:
    """The rules judge both values: other spellings of a state, and a Transaction UID that is none (C301)."""
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
    receiving_ae, lock = _together(partial(_needed, action, tags.RECEIVING_AE), partial(_lock, action))
    own = (tags.RECEIVING_AE, tags.DELETION_LOCK)
    if action.uid != tags.FILTERED_SUBSCRIPTION:
        _check_rest(action, own, keys=True)
        return Subscribe(action.requester, action.uid, receiving_ae, lock == "TRUE")
    keys = {tag: element for tag, element in action.information.items() if tag not in own}
    if not keys:
        raise UpsError(INVALID_ARGUMENT, "a filtered subscription needs at least one matching key")
    return Subscribe(action.requester, action.uid, receiving_ae, lock == "TRUE", keys, action.mechanisms)


def _lock(action: Action) -> str:
    lock = _needed(action, tags.DELETION_LOCK)
    if action.lenient:
        lock = lock.upper()
    if lock not in ("TRUE", "FALSE"):
        raise _bad_argument(tags.DELETION_LOCK, "is neither TRUE nor FALSE")
    return lock


def _unsubscribe(action: Action) -> Command:
    _check_nothing_else(action)
    return Unsubscribe(action.requester, action.uid, _needed(action, tags.RECEIVING_AE))


def _suspend(action: Action) -> Command:
    _check_nothing_else(action)
    return Suspend(action.requester, action.uid, _needed(action, tags.RECEIVING_AE))


_READERS: Final[Mapping[int, Callable[[Action], Command]]] = MappingProxyType(
    {1: _change_state, 2: _request_cancel, 3: _subscribe, 4: _unsubscribe, 5: _suspend}
)

ACTION_TYPES: Final = frozenset(_READERS)
"""Action Type IDs of the UPS service."""


def command(action_type: int, action: Action) -> Command:
    """The command that an N-ACTION requests.

    Raises:
        UpsError: 0114 for an argument that the action does not have, 0115 for a missing or wrong one, 0212 for one
            with a wrong VR.
        KeyError: ``action_type`` is none of ACTION_TYPES.
    """
    return _READERS[action_type](action)


def _check_rest(action: Action, own: Collection[str], *, keys: bool = False) -> None:
    tag = unexpected(action.information, own, lenient=action.lenient, keys=keys)
    if tag:
        raise refusal(NO_SUCH_ARGUMENT, (), tag, "is not an argument of this action")


def _check_nothing_else(action: Action) -> None:
    """Leniently, extra arguments of Unsubscribe and Suspend are ignored: a Deletion Lock, the former filter."""
    if not action.lenient:
        _check_rest(action, (tags.RECEIVING_AE,))


def _together(*readers: Callable[[], str]) -> list[str]:
    """What each of them reads; one refusal names all arguments at fault."""
    read: list[str] = []
    faults: list[Fault] = []
    for reader in readers:
        try:
            read.append(reader())
        except UpsError as error:
            faults += error.faults
    if faults:
        raise refusal_of(faults)
    return read


def _needed(action: Action, tag: str) -> str:
    value = _optional(action, tag)
    if value is None:
        raise _missing(action, tag)
    return value


def _missing(action: Action, tag: str) -> UpsError:
    return _bad_argument(tag, "is missing" if tag not in action.information else "is empty")


def _optional(action: Action, tag: str) -> str | None:
    """The one valid value of an argument, or None if it is absent or empty."""
    value, vr = _single_value(action, tag), _NAMES[tag][0]
    if value is not None and not REPRESENTATIONS[vr].valid(value):
        raise _bad_argument(tag, f"is not valid: expected {REPRESENTATIONS[vr].form}")
    return value


def _single_value(action: Action, tag: str) -> str | None:
    """The one value of an argument, valid or not, or None if it is absent or empty."""
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
