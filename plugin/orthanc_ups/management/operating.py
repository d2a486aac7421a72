# SPDX-License-Identifier: AGPL-3.0-or-later
"""Builds the management API over the running service, with its charts and warnings."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from .. import __version__
from ..delivery.management import DeliveryManagement
from ..dicomweb.origins import Origins
from ..dicomweb.rights import ANYONE, Rights
from ..dimse.scu import DimseChannel
from ..modality.performed_step_store import PerformedSteps
from ..orthanc.local_zone import local_zone
from ..orthanc.loopback import Loopback
from ..orthanc.modalities import OrthancModalities
from ..rules.automation import Automation
from ..rules.routes import RuleRoutes
from ..service import UpsService
from ..settings import OrthancSettings, Settings
from ..transfer.routes import Transfer
from ..webhook.channel import webhook_names
from ..worklist.late_watch import LateWatch
from . import sentences
from .activity import Activity
from .alerts import Alert
from .answers import NodesJson
from .api import ManagementApi, Ports
from .inspection import LoopbackResources, ServiceInspection
from .nodes import Nodes
from .performed_steps import PerformedStepRoutes
from .ports import Listener, ServerFacts
from .routing import Admission
from .storage import Storage
from .templates import late_policy, read_templates

LISTENERS: Final = {
    "dimse": ("UPS over DIMSE", "AE title, host and port"),
    "web": ("UPS-RS", "DICOMweb"),
    "events": ("Live events", "WebSocket"),
    "orthanc": ("UPS-RS on Orthanc's port", "as far as Orthanc's server supports it"),
}
"""The addresses of the plugin: name and remark, which the page translates."""


class OperatorClock:
    """The time in the server's zone, and new UIDs."""

    def now(self) -> datetime:
        """The aware time, in the local zone of the server."""
        return datetime.now(local_zone())

    def new_uid(self) -> str:
        """A new, unique UID (PS3.5 §B.2)."""
        return f"2.25.{uuid.uuid4().int}"


@dataclass(frozen=True, slots=True)
class OrthancFacts:
    """Facts about this Orthanc, as it reported them when the worklist was opened."""

    version: str = ""
    name: str = "Orthanc"
    plugins: tuple[str, ...] = ()


async def read_orthanc_facts(loopback: Loopback) -> OrthancFacts:
    """Ask Orthanc for its version, its name and the other plugins. May raise StoreUnavailable."""
    system = (await loopback.request("GET", "/system")).json()
    plugins = (await loopback.request("GET", "/plugins")).json()
    return OrthancFacts(str(system.get("Version", "")), str(system.get("Name", "Orthanc")), tuple(plugins))


def facts(settings: Settings, orthanc_settings: OrthancSettings, orthanc: OrthancFacts) -> ServerFacts:
    """The facts that do not change while the plugin runs."""
    templates = read_templates(settings.templates)
    return ServerFacts(
        ae_title=settings.aet or orthanc_settings.dicom_aet,
        archive_ae_title=orthanc_settings.dicom_aet,
        name=orthanc.name,
        version=__version__,
        orthanc_version=orthanc.version,
        listeners=_listeners(settings, orthanc_settings),
        workitems_url=f"{settings.root}/workitems",
        warnings=start_warnings(settings, orthanc_settings),
        maximum_pending=settings.maximum_pending_per_subscriber,
        plugins=orthanc.plugins,
        templates=templates,
        strict=settings.strict,
        late=late_policy(settings, templates),
        webhook_names=webhook_names(settings.webhooks),
        default_language=orthanc_settings.explorer_2_language,
    )


def _listeners(settings: Settings, orthanc_settings: OrthancSettings) -> tuple[Listener, ...]:
    ae_title = settings.aet or orthanc_settings.dicom_aet
    secure = "s" if orthanc_settings.http_tls else ""
    base = settings.public_url or f"http{secure}://{{host}}:{settings.http_port}{settings.root}"
    sockets = base.replace("http", "ws", 1)
    addresses = {
        "dimse": f"{ae_title}@{{host}}:{settings.dicom_port}",
        "web": f"{base}/workitems",
        "events": f"{sockets}/subscribers/{{AE title}}",
        "orthanc": f"{settings.root}/workitems",
    }
    return tuple(Listener(name, addresses[kind], note) for kind, (name, note) in LISTENERS.items())


def start_warnings(settings: Settings, orthanc_settings: OrthancSettings) -> tuple[str, ...]:
    """Warnings about orthanc.json, for the log and the page."""
    warnings: list[str] = []
    if not orthanc_settings.allow_threads:
        warnings.append(sentences.THREADS_OFF)
    if {*settings.users} - {ANYONE} and not orthanc_settings.authentication_enabled:
        warnings.append(sentences.EVERYBODY_ANONYMOUS)
    return tuple(warnings)


def management(
    service: UpsService,
    modalities: OrthancModalities,
    dimse: DimseChannel,
    loopback: Loopback,
    late: LateWatch,
    server_facts: ServerFacts,
    rights: Rights,
    origins: Origins,
    admission: Admission,
    more_alerts: Callable[[], Sequence[Alert]] = tuple,
    uploads_refused: Callable[[], int] = int,
    rules: Automation | None = None,
    performed_steps: PerformedSteps | None = None,
    nodes: Callable[[], NodesJson] | None = None,
) -> tuple[ManagementApi, Activity]:
    """Build the management API, and the activity that its charts show."""
    activity = Activity(lambda: {**service.counters, "uploads_refused": uploads_refused()})
    service.delivery.observe(activity.delivered)
    ports = Ports(
        commands=service.worklist,
        inspection=ServiceInspection(service, late),
        delivery=DeliveryManagement(service.delivery),
        dimse=dimse,
        orthanc=LoopbackResources(loopback),
        modalities=modalities,
        activity=activity,
        clock=OperatorClock(),
        facts=server_facts,
        rights=rights,
        origins=origins,
        admission=admission,
        more_alerts=more_alerts,
    )
    transfer = Transfer(service.exporter, service.import_session)
    storage = Storage(service.entries, ports.clock.now)
    steps = PerformedStepRoutes(performed_steps, service.workitems)
    node = Nodes(nodes or _single_node(server_facts))
    more = (
        *node.routes(),
        *storage.routes(),
        *transfer.routes(),
        *RuleRoutes(rules).routes(),
        *steps.routes(),
    )
    return ManagementApi(ports, more), activity


def _single_node(facts: ServerFacts) -> Callable[[], NodesJson]:
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return lambda: {
        "epoch": 0,
        "lease": 0.0,
        "nodes": [
            {
                "name": facts.name,
                "host": socket.gethostname(),
                "process": os.getpid(),
                "version": facts.version,
                "role": "alone",
                "since": since,
                "seen_before": 0.0,
                "lag": 0.0,
            }
        ],
    }
