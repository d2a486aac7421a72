# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.Rules`` as it is read: every mistake is one line that names the rule, the key and what is expected."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

from ..codecs.attribute_names import similar
from ..codecs.structs import shown, suggestion
from ..config import ConfigurationError
from ..core.rules import ROOT, RULES
from ..core.statuses import UpsError
from ..management.keyword_form import tag_of, to_data_set, vr_of
from ..management.templates import Template, TemplateField
from .causes import When, values_of
from .conditions import SPECIAL, Faulty, RuleCondition, attribute_path, read_condition
from .texts import OF_CAUSE, check_name, names_in

NO_REFERENCES: Final = "none"
REFERENCES: Final[Mapping[When, tuple[str, ...]]] = {
    When.STORED_INSTANCE: ("instance", "series", "study"),
    When.STABLE_SERIES: ("series", "study"),
    When.STABLE_STUDY: ("study",),
    When.STABLE_PATIENT: ("patient",),
    When.COMPLETED: ("outputs", "inputs"),
    When.CANCELED: ("outputs", "inputs"),
    When.DELETED: ("inputs",),
}
"""What may be referenced because of which cause; the first is the default of ``AddInputs`` and ``Outputs``."""

BY_DICOM: Final = "DICOM"
BY_WADO_RS: Final = "WADO-RS"
LATE: Final = ("nothing", "replace")


@dataclass(frozen=True, slots=True)
class CreateEffect:
    """A workitem is created.

    Attributes:
        attributes: in keyword form with texts to be filled; those of the template are among ``fields``.
        inputs: one of REFERENCES, or ``none``.
        replaces: True if late instances of a claimed workitem make one that replaces it.
    """

    attributes: Mapping[str, Any]
    inputs: str
    fields: tuple[TemplateField, ...] = ()
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class UpdateEffect:
    """Scheduled workitems that match are updated; ``add_inputs`` is one of REFERENCES, or ``none``."""

    matching: Mapping[str, Any]
    attributes: Mapping[str, Any]
    add_inputs: str


@dataclass(frozen=True, slots=True)
class CompleteEffect:
    """Workitems that match are claimed and completed.

    Attributes:
        outputs: one of REFERENCES, or ``none``.
        performed: more of the item of Performed Procedure Sequence, in keyword form.
        also_claimed: True if those that a performer has claimed are completed on behalf.
    """

    matching: Mapping[str, Any]
    outputs: str
    performed: Mapping[str, Any]
    also_claimed: bool


@dataclass(frozen=True, slots=True)
class CancelEffect:
    """Workitems that match are canceled; of claimed ones the performer is asked."""

    matching: Mapping[str, Any]
    reason: str
    code: Mapping[str, Any]


Effect: TypeAlias = CreateEffect | UpdateEffect | CompleteEffect | CancelEffect


@dataclass(frozen=True, slots=True)
class SiteRule:
    """One entry of ``Ups.Rules``.

    Attributes:
        retrieve: ``DICOM``, or the base URL of a DICOMweb service for WADO-RS.
    """

    name: str
    when: When
    conditions: tuple[RuleCondition, ...] = ()
    effects: tuple[Effect, ...] = ()
    enabled: bool = True
    retrieve: str = BY_DICOM
    path: str = field(default="", compare=False)


def read_rules(
    entries: object, templates: Sequence[Template] = (), public_url: str = ""
) -> tuple[SiteRule, ...]:
    """Read ``Ups.Rules``. ``public_url`` is that of ``Ups.PublicUrl``. Raises ConfigurationError."""
    if not isinstance(entries, (list, tuple)):
        raise ConfigurationError(f'"Ups.Rules" is {shown(entries)}, expected a list')
    rules = tuple(
        _Reader(entry, f"Ups.Rules[{index}]", templates, public_url).rule()
        for index, entry in enumerate(entries)
    )
    names = [rule.name for rule in rules]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigurationError(f'"Ups.Rules" has two rules with the name "{twice}"')
    return rules


_KEYS: Final = ("Name", "When", "If", "Create", "Update", "Complete", "Cancel", "Enable", "Retrieve")
_EFFECTS: Final = ("Create", "Update", "Complete", "Cancel")
_LONGEST_NAME: Final = 64


