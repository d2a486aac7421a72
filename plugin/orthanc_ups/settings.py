# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every setting of the ``Ups`` section of orthanc.json, with its default.

A field ``dicom_port`` is the key ``DicomPort``. Durations are seconds here; in the file they may also be
texts such as ``"90s"``, ``"15m"``, ``"12h"``, ``"7d"``. config.py reads them, docs/settings.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

from .core.value_rules import DEEPEST


class Duration:
    """Marks a float field as a duration."""


@dataclass(frozen=True, slots=True)
class Range:
    """Marks a number field with its inclusive bounds."""

    low: float
    high: float


Seconds = Annotated[float, Duration()]
Port = Annotated[int, Range(1, 65535)]
Count = Annotated[int, Range(1, 100_000_000)]


@dataclass(frozen=True, slots=True)
class Webhook:
    """One entry of ``Webhooks``: events of an AE title's subscription are POSTed to a URL."""

    url: str
    aet: str
    secret: str = ""
    filter: Mapping[str, str] = field(default_factory=dict)
    event_types: tuple[int, ...] = (1, 2, 3, 4, 5)
    timeout: Seconds = 10.0


@dataclass(frozen=True, slots=True)
class Settings:
    """The ``Ups`` section. Fields in the order of the tables in docs/settings.md."""

    enable: bool = False

    # Who we are and where we listen
    aet: str = ""  # "" means Orthanc's DicomAet
    dicom_port: Port = 4243
    http_port: Port = 8043
    bind_address: str = ""  # "" means every interface (HTTP: loopback unless RemoteAccessAllowed)
    root: str = "/dicom-web"
    public_url: str = ""
    trusted_proxies: tuple[str, ...] = ()

    # The worklist
    worklist_label: str = "DEFAULT"  # for workitems that come without Worklist Label
    strict: bool = False  # True: data sets by the letter of PS3.4 5.4.2, nothing is corrected
    deletion_locks: bool = True  # False: locks are not granted (B301)
    status_change_receivers: tuple[str, ...] = ()  # AE titles told of RESTARTED and GOING DOWN in any case
    history_length: Count = 100  # entries kept per workitem
    maximum_workitems: Count = 1_000_000
    projection_file: str = ""  # "" means beside Orthanc's index

    # Retention
    retain_final: Seconds = 7 * 86_400.0
    maximum_lock_age: Seconds = 0.0  # 0: locks are never released by themselves
    cancel_expired: bool = False
    remember_purged: Seconds = 30 * 86_400.0  # how long 410 instead of 404

    # Delivery
    retry_first: Seconds = 1.0
    retry_factor: Annotated[float, Range(1.0, 100.0)] = 2.0
    retry_maximum: Seconds = 300.0
    dead_letter_after: Seconds = 7 * 86_400.0
    maximum_pending_per_subscriber: Count = 100_000
    maximum_dead_letters: Count = 10_000  # per subscriber
    replace_waiting_progress: bool = True
    replay_window: Seconds = 86_400.0  # how long delivered events can be asked for again
    webhooks: tuple[Webhook, ...] = ()

    # DIMSE limits
    maximum_associations: Count = 100
    maximum_pdu_size: Annotated[int, Range(4096, 131_072)] = 65_536
    maximum_data_set_size: Count = 8 * 1024 * 1024  # bytes
    association_idle_timeout: Seconds = 60.0
    association_handshake_timeout: Seconds = 10.0
    event_association_idle_timeout: Seconds = 10.0
    dimse_timeout: Seconds = 30.0

    # HTTP limits
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allowed_origins: tuple[str, ...] = ()
    maximum_body_size: Count = 8 * 1024 * 1024  # bytes
    maximum_nesting: Annotated[int, Range(1, DEEPEST)] = 32
    maximum_header_size: Count = 16 * 1024  # bytes
    maximum_connections: Count = 2_000
    http_idle_timeout: Seconds = 75.0
    maximum_results: Count = 1_000  # default and greatest page of a search
    authorization_cache: Seconds = 5.0
    web_socket_ping: Seconds = 20.0
    web_socket_queue: Count = 1_000  # events a slow socket may lag before it is dropped

    # The page
    templates: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the plugin takes from the rest of orthanc.json.

    Attributes:
        dicom_aet: Orthanc's own AE title.
        http_port: its HTTP port; ``http_tls`` if it speaks HTTPS.
        dicom_server_enabled: False if DicomServerEnabled is false.
    """

    dicom_aet: str = "ORTHANC"
    http_port: int = 8042
    http_tls: bool = False
    ssl_certificate: str = ""
    remote_access_allowed: bool = False
    authentication_enabled: bool = False
    check_revisions: bool = False
    allow_threads: bool = False
    index_directory: str = "."
    check_called_aet: bool = False
    check_modality_host: bool = False
    always_allow_echo: bool = True
    always_allow_find: bool = False
    always_allow_find_worklist: bool = True
    dicom_tls_enabled: bool = False
    dicom_tls_certificate: str = ""
    dicom_tls_private_key: str = ""
    dicom_tls_trusted_certificates: str = ""
    dicom_tls_remote_certificate_required: bool = True
    dicom_tls_minimum_protocol_version: int = 0
    dicom_scu_timeout: float = 10.0
    default_encoding: str = "Latin1"
    metrics_enabled: bool = True
    shares_database: bool = False  # other Orthancs may work on the same index
    raw: Mapping[str, object] = field(default_factory=dict)
