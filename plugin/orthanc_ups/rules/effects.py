# SPDX-License-Identifier: AGPL-3.0-or-later
"""The effects of rules on the worklist. Each is an ordinary command, and harmless when repeated.

The UID of a created workitem is derived from the rule and its cause, so a repeat finds it. Any other effect names its
rule and cause in the history of the workitem, by which a repeat is recognized.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from ..codecs.corrections import Corrections
from ..core import statuses, tags
from ..core.commands import ChangeState, Close, Create, RequestCancel, Requester, Update
from ..core.dataset import DataSet, element, is_empty, items, ordered, text
from ..core.matching import Query
from ..core.reasons import discreet
from ..core.states import State
from ..core.statuses import UpsError
from ..core.workitem import Workitem
from ..management.completion import for_creation, for_update, performed
from ..management.keyword_form import keyword_of, to_data_set, to_keywords
from ..management.templates import TemplateContext, resolved
from .archive import Archive
from .causes import ARRIVED, IS_STABLE, Cause, When, values_of
from .conditions import attribute_path
from .definitions import (
    NO_REFERENCES,
    CancelEffect,
    CompleteEffect,
    CreateEffect,
    Effect,
    SiteRule,
    UpdateEffect,
)
from .texts import filled, names_in, nested
from .worklist_access import WorklistAccess

_log = logging.getLogger("orthanc_ups.rules")
VIA: Final = "rules"
INPUT: Final = "00404021"
OUTPUT: Final = "00404033"
REPLACED: Final = "00741224"
_REFERENCED: Final = "00081199"
_INSTANCE: Final = "00081155"
_GENERATIONS: Final = 1000
_TARGETS_AT_ONCE: Final = 1000
_PATIENT: Final = ("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex")
_REQUEST: Final = (
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "RequestedProcedureID",
    "RequestedProcedureDescription",
    "RequestedProcedureCodeSequence",
    "ReferringPhysicianName",
)
_OF_WORKITEM: Final = (
    *_PATIENT,
    "IssuerOfPatientIDQualifiersSequence",
    "OtherPatientIDsSequence",
    "AdmissionID",
    "IssuerOfAdmissionIDSequence",
    "StudyInstanceUID",
    "ReferencedRequestSequence",
)
_OPEN: Final = (State.SCHEDULED, State.IN_PROGRESS)
_BY_RULE: Final = re.compile(r'rule "(.+?)": (.*)', re.DOTALL)
_ENDED: Final = re.compile(r"workitem (\S+) is ")


class Refusals(Exception):
    """Some effects of a rule were refused. ``done`` describes those that were carried out."""

    def __init__(self, errors: Sequence[str], done: Sequence[str]) -> None:
        super().__init__("; ".join(errors))
        self.errors, self.done = tuple(errors), tuple(done)


def is_transient(error: UpsError) -> bool:
    """True if a command should be tried again, because it is not possible now or its outcome is unknown."""
    if error.status is statuses.RESOURCE_LIMITATION:
        return "is full" not in error.detail
    return error.status is statuses.PROCESSING_FAILURE and "does not answer" in error.detail


def derived_uid(identity: str, rule: str, key: str, generation: int = 0) -> str:
    """The UID of the workitem that a rule creates for a cause (PS3.5 §B.2)."""
    seed = "\0".join((identity, rule, key, str(generation)))
    digest = bytearray(hashlib.sha256(seed.encode()).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80  # version 8, a UUID of custom form (RFC 9562)
    digest[8] = (digest[8] & 0x3F) | 0x80
    return f"2.25.{int.from_bytes(digest, 'big')}"


def reason(rule: SiteRule, cause: Cause) -> str:
    """The reason in histories: the rule and the cause."""
    return f'rule "{rule.name}": {cause.description}'


def _reason_of(workitem: Workitem) -> tuple[str, str] | None:
    """The rule that created a workitem, and the description of the cause; None if no rule did."""
    first = workitem.history[0] if workitem.history else None
    if first is None or first.what != "created" or not first.who.endswith(f" by {VIA}"):
        return None
    match = _BY_RULE.fullmatch(first.why)
    return (match[1], match[2]) if match is not None else None


def is_of_images(workitem: Workitem) -> bool:
    """True if a rule created a workitem because of images in the archive."""
    reason = _reason_of(workitem)
    return reason is not None and reason[1].endswith((ARRIVED, IS_STABLE))


def origin_of(workitem: Workitem) -> tuple[str, str] | None:
    """The rule that created a workitem, and the UID of the workitem whose end was the cause ("" for another cause)."""
    reason = _reason_of(workitem)
    if reason is None:
        return None
    ended = _ENDED.match(reason[1])
    return reason[0], ended[1] if ended else ""


class Effects:
    """Carries out the effects of rules, or previews them."""

    def __init__(
        self, worklist: WorklistAccess, archive: Archive, own_ae: str, *, strict: bool = False
    ) -> None:
        self._worklist = worklist
        self._archive = archive
        self._own_ae = own_ae
        self._strict = strict

    async def carry_out(self, rule: SiteRule, cause: Cause) -> list[tuple[str, str]]:
        """Carry out all effects of a rule.

        Returns pairs of kind and description: ``("created", "created workitem 2.25.7")``.

        Raises:
            Refusals: some of them were refused.
            UpsError, StoreUnavailable: not possible now; try again later.
        """
        done: list[tuple[str, str]] = []
        errors: list[str] = []
        for effect in rule.effects:
            try:
                done += await self._carry_out_effect(rule, cause, effect)
            except Refusals as refusals:
                errors += refusals.errors
            except UpsError as error:
                if is_transient(error):
                    raise
                errors.append(error.detail)
        if errors:
            raise Refusals(errors, [words for _, words in done])
        return done

    async def _carry_out_effect(self, rule: SiteRule, cause: Cause, effect: Effect) -> list[tuple[str, str]]:
        if isinstance(effect, CreateEffect):
            return await self._create(rule, cause, effect)
        done: list[tuple[str, str]] = []
        errors: list[str] = []
        for target in await self._targets(effect, cause):
            try:
                words = await self._change(rule, cause, effect, target)
            except UpsError as error:
                if is_transient(error):
                    raise
                errors.append(f"workitem {target.uid}: {error.detail}")
            else:
                if words:
                    done.append((words.partition(" ")[0], words))
        if errors:
            raise Refusals(errors, [words for _, words in done])
        return done

    async def preview(self, rule: SiteRule, cause: Cause) -> list[str]:
        """Describe what a rule would do now."""
        would: list[str] = []
        for effect in rule.effects:
            if isinstance(effect, CreateEffect):
                would.append(self._creation_in_words(rule, cause))
                continue
            try:
                targets = await self._targets(effect, cause)
            except UpsError as error:
                would.append(f"nothing: {error.detail}")
                continue
            verb = {UpdateEffect: "update", CompleteEffect: "complete", CancelEffect: "cancel"}[type(effect)]
            would += [f"{verb} workitem {target.uid} ({target.state.value})" for target in targets]
            if not targets:
                would.append(f"{verb} nothing: no workitem matches")
        return would

    def _creation_in_words(self, rule: SiteRule, cause: Cause) -> str:
        uids = self._derived_uids(rule, cause)
        for uid in uids:
            workitem = self._worklist.workitem(uid)
            if workitem is not None:
                return f"create nothing: workitem {uid} already exists ({workitem.state.value})"
            if self._worklist.is_gone(uid):
                return f"create nothing: workitem {uid} existed and was purged"
        return f"create workitem {uids[0]}"

    # --- Create ---

    async def _create(self, rule: SiteRule, cause: Cause, effect: CreateEffect) -> list[tuple[str, str]]:
        inputs = await self._references(effect.inputs, rule, cause)
        former: Workitem | None = None
        for generation in range(_GENERATIONS):
            uids = self._derived_uids(rule, cause, generation)
            workitem = next(filter(None, map(self._worklist.workitem, uids)), None)
            if workitem is None:
                if any(map(self._worklist.is_gone, uids)):
                    return []
                return [await self._create_workitem(rule, cause, effect, uids[0], inputs, former)]
            if not inputs or _instances(workitem.attributes, INPUT) == _instances(
                {INPUT: element("SQ", *inputs)}, INPUT
            ):
                return []
            if workitem.state is State.SCHEDULED:
                command = Update(
                    self._requester(rule, cause), workitem.uid, for_update({INPUT: element("SQ", *inputs)})
                )
                await self._worklist.execute(command)
                return [("updated", f"updated the inputs of workitem {workitem.uid}")]
            if not effect.replaces:
                return []
            former = workitem
        return []

    def _derived_uids(self, rule: SiteRule, cause: Cause, generation: int = 0) -> list[str]:
        """The UID of the workitem to create, then those that it may have if it was imported."""
        return [
            derived_uid(identity, rule.name, cause.key, generation) for identity in self._worklist.identities
        ]

    async def _create_workitem(
        self,
        rule: SiteRule,
        cause: Cause,
        effect: CreateEffect,
        uid: str,
        inputs: Sequence[DataSet],
        former: Workitem | None,
    ) -> tuple[str, str]:
        of_cause = _attributes_of(cause)
        content = {**of_cause, **self._filled_attributes(effect, cause)}
        if former is not None:
            content["ReplacedProcedureStepSequence"] = [
                {"ReferencedSOPClassUID": tags.PUSH, "ReferencedSOPInstanceUID": former.uid}
            ]
        try:
            await self._execute_create(rule, cause, uid, content, inputs)
        except UpsError as error:
            if error.status is statuses.DUPLICATE_INSTANCE:
                return "repeated", f"workitem {uid} was created in the meantime"
            faulty = _faulty_keywords(error) & (of_cause.keys() - effect.attributes.keys())
            if is_transient(error) or not faulty:
                raise
            _log.warning(
                'Rule "%s": %s: %s; creating the workitem without these attributes',
                rule.name,
                cause.description,
                error.detail,
            )
            sound = {name: value for name, value in content.items() if name not in faulty}
            await self._execute_create(rule, cause, uid, sound, inputs)
        return "created", f"created workitem {uid}"

    async def _execute_create(
        self, rule: SiteRule, cause: Cause, uid: str, content: Mapping[str, Any], inputs: Sequence[DataSet]
    ) -> None:
        corrections = Corrections(lenient=not self._strict)
        dataset = to_data_set(_with_study(content, self._worklist), "", corrections)
        if inputs and is_empty(dataset.get(INPUT)):
            dataset = ordered({**dataset, INPUT: element("SQ", *inputs)})
        complete = for_creation(dataset, self._worklist.now())
        await self._worklist.execute(
            Create(self._requester(rule, cause), uid, complete, corrections.sentences)
        )

    def _filled_attributes(self, effect: CreateEffect, cause: Cause) -> dict[str, Any]:
        defaults = {field.keyword: field.default for field in effect.fields if field.default is not None}
        fixed = {field.keyword for field in effect.fields if field.fixed}
        own = {name: value for name, value in effect.attributes.items() if name not in fixed}
        return self._filled({**defaults, **own}, cause)

    def _filled(self, attributes: Mapping[str, Any], cause: Cause) -> dict[str, Any]:
        """The attributes of a rule, with placeholders replaced."""
        return nested({name: self._text(name, value, cause) for name, value in attributes.items()})

    def _text(self, name: str, value: object, cause: Cause) -> Any:
        keyword = name.rpartition(".")[2]
        context = TemplateContext(self._worklist.now(), "", self._worklist.new_uid)
        return resolved(keyword, filled(keyword, value, cause), context)

    def _key(self, name: str, value: object, cause: Cause) -> Any:
        """A matching key, with placeholders replaced. Raises UpsError like ``_check_key``."""
        _check_key(name, value, cause)
        return self._text(name, value, cause)

    # --- Update, Complete, Cancel ---

    async def _targets(
        self, effect: UpdateEffect | CompleteEffect | CancelEffect, cause: Cause
    ) -> list[Workitem]:
        """The workitems that match an effect. Raises UpsError if this cause cannot fill the matching keys."""
        keys = to_data_set(
            nested({name: self._key(name, value, cause) for name, value in effect.matching.items()})
        )
        if not keys:
            return [cause.workitem] if cause.workitem is not None else []
        states = (State.SCHEDULED,) if isinstance(effect, UpdateEffect) else _OPEN
        targets: list[Workitem] = []
        for state in states:
            identifier = ordered({**keys, tags.STATE: element("CS", state.value)})
            query = Query.of(identifier, timezone=self._worklist.now().tzinfo)
            targets += await self._worklist.matching(query, _TARGETS_AT_ONCE)
        if cause.when is When.DELETED and cause.workitem is not None:
            targets = [target for target in targets if target.uid == cause.workitem.uid]
        return targets

    async def _change(
        self,
        rule: SiteRule,
        cause: Cause,
        effect: UpdateEffect | CompleteEffect | CancelEffect,
        target: Workitem,
    ) -> str:
        """Apply an effect to a workitem. Returns a description, empty if there was nothing to do."""
        if isinstance(effect, UpdateEffect):
            return await self._update(rule, cause, effect, target)
        if isinstance(effect, CompleteEffect):
            return await self._complete(rule, cause, effect, target)
        return await self._cancel(rule, cause, effect, target)

    async def _update(self, rule: SiteRule, cause: Cause, effect: UpdateEffect, target: Workitem) -> str:
        if target.state is not State.SCHEDULED:
            return ""
        changes: DataSet = {}
        if not _history_has(target, reason(rule, cause)):
            content = self._filled(effect.attributes, cause)
            changes = to_data_set(content, "", Corrections(lenient=not self._strict))
        added = await self._references(effect.add_inputs, rule, cause)
        merged = merged_references(items(target.attributes, INPUT), added)
        if merged != items(target.attributes, INPUT):
            changes = {**changes, INPUT: element("SQ", *merged)}
        changes = {tag: change for tag, change in changes.items() if target.attributes.get(tag) != change}
        if not changes:
            return ""
        await self._worklist.execute(
            Update(self._requester(rule, cause), target.uid, for_update(ordered(changes)))
        )
        return f"updated workitem {target.uid}"

    async def _complete(self, rule: SiteRule, cause: Cause, effect: CompleteEffect, target: Workitem) -> str:
        requester = self._requester(rule, cause)
        if target.state is State.SCHEDULED:
            claim = ChangeState(requester, target.uid, State.IN_PROGRESS.value, self._worklist.new_uid())
            await self._worklist.execute(claim)
        elif not effect.also_claimed and not _history_has(target, reason(rule, cause), "claimed"):
            return ""
        claimed = self._worklist.workitem(target.uid)
        if claimed is None or claimed.state is not State.IN_PROGRESS:
            return ""
        offered = performed(claimed, self._worklist.now(), self._own_ae)
        outputs = merged_references(
            items(offered, OUTPUT), await self._references(effect.outputs, rule, cause)
        )
        own = to_data_set(self._filled(effect.performed, cause), "", Corrections(lenient=not self._strict))
        item = ordered({**offered, OUTPUT: element("SQ", *outputs), **own})
        attributes = for_update({tags.PERFORMED_PROCEDURE: element("SQ", item)})
        await self._worklist.execute(Close(requester, target.uid, State.COMPLETED.value, attributes))
        return f"completed workitem {target.uid}"

    async def _cancel(self, rule: SiteRule, cause: Cause, effect: CancelEffect, target: Workitem) -> str:
        words = str(filled("ReasonForCancellation", effect.reason, cause)).strip()
        why = f"{words} ({reason(rule, cause)})" if words else reason(rule, cause)
        information: DataSet = {tags.REASON_FOR_CANCELLATION: element("LT", why)}
        if effect.code:
            code = to_data_set(self._filled(effect.code, cause))
            information[tags.DISCONTINUATION_REASONS] = element("SQ", code)
        if target.state is State.IN_PROGRESS and any(why in entry.why for entry in target.history):
            return ""  # the performer has been asked already
        await self._worklist.execute(
            RequestCancel(self._requester(rule, cause), target.uid, ordered(information))
        )
        verb = "canceled" if target.state is State.SCHEDULED else "asked the performer to cancel"
        return f"{verb} workitem {target.uid}"

    # --- references ---

    async def _references(self, what: str, rule: SiteRule, cause: Cause) -> list[DataSet]:
        if what == NO_REFERENCES:
            return []
        if what in ("inputs", "outputs"):
            return self._references_of_workitem(what, cause)
        identifier = await self._archive.ancestor(cause.when.level, cause.identifier, what)
        return await self._archive.references(what, identifier, rule.retrieve) if identifier else []

    @staticmethod
    def _references_of_workitem(what: str, cause: Cause) -> list[DataSet]:
        if cause.workitem is None:
            return []
        content = cause.workitem.attributes
        if what == "inputs":
            return items(content, INPUT)
        return [
            output
            for performance in items(content, tags.PERFORMED_PROCEDURE)
            for output in items(performance, OUTPUT)
        ]

    def _requester(self, rule: SiteRule, cause: Cause) -> Requester:
        return Requester(self._own_ae, VIA, reason=reason(rule, cause))


def _history_has(workitem: Workitem, why: str, what: str = "") -> bool:
    """True if the history of a workitem has a reason, with this action if ``what`` is not empty."""
    written = discreet(why, workitem)
    return any(entry.why == written and (not what or entry.what == what) for entry in workitem.history)


def _attributes_of(cause: Cause) -> dict[str, Any]:
    """The attributes of patient, study and request of a cause, in keyword form."""
    if cause.workitem is not None:
        content = to_keywords(cause.workitem.attributes)
        return {name: content[name] for name in _OF_WORKITEM if content.get(name)}
    content = {name: cause.content[name] for name in _PATIENT if cause.content.get(name)}
    study = cause.content.get("StudyInstanceUID")
    if cause.when.level == "patient" or not study:
        return content
    content["StudyInstanceUID"] = study
    request = {name: cause.content[name] for name in _REQUEST if cause.content.get(name)}
    if "AccessionNumber" in request or "RequestedProcedureID" in request:
        content["ReferencedRequestSequence"] = [{"StudyInstanceUID": study, **_plain_request(request)}]
    return content


def _plain_request(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if not isinstance(value, list)}


def _faulty_keywords(error: UpsError) -> set[str]:
    return {keyword_of(fault.path.split(".")[0]) for fault in error.faults if fault.path}


def _with_study(content: Mapping[str, Any], worklist: WorklistAccess) -> dict[str, Any]:
    """Add the study to requests without one (type 1 there): the study of the workitem, or a new UID."""
    requests = content.get("ReferencedRequestSequence")
    listed = requests if isinstance(requests, list) else [requests] if isinstance(requests, Mapping) else []
    if not listed:
        return dict(content)
    study = content.get("StudyInstanceUID") or worklist.new_uid()
    named = [{"StudyInstanceUID": study, **item} for item in listed if isinstance(item, Mapping)]
    return {**content, "ReferencedRequestSequence": named}


def _check_key(name: str, value: object, cause: Cause) -> None:
    """Raise UpsError if the cause has no value for a placeholder of a matching key, or a value with wildcards."""
    for inner in names_in(value):
        special = {"CallingAet": cause.calling_ae, "Origin": cause.origin}.get(inner)
        values = values_of(cause.content, attribute_path(inner)) if special is None else [special]
        texts = [str(value) for value in values]
        if not any(texts):
            detail = f"{name} would match everything: the cause has no {inner}"
            raise UpsError(statuses.INVALID_ARGUMENT, detail)
        if any(letter in str(texts[0]) for letter in "*?\\"):
            detail = f"{name} would match too much: {inner} of the cause has a wildcard"
            raise UpsError(statuses.INVALID_ARGUMENT, detail)


# --- references ---


def _instances(content: DataSet, tag: str) -> set[str]:
    return {uid for item in items(content, tag) for uid in _uids(item)}


def _uids(item: DataSet) -> Iterator[str]:
    for referenced in items(item, _REFERENCED):
        yield text(referenced, _INSTANCE)


def merged_references(present: Sequence[DataSet], added: Sequence[DataSet]) -> list[DataSet]:
    """Add references that are missing to items: to the item of their series if there is one, else as a new item."""
    merged = list(present)
    uids = {uid for item in present for uid in _uids(item)}
    for item in added:
        new = [reference for reference in items(item, _REFERENCED) if text(reference, _INSTANCE) not in uids]
        if not new:
            continue
        uids.update(text(reference, _INSTANCE) for reference in new)
        index = next(
            (index for index, target in enumerate(merged) if _differ_in_instances_only(target, item)), None
        )
        if index is None:
            merged.append({**item, _REFERENCED: element("SQ", *new)})
        else:
            references = element("SQ", *items(merged[index], _REFERENCED), *new)
            merged[index] = {**merged[index], _REFERENCED: references}
    return merged


def _differ_in_instances_only(first: DataSet, second: DataSet) -> bool:
    """True if two items have the same series and the same way to retrieve it."""
    return {**first, _REFERENCED: None} == {**second, _REFERENCED: None}
