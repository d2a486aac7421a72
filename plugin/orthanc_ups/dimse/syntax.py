# SPDX-License-Identifier: AGPL-3.0-or-later
"""The transfer syntaxes of the DIMSE wire, and how they write each VR (PS3.5 §7.1, Annex A)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32


@dataclass(frozen=True, slots=True)
class Syntax:
    """One transfer syntax.

    Attributes:
        uid: Transfer Syntax UID.
        explicit: True if each element names its VR.
        order: ``<`` for little, ``>`` for big endian, as module struct spells it.
        deflated: True if the data set is compressed (PS3.5 §A.5).
    """

    uid: str
    explicit: bool
    order: str = "<"
    deflated: bool = False


IMPLICIT: Final = Syntax("1.2.840.10008.1.2", explicit=False)
EXPLICIT: Final = Syntax("1.2.840.10008.1.2.1", explicit=True)
DEFLATED: Final = Syntax("1.2.840.10008.1.2.1.99", explicit=True, deflated=True)
BIG_ENDIAN: Final = Syntax("1.2.840.10008.1.2.2", explicit=True, order=">")

SYNTAXES: Final[Mapping[str, Syntax]] = MappingProxyType(
    {syntax.uid: syntax for syntax in (EXPLICIT, IMPLICIT, DEFLATED, BIG_ENDIAN)}
)
"""By UID, in the order in which we like them."""

UNDEFINED: Final = 0xFFFFFFFF
"""The length of a sequence or item that ends with a delimiter."""

SHORT_VRS: Final = frozenset(vr.value for vr in EXPLICIT_VR_LENGTH_16)
"""VRs whose length has 16 bits in explicit syntaxes (PS3.5 Table 7.1-2)."""

LONG_VRS: Final = frozenset(vr.value for vr in EXPLICIT_VR_LENGTH_32)
"""VRs whose length has 32 bits in explicit syntaxes (PS3.5 Table 7.1-1)."""

WORD_SIZES: Final[Mapping[str, int]] = MappingProxyType({"OW": 2, "OF": 4, "OL": 4, "OD": 8, "OV": 8})
"""Bytes of one word of the binary VRs that know a byte order."""


def swapped(binary: bytes, vr: str) -> bytes:
    """Binary words in the other byte order; the inner form has them little endian (PS3.18 §F.2.7)."""
    size = WORD_SIZES.get(vr, 1)
    if size == 1:
        return binary
    return b"".join(binary[place : place + size][::-1] for place in range(0, len(binary), size))
