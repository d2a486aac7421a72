# SPDX-License-Identifier: AGPL-3.0-or-later
"""The attribute rules of a workitem: what N-CREATE and N-SET accept, and what is stored (PS3.4 CC.2.5, CC.2.6).

Set by the SCP: SOP Class UID, Scheduled Procedure Step Modification DateTime, an empty Worklist Label, and, empty,
the type 2 attributes that an SCU may leave out. Expected Completion DateTime stays absent if the scheduler did not
send it: "3/1" requires the SCP to store what was sent, and a time that nobody expects would be made up.

Corrected (B300, B305) and listed in ``modifications``: a Modification DateTime that the SCU sent, an enumerated
value in lower case, the VR that an earlier edition gave a URI, empty elements that must not be stored empty; and,
unless strict, absent type 2 attributes, similar VRs, elements of the command set and file meta information, items
without any value, a Transaction UID at creation, and attributes that an update must not have but that equal the
stored ones.

Everything else is refused, with all faults in one refusal.

Never stored: Transaction UID, which is a lock and not content, and Specific Character Set, because text is Unicode.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from . import tags
from .dataset import DataSet, Element, element, is_empty, ordered, patched, text, values
from .refusals import Findings
from .requirements import Arrangement
from .rules import ROOT
from .stamps import date_time
from .statuses import INVALID_VALUE, MISSING_ATTRIBUTE, MISSING_VALUE, NOT_SCHEDULED
from .value_rules import FAULTY, USUAL, DataSetLimits, checked, quoted

_NEVER_STORED: Final = frozenset({tags.TRANSACTION_UID, tags.SPECIFIC_CHARACTER_SET})
UPS_CLASSES: Final = frozenset({tags.PUSH, tags.WATCH, tags.PULL, tags.EVENT, tags.QUERY})

# The UIDs come in the command set or the URL; the interfaces check that a body that repeats them agrees.
# Transaction UID is 2/2, but many SCUs leave it out, and it becomes empty in any case.
# Worklist Label is 2/1: it does not stay empty.
_CREATABLE: Final = replace(
    ROOT,
    create=replace(
        ROOT.create,
        refused=ROOT.create.refused - {tags.SOP_CLASS_UID, tags.SOP_INSTANCE_UID},
        present=tuple(
            tag for tag in ROOT.create.present if tag not in (tags.TRANSACTION_UID, tags.WORKLIST_LABEL)
        ),
    ),
)
# N-SET changes only the attributes that it names: on the level of the workitem nothing is filled or dropped.
_SETTABLE: Final = replace(ROOT, update=replace(ROOT.update, filled=(), dropped=frozenset()))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked request, as it is to be stored.

    Attributes:
        attributes: the whole workitem, ascending by tag.
        modifications: sentences that name each corrected attribute of the request; if there are any, the answer is
            B300 or B305.
        modified: top-level tags of the corrected attributes.
    """

    attributes: DataSet
    modifications: tuple[str, ...] = ()
    modified: frozenset[str] = frozenset()


def prepare_create(
    dataset: DataSet,
    now: datetime,
    worklist_label: str,
    *,
    limits: DataSetLimits = USUAL,
    strict: bool = False,
) -> Prepared:
    """Check the data set of an N-CREATE and complete it (PS3.4 CC.2.5, Table CC.2.5-3).

    ``now`` is aware; ``worklist_label`` replaces an empty Worklist Label. SOP Instance UID is stored if present.

    Raises:
        UpsError: C309, 0120, 0121, 0105 or 0106, the first of these that applies, with every attribute at fault,
            Procedure Step State first.
    """
    findings = Findings(strict=strict)
    sound = checked(_with_sound_state(dataset, findings), findings, limits)
    sound = _created_empty(sound, findings)
    arrangement = Arrangement(creating=True, findings=findings)
    arranged = arrangement.arranged(_storable(sound), _CREATABLE)
    scp_values = {tags.SOP_CLASS_UID: element("UI", tags.PUSH), tags.STATE: element("CS", "SCHEDULED")}
    if is_empty(arranged.get(tags.WORKLIST_LABEL)):
        scp_values[tags.WORKLIST_LABEL] = _label(arranged, worklist_label, findings)
    return _stamped({**arranged, **scp_values}, sound, now, findings)


def prepare_update(
    stored: DataSet,
    modification_list: DataSet,
    now: datetime,
    *,
    limits: DataSetLimits = USUAL,
    strict: bool = False,
) -> Prepared:
    """Check the modification list of an N-SET and merge it (PS3.4 CC.2.6, Table CC.2.5-3).

    A sequence is replaced as a whole. A Transaction UID in the list is ignored: it proves ownership, it is not
    updated. Procedure Step State is refused with 0105, like every attribute that the table marks NA: C303 is a
    status of N-ACTION, and PS3.4 does not list it for N-SET. Unless strict, an NA attribute that equals the stored
    one is ignored.

    Raises:
        UpsError: 0120, 0121, 0105 or 0106, the first of these that applies, with every attribute at fault.
    """
    findings = Findings(strict=strict)
    sound = checked(modification_list, findings, limits)
    sound = sound if strict else _without_repetitions(sound, stored, findings)
    arrangement = Arrangement(creating=False, findings=findings)
    arranged = arrangement.arranged(_storable(sound), _SETTABLE)
    changes = {
        tag: attribute for tag, attribute in arranged.items() if not _empties(stored, tag, arranged, findings)
    }
    return _stamped({**stored, **changes}, sound, now, findings)


