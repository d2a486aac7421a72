# SPDX-License-Identifier: AGPL-3.0-or-later
"""A department for screenshots: invented people, several worklists, every state, every kind of subscriber."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any, Final

from tests.support.browser import Management
from tests.support.web_client import WebClient
from tests.support.workitems import progress

COUNT: Final = 72
_PEOPLE: Final = (
    ("Fairweather^Ines", "F", "19730228"),
    ("Aokawa^Haruka=青川^春香", "F", "19881104"),
    ("Okonkwo^Chidi", "M", "19650719"),
    ("Lindqvist^Maja", "F", "20010312"),
    ("Καστανίδης^Νεκτάριος", "M", "19540401"),
    ("Haddad^Karim", "M", "19790923"),
    ("Nowak^Zofia", "F", "19930617"),
    ("O'Connor^Aoife", "F", "19710205"),
    ("Журавлёва^Мария", "F", "19600830"),
    ("Ferreira^Paulo", "M", "19841211"),
    ("van der Meer^Bram", "M", "19480119"),
)
_STEPS: Final = (
    ("Second reading, thorax CT", "READING", "110005", "Interpretation", "R7", "Reading room 7"),
    ("Lung nodule detection", "AI", "110004", "Computer Aided Detection", "GPU1", "GPU node 1"),
    ("Vessel reconstruction", "LAB 3D", "110001", "Image Processing", "WS3", "Workstation 3"),
    ("Treatment fraction 12 of 30", "THERAPY", "121726", "RT Treatment", "LINAC2", "Linac 2"),
    ("Quality control", "DEFAULT", "110002", "Quality Control", "QC1", "QC desk"),
    ("Import of an outside CD", "DEFAULT", "110013", "Media Import", "IMP1", "Import desk"),
)
_READERS: Final = ("Reader^Rita", "Ojala^Veikko", "Brandt^Greta")
_PRIORITIES: Final = ("MEDIUM", "MEDIUM", "HIGH", "MEDIUM", "LOW")
_STAGES: Final = (
    ("15", "Loading inputs"),
    ("40", "Segmenting"),
    ("65", "Reading"),
    ("90", "Writing results"),
)


def _attributes() -> Iterator[dict[str, Any]]:
    people, steps = cycle(_PEOPLE), cycle(_STEPS)
    readers, priorities = cycle(_READERS), cycle(_PRIORITIES)
    now = datetime.now(UTC)
    for number in range(COUNT):
        name, sex, born = next(people)
        label, worklist, code, meaning, station, where = next(steps)
        start = now + timedelta(minutes=(number * 37) % 600 - 120)
        reader = {"HumanPerformerName": next(readers), "HumanPerformerOrganization": "Harbour Clinic"}
        yield {
            "ProcedureStepLabel": label,
            "WorklistLabel": worklist,
            "ScheduledProcedureStepPriority": next(priorities),
            "InputReadinessState": "INCOMPLETE" if number % 17 == 5 else "READY",
            "ScheduledProcedureStepStartDateTime": f"{start:%Y%m%d%H%M%S}+0000",
            "ScheduledWorkitemCodeSequence": [_code(code, "DCM", meaning)],
            "ScheduledStationNameCodeSequence": [_code(station, "99STATIONS", where)],
            "ScheduledHumanPerformersSequence": [reader] if number % 3 else [],
            "PatientName": name,
            "PatientID": f"HC-{815 + number * 7:06}",
            "PatientBirthDate": born,
            "PatientSex": sex,
        }


def _code(value: str, scheme: str, meaning: str) -> dict[str, str]:
    return {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}


def department(api: Management, web: WebClient) -> list[str]:
    """Fill and work on the worklist; return the UIDs in the order of creation."""
    uids = [str(api.post("/workitems", {"attributes": attribute})["uid"]) for attribute in _attributes()]
    for number, uid in enumerate(uids):
        match number % 4:
            case 0 if number % 20 == 8:
                api.act(uid, "request-cancel", {"reason": "Ordered twice"})
            case 0:
                api.act(uid, "claim")
                api.act(uid, "complete")
            case 1:
                _work(web, uid, 1 + number % len(_STAGES))
    return uids


def _work(web: WebClient, uid: str, stages: int) -> None:
    transaction = web.claim(uid)
    for percent, description in _STAGES[:stages]:
        path = f"/workitems/{uid}?transaction-uid={transaction}"
        answer = web.post(path, progress(percent, description))
        assert answer.status_code == 200, answer.text
