# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist query (PS3.4 K.6.1.2): what matches it, what is answered, and which workitems are candidates.

Keys match as in any C-FIND of this plugin (``core/key_tests.py``): wildcards, ranges, names regardless of case,
accents and component groups. AE titles are compared as in Orthanc.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from ..core import tags
from ..core.dataset import DataSet, Element, element, is_empty, items, plain, text, values
from ..core.date_times import Zone
from ..core.key_tests import MatchingKey, compile_key, is_matchable
from ..core.matching import Query
from ..core.mechanisms import Mechanisms
from ..core.refusals import spelled
from ..core.states import State
from ..core.statuses import UpsError
from ..core.wildcards import is_universal, is_wild, wildcard_test
from .scheduled_steps import (
    ACCESSION_NUMBER,
    MAPPED,
    MODALITY,
    PROTOCOL_CODES,
    REFERENCED_REQUEST,
    REQUESTED_ID,
    SCHEDULED_STEP,
    START_DATE,
    START_TIME,
    STATION_AE,
    STEP_DESCRIPTION,
    STEP_ID,
    STUDY,
    number_of,
    step_id,
)
from .stations import DCM, STATION_CLASS, StationCode, Stations

_NO_KEYS: Final = frozenset({tags.SPECIFIC_CHARACTER_SET, tags.TIMEZONE_OFFSET})
_SAME_IN_WORKITEMS: Final = (
    tags.PATIENT_NAME,
    tags.PATIENT_ID,
    "00100021",
    "00100030",
    "00100040",
    "00380010",
)
"""Keys that are the same in a query of workitems."""

_OF_THE_STEP_IN_WORKITEMS: Final = {STEP_DESCRIPTION: tags.LABEL, PROTOCOL_CODES: tags.WORKITEM_CODE}
"""Keys of the step that are keys of another attribute in a query of workitems."""

_Fits: TypeAlias = Callable[[DataSet, Zone], bool]


class UnusableKey(ValueError):
    """A key has a value that its attribute cannot have; the text names the key."""


@dataclass(frozen=True, slots=True)
class StepIdentifiers:
    """The Scheduled Procedure Step IDs of this plugin that match a key.

    Attributes:
        numbers: creation numbers in the values without wildcards.
        patterns: for each value with wildcards a test of identifiers.
    """

    numbers: frozenset[int]
    patterns: tuple[Callable[[str], bool], ...]

    @classmethod
    def of_key(cls, dataset: DataSet, tag: str) -> StepIdentifiers:
        """Read the values of a key."""
        texts = [plain(value) for value in values(dataset, tag)]
        numbers = (number_of(value) for value in texts if not is_wild(value))
        patterns = tuple(wildcard_test(value) for value in texts if is_wild(value))
        return cls(frozenset(number for number in numbers if number is not None), patterns)

    def fit(self, number: int) -> bool:
        """True if the ID with a creation number matches a value with wildcards."""
        identifier = step_id(number)
        return any(fits(identifier) for fits in self.patterns)


