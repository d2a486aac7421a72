# SPDX-License-Identifier: AGPL-3.0-or-later
"""Applies performed procedure steps to workitems: finds the workitems of a step, claims, updates and ends them.

All changes are commands of the modality, so rules, events and history are as for any performer. Applying a step can be
repeated: what a workitem already has is left as it is.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from types import MappingProxyType
from typing import Final, Protocol

from ..core import tags
from ..core.commands import ChangeState, Requester, Update
from ..core.dataset import DataSet, Element, element, is_empty, items, ordered, text, values, walk
from ..core.date_times import Zone
from ..core.decide import is_uid
from ..core.matching import Query
from ..core.representations import REPRESENTATIONS
from ..core.states import State, Transaction
from ..core.statuses import RESOURCE_LIMITATION, UpsError
from ..core.unavailable import StoreUnavailable
from ..core.workitem import Workitem
from ..worklist.workitem_store import WorkitemStore
from ..worklist.worklist import Worklist
from . import performed_steps as mpps
from .performed_steps import PerformedStep, StepStatus
from .scheduled_steps import ACCESSION_NUMBER, REFERENCED_REQUEST, STEP_ID, STUDY, number_of, study_of
from .stations import DCM, Stations

_log = logging.getLogger("orthanc_ups.modality")
VIA: Final = "MPPS"
_REFERENCED_CLASS: Final = "00081150"
_REFERENCED_INSTANCE: Final = "00081155"
_OUTPUTS: Final = "00404033"
_RETRIEVE_AE: Final = "00080054"
_IMAGES: Final = ("00081140", "00400220")
"""Referenced Image Sequence and Referenced Non-Image Composite SOP Instance Sequence of a performed series."""

_AE_SCHEME: Final = "99AET"
_LONGEST_LO: Final = 64
_LONGEST_ST: Final = 1024
_CANDIDATES: Final = 20
_TRANSIENT: Final = frozenset({0x0110, 0x0213, 0xC304})
"""Statuses of transient refusals: the store does not answer or write, or outputs are missing (``Ups.CheckOutputs``)."""

_ENDS: Final = MappingProxyType(
    {StepStatus.COMPLETED: State.COMPLETED, StepStatus.DISCONTINUED: State.CANCELED}
)
"""The final state of a workitem by the status of its step."""


class ImageArchive(Protocol):
    """Orthanc's archive, where the images of a modality are."""

    async def series(self, uid: str) -> Sequence[DataSet]:
        """The item that references the instances of a series, or nothing. May raise StoreUnavailable."""
        ...