class _Reader:
    """Reads one rule."""

    def __init__(self, entry: object, path: str, templates: Sequence[Template], public_url: str) -> None:
        self._path = path
        self._templates = templates
        self._public_url = public_url
        self._name = ""
        self._entry = self._object(entry, "")
        self._when = When.STORED_INSTANCE

    def rule(self) -> SiteRule:
        """The rule."""
        self._name = self._read_name()
        self._check_keys(self._entry, _KEYS, "")
        self._when = self._read_when()
        effects = tuple(
            getattr(self, f"_{key.lower()}")(self._object(content, key))
            for key, content in self._entry.items()
            if key in _EFFECTS
        )
        if not effects:
            raise self._error("", f"has no effect, expected {_listed(_EFFECTS)}")
        conditions = tuple(
            self._condition(str(key), expected)
            for key, expected in self._object(self._entry.get("If", {}), "If").items()
        )
        return SiteRule(
            self._name,
            self._when,
            conditions,
            effects,
            self._flag(self._entry, "Enable", "", default=True),
            self._read_retrieve(),
            self._path,
        )

    # --- errors ---

    def _error(self, key: str, words: str) -> ConfigurationError:
        path = f"{self._path}.{key}" if key else self._path
        rule = f' of the rule "{self._name}"' if self._name else ""
        return ConfigurationError(f'"{path}"{rule} {words}')

    def _wrong(self, key: str, value: object, expected: str, hint: str = "") -> ConfigurationError:
        return self._error(key, f"is {shown(value)}, expected {expected}{hint}")

    # --- plain values ---

    def _object(self, value: object, key: str) -> Mapping[str, Any]:
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "an object")
        return value

    def _check_keys(self, content: Mapping[str, Any], keys: Sequence[str], above: str) -> None:
        for key in content:
            if key not in keys:
                rule = f' of the rule "{self._name}"' if self._name else ""
                path = ".".join(part for part in (self._path, above, str(key)) if part)
                hint = suggestion(str(key), keys) or f"; expected {_listed(keys)}"
                raise ConfigurationError(f'unknown setting "{path}"{rule}{hint}')

    def _flag(self, content: Mapping[str, Any], key: str, above: str, *, default: bool) -> bool:
        value = content.get(key, default)
        if not isinstance(value, bool):
            raise self._wrong(f"{above}.{key}".strip("."), value, "true or false")
        return value

    def _choice(
        self, content: Mapping[str, Any], key: str, above: str, choices: Sequence[str], default: str
    ) -> str:
        value = content.get(key, default)
        if value not in choices:
            hint = suggestion(value, choices) if isinstance(value, str) else ""
            raise self._wrong(f"{above}.{key}", value, _quoted(choices), hint)
        return str(value)

    def _read_name(self) -> str:
        name = self._entry.get("Name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or '"' in name:
            raise self._wrong("Name", name, "a text without quotation marks")
        if len(name.strip()) > _LONGEST_NAME or "/" in name:
            raise self._wrong("Name", name, f"at most {_LONGEST_NAME} characters without slash")
        return name.strip()

    def _read_when(self) -> When:
        value = self._entry.get("When")
        kinds = [kind.value for kind in When]
        if value not in kinds:
            hint = suggestion(value, kinds) if isinstance(value, str) else ""
            raise self._wrong("When", value, f"one of {_quoted(kinds)}", hint)
        return When(value)

    def _read_retrieve(self) -> str:
        value = self._entry.get("Retrieve", BY_DICOM)
        if value == BY_DICOM:
            return BY_DICOM
        if value == BY_WADO_RS:
            if not self._public_url:
                raise self._error(
                    "Retrieve",
                    f'is "{BY_WADO_RS}", which needs "Ups.PublicUrl", or the URL of the service here',
                )
            return self._public_url.rstrip("/")
        if not isinstance(value, str) or urlsplit(value).scheme not in ("http", "https"):
            raise self._wrong(
                "Retrieve", value, f'"{BY_DICOM}", "{BY_WADO_RS}", or a URL such as "https://host/dicom-web"'
            )
        return value.rstrip("/")

    # --- If ---

    def _condition(self, key: str, expected: object) -> RuleCondition:
        where = f"If.{key}"
        if key in (*OF_CAUSE, "Labels") and not self._when.is_of_images:
            raise self._error(where, f'cannot be known when "{self._when}": it is of images that arrive')
        try:
            return read_condition(key, expected)
        except LookupError as error:
            raise self._unknown(where, str(error.args[0]), SPECIAL) from None
        except Faulty as error:
            value = expected if error.value is ... else error.value
            raise self._wrong(f"{where}.{error.key}" if error.key else where, value, error.expected) from None

    def _unknown(self, where: str, name: str, others: Iterable[str] = ()) -> ConfigurationError:
        close = suggestion(name, others) or (f'; did you mean "{similar(name)}"?' if similar(name) else "")
        return self._error(where, f"has {name}, which is no keyword of the DICOM dictionary{close}")

    # --- effects ---

    def _create(self, content: Mapping[str, Any]) -> CreateEffect:
        self._check_keys(content, ("Template", "Attributes", "Inputs", "LateInstances"), "Create")
        fields = self._template(content["Template"]) if "Template" in content else ()
        attributes = self._attributes(content.get("Attributes", {}), "Create.Attributes")
        named = {name.partition(".")[0] for name in (*attributes, *(field.keyword for field in fields))}
        if "ProcedureStepLabel" not in named:
            raise self._error(
                "Create.Attributes", "has no ProcedureStepLabel, which every workitem must have (type 1)"
            )
        late = self._choice(content, "LateInstances", "Create", LATE, LATE[0])
        return CreateEffect(
            attributes, self._references(content, "Inputs", "Create"), fields, late == LATE[1]
        )

    def _template(self, name: object) -> tuple[TemplateField, ...]:
        for template in self._templates:
            if template.name == name:
                for of_template in template.fields:
                    self._check_texts(of_template.default, f"Create.Template.{of_template.keyword}")
                return template.fields
        names = [template.name for template in self._templates]
        expected = (
            f"a name of Ups.Templates: {_quoted(names)}"
            if names
            else 'a name of "Ups.Templates", which is empty'
        )
        hint = suggestion(name, names) if isinstance(name, str) else ""
        raise self._wrong("Create.Template", name, expected, hint)

    def _update(self, content: Mapping[str, Any]) -> UpdateEffect:
        self._check_keys(content, ("Matching", "Attributes", "AddInputs"), "Update")
        effect = UpdateEffect(
            self._matching(content, "Update"),
            self._attributes(content.get("Attributes", {}), "Update.Attributes"),
            self._references(content, "AddInputs", "Update", NO_REFERENCES),
        )
        if not effect.attributes and effect.add_inputs == NO_REFERENCES:
            raise self._error("Update", "changes nothing, expected Attributes or AddInputs")
        for name in effect.attributes:
            tag = tag_of(name.partition(".")[0]) or ""
            if tag in ROOT.update.refused:
                raise self._error(
                    f"Update.Attributes.{name}",
                    "cannot be updated (PS3.4 Table CC.2.5-3), expected another attribute",
                )
        return effect

    def _complete(self, content: Mapping[str, Any]) -> CompleteEffect:
        self._check_keys(content, ("Matching", "Outputs", "Performed", "AlsoClaimed"), "Complete")
        return CompleteEffect(
            self._matching(content, "Complete"),
            self._references(content, "Outputs", "Complete", NO_REFERENCES),
            self._attributes(content.get("Performed", {}), "Complete.Performed"),
            self._flag(content, "AlsoClaimed", "Complete", default=False),
        )

    def _cancel(self, content: Mapping[str, Any]) -> CancelEffect:
        self._check_keys(content, ("Matching", "Reason", "Code"), "Cancel")
        reason = content.get("Reason", "")
        if not isinstance(reason, str):
            raise self._wrong("Cancel.Reason", reason, "a text")
        self._check_texts(reason, "Cancel.Reason")
        code = self._attributes(content.get("Code", {}), "Cancel.Code")
        return CancelEffect(self._matching(content, "Cancel"), reason, code)

    def _references(
        self, content: Mapping[str, Any], key: str, above: str, default: str | None = None
    ) -> str:
        choices = (*REFERENCES[self._when], NO_REFERENCES)
        usual = NO_REFERENCES if self._when is When.DELETED else choices[0]
        return self._choice(content, key, above, choices, usual if default is None else default)

    def _matching(self, content: Mapping[str, Any], above: str) -> Mapping[str, Any]:
        matching = self._attributes(content.get("Matching", {}), f"{above}.Matching")
        if not matching and self._when is not When.DELETED:
            raise self._error(
                f"{above}.Matching", "is empty, expected at least one key: it would be about every workitem"
            )
        self._check_keys_of_workitems(matching, (), f"{above}.Matching")
        return matching

    def _check_keys_of_workitems(
        self, content: Mapping[str, Any], above: tuple[str, ...], where: str
    ) -> None:
        """Whatever is no matching key would match every workitem."""
        for key, value in content.items():
            path = (*above, *(tag_of(name) or "" for name in str(key).split(".")))
            rule = RULES.get(".".join(path))
            if rule is None or rule.match == "-":
                raise self._error(
                    f"{where}.{key}",
                    "is no matching key of a workitem (PS3.4 Table CC.2.5-3), expected another one",
                )
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Mapping) and rule.vr == "SQ":
                    self._check_keys_of_workitems(item, path, f"{where}.{key}")

    def _attributes(self, content: object, where: str) -> Mapping[str, Any]:
        attributes = self._object(content, where)
        for key, value in attributes.items():
            self._check_attribute(str(key), value, f"{where}.{key}")
        return attributes

    def _check_attribute(self, key: str, value: object, where: str) -> None:
        try:
            path = attribute_path(key)
        except LookupError as error:
            raise self._unknown(where, str(error.args[0])) from None
        except Faulty as error:
            raise self._wrong(where, key, error.expected) from None
        self._check_texts(value, where)
        self._check_below(path[-1], value, where)

    def _check_below(self, keyword: str, value: object, where: str) -> None:
        tag = tag_of(keyword) or ""
        is_sequence = vr_of(tag) == "SQ"
        for member in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(member, Mapping) and is_sequence:
                for name, below in member.items():
                    self._check_attribute(str(name), below, f"{where}.{name}")
            elif is_sequence and member not in (None, "") and not _is_text_to_fill(member):
                raise self._wrong(where, member, "items of a sequence: objects of attributes by keyword")
            elif not is_sequence:
                self._check_value(tag, keyword, member, where)

    def _check_value(self, tag: str, keyword: str, value: object, where: str) -> None:
        """What is written as it stands must be of the right kind, so that it fails now and not at night."""
        if isinstance(value, str) and ("{" in value or "*" in value or "?" in value or "-" in value):
            return  # filled in later, or a matching key
        if isinstance(value, str) and (vr_of(tag) in ("DT", "DA", "TM", "UI") or value == "user"):
            return
        rule = ROOT.rules.get(tag)
        if rule is not None and rule.values and value not in (None, "", *rule.values):
            hint = suggestion(value, rule.values) if isinstance(value, str) else ""
            raise self._wrong(where, value, _quoted(rule.values), hint)
        try:
            to_data_set({keyword: value})
        except UpsError as error:
            raise self._wrong(where, value, f"a value of {vr_of(tag)}: {error.detail}") from None

    def _check_texts(self, value: object, where: str) -> None:
        for name in names_in(value):
            try:
                check_name(name, of_images=self._when.is_of_images)
            except LookupError as error:
                others = OF_CAUSE if self._when.is_of_images else ()
                raise self._unknown(where, f"{{{error.args[0]}}}".strip("{}"), others) from None
            except Faulty as error:
                raise self._wrong(where, f"{{{name}}}", error.expected) from None


