# SPDX-License-Identifier: AGPL-3.0-or-later
"""References to instances in Orthanc (PS3.4 Table CC.2.5-3), with as few requests as Orthanc allows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, cast

import orjson

from orthanc_ups.core.dataset import DataSet, items, text
from orthanc_ups.orthanc.loopback import Reply
from orthanc_ups.rules.archive import Archive
from tests.support.service import on_loop

CT, PR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.11.1"
SERIES = "aaaaaaaa-aaaaaaaa-aaaaaaaa-aaaaaaaa-aaaaaaaa"
INSTANCES = {"i3": ("1.9.3", PR, "3"), "i1": ("1.9.1", CT, "1"), "i2": ("1.9.2", CT, "2")}


class SmallOrthanc:
    """Orthanc's HTTP port with one series; before 1.12.5 ``/tools/find`` answers without what is asked for."""

    def __init__(self, *, finds_by_parent: bool = True) -> None:
        self._finds_by_parent = finds_by_parent
        self.requests: list[str] = []

    async def request(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        self.requests.append(path)
        answers: dict[str, Any] = {
            f"/series/{SERIES}": {"ID": SERIES, "Instances": list(INSTANCES)},
            f"/series/{SERIES}/study": {"ID": "study", "ParentPatient": "patient"},
            f"/series/{SERIES}/instances?expand=false": list(INSTANCES),
            "/instances/i3/simplified-tags": {"StudyInstanceUID": "1.7.1", "SeriesInstanceUID": "1.8.1"},
            "/tools/find": [self._found(*instance) for instance in INSTANCES.items()],
            "/tools/bulk-content": [self._expanded(*instance) for instance in INSTANCES.items()],
        }
        return Reply(200, orjson.dumps(answers[path]))

    def _found(self, identifier: str, instance: tuple[str, str, str]) -> Mapping[str, Any]:
        if not self._finds_by_parent:
            return {"ID": identifier}
        uid, sop_class, number = instance
        asked = {"SOPInstanceUID": uid, "SOPClassUID": sop_class, "InstanceNumber": number}
        return {"ID": identifier, "ParentSeries": SERIES, "RequestedTags": asked}

    def _expanded(self, identifier: str, instance: tuple[str, str, str]) -> Mapping[str, Any]:
        uid, sop_class, number = instance
        return {
            "ID": identifier,
            "ParentSeries": SERIES,
            "MainDicomTags": {"SOPInstanceUID": uid, "InstanceNumber": number},
            "Metadata": {"SopClassUid": sop_class},
        }


def archive_of(orthanc: SmallOrthanc) -> Archive:
    return Archive(cast("Any", orthanc), "ORTHANC", lambda: datetime.now(UTC))


def referenced(item: DataSet) -> list[tuple[str, str]]:
    return [
        (text(reference, "00081155"), text(reference, "00081150")) for reference in items(item, "00081199")
    ]


IN_ORDER = [("1.9.1", CT), ("1.9.2", CT), ("1.9.3", PR)]


@on_loop
async def test_a_series_is_referenced_by_one_question_with_each_instance_and_its_class_by_number() -> None:
    orthanc = SmallOrthanc()
    (item,) = await archive_of(orthanc).references("series", SERIES, "DICOM")
    assert (text(item, "0020000D"), text(item, "0020000E")) == ("1.7.1", "1.8.1")
    assert referenced(item) == IN_ORDER
    assert orthanc.requests.count("/tools/find") == 1
    assert "/tools/bulk-content" not in orthanc.requests


@on_loop
async def test_an_orthanc_that_cannot_find_by_series_is_asked_once_and_then_for_lists() -> None:
    orthanc = SmallOrthanc(finds_by_parent=False)
    archive = archive_of(orthanc)
    for _ in range(2):
        (item,) = await archive.references("series", SERIES, "DICOM")
        assert referenced(item) == IN_ORDER
    assert orthanc.requests.count("/tools/find") == 1
