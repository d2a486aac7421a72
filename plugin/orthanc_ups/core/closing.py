# SPDX-License-Identifier: AGPL-3.0-or-later
"""Final state requirements (PS3.4 CC.2.5.1.1): what a workitem must have to be closed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Final

from . import tags
from .dataset import DataSet, Element, element, is_empty, items, ordered
from .dictionary import path_name
from .events import CANCEL_INFORMATION
from .refusals import Findings, refusal_of, spelled
from .requirements import Arrangement
from .rules import ROOT, RULES, Contents
from .stamps import date_time
from .states import State
from .statuses import FINAL_STATE_UNMET, INVALID_ARGUMENT, NO_SUCH_ARGUMENT, Fault, UpsError
from .value_rules import USUAL, DataSetLimits, checked

_CODES: Final[Mapping[State, frozenset[str]]] = MappingProxyType(
    {State.COMPLETED: frozenset("RP"), State.CANCELED: frozenset("RX")}
)
_MAY_BE_EMPTY: Final = f"{tags.PERFORMED_PROCEDURE}.{tags.OUTPUTS}"
"""Output Information Sequence must be present, but a step may have had no output."""
_REFERENCED_SOP: Final = "00081199"
_MAXIMUM_FAULTS: Final = 100
_LONGEST_IN_COMMENT: Final = 55  # characters of a UID after "missing: ", in an Error Comment of 64

_UNSPECIFIED: Final[DataSet] = {
    tags.CODE_VALUE: element("SH", "110513"),
    tags.CODING_SCHEME: element("SH", "DCM"),
    tags.CODE_MEANING: element("LO", "Discontinued for unspecified reason"),
}


def unmet(attributes: DataSet, state: State) -> tuple[str, ...]:
    """The paths that must have a value in a final state and have none; of an empty sequence also those of its items.

    ``attributes`` is the whole stored workitem. Codes R and P apply to COMPLETED, R and X to CANCELED.
    RC ("if known") cannot be checked and never fails. Other states require nothing.
    """
    return tuple(_lacking(attributes, ROOT, _CODES.get(state, frozenset())))


def _lacking(level: DataSet, contents: Contents, codes: frozenset[str]) -> Iterator[str]:
    for rule in contents.rules.values():
        if rule.final not in codes:
            continue
        attribute = level.get(rule.tag)
        if attribute is None or (is_empty(attribute) and rule.path != _MAY_BE_EMPTY):
            yield rule.path
        if rule.contents:
            for item in items(level, rule.tag)[:1] or [{}]:
                yield from _lacking(item, rule.contents, codes)


def complete_cancellation(attributes: DataSet, now: datetime, information: DataSet | None = None) -> DataSet:
    """The workitem with everything that CANCELED requires; what a performer has set stays (PS3.4 CC.2.2.3).

    ``information`` is that of a cancellation request: its reason, codes and contact are taken over. The time
    of cancellation is ``now``, the default code is 110513, DCM, "Discontinued for unspecified reason".
    """
    present = next(iter(items(attributes, tags.PROGRESS_INFORMATION)), {})
    offered = _offered(information or {}) | {tags.CANCELLATION_DATETIME: element("DT", date_time(now))}
    offered.setdefault(tags.DISCONTINUATION_REASONS, element("SQ", _UNSPECIFIED))
    added = {tag: attribute for tag, attribute in offered.items() if is_empty(present.get(tag))}
    if not added:
        return attributes
    return ordered({**attributes, tags.PROGRESS_INFORMATION: element("SQ", ordered({**present, **added}))})


def _offered(information: DataSet) -> dict[str, Element]:
    reasons = (tags.DISCONTINUATION_REASONS, tags.REASON_FOR_CANCELLATION)
    offered = {tag: information[tag] for tag in reasons if not is_empty(information.get(tag))}
    if not is_empty(information.get(tags.CONTACT_URI)):
        contact = (tags.CONTACT_URI, tags.CONTACT_NAME)
        details = {tag: information[tag] for tag in contact if not is_empty(information.get(tag))}
        offered[tags.COMMUNICATIONS_URIS] = element("SQ", details)
    return offered


def check_cancellation(
    information: DataSet, *, limits: DataSetLimits = USUAL, strict: bool = False
) -> tuple[DataSet, tuple[str, ...]]:
    """Refuse action information of Request UPS Cancel that could not be stored or sent (PS3.4 CC.2.2.2).

    Returns:
        The information, corrected unless ``strict``, and a sentence for each correction.

    Raises:
        UpsError: 0114 for an argument that the action does not have, 0115 for a wrong one.
    """
    findings = Findings(strict=strict)
    sound = checked(information, findings, limits)
    for tag in sorted(sound.keys() - set(CANCEL_INFORMATION)):
        findings.fault(NO_SUCH_ARGUMENT, (), tag, "is not an argument of a cancellation request")
    rule = RULES[f"{tags.PROGRESS_INFORMATION}.{tags.DISCONTINUATION_REASONS}"]
    reasons = sound.get(tags.DISCONTINUATION_REASONS)
    if reasons:
        stored = Arrangement(creating=False, findings=findings).stored(reasons, rule, (), sound)
        sound = {**sound, tags.DISCONTINUATION_REASONS: stored}
    try:
        findings.refuse()
    except UpsError as refused:
        if refused.status is NO_SUCH_ARGUMENT:
            raise
        raise refused.under(INVALID_ARGUMENT) from refused
    return sound, findings.corrections


def refuse_unmet(attributes: DataSet, state: State, missing_outputs: Sequence[str] = ()) -> None:
    """Refuse to close a workitem that lacks what the final state requires. Raises UpsError (C304).

    ``missing_outputs``: referenced SOP Instance UIDs that should be in this Orthanc, but are not.
    """
    faults = [
        Fault(FINAL_STATE_UNMET, path, f"{_spelled_path(path)} has no value")
        for path in unmet(attributes, state)
    ]
    faults += [
        Fault(
            FINAL_STATE_UNMET,
            f"{_MAY_BE_EMPTY}.{_REFERENCED_SOP}.{tags.REFERENCED_INSTANCE}",
            f"output {uid} is not in this Orthanc",
            comment=f"missing: {uid}" if len(uid) <= _LONGEST_IN_COMMENT else uid,
        )
        for uid in missing_outputs[:_MAXIMUM_FAULTS]
    ]
    if faults:
        raise refusal_of(faults)


def _spelled_path(path: str) -> str:
    above, _, tag = path.rpartition(".")
    return f"{path_name(above)}.{spelled(tag)}" if above else spelled(tag)
