# SPDX-License-Identifier: AGPL-3.0-or-later
"""The commands of the worklist. The requests of every interface become one of these."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from . import tags
from .dataset import DataSet
from .mechanisms import Mechanisms
from .statuses import Service


@dataclass(frozen=True, slots=True)
class Requester:
    """Who asks, and why: for events (Requesting AE), history and log lines.

    Attributes:
        ae: AE title of the requester, without padding.
        via: the interface: ``"DIMSE"``, ``"UPS-RS"``, ``"page"``, ``"retention"``, ``"import"``.
        user: the authenticated user, if the interface knows them.
        reason: the reason that an operator gave; see ``core/reasons.py``.
    """

    ae: str
    via: str
    user: str | None = None
    reason: str = ""

    def __str__(self) -> str:
        if self.user:
            return f"{self.user} as {self.ae} by {self.via}"
        return f"somebody by {self.via}" if self.ae == self.via else f"{self.ae} by {self.via}"


def requesting_ae(who: str) -> str:
    """The AE title in ``str(requester)``, which histories have; empty if there is none."""
    requester = who.rpartition(" by ")[0]
    ae = requester.rpartition(" as ")[2]
    return "" if requester == "somebody" else ae


@dataclass(frozen=True, slots=True)
class Create:
    """N-CREATE (PS3.4 CC.2.5), Create Workitem (PS3.18 §11.4). The interface chooses ``uid`` if it is absent.

    ``corrections``: a sentence for each correction that was made while the data set was read.
    They are reported together with the corrections of the rules.
    """

    requester: Requester
    uid: str
    attributes: DataSet
    corrections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Update:
    """N-SET (PS3.4 CC.2.6), Update Workitem (PS3.18 §11.6).

    ``transaction`` is the Transaction UID of the request, or None if there is none;
    ``attributes`` holds the modification list without it; ``corrections`` as for Create.
    """

    requester: Requester
    uid: str
    attributes: DataSet
    transaction: str | None = None
    corrections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChangeState:
    """N-ACTION 1 (PS3.4 CC.2.1), Change Workitem State (PS3.18 §11.7). ``state`` as it was sent."""

    requester: Requester
    uid: str
    state: str
    transaction: str | None


@dataclass(frozen=True, slots=True)
class RequestCancel:
    """N-ACTION 2 (PS3.4 CC.2.2), Request Cancellation (PS3.18 §11.8).

    ``information``: reason, discontinuation codes, contact URI and name, each optional. With ``only_scheduled`` no
    performer is asked: the request is refused (0110) if the workitem has been claimed. ``corrections`` as for Create.
    """

    requester: Requester
    uid: str
    information: DataSet = field(default_factory=dict)
    only_scheduled: bool = False
    corrections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subscribe:
    """N-ACTION 3 (PS3.4 CC.2.3), Subscribe (PS3.18 §11.10).

    ``uid`` is a workitem, the Global or the Filtered Global Subscription; the latter needs ``filter``:
    an identifier as in C-FIND, which matches by ``mechanisms`` beyond the basic ways.
    """

    requester: Requester
    uid: str
    receiving_ae: str
    lock: bool = False
    filter: DataSet | None = None
    mechanisms: Mechanisms = Mechanisms.NONE


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """N-ACTION 4 (PS3.4 CC.2.3), Unsubscribe (PS3.18 §11.11)."""

    requester: Requester
    uid: str
    receiving_ae: str


@dataclass(frozen=True, slots=True)
class Suspend:
    """N-ACTION 5 (PS3.4 CC.2.3), Suspend Global Subscription (PS3.18 §11.12)."""

    requester: Requester
    uid: str
    receiving_ae: str


@dataclass(frozen=True, slots=True)
class ReleaseLock:
    """An operator, or ``MaximumLockAge``, turns a Deletion Lock into a plain subscription (PS3.4 CC.2.3.3)."""

    requester: Requester
    uid: str
    receiving_ae: str


@dataclass(frozen=True, slots=True)
class Close:
    """An operator closes a workitem whose performer is known to be lost, without Transaction UID (PS3.4 CC.2.1.3).

    ``attributes`` are merged first (performed procedure for COMPLETED, reason for CANCELED); ``corrections`` as for
    Create.
    """

    requester: Requester
    uid: str
    state: str
    attributes: DataSet = field(default_factory=dict)
    corrections: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Purge:
    """Forget a final workitem (PS3.4 CC.1.1: the SCP decides how long it retains one without Deletion Locks)."""

    requester: Requester
    uid: str


WorkitemCommand: TypeAlias = Create | Update | ChangeState | RequestCancel | Close
SubscriptionCommand: TypeAlias = Subscribe | Unsubscribe | Suspend | ReleaseLock
Command: TypeAlias = WorkitemCommand | SubscriptionCommand | Purge

SERVICE_OF: dict[type, Service] = {
    Create: Service.CREATE,
    Update: Service.UPDATE,
    ChangeState: Service.CHANGE_STATE,
    Close: Service.CHANGE_STATE,
    RequestCancel: Service.REQUEST_CANCEL,
    Subscribe: Service.SUBSCRIBE,
    Unsubscribe: Service.UNSUBSCRIBE,
    Suspend: Service.SUSPEND,
    ReleaseLock: Service.UNSUBSCRIBE,
    Purge: Service.UPDATE,
}


# --- arguments that an action does not have ---

_WITH_TIMES: Final = frozenset({tags.TIMEZONE_OFFSET, tags.SPECIFIC_CHARACTER_SET})
_REPEATED: Final = frozenset(
    {
        *(tags.SOP_CLASS_UID, tags.SOP_INSTANCE_UID, tags.TRANSACTION_UID, tags.STATE),
        *(tags.RECEIVING_AE, tags.REQUESTING_AE, tags.DELETION_LOCK),
    }
)
"""Tags that belong to the message or to another action, so that an action that ignores them loses nothing."""

_POSSIBLE_KEYS: Final = frozenset({tags.STATE, tags.SOP_INSTANCE_UID})
"""Those of ``_REPEATED`` that a subscriber may mean as keys of a filter."""


def unexpected(
    information: Iterable[str], arguments: Collection[str], *, lenient: bool, keys: bool = False
) -> str | None:
    """The first tag that an action neither has as an argument nor may ignore, or None.

    Private attributes, the time zone and the character set are always ignored. Information that would be lost, such as
    a performed procedure or the filter of a subscription, never is.

    Args:
        information: tags of the action information.
        arguments: tags that the action has.
        lenient: ignore tags that repeat the message or belong to another action, and groups 0000 and 0002.
        keys: the sender may mean keys of a filter, as on Subscribe.
    """
    ignored = _WITH_TIMES
    if lenient:
        ignored |= _REPEATED - _POSSIBLE_KEYS if keys else _REPEATED
    for tag in sorted(information):
        if (
            tag in arguments
            or tag in ignored
            or tags.is_private(tag)
            or (lenient and tag.startswith(tags.GROUPS_OF_OTHER_SETS))
        ):
            continue
        return tag
    return None
