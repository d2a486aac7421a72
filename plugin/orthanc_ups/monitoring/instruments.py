# SPDX-License-Identifier: AGPL-3.0-or-later
"""What tells of the running service: the meters of its wires, and what Orthanc lends us to tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..dicomweb.http_port import HttpPort
from ..dicomweb.websocket_channel import WebSocketChannel
from ..dimse.scp import DimseServer
from ..dimse.scu import DimseChannel
from ..health import Health
from .audit import Emit


@dataclass(frozen=True, slots=True)
class Instruments:
    """What Orthanc lends us.

    Attributes:
        publish: sets a metric by its name.
        emit: takes an audit record; None if this Orthanc has no audit log.
        uploads_refused: how many uploads of UPS objects were refused.
    """

    publish: Callable[[str, float], None]
    emit: Emit | None
    uploads_refused: Callable[[], int]


@dataclass(frozen=True, slots=True)
class Wires:
    """The wires whose numbers are told."""

    dimse: DimseServer
    events: DimseChannel
    http: HttpPort
    health: Health
    sockets: WebSocketChannel


def meters(wires: Wires, instruments: Instruments) -> Mapping[str, Callable[[], float]]:
    """A reading for each metric that the service itself does not know."""
    return {
        "ups_service_open": lambda: wires.health.report().is_well,
        "ups_associations": lambda: wires.dimse.associations,
        "ups_event_associations": lambda: wires.events.associations,
        "ups_http_connections": lambda: wires.http.connections,
        "ups_dimse_port_open": lambda: wires.dimse.is_open,
        "ups_http_port_open": lambda: wires.http.is_open,
        "ups_web_sockets": lambda: sum(1 for _ in wires.sockets.connections()),
        "ups_uploads_refused_total": instruments.uploads_refused,
    }
