# SPDX-License-Identifier: AGPL-3.0-or-later
"""Reads ``Ups.Rules``: a mistake raises an error that names the rule, the key, the value and what is expected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias
from urllib.parse import urlsplit

import msgspec
from msgspec import UNSET, Struct, UnsetType

from ..codecs.attribute_names import similar
from ..codecs.corrections import Corrections
from ..codecs.structs import WrongKeys, decode, shown, suggestion
from ..config import ConfigurationError
from ..core.attributes import prepare_create
from ..core.rules import ROOT, RULES
from ..core.states import State
from ..core.statuses import UpsError
from ..management.completion import for_creation
from ..management.keyword_form import keyword_of, tag_of, to_data_set, vr_of
from ..management.templates import Template, TemplateContext, TemplateField, resolved
from ..settings import key_of
from .causes import When, values_of
from .conditions import SPECIAL, RuleCondition, attribute_path, read_condition
from .faults import InvalidRuleValue
from .texts import OF_CAUSE, check_name, has_single_brace, names_in, nested

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
"""What can be referenced, by kind of cause; the first is the default of ``Inputs``."""

BY_DICOM: Final = "DICOM"
BY_WADO_RS: Final = "WADO-RS"
LATE: Final = ("nothing", "replace")


@dataclass(frozen=True, slots=True)
class CreateEffect:
    """Create a workitem.

    Attributes:
        attributes: in keyword form, with placeholders.
        inputs: one of REFERENCES, or ``none``.
        fields: fields of the template, with further attributes.
        replaces: True if images that arrive after the claim create a workitem that replaces the claimed one.
    """

    attributes: Mapping[str, Any]
    inputs: str
    fields: tuple[TemplateField, ...] = ()
    replaces: bool = False


@dataclass(frozen=True, slots=True)
class UpdateEffect:
    """Update scheduled workitems that match; ``add_inputs`` is one of REFERENCES, or ``none``."""

    matching: Mapping[str, Any]
    attributes: Mapping[str, Any]
    add_inputs: str


@dataclass(frozen=True, slots=True)
class CompleteEffect:
    """Claim and complete workitems that match.

    Attributes:
        outputs: one of REFERENCES, or ``none``.
        performed: further attributes of the item of Performed Procedure Sequence, in keyword form.
        also_claimed: True to complete also what a performer has claimed, on their behalf.
    """

    matching: Mapping[str, Any]
    outputs: str
    performed: Mapping[str, Any]
    also_claimed: bool


@dataclass(frozen=True, slots=True)
class CancelEffect:
    """Cancel scheduled workitems that match, and request cancellation of claimed ones from their performers."""

    matching: Mapping[str, Any]
    reason: str
    code: Mapping[str, Any]


Effect: TypeAlias = CreateEffect | UpdateEffect | CompleteEffect | CancelEffect


@dataclass(frozen=True, slots=True)
class SiteRule:
    """One entry of ``Ups.Rules``.

    Attributes:
        retrieve: ``DICOM``, or the base URL of a DICOMweb service for WADO-RS.
        path: its path in the configuration, such as ``Ups.Rules[0]``, for errors.
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
    """Read ``Ups.Rules``. ``public_url`` is ``Ups.PublicUrl``. Raises ConfigurationError."""
    if not isinstance(entries, (list, tuple)):
        raise ConfigurationError(f'"Ups.Rules" is {shown(entries)}, expected a list')
    rules = tuple(
        _Reader(entry, f"Ups.Rules[{index}]", templates, public_url).rule()
        for index, entry in enumerate(entries)
    )
    names = [rule.name for rule in rules]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate is not None:
        raise ConfigurationError(f'"Ups.Rules" has two rules with the name "{duplicate}"')
    return rules


