# SPDX-License-Identifier: AGPL-3.0-or-later
"""The tables of the projection, and the column or kind of key of each indexed attribute.

- ``workitem``: a small row per workitem with the sort keys and the attributes that have a single value.
- ``body``: its document, compressed.
- ``rows``: its rows in the next two tables, compressed, so that only changed rows are written.
- ``code``: the codes that worklist queries use most, each with state and start, so that ``SCHEDULED at this
  station today`` is one contiguous range, in order.
- ``key``: all other indexed values, including those in items of sequences.
- ``words``: the text for free-text search.
- ``tombstone``: the entries of purged workitems, as stored.
- ``event``: the event log, for replay and for the page.
- ``meta``: the fingerprint of the file, the boot in which it is used, and marks (``store/journal.py``).
"""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from ..core import tags
from ..core.states import State

SCHEMA: Final = 5
"""To be incremented when the contents of the tables change but their definitions do not."""

NO_START: Final = -(2**62)
"""No start: sorts before every start and is in no range."""

NO_WORDS: Final = "\U0010ffff"
"""No name: sorts after every text."""

NO_PROGRESS: Final = math.inf
"""No progress: sorts after every progress."""

NO_TIME: Final = math.inf
"""No time or duration: sorts after every other."""


class KeyKind(IntEnum):
    """What a row of ``code`` or ``key`` holds."""

    STATION_NAME = 1
    WORKITEM_CODE = 2
    HUMAN_PERFORMER = 3
    STATION_CLASS = 4
    STATION_LOCATION = 5
    PATIENT_ID = 11
    ISSUER_OF_PATIENT_ID = 12
    OTHER_PATIENT_ID = 13
    OTHER_ISSUER_OF_PATIENT_ID = 14
    ADMISSION_ID = 15
    ISSUER_OF_ADMISSION_LOCAL = 16
    ISSUER_OF_ADMISSION_UNIVERSAL = 17
    ISSUER_OF_ADMISSION_TYPE = 18
    ACCESSION_NUMBER = 19
    ISSUER_OF_ACCESSION_LOCAL = 20
    ISSUER_OF_ACCESSION_UNIVERSAL = 21
    ISSUER_OF_ACCESSION_TYPE = 22
    REQUESTED_PROCEDURE_ID = 23
    REQUESTING_SERVICE = 24
    REPLACED_CLASS = 25
    REPLACED_INSTANCE = 26
    STUDY = 27
    REQUESTED_STUDY = 28
    INPUT_STUDY = 29
    LONG_STATION_NAME = 31
    LONG_WORKITEM_CODE = 32
    LONG_HUMAN_PERFORMER = 33
    LONG_STATION_CLASS = 34
    LONG_STATION_LOCATION = 35
    URN_STATION_NAME = 41
    URN_WORKITEM_CODE = 42
    URN_HUMAN_PERFORMER = 43
    URN_STATION_CLASS = 44
    URN_STATION_LOCATION = 45
    NAME_ALPHABETIC = 50
    NAME_IDEOGRAPHIC = 51
    NAME_PHONETIC = 52
    NAME_WORD = 53
    NAME_SOUND = 54
    WITHOUT = 60


_HUMAN_PERFORMER_CODES: Final = f"{tags.HUMAN_PERFORMERS}.{tags.HUMAN_PERFORMER_CODES}"
_STATION_CLASS: Final = "00404026"
_STATION_LOCATION: Final = "00404027"

CODES: Final[Mapping[str, KeyKind]] = MappingProxyType(
    {
        tags.STATION_NAME: KeyKind.STATION_NAME,
        tags.WORKITEM_CODE: KeyKind.WORKITEM_CODE,
        _HUMAN_PERFORMER_CODES: KeyKind.HUMAN_PERFORMER,
    }
)
"""Code sequences in table ``code``."""

PAIRS: Final[Mapping[str, KeyKind]] = MappingProxyType(
    {_STATION_CLASS: KeyKind.STATION_CLASS, _STATION_LOCATION: KeyKind.STATION_LOCATION}
)
"""Code sequences in table ``key``, as value, SEPARATOR and scheme."""

SEPARATOR: Final = "\x1f"

