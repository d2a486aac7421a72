# SPDX-License-Identifier: AGPL-3.0-or-later
"""Answers to commands that were carried out: what was corrected fits into headers."""

from __future__ import annotations

from orthanc_ups.core import statuses
from orthanc_ups.core.outcome import Outcome
from orthanc_ups.core.statuses import Service
from orthanc_ups.dicomweb import answers

BASE = "http://worklist/dicom-web"


def test_many_corrections_are_cut_between_words_and_the_answer_says_so() -> None:
    details = tuple(f"Attribute{number} (0040,{number:04}) was added empty" for number in range(200))
    response = answers.done(
        Outcome(statuses.CREATED_MODIFIED, "2.25.1", details=details), Service.CREATE, BASE
    )
    warning = next(value for name, value in response.headers if name == "Warning" and "Attribute0" in value)
    assert warning.endswith(" ... (more in X-Ups-Modifications)")
    modifications = response.header("X-Ups-Modifications") or ""
    assert modifications.endswith(" ...")
    assert all(len(word) < 20 for word in modifications.split(" "))
    assert (
        sum(len(name) + len(value) + 4 for name, value in response.headers) < 3700
    )  # nginx takes 4 KiB in all


def test_few_corrections_are_named_whole() -> None:
    details = ("PatientName (0010,0010) was added empty",)
    response = answers.done(
        Outcome(statuses.CREATED_MODIFIED, "2.25.1", details=details), Service.CREATE, BASE
    )
    assert response.header("X-Ups-Modifications") == details[0]
    assert ("Warning", f"299 {BASE}: {details[0]}") in response.headers