class Performances:
    """Applies performed procedure steps to workitems; used on the loop only."""

    def __init__(
        self,
        worklist: Worklist,
        workitems: WorkitemStore,
        stations: Stations,
        identity: str,
        archive_ae: str,
        local: Zone,
        archive: ImageArchive | None = None,
    ) -> None:
        """Keep references to other parts.

        Args:
            worklist: executes commands.
            workitems: the workitems to search.
            stations: the stations of the site.
            identity: the identity of the worklist.
            archive_ae: AE title from which images are retrieved.
            local: the zone of dates and times without offset.
            archive: has the instances of a series for which a step names none; None if they stay unknown.
        """
        self._worklist = worklist
        self._workitems = workitems
        self._stations = stations
        self._identity = identity
        self._archive_ae = archive_ae
        self._local = local
        self._archive = archive

    # --- which workitems ---

    async def workitems_of(self, step: PerformedStep) -> tuple[tuple[str, ...], str]:
        """UIDs of the workitems of a new step; and if there are none, the reason."""
        uids: dict[str, None] = {}
        reasons: list[str] = []
        for scheduled in items(step.attributes, mpps.SCHEDULED_ATTRIBUTES):
            workitem, reason = await self._scheduled(step, scheduled)
            if workitem is not None:
                uids[workitem.uid] = None
            elif reason:
                reasons.append(reason)
        return tuple(uids), "" if uids else "; ".join(dict.fromkeys(reasons))

    async def _scheduled(self, step: PerformedStep, scheduled: DataSet) -> tuple[Workitem | None, str]:
        for uid in _ups_references(scheduled):
            stored = self._workitems.get(uid)
            if stored is not None:
                return stored.workitem, ""
        number = number_of(text(scheduled, STEP_ID))
        if number is None:
            return await self._only_match(step, scheduled)
        for workitem in self._workitems.created(number - 1, number, 1):
            if _is_about(workitem.attributes, step, scheduled):
                return workitem, ""
            return None, f"{text(scheduled, STEP_ID)} is a workitem of another patient or study"
        return None, f"there is no workitem {text(scheduled, STEP_ID)}"

    async def _only_match(self, step: PerformedStep, scheduled: DataSet) -> tuple[Workitem | None, str]:
        """The SCHEDULED workitem of the same study or order at this station, if it is the only one."""
        candidates: dict[str, Workitem] = {}
        for identifier in _same_study_or_order(scheduled):
            async for workitem in self._scheduled_with(identifier):
                if self._may_be(workitem.attributes, step):
                    candidates[workitem.uid] = workitem
        if len(candidates) == 1:
            return next(iter(candidates.values())), ""
        if candidates:
            return None, f"{len(candidates)} workitems of this study or order are scheduled at this station"
        return None, "no workitem of this study or order is scheduled at this station"

    async def _scheduled_with(self, identifier: DataSet) -> AsyncIterator[Workitem]:
        zone = None if isinstance(self._local, int) else self._local
        query = Query.of({**identifier, tags.STATE: element("CS", State.SCHEDULED.value)}, timezone=zone)
        matches, _ = await self._workitems.search(query, 0, _CANDIDATES)
        for attributes in matches:
            stored = self._workitems.get(text(attributes, tags.SOP_INSTANCE_UID))
            if stored is not None and stored.workitem.state is State.SCHEDULED:
                yield stored.workitem

    def _may_be(self, workitem: DataSet, step: PerformedStep) -> bool:
        """True if a workitem is scheduled at the station of the step, and not for another patient."""
        own = (step.ae, text(step.attributes, mpps.STATION_AE))
        titles = self._stations.titles_of(workitem)
        is_at_station = any(
            self._stations.same(title, own_title) for title in titles for own_title in own if own_title
        )
        return is_at_station and _same_or_unknown(workitem, step.attributes, tags.PATIENT_ID)

    # --- changes of workitems ---

    async def apply(self, step: PerformedStep, uid: str) -> str:
        """Bring a workitem to the state of the step; returns the reason if that was not done, else "".

        Raises UpsError if that is not possible now (0110, 0213, C304); it should then be tried again.
        """
        transaction = self.transaction_of(step)
        stored = self._workitems.get(uid)
        if stored is None:
            return "" if step.status.is_final else "the workitem no longer exists"
        workitem = stored.workitem
        if workitem.state is not State.SCHEDULED and workitem.compare(transaction) is not Transaction.RIGHT:
            return f"the workitem is already {workitem.state.value}, by another performer"
        if workitem.state.is_final:
            is_same_end = workitem.state is _ENDS.get(step.status)
            return "" if is_same_end else f"the workitem is already {workitem.state.value}"
        requester = Requester(step.ae, VIA)
        try:
            await self._perform(step, workitem, requester, transaction)
        except UpsError as error:
            if error.status.code in _TRANSIENT:
                raise
            return error.detail
        return ""

    async def _perform(
        self, step: PerformedStep, workitem: Workitem, requester: Requester, transaction: str
    ) -> None:
        uid = workitem.uid
        if workitem.state is State.SCHEDULED:
            claim = ChangeState(requester, uid, State.IN_PROGRESS.value, transaction)
            await self._worklist.execute(claim)
        attributes = await self._performed(step, workitem.attributes)
        if any(workitem.attributes.get(tag) != attribute for tag, attribute in attributes.items()):
            await self._worklist.execute(Update(requester, uid, attributes, transaction))
        if step.status.is_final:
            end = ChangeState(requester, uid, _ENDS[step.status].value, transaction)
            await self._worklist.execute(end)

    def transaction_of(self, step: PerformedStep) -> str:
        """The Transaction UID of a step: always the same, and derived from a secret."""
        secret = (step.worklist or self._identity).encode()
        key = hmac.new(secret, step.uid.encode(), hashlib.sha256).digest()
        return f"2.25.{int.from_bytes(key[:16], 'big')}"

    # --- attributes ---

    async def _performed(self, step: PerformedStep, workitem: DataSet) -> DataSet:
        """The attributes of the workitem that follow from the step: progress and the performed procedure."""
        return {
            tags.PROGRESS_INFORMATION: element("SQ", _progress(step, workitem)),
            tags.PERFORMED_PROCEDURE: element("SQ", await self._procedure(step, workitem)),
        }

    async def _procedure(self, step: PerformedStep, workitem: DataSet) -> DataSet:
        content = step.attributes
        procedure: dict[str, Element] = {
            "00404028": element("SQ", self._station_code(step, workitem)),
            "00404029": element("SQ", *items(workitem, "00404026")),
            "00404030": element("SQ", *items(workitem, "00404027")),
            "00404019": element("SQ", *_workitem_codes(content, workitem)),
            _OUTPUTS: element("SQ", *[output async for output in self._outputs(step)]),
        }
        start = _date_time(content, mpps.START_DATE, mpps.START_TIME)
        if start:
            procedure["00404050"] = element("DT", start)
        end = _date_time(content, mpps.END_DATE, mpps.END_TIME)
        if end and step.status.is_final:
            procedure["00404051"] = element("DT", end)
        procedure |= {
            tag: element(vr, words)
            for tag, vr, words in (
                ("00400254", "LO", _shortened(text(content, mpps.DESCRIPTION), _LONGEST_LO)),
                ("00400280", "ST", _shortened(text(content, mpps.COMMENTS), _LONGEST_ST)),
            )
            if words
        }
        return ordered(procedure)

    def _station_code(self, step: PerformedStep, workitem: DataSet) -> DataSet:
        """The code of the station in the workitem or the settings; else its AE title as a code."""
        ae = text(step.attributes, mpps.STATION_AE).strip() or step.ae
        scheduled = items(workitem, tags.STATION_NAME)
        codes = self._stations.codes_of(ae) + self._stations.codes_of(step.ae)
        for item in scheduled:
            if any(code.fits(item) for code in codes):
                return item
        name = _shortened(text(step.attributes, mpps.STATION), _LONGEST_LO) or ae
        code = self._stations.code_of(ae) or self._stations.code_of(step.ae)
        value, scheme = (code.value, code.scheme) if code else (ae, "")
        return {
            tags.CODE_VALUE: element("SH", value),
            tags.CODING_SCHEME: element("SH", scheme or _AE_SCHEME),
            tags.CODE_MEANING: element("LO", name),
        }

    async def _outputs(self, step: PerformedStep) -> AsyncIterator[DataSet]:
        """An item for each performed series (PS3.4 Table CC.2.5-3).

        If a series of a final step names no instances, those in Orthanc are referenced.
        """
        content = step.attributes
        studies = (text(item, STUDY) for item in items(content, mpps.SCHEDULED_ATTRIBUTES))
        study = next(filter(is_uid, studies), "")
        for series in items(content, mpps.SERIES):
            uid = text(series, mpps.SERIES_UID)
            references = [reference for tag in _IMAGES for reference in _references(items(series, tag))]
            if not references and step.status.is_final and is_uid(uid):
                for output in await self._in_archive(uid):
                    yield output
            if not (study and is_uid(uid) and references):
                continue
            retrieve = [ae for ae in values(series, _RETRIEVE_AE) if REPRESENTATIONS["AE"].valid(ae) and ae]
            sources = retrieve or [self._archive_ae]
            yield {
                "0020000D": element("UI", study),
                "0020000E": element("UI", uid),
                "00081199": element("SQ", *references),
                "0040E020": element("CS", "DICOM"),
                "0040E021": element("SQ", *({_RETRIEVE_AE: element("AE", ae)} for ae in sources)),
            }

    async def _in_archive(self, series: str) -> Sequence[DataSet]:
        """The item for the instances of a series in Orthanc. Raises UpsError (0213) if Orthanc does not answer."""
        try:
            return await self._archive.series(series) if self._archive is not None else ()
        except StoreUnavailable as error:
            raise UpsError(RESOURCE_LIMITATION, f"cannot read the series in Orthanc: {error}") from error