_LONG_CODES: Final = {
    f"{path}.00080119": KeyKind(kind + 30) for path, kind in (*CODES.items(), *PAIRS.items())
}
_URN_CODES: Final = {
    f"{path}.00080120": KeyKind(kind + 40) for path, kind in (*CODES.items(), *PAIRS.items())
}
_REQUEST: Final = "0040A370"
KEYS: Final[Mapping[str, KeyKind]] = MappingProxyType(
    {
        tags.PATIENT_ID: KeyKind.PATIENT_ID,
        "00100021": KeyKind.ISSUER_OF_PATIENT_ID,
        "00101002.00100020": KeyKind.OTHER_PATIENT_ID,
        "00101002.00100021": KeyKind.OTHER_ISSUER_OF_PATIENT_ID,
        "00380010": KeyKind.ADMISSION_ID,
        "00380014.00400031": KeyKind.ISSUER_OF_ADMISSION_LOCAL,
        "00380014.00400032": KeyKind.ISSUER_OF_ADMISSION_UNIVERSAL,
        "00380014.00400033": KeyKind.ISSUER_OF_ADMISSION_TYPE,
        f"{_REQUEST}.00080050": KeyKind.ACCESSION_NUMBER,
        f"{_REQUEST}.00080051.00400031": KeyKind.ISSUER_OF_ACCESSION_LOCAL,
        f"{_REQUEST}.00080051.00400032": KeyKind.ISSUER_OF_ACCESSION_UNIVERSAL,
        f"{_REQUEST}.00080051.00400033": KeyKind.ISSUER_OF_ACCESSION_TYPE,
        f"{_REQUEST}.00401001": KeyKind.REQUESTED_PROCEDURE_ID,
        f"{_REQUEST}.00321033": KeyKind.REQUESTING_SERVICE,
        "00741224.00081150": KeyKind.REPLACED_CLASS,
        "00741224.00081155": KeyKind.REPLACED_INSTANCE,
        "0020000D": KeyKind.STUDY,
        f"{_REQUEST}.0020000D": KeyKind.REQUESTED_STUDY,
        "00404021.0020000D": KeyKind.INPUT_STUDY,
        **_LONG_CODES,
        **_URN_CODES,
    }
)
"""Text attributes in table ``key``."""

WITHOUT: Final = (
    f"{tags.STATION_NAME}.{tags.CODE_VALUE}",
    f"{_HUMAN_PERFORMER_CODES}.{tags.CODE_VALUE}",
)
"""Attributes whose paths table ``key`` holds for workitems in which they are empty (nobody is assigned)."""

NAMES: Final[Mapping[str, KeyKind]] = MappingProxyType(
    {
        "Alphabetic": KeyKind.NAME_ALPHABETIC,
        "Ideographic": KeyKind.NAME_IDEOGRAPHIC,
        "Phonetic": KeyKind.NAME_PHONETIC,
    }
)
"""Component groups of Patient's Name in table ``key``."""

RANKS: Final[Mapping[str, Mapping[str, int]]] = MappingProxyType(
    {
        tags.STATE: MappingProxyType({state.value: rank for rank, state in enumerate(State, 1)}),
        tags.PRIORITY: MappingProxyType({"HIGH": 1, "MEDIUM": 2, "LOW": 3}),
        tags.READINESS: MappingProxyType({"READY": 1, "UNAVAILABLE": 2, "INCOMPLETE": 3}),
    }
)
"""Enumerated values as numbers in a useful order; 0 is none."""

MOMENTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        tags.START: "start",
        tags.EXPECTED_COMPLETION: "completion",
        tags.MODIFICATION: "modification",
        tags.EXPIRATION: "expiration",
        "00100030": "birth",
    }
)
"""Date-times (and the birth date) as columns in microseconds."""

COLUMNS: Final[Mapping[str, str]] = MappingProxyType(
    {
        tags.STATE: "state",
        tags.PRIORITY: "priority",
        tags.READINESS: "readiness",
        tags.WORKLIST_LABEL: "worklist",
        tags.LABEL: "label",
        "00100040": "sex",
        tags.SOP_INSTANCE_UID: "uid",
        **MOMENTS,
    }
)
"""Attributes with a column in table ``workitem``."""

