# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attribute rules of a workitem: what N-CREATE and N-SET take, and what is stored (PS3.4 CC.2.5, CC.2.6).

What we set: SOP Class UID, Scheduled Procedure Step Modification DateTime, Worklist Label if it comes empty,
and type 2 attributes that an SCU may leave out, empty. Expected Completion DateTime stays absent if the
scheduler gave none: "3/1" bids us keep what is given, and a time that nobody expects would be invented data.

What we coerce (B300, B305), one sentence each in ``modifications``: a Modification DateTime that the SCU
sent, an enumerated value in lower case, the VR that an earlier edition gave a URI. All else is refused.

What is never stored: Transaction UID, which is a lock and no content, and Specific Character Set, as text is
Unicode inside.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from . import tags
from .closing import check_cancellation, complete_cancellation, unmet
from .dataset import DataSet, element, is_empty, ordered, text, values
from .dictionary import KEYWORD_OF, TAG_OF, VR_OF, keyword, path_name, path_of
from .refusals import refusal, spelled
from .requirements import Arrangement
from .rules import CATCH_ALL, MATCHING_KEYS, RETURN_KEYS, ROOT, RULES, Rule, rule_for
from .stamps import date_time
from .statuses import INVALID_VALUE, MISSING_ATTRIBUTE, MISSING_VALUE, NOT_SCHEDULED
from .value_rules import USUAL, Limits, check_values, quoted

__all__ = [
    "CATCH_ALL",
    "KEYWORD_OF",
    "MATCHING_KEYS",
    "RETURN_KEYS",
    "RULES",
    "TAG_OF",
    "VR_OF",
    "Limits",
    "Prepared",
    "Rule",
    "check_cancellation",
    "check_values",
    "complete_cancellation",
    "date_time",
    "keyword",
    "path_name",
    "path_of",
    "prepare_create",
    "prepare_update",
    "rule_for",
    "unmet",
]

_NEVER_STORED: Final = frozenset({tags.TRANSACTION_UID, tags.SPECIFIC_CHARACTER_SET})
_CREATED_EMPTY: Final = (tags.TRANSACTION_UID, tags.PROGRESS_INFORMATION, tags.PERFORMED_PROCEDURE)

# The UIDs travel in the command set or the URL; the wires see to it that a body that repeats them agrees.
# Transaction UID is 2/2, but many SCUs leave it out, and empty is what it becomes in any case.
_CREATABLE: Final = replace(
    ROOT,
    create=replace(
        ROOT.create,
        refused=ROOT.create.refused - {tags.SOP_CLASS_UID, tags.SOP_INSTANCE_UID},
        present=tuple(tag for tag in ROOT.create.present if tag != tags.TRANSACTION_UID),
    ),
)
# What an N-SET does not name stays as it is: nothing is filled or dropped on the level of the workitem.
_SETTABLE: Final = replace(ROOT, update=replace(ROOT.update, filled=(), dropped=frozenset()))


@dataclass(frozen=True, slots=True)
class Prepared:
    """What is to be stored.

    Attributes:
        attributes: the whole workitem, ascending by tag.
        modifications: one sentence for each value of the request that was coerced; if there are any,
            the answer is B300 or B305.
    """

    attributes: DataSet
    modifications: tuple[str, ...] = ()


def prepare_create(
    dataset: DataSet, now: datetime, worklist_label: str, *, limits: Limits = USUAL
) -> Prepared:
    """Check the data set of an N-CREATE and complete it (PS3.4 CC.2.5, Table CC.2.5-3).

    ``now`` is aware; ``worklist_label`` fills an empty Worklist Label. SOP Instance UID is kept if given.
    The state comes first: one other than SCHEDULED is C309 whatever else is wrong. Checks the values too.

    Raises:
        UpsError: C309, 0105, 0106, 0120 or 0121 with the path at fault.
    """
    check_scheduled(dataset)
    _check_state(dataset)
    check_values(dataset, limits=limits)
    _check_created_empty(dataset)
    arrangement = Arrangement(creating=True)
    arranged = arrangement.arranged(_storable(dataset), _CREATABLE)
    ours = {tags.SOP_CLASS_UID: element("UI", tags.PUSH), tags.STATE: element("CS", "SCHEDULED")}
    if is_empty(arranged.get(tags.WORKLIST_LABEL)):
        ours[tags.WORKLIST_LABEL] = element("LO", worklist_label)
    return _stamped({**arranged, **ours}, dataset, now, arrangement)


