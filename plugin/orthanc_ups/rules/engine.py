# SPDX-License-Identifier: AGPL-3.0-or-later
"""Selects the rules that a cause fires, has their effects carried out, and counts and logs what came of it."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from ..core.statuses import UpsError
from .causes import Cause, When
from .definitions import SiteRule
from .effects import Effects, Refusals, is_transient, origin_of
from .memory import Memory
from .worklist_access import WorklistAccess

_log = logging.getLogger("orthanc_ups.rules")
_LONGEST_CHAIN: Final = 100
_COUNTED: Final = ("created", "updated", "completed", "canceled", "asked")

ALIKE_IN_A_SERIES: Final = frozenset(
    {
        "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "PatientAge",
        "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "StudyDescription", "AccessionNumber",
        "ReferringPhysicianName", "InstitutionName", "Modality", "SeriesInstanceUID", "SeriesNumber",
        "SeriesDescription", "BodyPartExamined", "Laterality", "ProtocolName", "Manufacturer",
        "ManufacturerModelName", "StationName", "RequestAttributesSequence", "RequestedProcedureDescription",
    }
)  # fmt: skip
"""Attributes of patient, study, series and equipment, which are the same in all instances of a series (PS3.3)."""


class Engine:
    """Fires the rules that are enabled."""

    def __init__(
        self,
        rules: Sequence[SiteRule],
        effects: Effects,
        worklist: WorklistAccess,
        memory: Memory,
        counters: Counter[str],
    ) -> None:
        self.rules = tuple(rule for rule in rules if rule.enabled)
        self._effects = effects
        self._worklist = worklist
        self._memory = memory
        self._counters = counters
        self._last_errors: dict[str, str] = {}

    @property
    def needs_labels(self) -> bool:
        """True if some rule has a condition on labels."""
        return any(condition.key == "Labels" for rule in self.rules for condition in rule.conditions)

    def of(self, when: When) -> Iterator[SiteRule]:
        """The rules for a kind of cause."""
        return (rule for rule in self.rules if rule.when is when)

    @staticmethod
    def possible(rules: Iterable[SiteRule], cause: Cause) -> list[SiteRule]:
        """The rules that can fire for any instance of the series of a cause."""
        return [
            rule
            for rule in rules
            if not any(
                condition.objection(cause)
                for condition in rule.conditions
                if condition.path and condition.path[0] in ALIKE_IN_A_SERIES
            )
        ]

    @staticmethod
    def objections(rule: SiteRule, cause: Cause) -> list[str]:
        """Why a rule does not fire, in words; empty if it does."""
        return [words for condition in rule.conditions if (words := condition.objection(cause))]

    async def react(self, cause: Cause, rules: Iterable[SiteRule] | None = None) -> int:
        """Fire the rules that fit, and return how many did something.

        Raises UpsError (0213) or StoreUnavailable if this is not possible now; it should then be called again.
        """
        fired = 0
        for rule in self.of(cause.when) if rules is None else rules:
            if not self.objections(rule, cause):
                fired += await self._fire(rule, cause)
        return fired

    async def _fire(self, rule: SiteRule, cause: Cause) -> bool:
        if self._is_loop(rule, cause):
            return False
        try:
            done = await self._effects.carry_out(rule, cause)
        except Refusals as refusals:
            self._failed(rule, cause, str(refusals))
            return bool(refusals.done)
        except UpsError as error:
            if is_transient(error):
                raise
            self._failed(rule, cause, error.detail)
            return False
        for kind, _ in done:
            if kind in _COUNTED:
                self._counters[f"rules_{kind}"] += 1
        done = [(kind, words) for kind, words in done if kind in _COUNTED]
        if not done:
            return False
        self._counters["rules_fired"] += 1
        words = "; ".join(words for _, words in done)
        record = self._memory.record(rule.name)
        record.fired += 1
        record.last_at, record.last = self._worklist.now().timestamp(), f"{cause.description}: {words}"[:500]
        _log.info('Rule "%s": %s: %s', rule.name, cause.description, words)
        return True

    def _failed(self, rule: SiteRule, cause: Cause, why: str) -> None:
        self._counters["rules_failed"] += 1
        record = self._memory.record(rule.name)
        record.failed += 1
        record.error_at, record.error = self._worklist.now().timestamp(), f"{cause.description}: {why}"[:500]
        level = logging.DEBUG if self._last_errors.get(rule.name) == why else logging.WARNING
        self._last_errors[rule.name] = why
        _log.log(level, 'Rule "%s" failed: %s: %s', rule.name, cause.description, why)

    def _is_loop(self, rule: SiteRule, cause: Cause) -> bool:
        """True if the workitem that ended descends from an earlier firing of the same rule; this is recorded."""
        workitem = cause.workitem if cause.when in (When.COMPLETED, When.CANCELED) else None
        for _ in range(_LONGEST_CHAIN):
            origin = origin_of(workitem) if workitem is not None else None
            if origin is None:
                return False
            if origin[0] == rule.name:
                self._stopped(rule, cause)
                return True
            workitem = self._worklist.workitem(origin[1]) if origin[1] else None
        return True

    def _stopped(self, rule: SiteRule, cause: Cause) -> None:
        self._counters["rules_stopped"] += 1
        record = self._memory.record(rule.name)
        record.stopped += 1
        record.error_at = self._worklist.now().timestamp()
        record.error = (
            f"{cause.description}: this workitem descends from an earlier firing of the same rule; stopped"
        )
        _log.warning('Rule "%s" feeds itself: %s', rule.name, record.error)
