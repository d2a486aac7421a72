# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.Templates``: what an operator starts from when making a workitem by hand.

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

A plain value is what the form begins with. An object with ``Choices``, ``Default``, ``Required`` or ``Fixed``
(shown but not to be changed) says more. Keywords are those of PS3.6; sequences are items of keywords.
Texts that stand for something else: ``now``, ``today`` (with an offset: ``now+2h``, ``today-1d``) in dates and
times, ``new-uid`` in UIDs, ``user`` in names and texts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from ..config import ConfigurationError, read_duration
from ..core import tags
from ..core.lateness import Grace, LatePolicy
from ..core.stamps import date_time
from ..settings import Settings
from .keyword_form import tag_of, vr_of

_KEYS: Final = ("Choices", "Default", "Required", "Fixed")
_MOMENT: Final = re.compile(r"(now|today)(?:([+-]\d{1,6})([smhdw]))?")
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True)
class TemplateField:
    """One attribute of a template.

    Attributes:
        keyword: of PS3.6.
        default: in keyword form, with texts that stand for something else; None if there is none.
        choices: the values to choose from; () for any.
        required: True if the form insists on a value.
        fixed: True if it is not to be changed.
    """

    keyword: str
    default: Any = None
    choices: tuple[Any, ...] = ()
    required: bool = False
    fixed: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """One entry of ``Ups.Templates``; ``late_after`` in seconds, None for ``Ups.LateAfter``."""

    name: str
    description: str
    fields: tuple[TemplateField, ...]
    late_after: float | None = None


def read_templates(entries: object) -> tuple[Template, ...]:
    """Read ``Ups.Templates``. Raises ConfigurationError that names the key."""
    if not isinstance(entries, (list, tuple)):
        raise ConfigurationError(f'"Ups.Templates" is {entries!r}, expected a list')
    templates = tuple(_template(entry, f"Ups.Templates[{index}]") for index, entry in enumerate(entries))
    names = [template.name for template in templates]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f'"Ups.Templates" has two templates with the name "{twice}"')
    return templates


def _template(entry: object, path: str) -> Template:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f'"{path}" is {entry!r}, expected an object')
    for key in entry:
        if key not in ("Name", "Description", "Attributes", "LateAfter"):
            raise ConfigurationError(
                f'unknown setting "{path}.{key}"; expected Name, Description, Attributes, LateAfter'
            )
    name, attributes = entry.get("Name"), entry.get("Attributes", {})
    if not isinstance(name, str) or not name.strip():
        raise ConfigurationError(f'"{path}.Name" is {name!r}, expected a string')
    if not isinstance(attributes, Mapping):
        raise ConfigurationError(f'"{path}.Attributes" is {attributes!r}, expected an object')
    fields = tuple(_field(str(key), content, f"{path}.Attributes") for key, content in attributes.items())
    late_after = entry.get("LateAfter")
    late = None if late_after is None else read_duration(late_after, f"{path}.LateAfter")
    return Template(name.strip(), str(entry.get("Description", "")), fields, late)


def late_policy(settings: Settings, templates: Sequence[Template]) -> LatePolicy:
    """When work is late: by the settings, and by templates for the workitems with their label and worklist."""
    graces = tuple(
        Grace(label, _default_of(template, tags.WORKLIST_LABEL), template.late_after)
        for template in templates
        if template.late_after is not None and (label := _default_of(template, tags.LABEL))
    )
    return LatePolicy(settings.late_after, settings.silent_after, graces)


def _default_of(template: Template, tag: str) -> str:
    """The text that a template begins an attribute with."""
    defaults = [field.default for field in template.fields if tag_of(field.keyword) == tag]
    return next((default for default in defaults if isinstance(default, str)), "")


def _field(keyword: str, content: object, path: str) -> TemplateField:
    where = f"{path}.{keyword}"
    _check_keyword(keyword, where)
    if not isinstance(content, Mapping) or not content.keys() & set(_KEYS):
        _check_below(content, where)
        return TemplateField(keyword, content)
    for key in content:
        if key not in _KEYS:
            raise ConfigurationError(f'unknown setting "{where}.{key}"; expected {", ".join(_KEYS)}')
    choices = content.get("Choices", ())
    if not isinstance(choices, (list, tuple)):
        raise ConfigurationError(f'"{where}.Choices" is {choices!r}, expected a list')
    for choice in (*choices, content.get("Default")):
        _check_below(choice, where)
    flags = (content.get("Required", False), content.get("Fixed", False))
    if not all(isinstance(flag, bool) for flag in flags):
        raise ConfigurationError(f'"{where}": Required and Fixed are true or false')
    return TemplateField(keyword, content.get("Default"), tuple(choices), *flags)


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


# --- texts that stand for something else ---


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """What the texts stand for: ``now`` is aware."""

    now: datetime
    user: str
    new_uid: Callable[[], str]


def resolved(keyword: str, value: Any, moment: TemplateContext) -> Any:
    """A value with the texts that stand for something else replaced, in items of sequences too."""
    if isinstance(value, (list, tuple)):
        return [resolved(keyword, member, moment) for member in value]
    if isinstance(value, Mapping):
        return {key: resolved(str(key), member, moment) for key, member in value.items()}
    return _resolved(_vr(keyword), value, moment) if isinstance(value, str) else value


def _vr(keyword: str) -> str:
    tag = tag_of(keyword)
    return "" if tag is None else vr_of(tag)


def _resolved(vr: str, text: str, moment: TemplateContext) -> str:
    if vr in ("DT", "DA", "TM"):
        return _moment(vr, text, moment.now)
    if vr == "UI":
        return moment.new_uid() if text == "new-uid" else text
    return moment.user if text == "user" else text


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