_TABLES: Final = """
CREATE TABLE meta(name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE workitem(
    id INTEGER PRIMARY KEY,
    uid TEXT NOT NULL UNIQUE,
    created INTEGER NOT NULL,
    version TEXT NOT NULL,
    digest TEXT NOT NULL,
    state INTEGER NOT NULL,
    start INTEGER NOT NULL,
    priority INTEGER NOT NULL,
    readiness INTEGER NOT NULL,
    completion INTEGER,
    modification INTEGER,
    expiration INTEGER,
    ended REAL,
    noted INTEGER NOT NULL,
    last_event INTEGER NOT NULL,
    odd INTEGER NOT NULL,
    progress REAL NOT NULL,
    claimer TEXT NOT NULL,
    claimed REAL NOT NULL,
    heard REAL NOT NULL,
    duration REAL NOT NULL,
    performed TEXT NOT NULL,
    worklist TEXT NOT NULL,
    label TEXT NOT NULL,
    name TEXT NOT NULL,
    sex TEXT NOT NULL,
    birth INTEGER,
    station TEXT NOT NULL,
    performer TEXT NOT NULL,
    work TEXT NOT NULL
);
CREATE TABLE body(id INTEGER PRIMARY KEY, document BLOB NOT NULL);
CREATE TABLE rows(id INTEGER PRIMARY KEY, rows BLOB NOT NULL);
CREATE TABLE code(
    kind INTEGER NOT NULL,
    text TEXT NOT NULL,
    state INTEGER NOT NULL,
    start INTEGER NOT NULL,
    created INTEGER NOT NULL,
    id INTEGER NOT NULL,
    scheme TEXT NOT NULL,
    again INTEGER NOT NULL,
    PRIMARY KEY(kind, text, state, start, created, id, scheme)
) WITHOUT ROWID;
CREATE TABLE key(
    kind INTEGER NOT NULL, text TEXT NOT NULL, id INTEGER NOT NULL, PRIMARY KEY(kind, text, id)
) WITHOUT ROWID;
CREATE TABLE words(id INTEGER PRIMARY KEY, text TEXT NOT NULL);
CREATE TABLE tombstone(uid TEXT PRIMARY KEY, version TEXT NOT NULL, document BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE event(
    sequence INTEGER PRIMARY KEY,
    uid TEXT NOT NULL,
    type INTEGER NOT NULL,
    information BLOB NOT NULL,
    receivers TEXT NOT NULL,
    at REAL NOT NULL
);
CREATE INDEX event_at ON event(at);
CREATE INDEX event_uid ON event(uid);
CREATE INDEX workitem_odd ON workitem(odd) WHERE odd <> 0;
CREATE INDEX workitem_ended ON workitem(ended) WHERE ended IS NOT NULL;
CREATE INDEX workitem_noted ON workitem(id) WHERE noted <> 0;
CREATE INDEX workitem_last_event ON workitem(last_event) WHERE last_event > 0;
"""

INDEXES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "workitem_state": "state, start, created, priority, readiness, worklist",
        "workitem_start": "start, created, state, priority, readiness, worklist",
        "workitem_created": "created",
        "workitem_modification": "modification, created",
        "workitem_completion": "completion",
        "workitem_birth": "birth",
        "workitem_worklist": "worklist, state, created",
        "workitem_label": "label, created",
        "workitem_name": "name, created",
        "workitem_station": "station, created",
        "workitem_performer": "performer, created",
        "workitem_progress": "progress, created",
    }
)
"""Indexes of table ``workitem``; created after the rows when the projection is rebuilt."""


def tables() -> str:
    """The statements that create an empty projection, without the indexes of ``workitem``."""
    return _TABLES


def make_indexes() -> tuple[str, ...]:
    """The statements that create the indexes of ``workitem``."""
    return tuple(f"CREATE INDEX IF NOT EXISTS {name} ON workitem({on})" for name, on in INDEXES.items())


def drop_indexes() -> tuple[str, ...]:
    """The statements that drop the indexes of ``workitem``."""
    return tuple(f"DROP INDEX IF EXISTS {name}" for name in INDEXES)


def fingerprint(zone: object) -> str:
    """Identifies the tables, the local zone and the Unicode version (for case folding), on which a file depends."""
    form = zlib.crc32(f"{_TABLES}{make_indexes()}".encode())
    return f"{SCHEMA}/{form}/{zone}/{unicodedata.unidata_version}"
