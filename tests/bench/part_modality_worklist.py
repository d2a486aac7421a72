# SPDX-License-Identifier: AGPL-3.0-or-later
"""Worklist queries of modalities (PS3.4 Annex K) among many workitems, with DCMTK's findscu."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Final

from tests.bench.filling import STATIONS, filled
from tests.bench.measuring import spent
from tests.bench.part_size import LARGE
from tests.bench.report import Part, Row, at_most, median, milliseconds
from tests.support.dcmtk import findscu_worklist
from tests.support.orthanc import Json, RealOrthanc

_STEP: Final = "ScheduledProcedureStepSequence[0]"
_DATE: Final = f"{_STEP}.ScheduledProcedureStepStartDate=20261110"
_AE: Final = f"{_STEP}.ScheduledStationAETitle=CT3"
_RETURNED: Final = (
    "PatientName",
    "PatientID",
    "AccessionNumber",
    "StudyInstanceUID",
    "RequestedProcedureID",
    f"{_STEP}.ScheduledProcedureStepStartTime",
    f"{_STEP}.ScheduledProcedureStepID",
    f"{_STEP}.ScheduledProcedureStepDescription",
)
_NOBODY: Final = ("PatientID=NOBODY",)
QUERIES: Final[dict[str, Sequence[str]]] = {
    "date, AE title and modality": (_DATE, _AE, f"{_STEP}.Modality=CT"),
    "date and modality": (_DATE, f"{_STEP}.Modality=CT"),
    "date": (_DATE,),
    "AE title": (_AE,),
    "patient ID": ("PatientID=PAT78",),
    "patient ID with wildcard": ("PatientID=PAT78*",),
    "name with wildcards that nobody has": ("PatientName=*NOBODY*",),
    "step ID": (f"{_STEP}.ScheduledProcedureStepID=UPS4711",),
    "step ID with wildcard": (f"{_STEP}.ScheduledProcedureStepID=UPS4711*",),
    "requested procedure ID": ("RequestedProcedureID=UPS4711",),
    "description that none has": (f"{_STEP}.ScheduledProcedureStepDescription=*nothing like it*",),
    "date and time": (_DATE, f"{_STEP}.ScheduledProcedureStepStartTime=0800-0805"),
    "AE title with wildcard, and date": (_DATE, f"{_STEP}.ScheduledStationAETitle=CT*"),
    "everything": (),
}


def _settings() -> Json:
    stations = {f"CT{number}": f"ROOM{number}" for number in range(STATIONS)}
    return {"Enable": True, "Stations": stations, "Modalities": dict.fromkeys(stations, "CT")}


def queries(suite: str, attempts: int) -> Part:
    """How long each takes, and processor time of Orthanc: ``ORTHANC_UPS_BENCH_SIZE`` workitems, else 100,000."""
    count = int(os.environ.get("ORTHANC_UPS_BENCH_SIZE") or LARGE)
    modality = {"scu": ["SCU", "127.0.0.1", 104]}
    orthanc = RealOrthanc(suite, {"DicomModalities": modality, "Ups": {"ModalityWorklist": _settings()}})
    try:
        filled(orthanc, count)
        orthanc.start(1_800)
        _asked(orthanc, _NOBODY)
        floor = _median(orthanc, _NOBODY, attempts)
        rows = [_row(orthanc, name, keys, attempts, floor) for name, keys in QUERIES.items()]
    finally:
        orthanc.discard()
    how = (
        f"Seven of ten of {count:,} workitems are SCHEDULED, evenly over 30 days and {STATIONS} stations; the floor "
        "is a query that matches nothing; all with DCMTK's findscu, whose start counts. The difference is of "
        "processor time."
    )
    return Part("Modality Worklist", how, rows)


def _row(
    orthanc: RealOrthanc, name: str, keys: Sequence[str], attempts: int, floor: tuple[float, float, int]
) -> Row:
    took, cost, answers = _median(orthanc, keys, attempts)
    words = [f"{milliseconds(seconds)}, {milliseconds(processor)} of processor" for seconds, processor in (
        (took, cost), floor[:2]
    )]  # fmt: skip
    return at_most(f"{name}: {answers} answers", words[0], words[1], (cost - floor[1]) * 1000, "ms")


def _median(orthanc: RealOrthanc, keys: Sequence[str], attempts: int) -> tuple[float, float, int]:
    """Seconds, those of processor time, and how many answers."""
    results = [_asked(orthanc, keys) for _ in range(2 * attempts + 1)]
    return median([took for took, _, _ in results]), median([cost for _, cost, _ in results]), results[-1][2]


def _asked(orthanc: RealOrthanc, keys: Sequence[str]) -> tuple[float, float, int]:
    names = {key.partition("=")[0] for key in keys}
    before, begun = spent(orthanc.pid)["process"], time.perf_counter()
    answers = findscu_worklist(
        orthanc.dicom_port, [*keys, *(name for name in _RETURNED if name not in names)]
    )
    return time.perf_counter() - begun, spent(orthanc.pid)["process"] - before, len(answers)


PARTS: dict[str, Callable[[str, int], Part]] = {"worklist": queries}
