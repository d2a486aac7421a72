# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every setting of the ``Ups`` section of orthanc.json, with its default.

A field ``dicom_port`` is the key ``DicomPort``. Durations are seconds here; in the file they may also be
texts such as ``"90s"``, ``"15m"``, ``"12h"``, ``"7d"``. config.py reads them, docs/settings.md lists them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Final

from .core.value_rules import DEEPEST


class Duration:
    """Marks a float field as a duration."""


@dataclass(frozen=True, slots=True)
class Range:
    """Marks a number field with its inclusive bounds."""

    low: float
    high: float


Seconds = Annotated[float, Duration()]
Timeout = Annotated[float, Duration(), Range(0.1, 366 * 86_400.0)]
Port = Annotated[int, Range(1, 65535)]
Count = Annotated[int, Range(1, 100_000_000)]


AUTO: Final = "auto"
KEY_VALUE: Final = "key-value"
METADATA: Final = "metadata"
STORES: Final = (AUTO, KEY_VALUE, METADATA)
"""The values of ``Store``."""


@dataclass(frozen=True, slots=True)
class Webhook:
    """One entry of ``Webhooks``: events of an AE title's subscription are POSTed to a URL."""

    url: str
    aet: str
    name: str = ""  # how the page calls it
    secret: str = ""
    filter: Mapping[str, str] = field(default_factory=dict)
    event_types: tuple[int, ...] = (1, 2, 3, 4, 5)
    timeout: Timeout = 10.0


@dataclass(frozen=True, slots=True)
class ModalityWorklist:
    """``ModalityWorklist``: workitems for modalities that know worklist queries (MWL) and MPPS only."""

    enable: bool = False
    stations: Mapping[str, str] = field(default_factory=dict)  # AE title to "CODE" or "CODE^SCHEME"
    modalities: Mapping[str, str] = field(default_factory=dict)  # AE title to Modality (0008,0060)
    show_in_progress: bool = False  # True: workitems that are IN PROGRESS are answered too, as STARTED
    maximum_answers: Count = 1_000  # per query, without those of the worklists plugin


@dataclass(frozen=True, slots=True)
class ClusterSettings:
    """The section ``Cluster``: several Orthancs on one PostgreSQL that are one worklist. Rarely needed."""

    database: str = ""  # connection string of PostgreSQL; "" means that of the section PostgreSQL
    address: str = ""  # under which other nodes reach this one; "" means as PostgreSQL sees it
    port: Annotated[int, Range(0, 65535)] = 0  # for other nodes; 0 means any that is free


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
    store: str = AUTO  # one of STORES
    projection_file: str = ""  # "" means beside Orthanc's index

    # Rules
    rules: tuple[Mapping[str, object], ...] = ()
    inherit_subscribers: bool = False  # True: a workitem that replaces another gets its subscribers
    check_outputs: bool = False  # True: C304 while outputs that name this Orthanc are not in it

    # Retention
    retain_final: Seconds = 7 * 86_400.0
    maximum_lock_age: Seconds = 0.0  # 0: locks are never released by themselves
    cancel_expired: bool = False
    remember_purged: Seconds = 30 * 86_400.0  # how long 410 instead of 404

    # What is late
    late_after: Seconds = 900.0  # after the scheduled start; templates have others
    silent_after: Seconds = 4 * 3600.0  # in progress without a word of the performer; 0: never

    # Delivery
    retry_first: Timeout = 1.0
    retry_factor: Annotated[float, Range(1.0, 100.0)] = 2.0
    retry_maximum: Timeout = 300.0
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
    association_handshake_timeout: Timeout = 10.0
    event_association_idle_timeout: Seconds = 10.0
    dimse_timeout: Timeout = 30.0

    # HTTP limits
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allowed_origins: tuple[str, ...] = ()
    maximum_body_size: Count = 8 * 1024 * 1024  # bytes
    maximum_nesting: Annotated[int, Range(1, DEEPEST)] = 32
    maximum_header_size: Count = 16 * 1024  # bytes
    maximum_connections: Count = 2_000
    http_idle_timeout: Timeout = 75.0
    maximum_results: Count = 1_000  # default and greatest page of a search
    authorization_cache: Seconds = 5.0
    web_socket_ping: Timeout = 20.0
    web_socket_queue: Count = 1_000  # events a slow socket may lag before it is dropped

    # Modalities
    modality_worklist: ModalityWorklist = field(default_factory=ModalityWorklist)

    # Several nodes
    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    # The page
    templates: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True)
