# SPDX-License-Identifier: AGPL-3.0-or-later
"""What twenty rules cost an upload of images, in turns with an Orthanc whose script is empty."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from tests.bench import client_upload
from tests.bench.measuring import run_client, spent
from tests.bench.report import Part, Row, at_least, at_most, median, milliseconds
from tests.support.orthanc import Json, RealOrthanc

IMAGES, SENDERS, ROUNDS = 600, 4, 6
_STABLE_AGE: Final = 1
_REST: Final = 2.5
_EMPTY: Final = "import orthanc\n"


def rules() -> list[Json]:
    """Twenty: ten look at images as they arrive, ten at series that are stable; one of these fires for each series."""
    stored: list[Json] = [
        {
            "Name": f"stored {modality}",
            "When": "StoredInstance",
            "If": {"Modality": modality, "PatientID": "*"},
            "Update": {
                "Matching": {"PatientID": "{PatientID}", "WorklistLabel": "X"},
                "AddInputs": "instance",
            },
        }
        for modality in ("SR", "RTPLAN", "RTSTRUCT", "RTDOSE", "SEG", "PR", "KO", "US", "MR", "PT")
    ]
    stable: list[Json] = [
        {
            "Name": f"stable {number}",
            "When": "StableSeries",
            "If": {
                "Modality": "CT",
                "SliceThickness": "0-10",
                "StationName": "CT*" if number == 0 else f"NOBODY{number}",
            },
            "Create": {"Attributes": {"ProcedureStepLabel": "AI of {PatientID}"}},
        }
        for number in range(10)
    ]
    return stored + stable


def _orthanc(suite: str, script: str | None) -> RealOrthanc:
    ups: Json = {"Rules": rules()} if script is None else {"Enable": False}
    orthanc = RealOrthanc(suite, {"StableAge": _STABLE_AGE, "Ups": ups})
    if script is not None:
        file = orthanc.folder / "empty.py"
        file.write_text(script)
        orthanc.configuration["PythonScript"] = str(file)
    return orthanc


def uploads(suite: str, attempts: int) -> Part:
    """Upload throughput and processor time."""
    with _orthanc(suite, None) as ours, _orthanc(suite, _EMPTY) as floor:
        rounds = [_round(ours, floor, number) for number in range(max(ROUNDS, attempts))]
    figures = {key: median([each[key] for each in rounds]) for key in rounds[0]}
    ratio = median([each["rate of ours"] / each["rate of floor"] for each in rounds])
    rows = [
        at_least("uploads", ratio * figures["rate of floor"], figures["rate of floor"], "images/s", aim=0.9),
        _processor(figures),
    ]
    how = (
        f"{IMAGES} CT images of pydicom in series of 100 a round by POST /instances, {SENDERS} senders at once, "
        f"{len(rounds)} rounds in turns, series stable after {_STABLE_AGE} s; twenty rules against a "
        "Python plugin with an empty script; ours is the middle of the ratios of all rounds."
    )
    return Part("Uploads with twenty rules", how, rows)


def _processor(figures: dict[str, float]) -> Row:
    ours, floor = figures["cost of ours"], figures["cost of floor"]
    return at_most(
        "processor time of Orthanc an image", milliseconds(ours), milliseconds(floor), ours / floor, "×"
    )


def _round(ours: RealOrthanc, floor: RealOrthanc, number: int) -> dict[str, float]:
    figures: dict[str, float] = {}
    pairs = [("ours", ours), ("floor", floor)]
    for name, orthanc in pairs if number % 2 else reversed(pairs):
        before = spent(orthanc.pid)["process"]
        figures[f"rate of {name}"] = _uploaded(orthanc, number)
        time.sleep(_REST)  # the last series come to rest at the expense of nobody else's round
        figures[f"cost of {name}"] = (spent(orthanc.pid)["process"] - before) / IMAGES
    return figures


def _uploaded(orthanc: RealOrthanc, number: int) -> float:
    return run_client(
        client_upload.upload, url=orthanc.base_url, count=IMAGES, senders=SENDERS, first=number * IMAGES
    )


PARTS: dict[str, Callable[[str, int], Part]] = {"rules": uploads}
