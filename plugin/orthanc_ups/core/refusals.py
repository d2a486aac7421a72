# SPDX-License-Identifier: AGPL-3.0-or-later
"""How a refusal names the attribute at fault: keyword and tag first, for Error Comment is but 64 characters."""

from __future__ import annotations

from typing import TypeAlias

from .dictionary import KEYWORD_OF, keyword
from .statuses import Status, UpsError

Trail: TypeAlias = tuple[tuple[str, int], ...]
"""The way down to an item: tag of the sequence and number of the item, from 1, level by level."""


def spelled(tag: str) -> str:
    """``CodeValue (0008,0100)``; a tag that the table does not know stands without keyword."""
    return f"{keyword(tag)} ({tag[:4]},{tag[4:]})" if tag in KEYWORD_OF else keyword(tag)


def located(trail: Trail) -> str:
    """``, in item 2 of InputInformationSequence (0040,4021)``; nothing at the top."""
    return "".join(f", in item {number} of {spelled(tag)}" for tag, number in reversed(trail))


def refusal(status: Status, trail: Trail, tag: str, what: str) -> UpsError:
    """A refusal that names the attribute, what is wrong with it and where it stands.

    ``what`` continues the sentence that begins with the attribute and holds no patient data.
    """
    path = ".".join((*(above for above, _ in trail), tag))
    return UpsError(status, f"{spelled(tag)} {what}{located(trail)}", path)