class Of:
    """Marks a field of Surroundings with its key in orthanc.json; ``.`` parts a section from a key within it."""

    key: str


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the plugin heeds of the rest of orthanc.json, with Orthanc's own defaults."""

    # Orthanc's HTTP server
    http_server_enabled: Annotated[bool, Of("HttpServerEnabled")] = True
    http_port: Annotated[int, Of("HttpPort")] = 8042
    http_bind_addresses: Annotated[tuple[str, ...], Of("HttpBindAddresses")] = ()
    http_threads_count: Annotated[int, Of("HttpThreadsCount")] = 50
    keep_alive: Annotated[bool, Of("KeepAlive")] = True
    keep_alive_timeout: Annotated[int, Of("KeepAliveTimeout")] = 1  # seconds
    remote_access_allowed: Annotated[bool, Of("RemoteAccessAllowed")] = False
    authentication_enabled: Annotated[bool, Of("AuthenticationEnabled")] = (
        False  # absent: as RemoteAccessAllowed
    )
    http_tls: Annotated[bool, Of("SslEnabled")] = False
    ssl_certificate: Annotated[str, Of("SslCertificate")] = "certificate.pem"
    ssl_minimum_protocol_version: Annotated[int, Of("SslMinimumProtocolVersion")] = 4
    ssl_verify_peers: Annotated[bool, Of("SslVerifyPeers")] = False
    ssl_trusted_client_certificates: Annotated[str, Of("SslTrustedClientCertificates")] = ""
    token_http_headers: Annotated[tuple[str, ...], Of("Authorization.TokenHttpHeaders")] = ()
    token_get_arguments: Annotated[tuple[str, ...], Of("Authorization.TokenGetArguments")] = ()

    # Orthanc's store
    stable_age: Annotated[int, Of("StableAge")] = 60  # seconds
    check_revisions: Annotated[bool, Of("CheckRevisions")] = False
    read_only: Annotated[bool, Of("ReadOnly")] = False
    storage_directory: Annotated[str, Of("StorageDirectory")] = "OrthancStorage"
    index_directory: Annotated[str, Of("IndexDirectory")] = ""  # "" means StorageDirectory
    allow_threads: Annotated[bool, Of("Python.AllowThreads")] = False

    # Index plugins: without a lock, several Orthancs may work on one database
    postgresql_index: Annotated[bool, Of("PostgreSQL.EnableIndex")] = False
    postgresql_lock: Annotated[bool, Of("PostgreSQL.Lock")] = True
    postgresql_uri: Annotated[str, Of("PostgreSQL.ConnectionUri")] = ""
    postgresql_host: Annotated[str, Of("PostgreSQL.Host")] = "localhost"
    postgresql_port: Annotated[int, Of("PostgreSQL.Port")] = 5432
    postgresql_database: Annotated[str, Of("PostgreSQL.Database")] = ""
    postgresql_username: Annotated[str, Of("PostgreSQL.Username")] = ""
    postgresql_password: Annotated[str, Of("PostgreSQL.Password")] = ""
    postgresql_ssl: Annotated[bool, Of("PostgreSQL.EnableSsl")] = False
    mysql_index: Annotated[bool, Of("MySQL.EnableIndex")] = False
    mysql_lock: Annotated[bool, Of("MySQL.Lock")] = True
    odbc_index: Annotated[bool, Of("Odbc.EnableIndex")] = False
    odbc_lock: Annotated[bool, Of("Odbc.Lock")] = True

    # Orthanc Explorer 2
    explorer_2_language: Annotated[str, Of("OrthancExplorer2.UiOptions.DefaultLanguage")] = ""

    # DICOM
    dicom_server_enabled: Annotated[bool, Of("DicomServerEnabled")] = True
    dicom_aet: Annotated[str, Of("DicomAet")] = "ORTHANC"
    dicom_port: Annotated[int, Of("DicomPort")] = 4242
    strict_aet_comparison: Annotated[bool, Of("StrictAetComparison")] = False
    check_called_aet: Annotated[bool, Of("DicomCheckCalledAet")] = False
    check_modality_host: Annotated[bool, Of("DicomCheckModalityHost")] = False
    always_allow_echo: Annotated[bool, Of("DicomAlwaysAllowEcho")] = True
    always_allow_find_worklist: Annotated[bool, Of("DicomAlwaysAllowFindWorklist")] = False
    dicom_scu_timeout: Annotated[int, Of("DicomScuTimeout")] = 10  # seconds
    default_encoding: Annotated[str, Of("DefaultEncoding")] = "Latin1"
    worklists_enabled: Annotated[bool, Of("Worklists.Enable")] = False
    worklists_folder: Annotated[str, Of("Worklists.Database")] = ""
    worklists_of_issuer: Annotated[bool, Of("Worklists.FilterIssuerAet")] = False
    worklists_limit: Annotated[int, Of("Worklists.LimitAnswers")] = 0  # 0: no limit
    dicom_tls_enabled: Annotated[bool, Of("DicomTlsEnabled")] = False
    dicom_tls_certificate: Annotated[str, Of("DicomTlsCertificate")] = ""
    dicom_tls_private_key: Annotated[str, Of("DicomTlsPrivateKey")] = ""
    dicom_tls_trusted_certificates: Annotated[str, Of("DicomTlsTrustedCertificates")] = ""
    dicom_tls_remote_certificate_required: Annotated[bool, Of("DicomTlsRemoteCertificateRequired")] = True
    dicom_tls_minimum_protocol_version: Annotated[int, Of("DicomTlsMinimumProtocolVersion")] = 0
    dicom_tls_ciphers_accepted: Annotated[tuple[str, ...], Of("DicomTlsCiphersAccepted")] = ()

    @property
    def index_folder(self) -> str:
        """Where Orthanc's index lies."""
        return self.index_directory or self.storage_directory

    @property
    def shares_postgresql(self) -> bool:
        """Whether other Orthancs may work on the same index in PostgreSQL."""
        return self.postgresql_index and not self.postgresql_lock

    @property
    def shares_database(self) -> bool:
        """Whether other Orthancs may work on the same index."""
        indexes = (
            (self.postgresql_index, self.postgresql_lock),
            (self.mysql_index, self.mysql_lock),
            (self.odbc_index, self.odbc_lock),
        )
        return any(enabled and not lock for enabled, lock in indexes)
