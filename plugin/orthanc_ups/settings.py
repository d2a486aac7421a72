# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every setting of the ``Ups`` section of orthanc.json, with its default.

A field ``dicom_port`` is the key ``DicomPort``. Durations are seconds here; in the file they may also be
texts such as ``"90s"``, ``"15m"``, ``"12h"``, ``"7d"``. config.py reads them, docs/settings.md lists them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct, field

from .core.value_rules import DEEPEST

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)([smhd])")


def key_of(field_name: str) -> str:
    """The key in orthanc.json of a field: ``dicom_port`` is ``DicomPort``."""
    return "".join(part.capitalize() for part in field_name.split("_"))


def seconds_in(value: object) -> object:
    """A duration such as ``"15m"`` in seconds; anything else unchanged."""
    parsed = _DURATION.fullmatch(value) if isinstance(value, str) else None
    return value if parsed is None else float(parsed[1]) * _UNITS[parsed[2]]


_AS_DURATION: Final[dict[str, Any]] = {
    "parse": seconds_in,
    "expected": 'seconds, or a text such as "90s", "15m", "12h", "7d"',
    "unit": " seconds",
}
Seconds = Annotated[float, Meta(ge=0, extra=_AS_DURATION)]
Timeout = Annotated[float, Meta(ge=0.1, le=366 * 86_400.0, extra=_AS_DURATION)]
Port = Annotated[int, Meta(ge=1, le=65535)]
Count = Annotated[int, Meta(ge=1, le=100_000_000)]


AUTO: Final = "auto"
KEY_VALUE: Final = "key-value"
METADATA: Final = "metadata"


