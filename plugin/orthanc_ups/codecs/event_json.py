# SPDX-License-Identifier: AGPL-3.0-or-later
"""An event report as DICOM JSON: one object, the command set first (PS3.18 §11.13, PS3.4 CC.2.4).

Beyond the standard it has its sequence number, so that a client can ask for what it missed. Message ID (0000,0110) has
only 16 bits, so the sequence number is in a private block: (0077,0010) reserves the block for ``ORTHANC-UPS``, and
(0077,1001) is the sequence number in decimal digits. Its VR is LO, which every reader knows (older ones refuse UV).
Clients that do not know the block ignore it.
"""

from __future__ import annotations

from typing import Final

from ..core import tags
from ..core.dataset import DataSet, element
from ..core.events import Event
from . import dicom_json

PRIVATE_CREATOR: Final = "ORTHANC-UPS"
SEQUENCE_TAG: Final = "00771001"
_CREATOR_TAG: Final = "00770010"
_MESSAGE_IDS: Final = 65535


def encode(event: Event) -> bytes:
    """The event as UTF-8 JSON text."""
    return dicom_json.encode(data_set(event))


def data_set(event: Event) -> DataSet:
    """The event as a data set, in ascending order of tags."""
    return {
        "00000002": element("UI", tags.PUSH),
        "00000110": element("US", event.sequence % _MESSAGE_IDS + 1),
        "00001000": element("UI", event.uid),
        "00001002": element("US", int(event.type)),
        **event.information,
        _CREATOR_TAG: element("LO", PRIVATE_CREATOR),
        SEQUENCE_TAG: element("LO", str(event.sequence)),
    }
