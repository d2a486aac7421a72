# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules in ``/ups/api``: their counts, what they would do, and backfills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, TypedDict
from urllib.parse import quote

from msgspec import Meta

from ..dicomweb.response import HttpProblem
from ..management.answers import Time
from ..management.bodies import Body
from ..management.routing import Call, Route
from .archive import PLURALS
from .automation import Automation, TestedRule
from .backfill import Backfill
from .causes import Cause, When
from .definitions import CancelEffect, CompleteEffect, CreateEffect, SiteRule, UpdateEffect

_EFFECTS: Final[Mapping[type, str]] = {
    CreateEffect: "Create",
    UpdateEffect: "Update",
    CompleteEffect: "Complete",
    CancelEffect: "Cancel",
}


class BackfillJson(TypedDict):
    """The backfill of a rule. ``total`` is the approximate number of causes."""

    running: bool
    done: int
    total: int
    fired: int
    error: str


class RuleJson(TypedDict):
    """A rule of ``Ups.Rules`` with its counts, which survive restarts."""

    name: str
    when: str
    conditions: list[str]
    effects: list[str]
    enabled: bool
    fired: int
    failed: int
    stopped: Annotated[int, Meta(description="How often a loop was ended: the rule would have fed itself.")]
    last_at: Time
    last: str
    error_at: Time
    error: str
    backfill: BackfillJson | None


class RulesJson(TypedDict):
    """All rules. ``waiting``: series, studies and patients that are not stable yet."""

    rules: list[RuleJson]
    waiting: int


class TestedRules(TypedDict):
    """What each rule would do; nothing was done."""

    rules: list[TestedRule]


class TestRules(Body, kw_only=True):
    """What to test rules with: either of the two."""

    study: Annotated[
        str,
        Meta(description="A study, series or instance, by its DICOM UID or Orthanc's identifier."),
    ] = ""
    workitem: Annotated[str, Meta(description="UID of a workitem that has ended.")] = ""


class BackfillRule(Body, kw_only=True):
    """The reason for a backfill, optional."""


class RuleRoutes:
    """Handlers of ``/ups/api/rules``."""

    def __init__(self, automation: Automation | None) -> None:
        """``automation`` is None if there are no rules."""
        self._automation = automation

    def routes(self) -> tuple[Route, ...]:
        """The routes."""
        backfill = "/rules/{rule}/backfill"
        return (
            Route("GET", "/rules", self.all),
            Route("POST", "/rules/test", self.test),
            Route("GET", backfill, self.progress),
            Route("POST", backfill, self.begin),
            Route("DELETE", backfill, self.stop),
        )

    async def all(self, call: Call) -> RulesJson:
        """Rules with their last firings, counts and errors."""
        automation = self._automation
        if automation is None:
            return {"rules": [], "waiting": 0}
        rules = [_described(automation, rule) for rule in automation.rules]
        return {"rules": rules, "waiting": automation.waiting}

    async def test(self, call: Call, body: TestRules) -> TestedRules:
        """What each rule would do because of a study or a workitem's end, and why not. Nothing is done."""
        if bool(body.study) == bool(body.workitem):
            raise HttpProblem(400, 'give "study" or "workitem"')
        automation = self._automation
        if automation is None:
            return {"rules": []}
        try:
            if body.workitem:
                causes = automation.end_of(body.workitem)
            else:
                causes = await _causes(automation, call, body.study)
        except LookupError as error:
            raise HttpProblem(404, str(error.args[0])) from None
        return {"rules": await automation.test(causes)}

    async def progress(self, call: Call) -> BackfillJson:
        """The progress of a rule's last backfill."""
        automation, rule = self._rule(call)
        return _progress(automation.backfill(rule))

    async def begin(self, call: Call, body: BackfillRule) -> BackfillJson:
        """Apply a rule to everything that is already in Orthanc; a repeat creates no workitem twice."""
        automation, rule = self._rule(call)
        if not rule.enabled:
            raise HttpProblem(409, f'the rule "{rule.name}" is not enabled')
        if rule.when is When.DELETED:
            raise HttpProblem(409, "what was deleted no longer exists")
        return _progress(automation.begin_backfill(rule))

    async def stop(self, call: Call) -> BackfillJson:
        """Stop a rule's backfill; what it did stays."""
        automation, rule = self._rule(call)
        backfill = automation.backfill(rule)
        if backfill is not None:
            backfill.stop()
        return _progress(backfill)

    def _rule(self, call: Call) -> tuple[Automation, SiteRule]:
        name = call.parameters["rule"]
        rule = self._automation.rule(name) if self._automation is not None else None
        if self._automation is None or rule is None:
            raise HttpProblem(404, f'there is no rule "{name[:64]}"')
        return self._automation, rule


async def _causes(automation: Automation, call: Call, identifier: str) -> Mapping[When, Sequence[Cause]]:
    """The causes in a resource that the caller may read. Raises LookupError if it does not exist."""
    resource = await automation.locate(identifier)
    if resource is None:
        raise LookupError(f'Orthanc has no study, series or instance "{identifier[:64]}"')
    level, resource_id = resource
    await call.check_readable(f"/{PLURALS[level]}/{quote(resource_id)}")
    return await automation.causes_in(level, resource_id)


def _progress(backfill: Backfill | None) -> BackfillJson:
    if backfill is None:
        raise HttpProblem(404, "the rule has had no backfill since Orthanc started")
    return _report(backfill)


def _report(backfill: Backfill) -> BackfillJson:
    return {
        "running": backfill.is_running,
        "done": backfill.done,
        "total": max(backfill.total, backfill.done),
        "fired": backfill.fired,
        "error": backfill.error,
    }


def _described(automation: Automation, rule: SiteRule) -> RuleJson:
    record = automation.memory.record(rule.name)
    backfill = automation.backfill(rule)
    return {
        "name": rule.name,
        "when": rule.when.value,
        "conditions": [f"{condition.key}: {condition.expected}" for condition in rule.conditions],
        "effects": [_EFFECTS[type(effect)] for effect in rule.effects],
        "enabled": rule.enabled,
        "fired": record.fired,
        "failed": record.failed,
        "stopped": record.stopped,
        "last_at": _iso(record.last_at),
        "last": record.last,
        "error_at": _iso(record.error_at),
        "error": record.error,
        "backfill": _report(backfill) if backfill is not None else None,
    }


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
