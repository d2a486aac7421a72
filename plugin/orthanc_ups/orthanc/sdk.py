# SPDX-License-Identifier: AGPL-3.0-or-later
"""Types of the functions of the module ``orthanc`` that are used: there is no stub package for it.

``ups_plugin.py`` imports the real module and passes it as ``Orthanc``. A test compares these names with a real Orthanc
of each suite.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeAlias, TypedDict, cast


class RestOutput(Protocol):
    """The answer to a request on a route of the plugin."""

    def AnswerBuffer(self, answer: str | bytes, mime_type: str, /) -> None:
        """Answer 200 with this body."""

    def SendHttpStatus(self, status: int, body: str | bytes, /) -> None:
        """Answer with a status and a body; adds ``text/plain``."""

    def SendHttpStatusCode(self, status: int, /) -> None:
        """Answer with a status and no body."""

    def SendMethodNotAllowed(self, allowed: str, /) -> None:
        """Answer 405 with the allowed methods, separated by commas."""

    def StartStreamAnswer(self, mime_type: str, /) -> None:
        """Start an answer 200 of unknown length; the connection is closed after it."""

    def SendStreamChunk(self, chunk: bytes, /) -> None:
        """Send a part of it. Raises OrthancException if the client has disconnected."""

    def SetHttpHeader(self, name: str, value: str, /) -> None:
        """Add a header to the answer; to be called before answering."""

    def Redirect(self, location: str, /) -> None:
        """Answer 301."""


class RestRequest(TypedDict, total=False):
    """The keyword arguments with which Orthanc calls a route. Header names are in lower case."""

    method: str
    groups: tuple[str, ...]
    get: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class DicomInstance(Protocol):
    """An instance that just arrived."""

    def GetInstanceRemoteAet(self) -> str:
        """The AE title that sent it, "" if none did."""

    def GetInstanceSize(self) -> int:
        """Bytes of its DICOM file."""


class ChangeType(Protocol):
    """Types of changes."""

    DELETED: int
    NEW_CHILD_INSTANCE: int
    NEW_INSTANCE: int
    ORTHANC_STARTED: int
    ORTHANC_STOPPED: int
    STABLE_STUDY: int
    UPDATED_MODALITIES: int


class ResourceType(Protocol):
    """Levels of resources."""

    PATIENT: int
    STUDY: int
    SERIES: int
    INSTANCE: int
    NONE: int


class InstanceOrigin(Protocol):
    """How an instance arrived; STOW counts as PLUGIN."""

    DICOM_PROTOCOL: int
    REST_API: int
    PLUGIN: int
    LUA: int
    WEB_DAV: int
    UNKNOWN: int


class ReceivedInstanceAction(Protocol):
    """What Orthanc is to do with an instance that arrives."""

    KEEP_AS_IS: int
    MODIFY: int
    DISCARD: int


class MetricsType(Protocol):
    """Types of metrics."""

    DEFAULT: int
    TIMER: int


class KeysValuesIterator(Protocol):
    """Iterates over a key-value store in the order of keys; initially before the first pair."""

    def Next(self) -> bool:
        """Go to the next pair; False if there is none."""

    def GetKey(self) -> str:
        """The key of this pair."""

    def GetValue(self) -> bytes:
        """The value of this pair."""


class KeyValueStore(Protocol):
    """The functions for key-value stores: Python plugin 6.0 and later on Orthanc 1.12.8 and later."""

    def StoreKeyValue(self, store: str, key: str, value: bytes, /) -> None:
        """Write a pair, replacing an earlier value."""

    def GetKeyValue(self, store: str, key: str, /) -> bytes | None:
        """The value of a key, or None."""

    def DeleteKeyValue(self, store: str, key: str, /) -> None:
        """Delete a pair, if it exists."""

    def CreateKeysValuesIterator(self, store: str, /) -> KeysValuesIterator:
        """Iterate over a store."""


class WorklistQueryCall(Protocol):
    """A worklist query (C-FIND MWL) on Orthanc's own DICOM port."""

    def WorklistGetDicomQuery(self) -> bytes:
        """The identifier, as a DICOM file."""

    def WorklistIsMatch(self, dicom: bytes, /) -> bool:
        """Whether a DICOM file matches the query, by Orthanc's own matching."""