def prepare_update(
    stored: DataSet, modification_list: DataSet, now: datetime, *, limits: Limits = USUAL
) -> Prepared:
    """Check the modification list of an N-SET and merge it (PS3.4 CC.2.6, Table CC.2.5-3).

    A sequence is replaced as a whole. A Transaction UID in the list is passed over: it opens, it is not
    updated. Procedure Step State is refused with 0105 as every attribute that the table calls NA: C303 is a
    status of N-ACTION, and N-SET's own list does not have it. Checks the values too.

    Raises:
        UpsError: 0105, 0106, 0120 or 0121 with the path at fault.
    """
    check_values(modification_list, limits=limits)
    arrangement = Arrangement(creating=False)
    arranged = arrangement.arranged(_storable(modification_list), _SETTABLE)
    changes = {tag: found for tag, found in arranged.items() if not _empties(stored, tag, arranged)}
    return _stamped({**stored, **changes}, modification_list, now, arrangement)


def _storable(dataset: DataSet) -> DataSet:
    if _NEVER_STORED.isdisjoint(dataset):
        return dataset
    return {tag: found for tag, found in dataset.items() if tag not in _NEVER_STORED}


def _check_state(dataset: DataSet) -> None:
    found: Any = dataset.get(tags.STATE)
    if found is None:
        raise refusal(MISSING_ATTRIBUTE, (), tags.STATE, "is missing")
    given = found.get("Value") if isinstance(found, dict) else None
    if not isinstance(given, list) or not any(given):
        raise refusal(MISSING_VALUE, (), tags.STATE, "has no value")


def check_scheduled(dataset: DataSet) -> None:
    """Refuse to create in another state, whatever else is wrong. Raises UpsError (C309)."""
    found: Any = dataset.get(tags.STATE)
    given = found.get("Value") if isinstance(found, dict) else None
    if not isinstance(given, list) or not any(given):
        return
    if [one.strip(" ") if isinstance(one, str) else one for one in given] != ["SCHEDULED"]:
        raise refusal(NOT_SCHEDULED, (), tags.STATE, f"is {quoted(given[0])}, expected SCHEDULED")


def _check_created_empty(dataset: DataSet) -> None:
    for tag in _CREATED_EMPTY:
        if not is_empty(dataset.get(tag)):
            raise refusal(INVALID_VALUE, (), tag, "must be created empty")
    if not is_empty(dataset.get(tags.SOP_CLASS_UID)) and text(dataset, tags.SOP_CLASS_UID) != tags.PUSH:
        raise refusal(INVALID_VALUE, (), tags.SOP_CLASS_UID, f"is not that of UPS Push, {tags.PUSH}")


def _empties(stored: DataSet, tag: str, changes: DataSet) -> bool:
    """True for an empty element where no value is yet: nothing changes. Emptying type 1 is refused."""
    rule = ROOT.rules.get(tag)
    if not rule or rule.update.scp not in ("1", "1C") or not is_empty(changes[tag]):
        return False
    if not is_empty(stored.get(tag)) and tag != tags.MODIFICATION:
        raise refusal(MISSING_VALUE, (), tag, "has no value, but must keep one")
    return True


def _stamped(attributes: DataSet, sent: DataSet, now: datetime, arrangement: Arrangement) -> Prepared:
    stamp = element("DT", date_time(now))
    if values(sent, tags.MODIFICATION):
        arrangement.coercions.append(f"{spelled(tags.MODIFICATION)} was set by the worklist")
    return Prepared(ordered({**attributes, tags.MODIFICATION: stamp}), tuple(arrangement.coercions))
