# SPDX-License-Identifier: AGPL-3.0-or-later
"""The AEs that Orthanc knows (``DicomModalities``), as the wires see them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Modality:
    """One entry of ``DicomModalities``.

    Attributes:
        name: the key of the entry in Orthanc.
        ae_title: its AE title, without padding.
        host: name or address.
        port: DICOM port, 1–65535.
        use_dicom_tls: True if associations to it use TLS.
        local_aet: the calling AE title to show to it, or "" for the default.
        timeout: seconds for its network operations, 0 for the default.
        allow_find_worklist: False if Orthanc would refuse its worklist queries.
        allow_echo: False if Orthanc would refuse its C-ECHO.
    """

    name: str
    ae_title: str
    host: str
    port: int
    use_dicom_tls: bool = False
    local_aet: str = ""
    timeout: float = 0.0
    allow_find_worklist: bool = True
    allow_echo: bool = True


class Modalities(Protocol):
    """A view of Orthanc's modalities that is kept fresh in the background."""

    def by_ae_title(self, ae_title: str) -> tuple[Modality, ...]:
        """The entries with this AE title, from memory; () if unknown. Never blocks."""
        ...

    async def lookup(self, ae_title: str) -> tuple[Modality, ...]:
        """As by_ae_title, but asks Orthanc first if the AE title is unknown or the view is stale."""
        ...
