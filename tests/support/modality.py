# SPDX-License-Identifier: AGPL-3.0-or-later
"""A modality that performs what its worklist says: performed procedure steps over pynetdicom (PS3.4 Annex F)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Self

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import DataSet, Element, element
from orthanc_ups.modality.performed_steps import PERFORMED_STEP, RETRIEVE
from tests.support.dimse_client import UPS_CLASSES, Answer, UpsClient
from tests.support.workitems import CT_IMAGE, changed, code

STUDY: Final = "2.25.4711"


class ModalityClient(UpsClient):
    """One association of a modality with the worklist's own port."""

    def __init__(self, port: int, calling: str = "CT1", **more: Any) -> None:
        super().__init__(port, calling, contexts=(PERFORMED_STEP, RETRIEVE, *UPS_CLASSES), **more)

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def begin(self, uid: str | None, attributes: DataSet) -> Answer:
        """N-CREATE of a performed procedure step."""
        return self.create(attributes, uid, on=PERFORMED_STEP, as_class=PERFORMED_STEP)

    def report(self, uid: str, attributes: DataSet) -> Answer:
        """N-SET of a performed procedure step."""
        dataset = self._dataset(attributes)
        send = self.association.send_n_set
        return self._answer(*send(dataset, PERFORMED_STEP, uid, msg_id=self._id(), meta_uid=PERFORMED_STEP))

    def retrieve(self, uid: str, requested: Sequence[str] = ()) -> Answer:
        """N-GET of a performed procedure step."""
        listed = [int(tag, 16) for tag in requested]
        send = self.association.send_n_get
        return self._answer(*send(listed, PERFORMED_STEP, uid, msg_id=self._id(), meta_uid=RETRIEVE))


def scheduled(**changes: Element | None) -> DataSet:
    """One item of Scheduled Step Attributes Sequence."""
    item: DataSet = {
        "00080050": element("SH"),
        "00081110": element("SQ"),
        "0020000D": element("UI", STUDY),
        "00321060": element("LO"),
        "00400007": element("LO"),
        "00400008": element("SQ"),
        "00400009": element("SH"),
        "00401001": element("SH"),
    }
    return changed(item, **changes)


def begun(*steps: DataSet, **changes: Element | None) -> DataSet:
    """The data set of an N-CREATE; ``steps`` are items of Scheduled Step Attributes Sequence."""
    attributes: DataSet = {
        "00080060": element("CS", "CT"),
        "00081032": element("SQ"),
        "00081120": element("SQ"),
        tags.PATIENT_NAME: element("PN", {"Alphabetic": "Müller^Jörg"}),
        tags.PATIENT_ID: element("LO", "P1"),
        "00100030": element("DA", "19700101"),
        "00100040": element("CS", "M"),
        "00200010": element("SH", "S1"),
        "00400241": element("AE", "CT1"),
        "00400242": element("SH", "Scanner"),
        "00400243": element("SH"),
        "00400244": element("DA", "20261201"),
        "00400245": element("TM", "083100"),
        "00400250": element("DA"),
        "00400251": element("TM"),
        "00400252": element("CS", "IN PROGRESS"),
        "00400253": element("SH", "PPS1"),
        "00400254": element("LO", "Thorax nativ"),
        "00400255": element("LO"),
        "00400260": element("SQ"),
        "00400270": element("SQ", *(steps or (scheduled(),))),
        "00400340": element("SQ"),
    }
    return changed(attributes, **changes)


def series(number: int = 1, instances: int = 2) -> DataSet:
    """One item of Performed Series Sequence."""
    images: list[DataSet] = [
        {"00081150": element("UI", CT_IMAGE), "00081155": element("UI", f"{STUDY}.{number}.{image}")}
        for image in range(1, instances + 1)
    ]
    return {
        "00080054": element("AE"),
        "0008103E": element("LO"),
        "00081050": element("PN"),
        "00081070": element("PN"),
        "00081140": element("SQ", *images),
        "00181030": element("LO", "Thorax"),
        "0020000E": element("UI", f"{STUDY}.{number}"),
        "00400220": element("SQ"),
    }


def ended(status: str = "COMPLETED", **changes: Element | None) -> DataSet:
    """The data set of the last N-SET."""
    attributes: DataSet = {
        "00400250": element("DA", "20261201"),
        "00400251": element("TM", "084500"),
        "00400252": element("CS", status),
        "00400340": element("SQ", series(1), series(2)),
    }
    return changed(attributes, **changes)


def discontinued(meaning: str = "Patient refused to continue procedure") -> DataSet:
    """The data set of the last N-SET of a discontinued step."""
    reason = code("110501" if not meaning else "110516", "DCM", meaning)
    return ended("DISCONTINUED", t00400281=element("SQ", reason))