class Webhook(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """An entry of ``Webhooks``: events for an AE title are sent to a URL by POST."""

    url: str
    aet: str
    name: str = ""  # its name on the page
    secret: str = ""
    filter: Mapping[str, str] = field(default_factory=dict)
    event_types: tuple[int, ...] = (1, 2, 3, 4, 5)
    timeout: Timeout = 10.0


class ModalityWorklist(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """``ModalityWorklist``: workitems for modalities that know worklist queries (MWL) and MPPS only."""

    enable: bool = False
    stations: Mapping[str, str] = field(default_factory=dict)  # AE title to "CODE" or "CODE^SCHEME"
    modalities: Mapping[str, str] = field(default_factory=dict)  # AE title to Modality (0008,0060)
    show_in_progress: bool = False  # True: workitems IN PROGRESS are returned too, as STARTED
    maximum_answers: Count = 1_000  # per query, without those of the worklists plugin


class ClusterSettings(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """The section ``Cluster``: several Orthancs on one PostgreSQL that share a worklist. Rarely needed."""

    database: str = ""  # connection string of PostgreSQL; "" means that of the section PostgreSQL
    address: str = ""  # at which other nodes reach this one; "" means the one that PostgreSQL sees
    port: Annotated[int, Meta(ge=0, le=65535)] = 0  # for other nodes; 0 means any that is free


class Settings(Struct, frozen=True, forbid_unknown_fields=True, rename=key_of):
    """The ``Ups`` section. Fields in the order of the tables in docs/settings.md."""

    enable: bool = False

    # AE title and addresses
    aet: str = ""  # "" means Orthanc's DicomAet
    dicom_port: Port = 4243
    http_port: Port = 8043
    bind_address: str = ""  # "" means every interface (HTTP: loopback unless RemoteAccessAllowed)
    root: str = "/dicom-web"
    public_url: str = ""
    trusted_proxies: tuple[str, ...] = ()

    # The worklist
    worklist_label: str = "DEFAULT"  # for workitems that are created without Worklist Label
    strict: bool = False  # True: PS3.4 §5.4.2 literally; nothing is corrected
    deletion_locks: bool = True  # False: locks are not granted (B301)
    status_change_receivers: tuple[str, ...] = ()  # AE titles that always get RESTARTED and GOING DOWN
    history_length: Count = 100  # entries kept per workitem
    maximum_workitems: Count = 1_000_000
    store: Literal["auto", "key-value", "metadata"] = AUTO
    projection_file: str = ""  # "" means beside Orthanc's index

    # Rules
    rules: tuple[Mapping[str, Any], ...] = ()
    inherit_subscribers: bool = False  # True: a workitem that replaces another gets its subscribers
    check_outputs: bool = False  # True: C304 while this Orthanc lacks outputs that should be in it

    # Retention
    retain_final: Seconds = 7 * 86_400.0
    maximum_lock_age: Seconds = 0.0  # 0: locks are never released automatically
    cancel_expired: bool = False
    remember_purged: Seconds = 30 * 86_400.0  # how long requests are answered with 410 instead of 404

    # Late work
    late_after: Seconds = 900.0  # after the scheduled start; templates may have their own
    silent_after: Seconds = 4 * 3600.0  # in progress without an update by the performer; 0: never

    # Delivery
    retry_first: Timeout = 1.0
    retry_factor: Annotated[float, Meta(ge=1.0, le=100.0)] = 2.0
    retry_maximum: Timeout = 300.0
    dead_letter_after: Seconds = 7 * 86_400.0
    maximum_pending_per_subscriber: Count = 100_000
    maximum_dead_letters: Count = 10_000  # per subscriber
    replace_waiting_progress: bool = True
    replay_window: Seconds = 86_400.0  # how long delivered events can be requested again
    webhooks: tuple[Webhook, ...] = ()

    # DIMSE limits
    maximum_associations: Count = 100
    maximum_pdu_size: Annotated[int, Meta(ge=4096, le=131_072)] = 65_536
    maximum_data_set_size: Count = 8 * 1024 * 1024  # bytes
    association_idle_timeout: Seconds = 60.0
    association_handshake_timeout: Timeout = 10.0
    event_association_idle_timeout: Seconds = 10.0
    dimse_timeout: Timeout = 30.0

    # HTTP limits
    users: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    allowed_origins: tuple[str, ...] = ()
    maximum_body_size: Count = 8 * 1024 * 1024  # bytes
    maximum_nesting: Annotated[int, Meta(ge=1, le=DEEPEST)] = 32
    maximum_header_size: Count = 16 * 1024  # bytes
    maximum_connections: Count = 2_000
    http_idle_timeout: Timeout = 75.0
    maximum_results: Count = 1_000  # default and maximum page size of a search
    authorization_cache: Seconds = 5.0
    web_socket_ping: Timeout = 20.0
    web_socket_queue: Count = 1_000  # events that a WebSocket may be behind before it is closed

    # Modalities
    modality_worklist: ModalityWorklist = field(default_factory=ModalityWorklist)

    # Several nodes
    cluster: ClusterSettings = field(default_factory=ClusterSettings)

    # The page
    templates: tuple[Mapping[str, Any], ...] = ()


class OrthancSettings(Struct, frozen=True):
    """The settings of Orthanc that the plugin follows, with Orthanc's own defaults."""

    # Orthanc's HTTP server
    http_server_enabled: bool = field(default=True, name="HttpServerEnabled")
    http_port: int = field(default=8042, name="HttpPort")
    http_bind_addresses: tuple[str, ...] = field(default=(), name="HttpBindAddresses")
    http_threads_count: int = field(default=50, name="HttpThreadsCount")
    keep_alive: bool = field(default=True, name="KeepAlive")
    keep_alive_timeout: int = field(default=1, name="KeepAliveTimeout")  # seconds
    remote_access_allowed: bool = field(default=False, name="RemoteAccessAllowed")
    # AuthenticationEnabled: if absent, as RemoteAccessAllowed
    authentication_enabled: bool = field(default=False, name="AuthenticationEnabled")
    http_tls: bool = field(default=False, name="SslEnabled")
    ssl_certificate: str = field(default="certificate.pem", name="SslCertificate")
    ssl_minimum_protocol_version: int = field(default=4, name="SslMinimumProtocolVersion")
    ssl_verify_peers: bool = field(default=False, name="SslVerifyPeers")
    ssl_trusted_client_certificates: str = field(default="", name="SslTrustedClientCertificates")
    token_http_headers: tuple[str, ...] = field(default=(), name="Authorization.TokenHttpHeaders")
    token_get_arguments: tuple[str, ...] = field(default=(), name="Authorization.TokenGetArguments")
    lua_scripts: tuple[str, ...] = field(default=(), name="LuaScripts")
    execute_lua: bool = field(default=False, name="ExecuteLuaEnabled")
    python_script: str = field(default="", name="PythonScript")

    # Orthanc's store
    stable_age: int = field(default=60, name="StableAge")  # seconds
    check_revisions: bool = field(default=False, name="CheckRevisions")
    read_only: bool = field(default=False, name="ReadOnly")
    storage_directory: str = field(default="OrthancStorage", name="StorageDirectory")
    index_directory: str = field(default="", name="IndexDirectory")  # "" means StorageDirectory
    allow_threads: bool = field(default=False, name="Python.AllowThreads")

    # Index plugins: without a lock, several Orthancs may use one database
    postgresql_index: bool = field(default=False, name="PostgreSQL.EnableIndex")
    postgresql_lock: bool = field(default=True, name="PostgreSQL.Lock")
    postgresql_uri: str = field(default="", name="PostgreSQL.ConnectionUri")
    postgresql_host: str = field(default="localhost", name="PostgreSQL.Host")
    postgresql_port: int = field(default=5432, name="PostgreSQL.Port")
    postgresql_database: str = field(default="", name="PostgreSQL.Database")
    postgresql_username: str = field(default="", name="PostgreSQL.Username")
    postgresql_password: str = field(default="", name="PostgreSQL.Password")
    postgresql_ssl: bool = field(default=False, name="PostgreSQL.EnableSsl")
    mysql_index: bool = field(default=False, name="MySQL.EnableIndex")
    mysql_lock: bool = field(default=True, name="MySQL.Lock")
    odbc_index: bool = field(default=False, name="Odbc.EnableIndex")
    odbc_lock: bool = field(default=True, name="Odbc.Lock")

    # Orthanc Explorer 2
    explorer_2_language: str = field(default="", name="OrthancExplorer2.UiOptions.DefaultLanguage")

    # DICOM
    dicom_server_enabled: bool = field(default=True, name="DicomServerEnabled")
    dicom_aet: str = field(default="ORTHANC", name="DicomAet")
    dicom_port: int = field(default=4242, name="DicomPort")
    strict_aet_comparison: bool = field(default=False, name="StrictAetComparison")
    check_called_aet: bool = field(default=False, name="DicomCheckCalledAet")
    check_modality_host: bool = field(default=False, name="DicomCheckModalityHost")
    always_allow_echo: bool = field(default=True, name="DicomAlwaysAllowEcho")
    always_allow_find_worklist: bool = field(default=False, name="DicomAlwaysAllowFindWorklist")
    dicom_scu_timeout: int = field(default=10, name="DicomScuTimeout")  # seconds
    default_encoding: str = field(default="Latin1", name="DefaultEncoding")
    worklists_enabled: bool = field(default=False, name="Worklists.Enable")
    worklists_folder: str = field(default="", name="Worklists.Database")
    worklists_of_issuer: bool = field(default=False, name="Worklists.FilterIssuerAet")
    worklists_limit: int = field(default=0, name="Worklists.LimitAnswers")  # 0: no limit
    dicom_tls_enabled: bool = field(default=False, name="DicomTlsEnabled")
    dicom_tls_certificate: str = field(default="", name="DicomTlsCertificate")
    dicom_tls_private_key: str = field(default="", name="DicomTlsPrivateKey")
    dicom_tls_trusted_certificates: str = field(default="", name="DicomTlsTrustedCertificates")
    dicom_tls_remote_certificate_required: bool = field(
        default=True, name="DicomTlsRemoteCertificateRequired"
    )
    dicom_tls_minimum_protocol_version: int = field(default=0, name="DicomTlsMinimumProtocolVersion")
    dicom_tls_ciphers_accepted: tuple[str, ...] = field(default=(), name="DicomTlsCiphersAccepted")

    @property
    def index_folder(self) -> str:
        """The folder of Orthanc's index."""
        return self.index_directory or self.storage_directory

    @property
    def shares_postgresql(self) -> bool:
        """True if other Orthancs may use the same index in PostgreSQL."""
        return self.postgresql_index and not self.postgresql_lock

    @property
    def shares_database(self) -> bool:
        """True if other Orthancs may use the same index."""
        indexes = (
            (self.postgresql_index, self.postgresql_lock),
            (self.mysql_index, self.mysql_lock),
            (self.odbc_index, self.odbc_lock),
        )
        return any(enabled and not lock for enabled, lock in indexes)