class WorklistQuery:
    """A compiled query.

    Attributes:
        identifiers: Scheduled Procedure Step IDs that match; None if the query has no key for them.
    """

    def __init__(self, identifier: DataSet, stations: Stations, local: Zone) -> None:
        """Compile an identifier. ``local`` is the zone of its dates and times. Raises UnusableKey."""
        self._identifier = identifier
        self._stations = stations
        self._local = local
        self._tests = [*_tests(identifier, "", stations, local)]
        self._step = next(iter(items(identifier, SCHEDULED_STEP)), {})
        self._asks_step = not is_empty(self._step.get(STEP_ID)) and not _is_universal(self._step, STEP_ID)
        self._asks_request = self._asks(REQUESTED_ID) and not _is_universal(identifier, REQUESTED_ID)
        self.identifiers = self._identifiers()

    def _identifiers(self) -> StepIdentifiers | None:
        if self._asks_step:
            return StepIdentifiers.of_key(self._step, STEP_ID)
        return StepIdentifiers.of_key(self._identifier, REQUESTED_ID) if self._asks_request else None

    @property
    def _station(self) -> str:
        """The AE title in the query, "" if there is none or it has several or wildcards."""
        return _single(self._step, STATION_AE)

    def matches(self, answer: DataSet) -> bool:
        """True if an answer matches every key."""
        return all(fits(answer, self._local) for fits in self._tests)

    def completed(self, answer: DataSet) -> DataSet:
        """The answer with the modality of the query, if the answer has none.

        Only for a query that names the station: what is scheduled there can only be of that modality.
        """
        step, modality = items(answer, SCHEDULED_STEP)[0], _single(self._step, MODALITY)
        asks = modality and any(values(self._step, STATION_AE)) and not is_universal(self._asked_station())
        if not asks or not is_empty(step.get(MODALITY)):
            return answer
        return {**answer, SCHEDULED_STEP: element("SQ", {**step, MODALITY: element("CS", modality)})}

    def _asked_station(self) -> str:
        return text(self._step, STATION_AE).strip()

    def select(self, answer: DataSet) -> DataSet:
        """The requested attributes of an answer, empty where it has no value (PS3.4 K.4.1.3.2)."""
        return _selected(answer, self._identifier)

    # --- candidates ---

    def candidates(self, *, in_progress: bool) -> list[Query]:
        """Queries that together find all workitems that may match, except by ``identifiers``."""
        if self._asks_step:
            return []
        request: DataSet = {
            tag: self._identifier[tag] for tag in (ACCESSION_NUMBER, REQUESTED_ID) if self._asks(tag)
        }
        base = self._base(in_progress=in_progress)
        return [_query(identifier, self._local) for identifier in self._variants(base, request)]

    def numbered(self, *, in_progress: bool) -> Query:
        """The query for workitems whose numbers are to be tested by ``identifiers``."""
        return _query(self._base(in_progress=in_progress), self._local)

    def _base(self, *, in_progress: bool) -> DataSet:
        """Keys that every candidate matches."""
        states = [State.SCHEDULED.value, *([State.IN_PROGRESS.value] if in_progress else [])]
        base: DataSet = {tag: self._identifier[tag] for tag in _SAME_IN_WORKITEMS if self._asks(tag)}
        for tag, tag_of_workitem in _OF_THE_STEP_IN_WORKITEMS.items():
            if not is_empty(self._step.get(tag)):
                base[tag_of_workitem] = self._step[tag]
        if not is_empty(self._step.get(START_DATE)):
            base[tags.START] = element("DT", self._start())
        return {**base, tags.STATE: element("CS", *states)}

    def _start(self) -> str:
        """The key for the start: the date or dates; a single date together with the time."""
        date, time = (text(self._step, tag).strip() for tag in (START_DATE, START_TIME))
        if "-" in date or not time:
            return date
        low, hyphen, high = time.partition("-")
        return f"{date}{low.strip()}{hyphen}{date if hyphen else ''}{high.strip()}"

    def _asks(self, tag: str) -> bool:
        return not is_empty(self._identifier.get(tag))

    def _variants(self, base: DataSet, request: DataSet) -> Iterator[DataSet]:
        for study_key, study_request in self._by_study():
            merged = {**request, **study_request}
            requests: DataSet = {REFERENCED_REQUEST: element("SQ", merged)} if merged else {}
            for station_key in self._by_station():
                yield {**base, **study_key, **station_key, **requests}

    def _by_study(self) -> list[tuple[DataSet, DataSet]]:
        if not self._asks(STUDY):
            return [({}, {})]
        key: DataSet = {STUDY: self._identifier[STUDY]}
        return [(key, {}), ({}, key)]

    def _by_station(self) -> list[DataSet]:
        """Keys for the station, or for all stations of the modality, by which workitems are indexed."""
        modality = _single(self._step, MODALITY)
        if self._station:
            codes = self._stations.codes_of(self._station)
            return [_at(code) for code in codes]
        if not modality or self._asked_station():
            return [{}]
        of_class: DataSet = {STATION_CLASS: element("SQ", StationCode(modality, DCM).key())}
        titles = self._stations.titles_with(modality)
        codes = list(dict.fromkeys(code for title in titles for code in self._stations.codes_of(title)))
        return [of_class, *map(_at, codes)]


