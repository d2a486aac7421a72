# SPDX-License-Identifier: AGPL-3.0-or-later
"""Keyword, tag and VR of every attribute in Table CC.2.5-3 of PS3.4."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from .rules import RULES

VR_OF: Final[Mapping[str, str]] = MappingProxyType({rule.tag: rule.vr for rule in RULES.values()})
"""The VR of every tag of the table."""

KEYWORD_OF: Final[Mapping[str, str]] = MappingProxyType({rule.tag: rule.keyword for rule in RULES.values()})
"""The keyword of every tag of the table."""

TAG_OF: Final[Mapping[str, str]] = MappingProxyType({word: tag for tag, word in KEYWORD_OF.items()})
"""The tag of every keyword of the table."""


def keyword(tag: str) -> str:
    """The keyword of a tag; ``(0009,1001)`` for a tag that is not in the table."""
    return KEYWORD_OF.get(tag) or f"({tag[:4]},{tag[4:]})"


def path_name(path: str) -> str:
    """A path in keywords: ``ScheduledWorkitemCodeSequence.CodeValue``."""
    return ".".join(map(keyword, path.split(".")))


def path_of(name: str) -> str | None:
    """The path of keywords or hex tags joined by dots; None if the table does not have one of them.

    ``ScheduledWorkitemCodeSequence.CodeValue``, ``00404018.00080100`` and mixtures are equivalent.
    """
    tags = [TAG_OF.get(part, part.upper()) for part in name.split(".")]
    return ".".join(tags) if all(tag in KEYWORD_OF for tag in tags) else None
