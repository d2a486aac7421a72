# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.Templates``: initial values for workitems that an operator creates.

    {
      "Name": "Second reading",
      "Description": "A radiologist reads a study again",
      "LateAfter": "2h",
      "Attributes": {
        "ProcedureStepLabel": "Second reading",
        "ScheduledProcedureStepPriority": {"Choices": ["HIGH", "MEDIUM", "LOW"], "Default": "MEDIUM"},
        "ScheduledProcedureStepStartDateTime": {"Default": "now"},
        "ScheduledProcedureStepExpirationDateTime": {"Default": "now+7d"},
        "PatientID": {"Required": true},
        "ScheduledStationNameCodeSequence": {
          "Choices": [{"CodeValue": "R7", "CodingSchemeDesignator": "99ST", "CodeMeaning": "Reading room 7"}]
        }
      }
    }

A plain value is the initial value of the form. An object with ``Choices``, ``Default``, ``Required`` or ``Fixed``
(shown, but cannot be changed) has further properties. Keywords are those of PS3.6; sequences are lists of items.
Some texts are placeholders: ``now``, ``today`` (with an offset: ``now+2h``, ``today-1d``) in dates and
times, ``new-uid`` in UIDs, ``user`` in names and texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec import Struct, field

from ..codecs.structs import shown
from ..config import ConfigurationError, read_section
from ..core import tags
from ..core.lateness import Grace, LatePolicy
from ..core.stamps import date_time
from ..settings import Seconds, Settings, key_of
from .keyword_form import tag_of, vr_of

_MOMENT: Final = re.compile(r"(now|today)(?:([+-]\d{1,6})([smhdw]))?")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class TemplateField:
    """An attribute of a template.

    Attributes:
        keyword: of PS3.6.
        default: in keyword form, with placeholders; None if there is none.
        choices: the values to choose from; () for any.
        required: True if a value is required.
        fixed: True if the value cannot be changed.
    """

    keyword: str
    default: Any = None
    choices: tuple[Any, ...] = ()
    required: bool = False
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """A template; ``late_after`` in seconds, None for ``Ups.LateAfter``."""

    name: str
    description: str
    fields: tuple[TemplateField, ...]
    late_after: float | None = None


class TemplateEntry(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """An entry of ``Ups.Templates`` in the configuration."""

    name: str
    description: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    late_after: Seconds | None = None


class AttributeEntry(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """The object form of an attribute of a template."""

    choices: tuple[Any, ...] = ()
    default: Any = None
    required: bool = False
    fixed: bool = False


def read_templates(entries: object) -> tuple[Template, ...]:
    """Read ``Ups.Templates``. Raises ConfigurationError, which names the key."""
    if not isinstance(entries, (list, tuple)):
        raise ConfigurationError(f'"Ups.Templates" is {shown(entries)}, expected a list')
    templates = tuple(_template(entry, f"Ups.Templates[{index}]") for index, entry in enumerate(entries))
    names = [template.name for template in templates]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise ConfigurationError(f'"Ups.Templates" has two templates with the name "{duplicate}"')
    return templates


def _template(content: object, path: str) -> Template:
    entry = read_section(TemplateEntry, content, path)
    if not entry.name.strip():
        raise ConfigurationError(f'"{path}.Name" is {entry.name!r}, expected a name')
    fields = tuple(
        _field(keyword, value, f"{path}.Attributes.{keyword}") for keyword, value in entry.attributes.items()
    )
    return Template(entry.name.strip(), entry.description, fields, entry.late_after)


def late_policy(settings: Settings, templates: Sequence[Template]) -> LatePolicy:
    """When workitems are late: by the settings, or by the template that has their label and worklist."""
    graces = tuple(
        Grace(label, _default_of(template, tags.WORKLIST_LABEL), template.late_after)
        for template in templates
        if template.late_after is not None and (label := _default_of(template, tags.LABEL))
    )
    return LatePolicy(settings.late_after, settings.silent_after, graces)


def _default_of(template: Template, tag: str) -> str:
    """The initial text of an attribute in a template."""
    defaults = [attribute.default for attribute in template.fields if tag_of(attribute.keyword) == tag]
    return next((default for default in defaults if isinstance(default, str)), "")


_ATTRIBUTE_KEYS: Final = frozenset(map(key_of, AttributeEntry.__struct_fields__))


def _field(keyword: str, content: object, path: str) -> TemplateField:
    _check_keyword(keyword, path)
    if not isinstance(content, Mapping) or content.keys().isdisjoint(_ATTRIBUTE_KEYS):
        _check_below(content, path)
        return TemplateField(keyword, content)
    entry = read_section(AttributeEntry, content, path)
    for value in (*entry.choices, entry.default):
        _check_below(value, path)
    return TemplateField(keyword, entry.default, entry.choices, entry.required, entry.fixed)


def _check_keyword(keyword: str, where: str) -> None:
    if tag_of(keyword) is None:
        raise ConfigurationError(f'"{where}": {keyword} is not a keyword of the DICOM dictionary')


def _check_below(content: object, where: str) -> None:
    if isinstance(content, (list, tuple)):
        for member in content:
            _check_below(member, where)
    elif isinstance(content, Mapping) and not content.keys() <= {"Alphabetic", "Ideographic", "Phonetic"}:
        for keyword, member in content.items():
            _check_keyword(str(keyword), f"{where}.{keyword}")
            _check_below(member, f"{where}.{keyword}")


# --- placeholders ---


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """The values of the placeholders; ``now`` is aware."""

    now: datetime
    user: str
    new_uid: Callable[[], str]


def resolved(keyword: str, value: Any, context: TemplateContext) -> Any:
    """A value with its placeholders replaced, in items of sequences too."""
    if isinstance(value, (list, tuple)):
        return [resolved(keyword, member, context) for member in value]
    if isinstance(value, Mapping):
        return {key: resolved(str(key), member, context) for key, member in value.items()}
    return _resolved(_vr(keyword), value, context) if isinstance(value, str) else value


def _vr(keyword: str) -> str:
    tag = tag_of(keyword)
    return "" if tag is None else vr_of(tag)


def _resolved(vr: str, text: str, context: TemplateContext) -> str:
    if vr in ("DT", "DA", "TM"):
        return _moment(vr, text, context.now)
    if vr == "UI":
        return context.new_uid() if text == "new-uid" else text
    return context.user if text == "user" else text


def _moment(vr: str, text: str, now: datetime) -> str:
    parsed = _MOMENT.fullmatch(text.replace(" ", ""))
    if parsed is None:
        return text
    base = now if parsed[1] == "now" else now.replace(hour=0, minute=0, second=0)
    at = base.replace(microsecond=0)
    if parsed[2]:
        at += timedelta(**{_UNITS[parsed[3]]: int(parsed[2])})
    if vr == "DT":
        return date_time(at).replace(".000000", "")
    return f"{at:%Y%m%d}" if vr == "DA" else f"{at:%H%M%S}"
