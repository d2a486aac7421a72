# SPDX-License-Identifier: AGPL-3.0-or-later
"""Refused HTTP requests as lines of the log."""

from __future__ import annotations

from ..core.decide import is_uid
from ..orthanc.refusal_log import Refusal
from .resources import TRANSACTIONS, Resource, ResourceKind
from .response import WebResponse


def refusal(
    method: str, resource: Resource | None, host: str, user: str | None, response: WebResponse
) -> Refusal:
    """What the log says of an answer of 400 or more.

    Args:
        method: of the request.
        resource: None if its path names none.
        host: address of the client, empty if it is not known.
        user: who the client says they are.
        response: the answer.
    """
    return Refusal(
        _operation(method, resource),
        host,
        f"user {user}" if user else "",
        _target(resource),
        str(response.status),
        response.reason,
    )


def _operation(method: str, resource: Resource | None) -> str:
    if resource is None:
        return f"HTTP {method}"
    if resource.kind is ResourceKind.CONNECTION and method == "GET":
        return "WebSocket"
    service = TRANSACTIONS.get(resource.kind, {}).get("GET" if method == "HEAD" else method)
    return service.value.capitalize() if service else f"HTTP {method}"


def _target(resource: Resource | None) -> str:
    if resource is None:
        return ""
    uid = resource.uid if is_uid(resource.uid) else ""
    return f"{uid} for {resource.ae}" if uid and resource.ae else uid or resource.ae