_SET_BY_WORKLIST: Final = frozenset({"SOPClassUID", "SOPInstanceUID", "TransactionUID"})
_LONGEST_NAME: Final = 64
_EFFECTS: Final = ("Create", "Update", "Complete", "Cancel")
"""In the order in which they are carried out; Orthanc sorts the keys of its configuration, so theirs is lost."""


class CreateEntry(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """``Create`` of a rule as it is written."""

    template: str | UnsetType = UNSET
    attributes: Mapping[str, Any] = msgspec.field(default_factory=dict)
    inputs: str | UnsetType = UNSET
    late_instances: str = LATE[0]


class UpdateEntry(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """``Update`` of a rule as it is written."""

    matching: Mapping[str, Any] = msgspec.field(default_factory=dict)
    attributes: Mapping[str, Any] = msgspec.field(default_factory=dict)
    add_inputs: str = NO_REFERENCES


class CompleteEntry(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """``Complete`` of a rule as it is written."""

    matching: Mapping[str, Any] = msgspec.field(default_factory=dict)
    outputs: str = NO_REFERENCES
    performed: Mapping[str, Any] = msgspec.field(default_factory=dict)
    also_claimed: bool = False


class CancelEntry(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """``Cancel`` of a rule as it is written."""

    matching: Mapping[str, Any] = msgspec.field(default_factory=dict)
    reason: str = ""
    code: Mapping[str, Any] = msgspec.field(default_factory=dict)


class RuleEntry(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """One entry of ``Ups.Rules`` as it is written."""

    name: str
    when: str
    conditions: Mapping[str, Any] = msgspec.field(default_factory=dict, name="If")
    create: CreateEntry | UnsetType = UNSET
    update: UpdateEntry | UnsetType = UNSET
    complete: CompleteEntry | UnsetType = UNSET
    cancel: CancelEntry | UnsetType = UNSET
    enable: bool = True
    retrieve: str = BY_DICOM


class _Reader:
    """Reads and checks one rule."""

    def __init__(self, content: object, path: str, templates: Sequence[Template], public_url: str) -> None:
        self._path = path
        self._templates = templates
        self._public_url = public_url
        self._name = self._read_name(content)
        try:
            self._entry = decode(RuleEntry, content)
        except WrongKeys as error:
            raise self._wrong_keys(error) from None
        self._when = self._read_when()
        assert isinstance(content, Mapping)
        self._effects = [key for key in _EFFECTS if key in content]

    def rule(self) -> SiteRule:
        """The rule that was read."""
        entry = self._entry
        effects: Mapping[str, Callable[[], Effect]] = {
            "Create": self._create,
            "Update": self._update,
            "Complete": self._complete,
            "Cancel": self._cancel,
        }
        if not self._effects:
            raise self._error("", f"has no effect, expected {_listed(_EFFECTS)}")
        return SiteRule(
            self._name,
            self._when,
            conditions=tuple(self._condition(key, expected) for key, expected in entry.conditions.items()),
            effects=tuple(effects[key]() for key in self._effects),
            enabled=entry.enable,
            retrieve=self._read_retrieve(),
            path=self._path,
        )

    # --- errors ---

    def _error(self, key: str, words: str) -> ConfigurationError:
        path = f"{self._path}.{key}" if key else self._path
        rule = f' of the rule "{self._name}"' if self._name else ""
        return ConfigurationError(f'"{path}"{rule} {words}')

    def _wrong(self, key: str, value: object, expected: str, hint: str = "") -> ConfigurationError:
        return self._error(key, f"is {shown(value)}, expected {expected}{hint}")

    def _wrong_keys(self, error: WrongKeys) -> ConfigurationError:
        return ConfigurationError(
            "; ".join(
                f'unknown setting "{self._path}.{fault.path}" of the rule "{self._name}"{fault.reason}'
                if fault.is_unknown
                else str(self._error(fault.path, fault.reason))
                for fault in error.faults
            )
        )

    # --- plain values ---

    def _read_name(self, content: object) -> str:
        """Read the name, before anything else because all other errors mention it."""
        self._name = ""
        if not isinstance(content, Mapping):
            raise self._wrong("", content, "an object")
        name = content.get("Name")
        if not isinstance(name, str) or not name.strip() or not name.isprintable() or '"' in name:
            raise self._wrong("Name", name, "a text without quotation marks")
        if len(name.strip()) > _LONGEST_NAME or "/" in name:
            raise self._wrong("Name", name, f"at most {_LONGEST_NAME} characters without a slash")
        return name.strip()

    def _read_when(self) -> When:
        value, kinds = self._entry.when, [kind.value for kind in When]
        if value not in kinds:
            raise self._wrong("When", value, f"one of {_quoted(kinds)}", suggestion(value, kinds))
        return When(value)

    def _choice(self, value: str, key: str, choices: Sequence[str]) -> str:
        if value not in choices:
            raise self._wrong(key, value, _quoted(choices), suggestion(value, choices))
        return value

    def _references(self, value: str | UnsetType, key: str) -> str:
        choices = (*REFERENCES[self._when], NO_REFERENCES)
        if isinstance(value, UnsetType):
            return NO_REFERENCES if self._when is When.DELETED else choices[0]
        return self._choice(value, key, choices)

    def _read_retrieve(self) -> str:
        value = self._entry.retrieve
        if value == BY_DICOM:
            return BY_DICOM
        if value == BY_WADO_RS:
            if not self._public_url:
                raise self._error(
                    "Retrieve",
                    f'is "{BY_WADO_RS}", which needs "Ups.PublicUrl"; or write the URL of the service here',
                )
            return self._public_url.rstrip("/")
        if urlsplit(value).scheme not in ("http", "https"):
            raise self._wrong(
                "Retrieve", value, f'"{BY_DICOM}", "{BY_WADO_RS}", or a URL such as "https://host/dicom-web"'
            )
        return value.rstrip("/")

    # --- If ---

    def _condition(self, key: str, expected: object) -> RuleCondition:
        where = f"If.{key}"
        if key in (*OF_CAUSE, "Labels") and not self._when.is_of_images:
            raise self._error(where, f'is not available when "{self._when}": only images have it')
        try:
            return read_condition(key, expected)
        except LookupError as error:
            raise self._unknown(where, str(error.args[0]), SPECIAL) from None
        except InvalidRuleValue as error:
            value = expected if error.value is ... else error.value
            raise self._wrong(f"{where}.{error.key}" if error.key else where, value, error.expected) from None

    def _unknown(self, where: str, name: str, special: Iterable[str] = ()) -> ConfigurationError:
        hint = suggestion(name, special) or (f'; did you mean "{similar(name)}"?' if similar(name) else "")
        return self._error(where, f"has {name}, which is not a keyword of the DICOM dictionary{hint}")

    # --- effects ---

    def _create(self) -> CreateEffect:
        entry = self._entry.create
        assert isinstance(entry, CreateEntry)
        fields = () if isinstance(entry.template, UnsetType) else self._template(entry.template)
        attributes = self._attributes(entry.attributes, "Create.Attributes")
        self._check_creatable(attributes)
        names = {name.partition(".")[0] for name in (*attributes, *(field.keyword for field in fields))}
        if "ProcedureStepLabel" not in names:
            raise self._error(
                "Create.Attributes", "has no ProcedureStepLabel, which every workitem must have (type 1)"
            )
        inputs = self._references(entry.inputs, "Create.Inputs")
        late = self._choice(entry.late_instances, "Create.LateInstances", LATE)
        return CreateEffect(attributes, inputs, fields, replaces=late == LATE[1])

    def _check_creatable(self, attributes: Mapping[str, Any]) -> None:
        """Check all values that do not depend on the cause as N-CREATE does (PS3.4 Table CC.2.5-3)."""
        heads = {key: keyword_of(tag_of(key.partition(".")[0]) or "") for key in attributes}
        for key, head in heads.items():
            is_state = head == "ProcedureStepState" and attributes[key] != State.SCHEDULED.value
            if head in _SET_BY_WORKLIST or is_state:
                raise self._error(
                    f"Create.Attributes.{key}", "is set by the worklist, expected another attribute"
                )
        depending = {heads[key] for key, value in attributes.items() if any(True for _ in names_in(value))}
        depending.add("ReferencedRequestSequence")  # gets the study of the cause
        constant = {key: value for key, value in attributes.items() if heads[key] not in depending}
        now = datetime.now(UTC)
        context = TemplateContext(now, "", lambda: "2.25.1")
        content = nested(
            {key: resolved(key.rpartition(".")[2], value, context) for key, value in constant.items()}
        )
        dataset = to_data_set({"ProcedureStepLabel": "any", **content}, "", Corrections(lenient=True))
        try:
            prepare_create(for_creation(dataset, now), now, "")
        except UpsError as error:
            keyword = next((keyword_of(fault.path[:8]) for fault in error.faults if fault.path), "")
            if keyword in content:
                raise self._wrong(
                    f"Create.Attributes.{keyword}", content[keyword], f"another value: {error.detail}"
                ) from None

    def _template(self, name: str) -> tuple[TemplateField, ...]:
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
        raise self._wrong("Create.Template", name, expected, suggestion(name, names))

    def _update(self) -> UpdateEffect:
        entry = self._entry.update
        assert isinstance(entry, UpdateEntry)
        effect = UpdateEffect(
            self._matching(entry.matching, "Update"),
            self._attributes(entry.attributes, "Update.Attributes"),
            self._references(entry.add_inputs, "Update.AddInputs"),
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

    def _complete(self) -> CompleteEffect:
        entry = self._entry.complete
        assert isinstance(entry, CompleteEntry)
        return CompleteEffect(
            self._matching(entry.matching, "Complete"),
            self._references(entry.outputs, "Complete.Outputs"),
            self._attributes(entry.performed, "Complete.Performed"),
            entry.also_claimed,
        )

    def _cancel(self) -> CancelEffect:
        entry = self._entry.cancel
        assert isinstance(entry, CancelEntry)
        self._check_texts(entry.reason, "Cancel.Reason")
        code = self._attributes(entry.code, "Cancel.Code")
        if code and not {"CodeValue", "CodingSchemeDesignator", "CodeMeaning"} <= code.keys():
            raise self._error("Cancel.Code", "lacks CodeValue, CodingSchemeDesignator or CodeMeaning")
        return CancelEffect(self._matching(entry.matching, "Cancel"), entry.reason, code)

    def _matching(self, content: Mapping[str, Any], above: str) -> Mapping[str, Any]:
        matching = self._attributes(content, f"{above}.Matching")
        if not matching and self._when is not When.DELETED:
            raise self._error(
                f"{above}.Matching", "is empty and would match every workitem, expected at least one key"
            )
        self._check_keys_of_workitems(matching, (), f"{above}.Matching")
        return matching

    def _check_keys_of_workitems(
        self, content: Mapping[str, Any], above: tuple[str, ...], where: str
    ) -> None:
        """Refuse attributes that are not matching keys: they would match every workitem."""
        for key, value in content.items():
            path = (*above, *(tag_of(name) or "" for name in str(key).split(".")))
            rule = RULES.get(".".join(path))
            if rule is None or rule.match == "-":
                raise self._error(
                    f"{where}.{key}",
                    "is not a matching key of a workitem (PS3.4 Table CC.2.5-3), expected another one",
                )
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, Mapping) and rule.vr == "SQ":
                    self._check_keys_of_workitems(item, path, f"{where}.{key}")

    def _attributes(self, attributes: Mapping[str, Any], where: str) -> Mapping[str, Any]:
        """Check attributes, and return them by keyword, even if they are written as tags."""
        return {
            ".".join(self._check_attribute(key, value, f"{where}.{key}")): value
            for key, value in attributes.items()
        }

    def _check_attribute(self, key: str, value: object, where: str) -> tuple[str, ...]:
        try:
            path = attribute_path(key)
        except LookupError as error:
            raise self._unknown(where, str(error.args[0])) from None
        except InvalidRuleValue as error:
            raise self._wrong(where, key, error.expected) from None
        self._check_texts(value, where)
        self._check_below(path[-1], value, where)
        return path

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
        """Check a constant value now, so that the rule does not fail when it fires."""
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
        if has_single_brace(value):
            raise self._wrong(where, value, 'braces in pairs, such as "{PatientID}", and "{{" for a brace')
        for name in names_in(value):
            try:
                check_name(name, of_images=self._when.is_of_images)
            except LookupError as error:
                special = OF_CAUSE if self._when.is_of_images else ()
                raise self._unknown(where, str(error.args[0]).strip("{}"), special) from None
            except InvalidRuleValue as error:
                raise self._wrong(where, f"{{{name}}}", error.expected) from None


def _is_text_to_fill(value: object) -> bool:
    return isinstance(value, str) and value.startswith("{") and value.endswith("}")


def _quoted(choices: Iterable[str]) -> str:
    return _listed(f'"{choice}"' for choice in choices)


def _listed(choices: Iterable[str]) -> str:
    *first, last = choices
    return f"{', '.join(first)} or {last}" if first else last


# --- rules that fire themselves ---


def check_loops(rules: Sequence[SiteRule], worklist_label: str) -> None:
    """Refuse rules that create workitems whose ends fire them again, endlessly. Raises ConfigurationError.

    Only certain loops are refused here: the created workitem fits ``If`` whatever the cause was. A loop that depends
    on the cause is stopped when it occurs (``engine.py``).
    """
    ends = [rule for rule in rules if rule.enabled and rule.when in (When.COMPLETED, When.CANCELED)]
    successors = {
        rule.name: [successor for successor in ends if _always_fires(rule, successor, worklist_label)]
        for rule in ends
    }
    for rule in ends:
        chain = _chain_back(rule, successors)
        if chain:
            via = (
                f" by way of {', '.join(_quote(link.name) for link in chain[:-1])}" if len(chain) > 1 else ""
            )
            raise ConfigurationError(
                f'"{rule.path}.If" of the rule "{rule.name}" feeds itself{via}, endlessly: the end of the workitem '
                "that it creates fires it again; expected a condition that such a workitem does not fit"
            )


def _quote(name: str) -> str:
    return f'"{name}"'


def _chain_back(start: SiteRule, successors: Mapping[str, Sequence[SiteRule]]) -> tuple[SiteRule, ...]:
    """The rules that lead from ``start`` back to it; () if none do."""
    queue: list[tuple[SiteRule, ...]] = [(rule,) for rule in successors[start.name]]
    visited: set[str] = set()
    while queue:
        chain = queue.pop(0)
        last = chain[-1]
        if last is start:
            return chain
        if last.name not in visited:
            visited.add(last.name)
            queue += [(*chain, rule) for rule in successors[last.name]]
    return ()


def _always_fires(rule: SiteRule, successor: SiteRule, worklist_label: str) -> bool:
    """True if the end of each workitem that a rule creates fires another rule."""
    return any(
        all(_always_fits(condition, effect, worklist_label) for condition in successor.conditions)
        for effect in rule.effects
        if isinstance(effect, CreateEffect)
    )


_UNKNOWN: Final = object()


def _always_fits(condition: RuleCondition, effect: CreateEffect, worklist_label: str) -> bool:
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
"""Attributes that a created workitem gets from its cause, the worklist or its performer."""


def _constant(keyword: str, effect: CreateEffect, worklist_label: str) -> Any:
    """The value that every created workitem has; _UNKNOWN if it depends on the cause."""
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
