# SPDX-License-Identifier: AGPL-3.0-or-later
"""An event report as DICOM JSON: one object, the command set first (PS3.18 §11.13, PS3.4 CC.2.4).

Beyond the standard it carries its sequence, so that a client can ask for what it missed. Message ID (0000,0110) has
16 bits only, so the sequence stands in a private block, as DICOM has always let vendors add something: (0077,0010)
reserves the block for ``ORTHANC-UPS``, (0077,1001) is the sequence in decimal digits. Its VR is LO, which every
reader knows (not UV, which older ones refuse). Who does not know the block passes over it; nobody is sent an
element that the standard gives another meaning.
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
    """The event as a data set, ascending by tag."""
    return {
        "00000002": element("UI", tags.PUSH),
        "00000110": element("US", event.sequence % _MESSAGE_IDS + 1),
        "00001000": element("UI", event.uid),
        "00001002": element("US", int(event.type)),
        **event.information,
        _CREATOR_TAG: element("LO", PRIVATE_CREATOR),
        SEQUENCE_TAG: element("LO", str(event.sequence)),
    }