def _at(code: StationCode) -> DataSet:
    return {tags.STATION_NAME: element("SQ", code.key())}


def _query(identifier: DataSet, local: Zone) -> Query:
    zone = local if not isinstance(local, int) else _offset(local)
    try:
        return Query.of(identifier, mechanisms=Mechanisms.MULTIPLE, timezone=zone)
    except UpsError as error:
        raise UnusableKey(error.detail) from error


def _offset(east: int) -> str:
    minutes = abs(east) // 60_000_000
    return f"{'-' if east < 0 else '+'}{minutes // 60:02}{minutes % 60:02}"


def _is_universal(dataset: DataSet, tag: str) -> bool:
    return any(is_universal(plain(value)) for value in values(dataset, tag))


def _single(dataset: DataSet, tag: str) -> str:
    """The value of a key with a single value and no wildcards; else ""."""
    listed = values(dataset, tag)
    written = plain(listed[0]) if len(listed) == 1 else ""
    return "" if is_wild(written) else written


# --- matching ---


def _tests(identifier: DataSet, above: str, stations: Stations, local: Zone) -> Iterator[_Fits]:
    for tag, attribute in identifier.items():
        if tag in _NO_KEYS or is_empty(attribute):
            continue
        test = _test(tag, attribute, f"{above}.{tag}" if above else tag, stations, local)
        if test is not None:
            yield _unless_foreign(tag, test)


def _unless_foreign(tag: str, test: _Fits) -> _Fits:
    """A key for an attribute outside the mapping matches answers that lack the attribute (PS3.4 C.2.2.1.3)."""
    if tag in MAPPED:
        return test
    return lambda answer, zone: tag not in answer or test(answer, zone)


def _test(tag: str, attribute: Element, path: str, stations: Stations, local: Zone) -> _Fits | None:
    if attribute["vr"] == "SQ":
        return _item_test(tag, list(_tests(attribute["Value"][0], path, stations, local)))
    if tag == STATION_AE:
        return _title_test(tag, [plain(value) for value in attribute["Value"]], stations)
    if not is_matchable(attribute["vr"]):
        return None
    values = [value for value in attribute["Value"] if not is_empty(element(attribute["vr"], value))]
    try:
        key = compile_key(MatchingKey(path, tag, attribute["vr"], values, local, fuzzy=False))
    except ValueError as error:
        raise UnusableKey(f"{spelled(tag)}: {error}") from error
    return key.test if key is not None else None


def _item_test(tag: str, inner: list[_Fits]) -> _Fits | None:
    if not inner:
        return None
    return lambda answer, zone: any(
        all(fits(item, zone) for fits in inner) for item in items(answer, tag) or [{}]
    )


def _title_test(tag: str, patterns: list[str], stations: Stations) -> _Fits | None:
    if any(map(is_universal, patterns)):
        return None
    fits = [_title_fits(pattern, stations) for pattern in patterns]
    return lambda answer, _: any(fit(plain(title)) for title in values(answer, tag) for fit in fits)


def _title_fits(pattern: str, stations: Stations) -> Callable[[str], bool]:
    if not is_wild(pattern):
        return lambda title: stations.same(title, pattern)
    wild = wildcard_test(stations.key(pattern))
    return lambda title: wild(stations.key(title))


# --- answers ---


def _selected(answer: DataSet, identifier: DataSet) -> DataSet:
    chosen: DataSet = {}
    for tag, key in sorted(identifier.items()):
        if tag == tags.SPECIFIC_CHARACTER_SET:
            continue
        attribute = answer.get(tag) or {"vr": key["vr"]}
        inner = next(iter(items(identifier, tag)), {})
        if key["vr"] == "SQ" and inner and attribute.get("Value"):
            attribute = element("SQ", *(_selected(item, inner) for item in items(answer, tag)))
        chosen[tag] = attribute
    return chosen