def _ups_references(scheduled: DataSet) -> Iterator[str]:
    """UIDs of the workitems that an item of Scheduled Step Attributes Sequence references, at any depth."""
    levels = [scheduled, *(item for _, attribute in walk(scheduled) for item in _items_of(attribute))]
    for level in levels:
        if text(level, _REFERENCED_CLASS) == tags.PUSH:
            yield text(level, _REFERENCED_INSTANCE)


def _items_of(attribute: Element) -> Iterable[DataSet]:
    return attribute.get("Value", ()) if attribute["vr"] == "SQ" else ()


def _is_about(workitem: DataSet, step: PerformedStep, scheduled: DataSet) -> bool:
    """True if a step with the ID of a workitem means this workitem, not one of another system with the same ID."""
    study = text(scheduled, STUDY)
    requests = items(workitem, REFERENCED_REQUEST)
    studies = {study_of(workitem), text(workitem, STUDY), *(text(item, STUDY) for item in requests)}
    if study and study in studies:
        return True
    accession = text(scheduled, ACCESSION_NUMBER)
    if accession and accession in {text(item, ACCESSION_NUMBER) for item in requests}:
        return True
    patient = text(step.attributes, tags.PATIENT_ID)
    return bool(patient) and patient == text(workitem, tags.PATIENT_ID)