def _is_text_to_fill(value: object) -> bool:
    return isinstance(value, str) and value.startswith("{") and value.endswith("}")


def _quoted(choices: Iterable[str]) -> str:
    return _listed(f'"{choice}"' for choice in choices)


def _listed(choices: Iterable[str]) -> str:
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last


# --- rules that feed themselves ---


def check_loops(rules: Sequence[SiteRule], worklist_label: str) -> None:
    """Refuse rules that make workitems whose ends fire them again, for ever. Raises ConfigurationError.

    Only what is certain is refused here: the created workitem fits ``If`` whatever the cause was. What depends on
    the cause is stopped while it runs (``engine.py``).
    """
    ends = [rule for rule in rules if rule.enabled and rule.when in (When.COMPLETED, When.CANCELED)]
    feeds = {rule.name: [other for other in ends if _feeds(rule, other, worklist_label)] for rule in ends}
    for rule in ends:
        chain = _chain_back(rule, feeds)
        if chain:
            words = (
                "itself: the workitem that it creates fires it again"
                if len(chain) == 1
                else f"itself by way of {', '.join(_quote(link.name) for link in chain[:-1])}"
            )
            raise ConfigurationError(
                f'"{rule.path}.If" of the rule "{rule.name}" feeds {words} when it ends, without end; '
                "expected a condition that such a workitem does not fit"
            )


