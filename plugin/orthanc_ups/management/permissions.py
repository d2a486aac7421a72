# SPDX-License-Identifier: AGPL-3.0-or-later
"""The right that each route of the management API requires (``Ups.Users``).

A route that is missing here cannot be registered, and a test compares the table with the routes.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from types import MappingProxyType
from typing import Final

from ..dicomweb.rights import Rights


class Right(Enum):
    """What a user needs in ``Ups.Users``, if it is set."""

    LOOK = "nothing"
    ACT = "an AE title"
    ACT_FOR_AE = "the AE title in the path"
    ADMINISTER = "any AE title"


_LOOK: Final = (
    "GET /openapi.json",
    "GET /system",
    "GET /overview",
    "GET /nodes",
    "GET /counts",
    "GET /changes",
    "GET /names",
    "GET /workitems",
    "GET /workitems.csv",
    "POST /workitems.csv",
    "GET /workitems/{uid}",
    "GET /workitems/{uid}/events",
    "GET /workitems/{uid}/copy",
    "GET /subscribers",
    "GET /subscribers/{ae}",
    "GET /subscribers/{ae}/workitems",
    "GET /subscribers/{ae}/dead-letters",
    "GET /mpps",
    "GET /mpps/{uid}",
    "GET /templates",
    "GET /prefill",
    "GET /links",
    "GET /rules",
    "GET /rules/{rule}/backfill",
)
_ACT: Final = (
    "POST /workitems",
    "PUT /workitems/{uid}",
    "POST /workitems/{uid}/claim",
    "POST /rules/test",
    "POST /workitems/{uid}/complete",
    "POST /workitems/{uid}/cancel",
    "POST /workitems/{uid}/request-cancel",
)
_ACT_FOR_AE: Final = (
    "PUT /workitems/{uid}/subscribers/{ae}",
    "DELETE /workitems/{uid}/subscribers/{ae}",
    "POST /subscribers/{ae}/subscribe",
    "POST /subscribers/{ae}/unsubscribe",
    "POST /subscribers/{ae}/suspend",
    "POST /subscribers/{ae}/echo",
    "POST /subscribers/{ae}/test-event",
    "POST /subscribers/{ae}/retry",
    "POST /subscribers/{ae}/drop",
    "POST /subscribers/{ae}/resend",
    "POST /subscribers/{ae}/dead-letters/resend",
    "POST /subscribers/{ae}/dead-letters/drop",
)
_ADMINISTER: Final = (
    "DELETE /workitems/{uid}",
    "DELETE /workitems/{uid}/subscribers/{ae}/lock",
    "POST /rules/{rule}/backfill",
    "DELETE /rules/{rule}/backfill",
    "GET /storage",
    "GET /storage/entries",
    "GET /storage/entry",
    "GET /export",
    "GET /import",
    "POST /import",
)
RIGHTS: Final[Mapping[str, Right]] = MappingProxyType(
    {
        **dict.fromkeys(_LOOK, Right.LOOK),
        **dict.fromkeys(_ACT, Right.ACT),
        **dict.fromkeys(_ACT_FOR_AE, Right.ACT_FOR_AE),
        **dict.fromkeys(_ADMINISTER, Right.ADMINISTER),
    }
)
"""Rights by method and path."""


def check(rights: Rights, right: Right, user: str | None, parameters: Mapping[str, str]) -> None:
    """Raise UpsError 0124 (403) unless the user has a right. ``parameters`` are those of the path."""
    if right is Right.ACT:
        rights.check_acting(user)
    elif right is Right.ACT_FOR_AE:
        rights.check(user, parameters["ae"])
    elif right is Right.ADMINISTER:
        rights.check_administration(user)
