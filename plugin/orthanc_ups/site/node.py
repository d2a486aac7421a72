# SPDX-License-Identifier: AGPL-3.0-or-later
"""The parts of a node that do not depend on whether it keeps the worklist: settings, ports, checks of callers."""

from __future__ import annotations

import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import tzinfo
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.ae_titles import AeTitles
from ..dicomweb.authorization import Authorization
from ..dicomweb.http_port import HttpPort
from ..dicomweb.origins import Origins
from ..dicomweb.rights import Rights
from ..dimse.data_sets import Codec
from ..dimse.policy import Policy, Resolver
from ..dimse.scp import DimseServer
from ..dimse.services import Services
from ..health import Health
from ..modality.stations import Stations
from ..modality.worklist_callback import WorklistRequests
from ..monitoring.disk_space import DiskSpace
from ..monitoring.metrics import Instruments
from ..orthanc.descriptors import Descriptors
from ..orthanc.loopback import Loopback
from ..orthanc.modalities import OrthancModalities
from ..orthanc.refusal_log import RefusalLog
from ..projection.projection import Projection
from ..rules.change_listener import ChangeListener
from ..settings import OrthancSettings, Settings
from ..store.key_value import KeyValueEntries
from .lifetime import T, retry

if TYPE_CHECKING:
    from ..cluster.member import Cluster


def projection_file(settings: Settings, orthanc_settings: OrthancSettings) -> Path:
    """Path of the search index."""
    chosen = settings.projection_file
    return Path(chosen) if chosen else Path(orthanc_settings.index_folder) / "orthanc-ups.sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenNode:
    """An Orthanc that runs the plugin, whether or not it keeps the worklist. Used on the loop.

    Attributes:
        key_value: the functions for key-value stores; None if the Python plugin has none.
        worklists: answers worklist queries on Orthanc's DICOM port; None if that is off.
        change_listener: is notified of arriving images; None if there are no rules.
        http: the DICOMweb port.
        listening: done once the DICOMweb port is open.
        dimse_context: for TLS on the DIMSE port; None without TLS.
        own_ae: AE title of the worklist.
    """

    settings: Settings
    orthanc_settings: OrthancSettings
    own_ae: str
    zone: tzinfo
    health: Health
    instruments: Instruments
    descriptors: Descriptors
    refusals: RefusalLog
    disk_space: DiskSpace
    loopback: Loopback
    key_value: KeyValueEntries | None
    titles: AeTitles
    modalities: OrthancModalities
    stations: Stations
    worklists: WorklistRequests | None
    change_listener: ChangeListener | None
    http: HttpPort
    listening: Awaitable[None]
    dimse_context: ssl.SSLContext | None
    resolver: Resolver
    policy: Policy
    authorization: Authorization
    rights: Rights
    origins: Origins

    async def retry(self, part: str, step: Callable[[], Awaitable[T]]) -> T:
        """Retry a step until it succeeds, and return its result. ``part`` is what the step opens."""
        return await retry(self.health, part, step)

    def open_projection(self) -> Projection:
        """Open the search index. Raises ProjectionBroken."""
        return Projection.open(projection_file(self.settings, self.orthanc_settings), timezone=self.zone)

    def dimse_server(self, services: Services, codec: Codec, seen: Callable[[str], object]) -> DimseServer:
        """The DIMSE port, still closed. ``seen`` is called with the AE title of each peer that opens an association."""
        return DimseServer(
            self.settings,
            self.policy,
            services,
            codec,
            seen,
            self.descriptors.share(),
            self.refusals,
            self.dimse_context,
        )


@dataclass(frozen=True, slots=True)
class SharedParts:
    """The further parts of a node that shares the worklist with others, for as long as it runs."""

    cluster: Cluster
    server: DimseServer
    codec: Codec
