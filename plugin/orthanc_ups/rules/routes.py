# SPDX-License-Identifier: AGPL-3.0-or-later
"""Rules in ``/ups/api``: their counts, what they would do, and backfills."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Protocol, TypedDict
from urllib.parse import quote

from msgspec import Meta

from ..dicomweb.response import HttpProblem
from ..management.answers import Time
from ..management.bodies import Body
from ..management.routing import Call, Route
from .backfill import Backfill
from .causes import Cause, When
from .definitions import CancelEffect, CompleteEffect, CreateEffect, Effect, SiteRule, UpdateEffect
from .memory import Memory

_EFFECTS: Final[Mapping[type, str]] = {
    CreateEffect: "Create",
    UpdateEffect: "Update",
    CompleteEffect: "Complete",
    CancelEffect: "Cancel",
}
_PLURALS: Final = {"patient": "patients", "study": "studies", "series": "series", "instance": "instances"}


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


class TestedCause(TypedDict):
    """What a rule would do for one cause, or why it would not fire."""

    cause: str
    fires: bool
    why_not: list[str]
    would: list[str]


class TestedRule(TypedDict):
    """What a rule would do. ``why_not`` says so if there is no cause for it at all."""

    name: str
    when: str
    fires: bool
    causes: list[TestedCause]
    why_not: list[str]


class TestedRules(TypedDict):
    """What each rule would do; nothing was done."""

    rules: list[TestedRule]


class TestRules(Body, kw_only=True):
    """What to test rules with. One of the two."""

    study: Annotated[
        str,
        Meta(description="A study, series or instance, by its DICOM UID or Orthanc's identifier."),
    ] = ""
    workitem: Annotated[str, Meta(description="UID of a workitem that has ended.")] = ""


class BackfillRule(Body, kw_only=True):
    """Why, if anybody wants to know."""


class RunningRules(Protocol):
    """Rules that run (``Automation``)."""

    rules: tuple[SiteRule, ...]
    memory: Memory

    @property
    def waiting(self) -> int:
        """What is not stable yet."""
        ...

    def rule(self, name: str) -> SiteRule | None:
        """A rule by its name."""
        ...

    async def locate(self, identifier: str) -> tuple[str, str] | None:
        """Level and Orthanc identifier of a resource."""
        ...

    async def causes_in(self, level: str, identifier: str) -> Mapping[When, Sequence[Cause]]:
        """All that could fire rules in a resource."""
        ...

    def end_of(self, uid: str) -> Mapping[When, Sequence[Cause]]:
        """The end of a workitem. Raises LookupError."""
        ...

    async def test(self, causes: Mapping[When, Sequence[Cause]]) -> list[dict[str, Any]]:
        """What each rule would do because of causes, and why not."""
        ...

    def backfill(self, rule: SiteRule) -> Backfill | None:
        """The last run of a rule over what is there already."""
        ...

    def begin_backfill(self, rule: SiteRule) -> Backfill:
        """Run a rule over what is there already."""
        ...


class RuleRoutes:
    """Handlers of ``/ups/api/rules``. Without rules there is nothing to list, and nothing to test."""

    def __init__(self, running: RunningRules | None) -> None:
        self._running = running

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
        running = self._running
        if running is None:
            return {"rules": [], "waiting": 0}
        return {"rules": [_shown(running, rule) for rule in running.rules], "waiting": running.waiting}

    async def test(self, call: Call, body: TestRules) -> TestedRules:
        """What each rule would do because of a study or a workitem's end, and why not. Nothing is done."""
        if bool(body.study) == bool(body.workitem):
            raise HttpProblem(400, 'give "study" or "workitem"')
        running = self._running
        if running is None:
            return {"rules": []}
        try:
            causes = running.end_of(body.workitem) if body.workitem else await self._causes(call, body.study)
        except LookupError as error:
            raise HttpProblem(404, str(error.args[0])) from None
        tested: Any = await running.test(causes)
        return {"rules": tested}

    async def _causes(self, call: Call, identifier: str) -> Mapping[When, Sequence[Cause]]:
        assert self._running is not None
        resource = await self._running.locate(identifier)
        if resource is None:
            raise LookupError(f'Orthanc has no study, series or instance "{identifier[:64]}"')
        level, resource_id = resource
        await call.check_readable(f"/{_PLURALS[level]}/{quote(resource_id)}")
        return await self._running.causes_in(level, resource_id)

    async def progress(self, call: Call) -> BackfillJson:
        """How far a rule's last run over what is there already is."""
        running, rule = self._rule(call)
        return _progress(running.backfill(rule))

    async def begin(self, call: Call, body: BackfillRule) -> BackfillJson:
        """Run a rule over what is there already; repeating it makes no workitem twice."""
        running, rule = self._rule(call)
        if not rule.enabled:
            raise HttpProblem(409, f'the rule "{rule.name}" is not enabled')
        if rule.when is When.DELETED:
            raise HttpProblem(409, "what was deleted no longer exists")
        return _progress(running.begin_backfill(rule))

    async def stop(self, call: Call) -> BackfillJson:
        """Stop a rule's run over what is there already; what it did stays."""
        running, rule = self._rule(call)
        backfill = running.backfill(rule)
        if backfill is not None:
            backfill.stop()
        return _progress(backfill)

    def _rule(self, call: Call) -> tuple[RunningRules, SiteRule]:
        name = call.parameters["rule"]
        rule = self._running.rule(name) if self._running is not None else None
        if self._running is None or rule is None:
            raise HttpProblem(404, f'there is no rule "{name[:64]}"')
        return self._running, rule


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


def _shown(running: RunningRules, rule: SiteRule) -> RuleJson:
    record = running.memory.record(rule.name)
    backfill = running.backfill(rule)
    return {
        "name": rule.name,
        "when": rule.when.value,
        "conditions": [f"{condition.key}: {condition.expected}" for condition in rule.conditions],
        "effects": [_in_words(effect) for effect in rule.effects],
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


def _in_words(effect: Effect) -> str:
    return _EFFECTS[type(effect)]


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
