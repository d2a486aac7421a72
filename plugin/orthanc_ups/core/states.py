# SPDX-License-Identifier: AGPL-3.0-or-later
"""The state machine of a workitem, as data (PS3.4 Table CC.1.1-2)."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final

from . import statuses
from .statuses import Status


class State(str, Enum):
    """Procedure Step State (0074,1000)."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """True for COMPLETED and CANCELED, which no transition leaves."""
        return self in (State.COMPLETED, State.CANCELED)


class Transaction(Enum):
    """How the Transaction UID of a request compares (PS3.4 CC.2.1.3)."""

    RIGHT = "right"
    MISSING = "missing"
    WRONG = "wrong"


class Effect(Enum):
    """What the worklist does by a cell of the table."""

    CLAIM = "record the Transaction UID, then go to IN PROGRESS"
    CLOSE = "check the final state requirements, then go to the requested state"
    CANCEL_UNCLAIMED = "go from SCHEDULED by way of IN PROGRESS to CANCELED"
    ASK_PERFORMER = "send a Cancel Requested event"


Cell = Effect | Status

_SCHEDULED, _IN_PROGRESS, _COMPLETED, _CANCELED = State

CHANGE_STATE: Final[Mapping[tuple[State, State], Cell]] = {
    # (requested, present) with the right Transaction UID
    (_IN_PROGRESS, _SCHEDULED): Effect.CLAIM,
    (_IN_PROGRESS, _IN_PROGRESS): statuses.ALREADY_IN_PROGRESS,
    (_IN_PROGRESS, _COMPLETED): statuses.MAY_NOT_UPDATE,
    (_IN_PROGRESS, _CANCELED): statuses.MAY_NOT_UPDATE,
    (_COMPLETED, _SCHEDULED): statuses.NOT_IN_PROGRESS,
    (_COMPLETED, _IN_PROGRESS): Effect.CLOSE,
    (_COMPLETED, _COMPLETED): statuses.ALREADY_COMPLETED,
    (_COMPLETED, _CANCELED): statuses.MAY_NOT_UPDATE,
    (_CANCELED, _SCHEDULED): statuses.NOT_IN_PROGRESS,
    (_CANCELED, _IN_PROGRESS): Effect.CLOSE,
    (_CANCELED, _COMPLETED): statuses.MAY_NOT_UPDATE,
    (_CANCELED, _CANCELED): statuses.ALREADY_CANCELED,
}

REQUEST_CANCEL: Final[Mapping[State, Cell]] = {
    _SCHEDULED: Effect.CANCEL_UNCLAIMED,
    _IN_PROGRESS: Effect.ASK_PERFORMER,
    _COMPLETED: statuses.COMPLETED_ALREADY,
    _CANCELED: statuses.ALREADY_CANCELED,
}


def change_state(requested: State, present: State, transaction: Transaction) -> Cell:
    """Look up one cell of PS3.4 Table CC.1.1-2.

    The checks are in the order of the table: a request for SCHEDULED is always refused, then the Transaction UID
    counts, then the state.
    """
    if requested is State.SCHEDULED:
        return statuses.ONLY_CREATE_SCHEDULES
    if transaction is Transaction.MISSING:
        return statuses.MISSING_TRANSACTION_UID
    if transaction is Transaction.WRONG:
        return statuses.WRONG_TRANSACTION_UID
    return CHANGE_STATE[requested, present]