def _quote(name: str) -> str:
    return f'"{name}"'


def _chain_back(start: SiteRule, feeds: Mapping[str, Sequence[SiteRule]]) -> tuple[SiteRule, ...]:
    """The rules from ``start`` back to it; () if none leads back."""
    waiting: list[tuple[SiteRule, ...]] = [(rule,) for rule in feeds[start.name]]
    visited: set[str] = set()
    while waiting:
        chain = waiting.pop(0)
        last = chain[-1]
        if last is start:
            return chain
        if last.name not in visited:
            visited.add(last.name)
            waiting += [(*chain, rule) for rule in feeds[last.name]]
    return ()


def _feeds(rule: SiteRule, other: SiteRule, worklist_label: str) -> bool:
    creates = [effect for effect in rule.effects if isinstance(effect, CreateEffect)]
    return any(all(_certain(test, effect, worklist_label) for test in other.conditions) for effect in creates)


_UNKNOWN: Final = object()


def _certain(condition: RuleCondition, effect: CreateEffect, worklist_label: str) -> bool:
    """True if the end of each workitem that the effect creates fits a condition."""
    if condition.of_cause is not None:
        return False
    value = _constant(condition.path[0], effect, worklist_label)
    if value is _UNKNOWN:
        return False
    if len(condition.path) > 1 and any(True for _ in names_in(value)):
        return False

    return condition.fits(values_of({condition.path[0]: value}, condition.path))