class WorklistAnswersCall(Protocol):
    """The answers to a worklist query."""

    def WorklistAddAnswer(self, query: WorklistQueryCall, dicom: bytes, /) -> None:
        """Add an answer: a DICOM file, of which Orthanc sends what the query asks for."""

    def WorklistMarkIncomplete(self) -> None:
        """Have the final status say that there may be more answers."""


WorklistCallback: TypeAlias = Callable[[WorklistAnswersCall, WorklistQueryCall, str, str], None]
RestCallback: TypeAlias = Callable[..., None]
ChangeCallback: TypeAlias = Callable[[int, int, str], None]
ReceivedCallback: TypeAlias = Callable[[bytes, int], tuple[int, bytes | None]]
StoreFilter: TypeAlias = Callable[[DicomInstance], int]


class Orthanc(Protocol):
    """The module ``orthanc``. Callbacks can be registered only while the script loads."""

    ChangeType: type[ChangeType]
    ResourceType: type[ResourceType]
    InstanceOrigin: type[InstanceOrigin]
    ReceivedInstanceAction: type[ReceivedInstanceAction]
    MetricsType: type[MetricsType]

    def GetConfiguration(self) -> str:
        """The whole configuration, as JSON."""

    def LogInfo(self, message: str, /) -> None:
        """Log at the level INFO."""

    def LogWarning(self, message: str, /) -> None:
        """Log at the level WARNING."""

    def LogError(self, message: str, /) -> None:
        """Log at the level ERROR."""

    def SetCurrentThreadName(self, name: str, /) -> None:
        """Name the calling thread in Orthanc's log."""

    def GenerateRestApiAuthorizationToken(self) -> str:
        """A value for the header Authorization that Orthanc's own HTTP server accepts while it runs."""

    def RegisterRestCallback(self, pattern: str, callback: RestCallback, /) -> None:
        """Answer requests whose path matches a regular expression (without named groups)."""

    def RegisterOnChangeCallback(self, callback: ChangeCallback, /) -> None:
        """Call back after each change, on a thread of Orthanc's own."""

    def RegisterReceivedInstanceCallback(self, callback: ReceivedCallback, /) -> None:
        """Examine each instance that arrives in any way, before it is stored."""

    def RegisterIncomingCStoreInstanceFilter(self, callback: StoreFilter, /) -> None:
        """Return the DIMSE status of each C-STORE; any but 0 refuses it."""

    def RegisterWorklistCallback(self, callback: WorklistCallback, /) -> None:
        """Answer worklist queries: answers, query, calling and called AE title. Orthanc asks the first plugin only."""

    def SetMetricsValue(self, name: str, value: float, kind: int, /) -> None:
        """Set a metric of ``/tools/metrics-prometheus``; only after Orthanc has started."""

    def ExtendOrthancExplorer(self, javascript: str, /) -> None:
        """Add JavaScript to Orthanc Explorer."""

    def SetRootUri2(self, plugin: str, uri: str, /) -> None:
        """Set the link on Orthanc's page of plugins."""

    def SetDescription2(self, plugin: str, description: str, /) -> None:
        """Set the description on Orthanc's page of plugins."""


IN_NEWER_ONLY: Final = (
    "EmitAuditLog",
    "SetMetricsIntegerValue",
    "StoreKeyValue",
    "GetKeyValue",
    "DeleteKeyValue",
    "CreateKeysValuesIterator",
)
"""Functions that the module of Debian trixie does not have: use getattr."""


def missing_calls(orthanc: object) -> list[str]:
    """Names of ``Orthanc`` that the module of an older Python plugin does not have."""
    names = (*Orthanc.__annotations__, *vars(Orthanc))
    return [name for name in names if not name.startswith("_") and not hasattr(orthanc, name)]


def key_values(orthanc: Orthanc) -> KeyValueStore | None:
    """The functions for key-value stores, or None if this module has none."""
    return cast("KeyValueStore", orthanc) if hasattr(orthanc, "StoreKeyValue") else None