def _same_study_or_order(scheduled: DataSet) -> Iterator[DataSet]:
    study, accession = text(scheduled, STUDY), text(scheduled, ACCESSION_NUMBER)
    if is_uid(study):
        yield {STUDY: element("UI", study)}
        yield {REFERENCED_REQUEST: element("SQ", {STUDY: element("UI", study)})}
    if accession.strip("*? "):
        yield {REFERENCED_REQUEST: element("SQ", {ACCESSION_NUMBER: element("SH", accession)})}


def _same_or_unknown(first: DataSet, second: DataSet, tag: str) -> bool:
    text_before, own_title = text(first, tag), text(second, tag)
    return not text_before or not own_title or text_before == own_title


def _progress(step: PerformedStep, workitem: DataSet) -> DataSet:
    """The item of Progress Information; attributes that the step does not set stay, such as the contact."""
    content = step.attributes
    progress = dict(next(iter(items(workitem, tags.PROGRESS_INFORMATION)), {}))
    series = items(content, mpps.SERIES)
    images = sum(len(items(item, tag)) for item in series for tag in _IMAGES)
    progress[tags.PROGRESS_DESCRIPTION] = element("ST", f"{len(series)} series, {images} instances")
    if step.status is StepStatus.COMPLETED:
        progress[tags.PROGRESS] = element("DS", "100")
    if step.status is StepStatus.DISCONTINUED:
        end = _date_time(content, mpps.END_DATE, mpps.END_TIME)
        if end:
            progress[tags.CANCELLATION_DATETIME] = element("DT", end)
        reasons = [_code(item) for item in items(content, mpps.DISCONTINUATION)]
        if any(reasons):
            progress[tags.DISCONTINUATION_REASONS] = element("SQ", *filter(None, reasons))
        words = text(content, mpps.COMMENTS)
        if words:
            progress[tags.REASON_FOR_CANCELLATION] = element("LT", words)
    return ordered(progress)


def _workitem_codes(content: DataSet, workitem: DataSet) -> list[DataSet]:
    """The code of the performed procedure: that of the step, else the scheduled one, the protocol or the modality."""
    for codes in (items(content, mpps.PROCEDURE_CODES), items(workitem, tags.WORKITEM_CODE)):
        coded = [code for code in map(_code, codes) if code]
        if coded:
            return coded[:1]
    protocol = [code for code in map(_code, items(content, mpps.PROTOCOL_CODES)) if code]
    modality = text(content, mpps.MODALITY).strip()
    return protocol[:1] or [
        {
            tags.CODE_VALUE: element("SH", modality[:16]),
            tags.CODING_SCHEME: element("SH", DCM),
            tags.CODE_MEANING: element("LO", modality),
        }
    ]


def _code(item: DataSet) -> DataSet:
    """The attributes of an item that make up a code: value, scheme and meaning; empty if some are missing."""
    names = (tags.CODE_VALUE, tags.CODING_SCHEME, "00080103", tags.CODE_MEANING)
    code = {tag: item[tag] for tag in names if not is_empty(item.get(tag))}
    return code if {tags.CODE_VALUE, tags.CODING_SCHEME, tags.CODE_MEANING} <= code.keys() else {}


def _references(listed: Iterable[DataSet]) -> Iterator[DataSet]:
    for item in listed:
        sop_class, instance = text(item, _REFERENCED_CLASS), text(item, _REFERENCED_INSTANCE)
        if is_uid(sop_class) and is_uid(instance):
            yield {
                _REFERENCED_CLASS: element("UI", sop_class),
                _REFERENCED_INSTANCE: element("UI", instance),
            }


def _date_time(content: DataSet, date: str, time: str) -> str:
    """Date and time as one DT, "" without a valid date."""
    day, clock = text(content, date).strip(), text(content, time).strip()
    written = f"{day}{clock}"
    valid = REPRESENTATIONS["DT"].valid
    return next((candidate for candidate in (written, day) if candidate and valid(candidate)), "")


def _shortened(words: str, longest: int) -> str:
    return words.strip()[:longest].replace("\\", "/")
