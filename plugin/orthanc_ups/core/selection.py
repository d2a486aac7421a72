# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attributes of an answer: the requested ones in C-FIND, and return keys as well in a Search."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Final, TypeAlias, TypeVar

from . import tags
from .dataset import DataSet, Element, items
from .date_times import DATED_VRS
from .dictionary import VR_OF
from .rules import RETURN_KEYS

ReturnTree: TypeAlias = dict[str, "ReturnTree | None"]
"""Tags to return: None for the whole attribute, or a tree for the items of a sequence."""

_M = TypeVar("_M")
NEVER_RETURNED: Final = frozenset({tags.TRANSACTION_UID, tags.SPECIFIC_CHARACTER_SET})
_IF_PRESENT: Final = frozenset(path for path, kind in RETURN_KEYS.items() if kind in ("1C", "2C"))


@dataclass(frozen=True, slots=True)
class _Part:
    """An attribute of an answer; ``empty`` replaces an absent one, unless it is None."""

    tag: str
    empty: Element | None
    parts: tuple[_Part, ...] | None


class Selection:
    """Picks the attributes of an answer; compiled once for all workitems."""

    def __init__(self, tree: ReturnTree, vr_of: Mapping[str, str], *, everything: bool = False) -> None:
        self._everything = everything
        if everything or holds_times(tree, vr_of):
            tree = {**tree, tags.TIMEZONE_OFFSET: None}
        self._parts = _parts(tree, vr_of, _IF_PRESENT | {tags.TIMEZONE_OFFSET})

    def of(self, attributes: DataSet) -> DataSet:
        """The selected attributes of a workitem, ascending by tag."""
        chosen = _chosen(attributes, self._parts)
        if not self._everything:
            return chosen
        return _with_everything(chosen, attributes)

    def of_members(self, members: Mapping[str, _M], empty: Callable[[Element], _M]) -> dict[str, _M] | None:
        """As ``of`` for attributes in another form; None if only a part of some attribute is to be returned.

        ``empty`` converts an empty element to that form.
        """
        chosen: dict[str, _M] = {}
        for part in self._parts:
            member = members.get(part.tag)
            if member is not None and part.parts is not None:
                return None
            if member is not None:
                chosen[part.tag] = member
            elif part.empty is not None:
                chosen[part.tag] = empty(part.empty)
        return _with_everything(chosen, members) if self._everything else chosen


def _with_everything(chosen: Mapping[str, _M], members: Mapping[str, _M]) -> dict[str, _M]:
    remaining = {tag: member for tag, member in members.items() if tag not in NEVER_RETURNED}
    return dict(sorted({**chosen, **remaining}.items()))


def search_selection(
    matched: ReturnTree, vr_of: Mapping[str, str], include: Iterable[str], *, everything: bool
) -> Selection:
    """What a Search returns: return keys, match attributes and ``includefield`` (PS3.18 §11.9.3).

    Args:
        matched: the match attributes.
        vr_of: VRs of attributes that the table does not have.
        include: paths of tags joined by dots.
        everything: True for ``includefield=all``.
    """
    tree: ReturnTree = {path: None for path in RETURN_KEYS if "." not in path and path not in NEVER_RETURNED}
    _merge(tree, matched)
    for path in include:
        _merge(tree, _tree(path.split(".")))
    return Selection(tree, vr_of, everything=everything)


def _tree(path: list[str]) -> ReturnTree:
    return {path[0]: _tree(path[1:]) if len(path) > 1 else None}


def _merge(into: ReturnTree, more: ReturnTree) -> None:
    """Add the tags of ``more``; a whole attribute includes each part of it."""
    for tag, below in more.items():
        if tag not in into:
            into[tag] = _copied(below)
            continue
        present = into[tag]
        if present is not None and below is not None:
            _merge(present, below)
        else:
            into[tag] = None


def _copied(tree: ReturnTree | None) -> ReturnTree | None:
    return None if tree is None else {tag: _copied(below) for tag, below in tree.items()}


def holds_times(tree: ReturnTree, vr_of: Mapping[str, str]) -> bool:
    """True if Timezone Offset From UTC (0008,0201) may apply to a returned attribute."""
    for tag, below in tree.items():
        vr = VR_OF.get(tag) or vr_of.get(tag)
        if vr in DATED_VRS or (vr == "SQ" and (below is None or holds_times(below, vr_of))):
            return True
    return False


def _parts(
    tree: ReturnTree, vr_of: Mapping[str, str], if_present: frozenset[str] = frozenset()
) -> tuple[_Part, ...]:
    creators = [_Part(tag, None, None) for tag in {*map(creator_of, tree)} - {"", *tree}]
    for tag, below in tree.items():
        if tag in NEVER_RETURNED:
            continue
        vr = None if tag in if_present else VR_OF.get(tag) or vr_of.get(tag)
        parts = None if below is None else _parts(below, vr_of)
        creators.append(_Part(tag, {"vr": vr} if vr else None, parts))
    return tuple(sorted(creators, key=attrgetter("tag")))


def creator_of(tag: str) -> str:
    """The tag of the Private Creator that must be beside a private attribute (PS3.5 §7.8.1); empty for any other."""
    return f"{tag[:4]}00{tag[4:6]}" if tags.is_private(tag) and tag[4:] >= "1000" else ""


def _chosen(dataset: DataSet, parts: tuple[_Part, ...]) -> DataSet:
    chosen: DataSet = {}
    for part in parts:
        attribute = dataset.get(part.tag, part.empty)
        if attribute is None:
            continue
        if part.parts is not None and attribute.get("Value"):
            below = part.parts
            attribute = {
                "vr": attribute["vr"],
                "Value": [_chosen(item, below) for item in items(dataset, part.tag)],
            }
        chosen[part.tag] = attribute
    return chosen
