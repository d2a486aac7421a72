# SPDX-License-Identifier: AGPL-3.0-or-later
"""The resources of the Worklist Service (PS3.18 Table 11.1.1-1) and the methods of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from ..core import tags
from ..core.ae_titles import InvalidAeTitle, valid_ae_title
from ..core.decide import is_uid
from ..core.statuses import INVALID_INSTANCE, Service, UpsError
from .response import HttpProblem


class ResourceKind(Enum):
    """Each kind of resource, with its path below the base of the service."""

    SERVICE = "/"
    WORKITEMS = "/workitems"
    WORKITEM = "/workitems/{workitem}"
    STATE = "/workitems/{workitem}/state"
    CANCEL_REQUEST = "/workitems/{workitem}/cancelrequest"
    SUBSCRIBER = "/workitems/{workitem}/subscribers/{aetitle}"
    SUSPENSION = "/workitems/{workitem}/subscribers/{aetitle}/suspend"
    CONNECTION = "/subscribers/{aetitle}"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource; ``uid`` and ``ae`` are from its path, or empty."""

    kind: ResourceKind
    uid: str = ""
    ae: str = ""

    @property
    def allowed(self) -> tuple[str, ...]:
        """The methods that it supports."""
        methods = TRANSACTIONS.get(self.kind, {}) or ("GET",)  # of the others: a notification connection
        head = ("HEAD",) if "GET" in TRANSACTIONS.get(self.kind, {}) else ()
        return (*methods, *head, "OPTIONS")

    @property
    def path(self) -> str:
        """Its path below the base of the service, percent-encoded; ``resource_of`` takes it for this resource.

        The service itself stands under its workitems.
        """
        pattern = ResourceKind.WORKITEMS.value if self.kind is ResourceKind.SERVICE else self.kind.value
        parts = {"{workitem}": quote(self.uid, safe=""), "{aetitle}": quote(self.ae, safe="")}
        return "/".join(parts.get(part, part) for part in pattern.split("/"))


TRANSACTIONS: Final[Mapping[ResourceKind, Mapping[str, Service]]] = MappingProxyType(
    {
        ResourceKind.SERVICE: {},
        ResourceKind.WORKITEMS: {"GET": Service.SEARCH, "POST": Service.CREATE},
        ResourceKind.WORKITEM: {"GET": Service.RETRIEVE, "POST": Service.UPDATE},
        ResourceKind.STATE: {"PUT": Service.CHANGE_STATE},
        ResourceKind.CANCEL_REQUEST: {"POST": Service.REQUEST_CANCEL},
        ResourceKind.SUBSCRIBER: {"POST": Service.SUBSCRIBE, "DELETE": Service.UNSUBSCRIBE},
        ResourceKind.SUSPENSION: {"POST": Service.SUSPEND},
    }
)

_PATTERNS: Final = tuple(
    (kind.value.strip("/").split("/"), kind) for kind in ResourceKind if kind is not ResourceKind.SERVICE
)
# The requester as a part of the path is what older servers had.
_VARIANTS: Final = (
    (["workitems", "{workitem}", "state", "{aetitle}"], ResourceKind.STATE),
    (["workitems", "{workitem}", "cancelrequest", "{aetitle}"], ResourceKind.CANCEL_REQUEST),
    (["ws", "subscribers", "{aetitle}"], ResourceKind.CONNECTION),
    (["subscribers"], ResourceKind.CONNECTION),
    (["ws"], ResourceKind.CONNECTION),
)
_BY_LENGTH: Final = {
    length: tuple(pattern for pattern in (*_PATTERNS, *_VARIANTS) if len(pattern[0]) == length)
    for length in range(1, 6)
}


def resource_of(segments: Sequence[str]) -> Resource:
    """The resource at a path, given as its decoded parts. Raises HttpProblem 404, or 400 for a bad AE title."""
    if not segments:
        return Resource(ResourceKind.SERVICE)
    for pattern, kind in _BY_LENGTH.get(len(segments), ()):
        variables = _match(pattern, segments)
        if variables is not None:
            ae = variables.get("{aetitle}")
            return Resource(kind, variables.get("{workitem}", ""), "" if ae is None else ae_title(ae))
    raise HttpProblem(404, "no resource of the Worklist Service has this path")


def is_filtered(service: Service, resource: Resource) -> bool:
    """True for a Subscribe to the Filtered Worklist (PS3.18 §11.10)."""
    return service is Service.SUBSCRIBE and resource.uid == tags.FILTERED_SUBSCRIPTION


def check_uid(resource: Resource) -> None:
    """Refuse a workitem UID that is not a UID. Raises UpsError (0117)."""
    if resource.uid and not is_uid(resource.uid):
        raise UpsError(INVALID_INSTANCE, "the UID in the path is not a valid UID")


def _match(pattern: Sequence[str], segments: Sequence[str]) -> dict[str, str] | None:
    variables: dict[str, str] = {}
    for part, segment in zip(pattern, segments, strict=True):
        if part.startswith("{"):
            variables[part] = segment
        elif part != segment:
            return None
    return variables


def ae_title(text: str) -> str:
    """An AE title without padding (PS3.5 Table 6.2-1, VR AE). Raises HttpProblem 400."""
    if not text.isprintable():  # in a URL not even NUL is padding
        raise HttpProblem(400, f"{text[:40]!r} is not an AE title: it contains a control character")
    try:
        return valid_ae_title(text)
    except InvalidAeTitle as error:
        raise HttpProblem(400, str(error)) from None