def _storable(dataset: DataSet) -> DataSet:
    if _NEVER_STORED.isdisjoint(dataset):
        return dataset
    return {tag: attribute for tag, attribute in dataset.items() if tag not in _NEVER_STORED}


def check_scheduled(dataset: DataSet, *, strict: bool = False) -> None:
    """Refuse a new workitem whose state is not SCHEDULED, whatever else is wrong. Raises UpsError (C309)."""
    findings = Findings(strict=strict)
    if _values_of_state(dataset) and _is_unscheduled(dataset, findings):
        findings.refuse()


def _with_sound_state(dataset: DataSet, findings: Findings) -> DataSet:
    """The data set with SCHEDULED in place of a faulty state, so that no second fault is reported for it."""
    state: Any = dataset.get(tags.STATE)
    if state is None:
        return dataset
    if not _values_of_state(dataset):
        findings.fault(MISSING_VALUE, (), tags.STATE, "has no value")
    elif not _is_unscheduled(dataset, findings):
        return dataset
    return {**dataset, tags.STATE: element("CS", "SCHEDULED")}


def _is_unscheduled(dataset: DataSet, findings: Findings) -> bool:
    states = [state.strip(" ") if isinstance(state, str) else state for state in _values_of_state(dataset)]
    if not findings.strict:
        states = [state.upper() if isinstance(state, str) else state for state in states]
    if states == ["SCHEDULED"]:
        return False
    findings.fault(NOT_SCHEDULED, (), tags.STATE, f"is {quoted(states[0])}, expected SCHEDULED")
    return True


def _values_of_state(dataset: DataSet) -> list[Any]:
    state: Any = dataset.get(tags.STATE)
    values = state.get("Value") if isinstance(state, dict) else None
    return values if isinstance(values, list) and any(values) else []


def _created_empty(dataset: DataSet, findings: Findings) -> DataSet:
    """The data set, of which progress, performed procedure and Transaction UID must be empty (PS3.4 CC.2.5)."""
    changes: dict[str, Element | None] = {}
    for tag in (tags.PROGRESS_INFORMATION, tags.PERFORMED_PROCEDURE):
        if not is_empty(dataset.get(tag)):
            findings.fault(INVALID_VALUE, (), tag, "must be created empty")
            changes[tag] = FAULTY
    if not is_empty(dataset.get(tags.TRANSACTION_UID)):
        if findings.strict:
            findings.fault(INVALID_VALUE, (), tags.TRANSACTION_UID, "must be created empty")
        else:
            findings.correction((), tags.TRANSACTION_UID, "left out: only a performer sets it, by a claim")
    _check_class(dataset, findings)
    return patched(dataset, changes)


def _check_class(dataset: DataSet, findings: Findings) -> None:
    sop_class = dataset.get(tags.SOP_CLASS_UID)
    if is_empty(sop_class) or sop_class is FAULTY or text(dataset, tags.SOP_CLASS_UID) == tags.PUSH:
        return
    if not findings.strict and text(dataset, tags.SOP_CLASS_UID) in UPS_CLASSES:
        findings.correction((), tags.SOP_CLASS_UID, "set to UPS Push")
    else:
        findings.fault(INVALID_VALUE, (), tags.SOP_CLASS_UID, f"is not that of UPS Push, {tags.PUSH}")


def _label(arranged: DataSet, default: str, findings: Findings) -> Element:
    if tags.WORKLIST_LABEL not in arranged:
        if findings.strict:
            findings.fault(MISSING_ATTRIBUTE, (), tags.WORKLIST_LABEL, "is missing")
        else:
            findings.correction((), tags.WORKLIST_LABEL, f"set to {default}")
    return element("LO", default)


def _without_repetitions(changes: DataSet, stored: DataSet, findings: Findings) -> DataSet:
    """The modification list without the attributes that it must not have but that equal the stored ones.

    A client that sends a whole workitem back means the attributes that differ. Unchanged sequences are left out too,
    because they may contain such attributes.
    """
    refused = ROOT.update.refused
    repeated = [
        tag
        for tag, attribute in changes.items()
        if (tag in refused or attribute["vr"] == "SQ")
        and (
            attribute == stored.get(tag)
            or (is_empty(attribute) and is_empty(stored.get(tag)) and tag in refused)
        )
    ]
    for tag in sorted(refused.intersection(repeated)):
        findings.correction((), tag, "left out: an update cannot have it, but it is what is stored")
    return patched(changes, dict.fromkeys(repeated))


def _empties(stored: DataSet, tag: str, changes: DataSet, findings: Findings) -> bool:
    """True for an empty type 1 element, which is not stored; if a value is stored, that is a fault."""
    rule = ROOT.rules.get(tag)
    if not rule or rule.update.scp not in ("1", "1C") or not is_empty(changes[tag]):
        return False
    if tag == tags.MODIFICATION:
        return True
    if is_empty(stored.get(tag)):
        findings.correction((), tag, "left out: it has no value")
    else:
        findings.fault(MISSING_VALUE, (), tag, "has no value, but must keep one")
    return True


def _stamped(attributes: DataSet, sent: DataSet, now: datetime, findings: Findings) -> Prepared:
    if values(sent, tags.MODIFICATION):
        findings.correction((), tags.MODIFICATION, "set by the worklist")
    findings.refuse()
    stamp = element("DT", date_time(now))
    stored = ordered({**attributes, tags.MODIFICATION: stamp})
    return Prepared(stored, findings.corrections, findings.corrected)