_OF_CAUSE_CONTENT: Final = frozenset(
    {
        "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "AdmissionID",
        "StudyInstanceUID", "ReferencedRequestSequence", "InputInformationSequence", "SOPInstanceUID",
        "UnifiedProcedureStepPerformedProcedureSequence", "ProcedureStepProgressInformationSequence",
        "ProcedureStepState", "ScheduledProcedureStepModificationDateTime", "ScheduledProcedureStepStartDateTime",
    }
)  # fmt: skip
"""What a created workitem has from its cause, from us or from its performer."""


def _constant(keyword: str, effect: CreateEffect, worklist_label: str) -> Any:
    """The value that every created workitem has; _UNKNOWN if that depends."""
    defaults = {of_template.keyword: of_template.default for of_template in effect.fields}
    written = {**defaults, **effect.attributes}
    if any(name.startswith(f"{keyword}.") for name in written):
        return _UNKNOWN
    if keyword in written:
        value = written[keyword]
        is_moment = vr_of(tag_of(keyword) or "") in ("DA", "DT", "TM", "UI")
        depends = is_moment or value == "user" or any(True for _ in names_in(value))
        return _UNKNOWN if depends else value
    if keyword in _OF_CAUSE_CONTENT:
        return _UNKNOWN
    usual = {
        "WorklistLabel": worklist_label,
        "ScheduledProcedureStepPriority": "MEDIUM",
        "InputReadinessState": "READY",
    }
    return usual.get(keyword)
