# SPDX-License-Identifier: AGPL-3.0-or-later
"""The register of all statuses: DIMSE code, HTTP status and Warning text side by side.

DIMSE codes: PS3.4 Annex CC tables CC.2.x-2/-3 and PS3.7 Annex C. HTTP: PS3.18 §11.x.3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Final


class Service(Enum):
    """The services of the worklist; the HTTP status of some statuses depends on the service."""

    CREATE = "create"
    RETRIEVE = "retrieve"
    UPDATE = "update"
    CHANGE_STATE = "change state"
    REQUEST_CANCEL = "request cancellation"
    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    SUSPEND = "suspend"
    SEARCH = "search"


@dataclass(frozen=True, slots=True)
class Status:
    """One status, for DIMSE and HTTP.

    Attributes:
        name: the key in this register.
        code: DIMSE status (0000,0900).
        meaning: the status in words, for Error Comment, logs and bodies.
        http: HTTP status.
        per_service: the HTTP status of services for which PS3.18 has another.
        warning: the text after ``Warning: 299 {service}: ``, if PS3.18 defines it.
        error_id: Error ID (0000,0903), 0 for none.
    """

    name: str
    code: int
    meaning: str
    http: int
    warning: str | None = None
    per_service: Mapping[Service, int] = field(default_factory=lambda: MappingProxyType({}))
    error_id: int = 0

    @property
    def is_failure(self) -> bool:
        """True unless the DIMSE code is success (0000) or a warning (0001, 0107, 0116, Bxxx)."""
        return self.code not in (0x0000, 0x0001, 0x0107, 0x0116) and self.code >> 12 != 0xB

    def http_for(self, service: Service) -> int:
        """The HTTP status in answers of a service (PS3.18 §11.x.3)."""
        return self.per_service.get(service, self.http)


INCONSISTENT = "The submitted request is inconsistent with the current state of the Workitem."
_SUCCESS_HTTP = {Service.CREATE: 201, Service.SUBSCRIBE: 201, Service.REQUEST_CANCEL: 202}


def _status(
    name: str,
    code: int,
    meaning: str,
    http: int,
    warning: str | None = None,
    per_service: Mapping[Service, int] | None = None,
) -> Status:
    return Status(name, code, meaning, http, warning, MappingProxyType(dict(per_service or {})))


SUCCESS: Final = _status("SUCCESS", 0x0000, "Success", 200, None, _SUCCESS_HTTP)
OPTIONAL_UNSUPPORTED: Final = _status(
    "OPTIONAL_UNSUPPORTED",
    0x0001,
    "Requested optional Attributes are not supported.",
    200,
    "Requested optional Attributes are not supported.",
)
CREATED_MODIFIED: Final = _status(
    "CREATED_MODIFIED",
    0xB300,
    "The UPS was created with modifications",
    201,
    "The Workitem was created with modifications.",
)
LOCK_NOT_GRANTED: Final = _status(
    "LOCK_NOT_GRANTED", 0xB301, "Deletion Lock not granted", 201, "Deletion Lock not granted."
)
ALREADY_CANCELED: Final = _status(
    "ALREADY_CANCELED",
    0xB304,
    "The UPS is already in the requested state of CANCELED",
    200,
    "The UPS is already in the requested state of CANCELED.",
    {Service.REQUEST_CANCEL: 202},
)
UPDATED_MODIFIED: Final = _status(
    "UPDATED_MODIFIED",
    0xB305,
    "Coerced invalid values to valid values",
    200,
    "The Workitem was updated with modifications.",
)
ALREADY_COMPLETED: Final = _status(
    "ALREADY_COMPLETED",
    0xB306,
    "The UPS is already in the requested state of COMPLETED",
    200,
    "The UPS is already in the requested state of COMPLETED.",
)
MAY_NOT_UPDATE: Final = _status(
    "MAY_NOT_UPDATE",
    0xC300,
    "The UPS may no longer be updated",
    409,
    INCONSISTENT,
    {Service.UPDATE: 400},
)
WRONG_TRANSACTION_UID: Final = _status(
    "WRONG_TRANSACTION_UID",
    0xC301,
    "The correct Transaction UID was not provided",
    400,
    "The Transaction UID is incorrect.",
)
MISSING_TRANSACTION_UID: Final = _status(
    "MISSING_TRANSACTION_UID",
    0xC301,
    "The correct Transaction UID was not provided",
    400,
    "The Transaction UID is missing.",
)
ALREADY_IN_PROGRESS: Final = _status(
    "ALREADY_IN_PROGRESS", 0xC302, "The UPS is already IN PROGRESS", 409, INCONSISTENT
)
ONLY_CREATE_SCHEDULES: Final = _status(
    "ONLY_CREATE_SCHEDULES",
    0xC303,
    "The UPS may only become SCHEDULED via N-CREATE, not N-SET or N-ACTION",
    409,
    INCONSISTENT,
)
FINAL_STATE_UNMET: Final = _status(
    "FINAL_STATE_UNMET",
    0xC304,
    "The UPS has not met final state requirements for the requested state change",
    409,
    INCONSISTENT,
)
NO_SUCH_WORKITEM: Final = _status(
    "NO_SUCH_WORKITEM", 0xC307, "Specified SOP Instance UID does not exist or is not a UPS of this SCP", 404
)
GONE: Final = _status("GONE", 0xC307, "The UPS was deleted after it had reached a final state", 410)
FILTER_UNSUPPORTED: Final = _status(
    "FILTER_UNSUPPORTED",
    0xC307,
    "Filtered Worklist Subscriptions are not supported",
    403,
    "Filtered Worklist Subscriptions are not supported.",
)
UNKNOWN_RECEIVING_AE: Final = _status(
    "UNKNOWN_RECEIVING_AE", 0xC308, "Receiving AE-TITLE is unknown to this SCP", 404
)
NOT_SCHEDULED: Final = _status(
    "NOT_SCHEDULED", 0xC309, "The provided value of UPS State was not SCHEDULED", 400
)
NOT_IN_PROGRESS: Final = _status(
    "NOT_IN_PROGRESS", 0xC310, "The UPS is not in the IN PROGRESS state", 409, INCONSISTENT
)
COMPLETED_ALREADY: Final = _status(
    "COMPLETED_ALREADY", 0xC311, "The UPS is already COMPLETED", 409, "The UPS is already COMPLETED."
)
PERFORMER_UNREACHABLE: Final = _status(
    "PERFORMER_UNREACHABLE",
    0xC312,
    "The performer cannot be contacted",
    409,
    "The performer cannot be contacted.",
)
PERFORMER_REFUSES: Final = _status(
    "PERFORMER_REFUSES",
    0xC313,
    "Performer chooses not to cancel",
    409,
    "Performer chooses not to cancel.",
)
WRONG_ACTION: Final = _status(
    "WRONG_ACTION", 0xC314, "Specified action not appropriate for specified instance", 400
)
NO_EVENT_REPORTS: Final = _status("NO_EVENT_REPORTS", 0xC315, "SCP does not support Event Reports", 403)
NO_SUCH_SUBSCRIPTION: Final = _status(
    # success in DIMSE: an Unsubscribe without a subscription succeeds (PS3.4 CC.2.3)
    "NO_SUCH_SUBSCRIPTION",
    0x0000,
    "The target Subscription was not found",
    404,
    "The target Subscription was not found.",
)

NO_SUCH_ATTRIBUTE: Final = _status("NO_SUCH_ATTRIBUTE", 0x0105, "No such attribute", 400)
INVALID_VALUE: Final = _status("INVALID_VALUE", 0x0106, "Invalid attribute value", 400)
STEP_MAY_NOT_BE_UPDATED: Final = Status(
    "STEP_MAY_NOT_BE_UPDATED",
    0x0110,
    "Performed Procedure Step Object may no longer be updated",
    409,
    error_id=0xA710,
)
ATTRIBUTES_IGNORED: Final = _status(
    "ATTRIBUTES_IGNORED", 0x0107, "Attribute list error: some attributes were not modified", 200
)
NO_SUCH_INSTANCE: Final = _status("NO_SUCH_INSTANCE", 0x0112, "No such SOP Instance", 404)
PROCESSING_FAILURE: Final = _status("PROCESSING_FAILURE", 0x0110, "Processing failure", 500)
DUPLICATE_INSTANCE: Final = _status("DUPLICATE_INSTANCE", 0x0111, "Duplicate SOP Instance", 409)
NO_SUCH_EVENT: Final = _status("NO_SUCH_EVENT", 0x0113, "No such event type", 400)
NO_SUCH_ARGUMENT: Final = _status("NO_SUCH_ARGUMENT", 0x0114, "No such argument", 400)
INVALID_ARGUMENT: Final = _status("INVALID_ARGUMENT", 0x0115, "Invalid argument value", 400)
INVALID_INSTANCE: Final = _status("INVALID_INSTANCE", 0x0117, "Invalid SOP Instance UID", 400)
NO_SUCH_SOP_CLASS: Final = _status("NO_SUCH_SOP_CLASS", 0x0118, "No such SOP Class", 501)
MISSING_ATTRIBUTE: Final = _status("MISSING_ATTRIBUTE", 0x0120, "Missing attribute", 400)
MISSING_VALUE: Final = _status("MISSING_VALUE", 0x0121, "Missing attribute value", 400)
SOP_CLASS_UNSUPPORTED: Final = _status("SOP_CLASS_UNSUPPORTED", 0x0122, "SOP Class not supported", 501)
NO_SUCH_ACTION: Final = _status("NO_SUCH_ACTION", 0x0123, "No such action", 400)
NOT_AUTHORIZED: Final = _status("NOT_AUTHORIZED", 0x0124, "Refused: Not authorized", 403)
UNRECOGNIZED_OPERATION: Final = _status("UNRECOGNIZED_OPERATION", 0x0211, "Unrecognized operation", 501)
MISTYPED_ARGUMENT: Final = _status("MISTYPED_ARGUMENT", 0x0212, "Mistyped argument", 400)
RESOURCE_LIMITATION: Final = _status("RESOURCE_LIMITATION", 0x0213, "Resource limitation", 503)

OUT_OF_RESOURCES: Final = _status("OUT_OF_RESOURCES", 0xA700, "Out of resources", 503)
IDENTIFIER_MISMATCH: Final = _status(
    "IDENTIFIER_MISMATCH", 0xA900, "Identifier does not match SOP Class", 400
)

REGISTER: Final[Mapping[str, Status]] = MappingProxyType(
    {value.name: value for value in list(globals().values()) if isinstance(value, Status)}
)


@dataclass(frozen=True, slots=True)
class Fault:
    """An attribute at fault.

    Attributes:
        status: the status of a refusal for this attribute alone.
        path: tags as 8 hex digits joined by ``.``, from the root down to the attribute; empty for a name without tag.
        reason: a sentence that begins with the attribute, without patient data.
        comment: an Error Comment (64 characters) to send instead of path and reason; empty for none.
    """

    status: Status
    path: str
    reason: str
    comment: str = ""


class UpsError(Exception):
    """A request was refused and nothing has changed.

    Attributes:
        status: from the register.
        detail: what is wrong and what was expected, without patient data.
        tag: path of the first attribute at fault as 8-digit hex tags joined by ``.``, or None.
        faults: every attribute at fault, those of the status first.
    """

    def __init__(
        self, status: Status, detail: str = "", tag: str | None = None, faults: Sequence[Fault] = ()
    ) -> None:
        super().__init__(detail or status.meaning)
        self.status = status
        self.detail = detail or status.meaning
        self.tag = tag
        self.faults = tuple(faults) or ((Fault(status, tag, self.detail),) if tag else ())

    def under(self, status: Status) -> UpsError:
        """The same refusal with another status, for a service that has its own."""
        return UpsError(status, self.detail, self.tag, self.faults)
