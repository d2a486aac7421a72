# SPDX-License-Identifier: AGPL-3.0-or-later
"""Action information that an action has no use for (PS3.4 Tables CC.2.1-1 to CC.2.3-1), on every interface."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final

from . import tags

_WITH_TIMES: Final = frozenset({tags.TIMEZONE_OFFSET, tags.SPECIFIC_CHARACTER_SET})
_REPEATED: Final = frozenset(
    {
        *(tags.SOP_CLASS_UID, tags.SOP_INSTANCE_UID, tags.TRANSACTION_UID, tags.STATE),
        *(tags.RECEIVING_AE, tags.REQUESTING_AE, tags.DELETION_LOCK),
    }
)
"""What belongs to the message or to another action. An action that does without them loses nothing."""

_NOT_OF_DATA_SETS: Final = ("0000", "0002")
"""Groups of the command set and of the head of a file (PS3.7 §6.3.1, PS3.10 §7.1)."""

MATCHING_KEYS: Final = frozenset({tags.STATE, tags.SOP_INSTANCE_UID})
"""Those of them that a subscriber may mean as keys of a filter, and count on."""


def unexpected(
    information: Iterable[str], own: Collection[str], *, lenient: bool, keys: bool = False
) -> str | None:
    """The first argument that an action neither has nor may ignore, or None.

    Private attributes may stand anywhere, the time zone where there are times. Information that would be lost, such
    as a performed procedure or the filter of a subscription, is never ignored.

    Args:
        information: tags of the action information.
        own: tags that the action has.
        lenient: ignore what is repeated from the message or belongs to another action, and groups 0000 and 0002.
        keys: the sender may mean keys of a filter, as on Subscribe.
    """
    ignored = _WITH_TIMES
    if lenient:
        ignored |= _REPEATED - MATCHING_KEYS if keys else _REPEATED
    others = {
        tag for tag in information if tag not in own and tag not in ignored and int(tag[3], 16) % 2 == 0
    }
    if lenient:
        others = {tag for tag in others if tag[:4] not in _NOT_OF_DATA_SETS}
    return min(others, default=None)
