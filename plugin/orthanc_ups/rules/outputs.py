# SPDX-License-Identifier: AGPL-3.0-or-later
"""``Ups.CheckOutputs``: a workitem is completed only if those outputs exist that it references in this Orthanc."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final
from urllib.parse import urlsplit

from ..core.dataset import DataSet, items, text, values
from .archive import Archive

_DICOM: Final = "0040E021"
_WADO_URI: Final = "0040E023"
_WADO_RS: Final = "0040E025"
_RETRIEVE_AE: Final = "00080054"
_URI: Final = "0040E010"
_URL: Final = "00081190"
_REFERENCED: Final = "00081199"
_INSTANCE: Final = "00081155"
_LOCAL: Final = ("localhost", "127.0.0.1", "::1")


class OutputsInArchive:
    """Implements ``worklist.Outputs``."""

    def __init__(
        self, archive: Archive, ae_titles: Iterable[str], public_url: str, ports: Iterable[int]
    ) -> None:
        """References name this Orthanc by its AE titles, ``Ups.PublicUrl``, or local addresses with its ports."""
        self._archive = archive
        self._titles = frozenset(title.upper() for title in ae_titles)
        self._public_url = public_url.rstrip("/")
        self._ports = frozenset(ports)

    async def missing(self, references: Sequence[DataSet]) -> Sequence[str]:
        """SOP Instance UIDs that are referenced in this Orthanc and not in it. Raises StoreUnavailable."""
        own = [item for item in references if self._is_here(item)]
        return await self._archive.missing_instances(uid for item in own for uid in _instances(item))

    def _is_here(self, item: DataSet) -> bool:
        titles = (
            str(ae).strip().upper() for source in items(item, _DICOM) for ae in values(source, _RETRIEVE_AE)
        )
        if any(title in self._titles for title in titles):
            return True
        addresses = (
            text(retrieval, tag)
            for name, tag in ((_WADO_RS, _URL), (_WADO_URI, _URI))
            for retrieval in items(item, name)
        )
        return any(map(self._is_own_address, addresses))

    def _is_own_address(self, address: str) -> bool:
        if self._public_url and address.startswith(f"{self._public_url}/"):
            return True
        try:
            parts = urlsplit(address)
            return parts.hostname in _LOCAL and parts.port in self._ports
        except ValueError:
            return False


def _instances(item: DataSet) -> Iterator[str]:
    for referenced in items(item, _REFERENCED):
        if uid := text(referenced, _INSTANCE):
            yield uid
