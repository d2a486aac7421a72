# SPDX-License-Identifier: AGPL-3.0-or-later
"""The initial values of a new workitem: from a template of ``Ups.Templates``, or blank."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from ..dicomweb.response import HttpProblem
from . import answers, bodies
from .ports import ManagementClock, ServerFacts
from .routing import Call, Route
from .templates import Template, TemplateContext, TemplateField, resolved

BLANK: Final = Template(
    "Blank",
    "A workitem from scratch",
    (
        TemplateField("ScheduledProcedureStepPriority", "MEDIUM"),
        TemplateField("InputReadinessState", "READY"),
        TemplateField("ScheduledProcedureStepStartDateTime", "now"),
    ),
)
_REQUEST: Final = "ReferencedRequestSequence"
_STUDY: Final = "StudyInstanceUID"


class Starting:
    """The handler of ``/templates``, and the initial values of new workitems."""

    def __init__(self, clock: ManagementClock, facts: ServerFacts) -> None:
        self._clock = clock
        self._templates = (*(_with_usual(template) for template in facts.templates), BLANK)

    def routes(self) -> tuple[Route, ...]:
        """The route of the templates."""
        return (Route("GET", "/templates", self.templates),)

    async def templates(self, call: Call) -> answers.Templates:
        """Templates, with their current default values."""
        context = self._context(call)
        return {"templates": [_template_json(template, context) for template in self._templates]}

    def _context(self, call: Call) -> TemplateContext:
        return TemplateContext(self._clock.now(), call.requester.user or "", self._clock.new_uid)

    def attributes(self, call: Call, body: bodies.CreateWorkitem) -> Mapping[str, Any]:
        """The attributes of a request in keyword form, with the initial values of its template."""
        entered = body.attributes or {}
        fields = self._fields(body.template) if body.template else ()
        context = self._context(call)
        defaults = {
            field.keyword: resolved(field.keyword, field.default, context)
            for field in fields
            if field.default
        }
        fixed = {field.keyword for field in fields if field.fixed}
        merged = {**defaults, **{key: field for key, field in entered.items() if key not in fixed}}
        _check_required(merged, fields)
        return _with_study_of_request(_nested(merged), self._clock)

    def _fields(self, name: str) -> tuple[TemplateField, ...]:
        for template in self._templates:
            if template.name == name:
                return template.fields
        names = ", ".join(template.name for template in self._templates)
        raise HttpProblem(400, f'unknown template "{name[:60]}", expected one of {names}')


def _with_usual(template: Template) -> Template:
    """The template with the fields of the blank template added."""
    keywords = {field.keyword for field in template.fields}
    more = tuple(field for field in BLANK.fields if field.keyword not in keywords)
    return replace(template, fields=(*template.fields, *more))


def _check_required(merged: Mapping[str, Any], fields: tuple[TemplateField, ...]) -> None:
    for field in fields:
        if field.required and merged.get(field.keyword) in (None, "", [], {}):
            raise HttpProblem(400, f"{field.keyword} is required by the template")


def _template_json(template: Template, context: TemplateContext) -> answers.TemplateJson:
    return {
        "name": template.name,
        "description": template.description,
        "fields": {
            field.keyword: {
                "default": resolved(field.keyword, field.default, context),
                "choices": resolved(field.keyword, field.choices, context),
                "required": field.required,
                "fixed": field.fixed,
            }
            for field in template.fields
        },
    }


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    """``Sequence.Keyword`` becomes an attribute of the sequence's single item."""
    nested = {key: value for key, value in flat.items() if "." not in key}
    for key, value in flat.items():
        sequence, dot, keyword = key.partition(".")
        if dot and value not in (None, ""):
            item = nested.get(sequence) or [{}]
            first = item[0] if isinstance(item, list) else item
            nested[sequence] = [{**first, keyword: value}]
    return nested


def _with_study_of_request(content: dict[str, Any], clock: ManagementClock) -> dict[str, Any]:
    """Add the Study Instance UID (type 1) to requests: that of the workitem, or a new one."""
    requests = content.get(_REQUEST)
    if not isinstance(requests, list):
        return content
    study = content.get(_STUDY) or clock.new_uid()
    completed = [
        {_STUDY: study, **request} if isinstance(request, Mapping) else request for request in requests
    ]
    return {**content, _REQUEST: completed}
