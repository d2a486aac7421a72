# SPDX-License-Identifier: AGPL-3.0-or-later
"""What the service can do, for Retrieve Capabilities (PS3.18 §8.9, Annex H)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Final
from xml.sax.saxutils import escape, quoteattr

import orjson

from ..core import tags
from .media_types import DICOM_JSON, DICOM_XML, MULTIPART_XML, PLAIN_JSON, PLAIN_XML, WADL, MediaType
from .parameters import MATCHING

OFFERED: Final = (WADL, PLAIN_JSON, PLAIN_XML, DICOM_JSON)
_NAMESPACE: Final = "http://wadl.dev.java.net/2009/02"
_IN: Final = (str(DICOM_JSON), str(MULTIPART_XML), str(DICOM_XML))
_OUT: Final = (str(DICOM_JSON), str(MULTIPART_XML))


@dataclass(frozen=True, slots=True)
class _Method:
    name: str
    transaction: str
    parameters: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    gives: tuple[str, ...] = ()
    statuses: tuple[int, ...] = (200, 400, 401, 403, 404)
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Node:
    path: str
    methods: tuple[_Method, ...] = ()
    children: tuple[_Node, ...] = field(default=())


_SUBSCRIBED: Final = (201, 400, 401, 403, 404)
_SUBSCRIBE: Final = _Method("POST", "Subscribe", ("deletionlock", "requester"), _IN, statuses=_SUBSCRIBED)
_SUBSCRIBE_FILTERED: Final = _Method(
    "POST",
    "Subscribe",
    ("deletionlock", "requester", "filter", "{attribute}", *MATCHING),
    _IN,
    statuses=_SUBSCRIBED,
)
_UNSUBSCRIBE: Final = _Method("DELETE", "Unsubscribe")
_SUSPEND: Final = _Node("suspend", (_Method("POST", "SuspendGlobalSubscription"),))
_CHANGE: Final = (200, 400, 401, 403, 404, 409, 410)


def _subscribers(*children: _Node, subscribe: _Method = _SUBSCRIBE) -> _Node:
    return _Node("subscribers", (), (_Node("{AETitle}", (subscribe, _UNSUBSCRIBE), children),))


_SEARCH: Final = _Method(
    "GET",
    "Search",
    ("{attribute}", "includefield", *MATCHING, "offset", "limit", "accept", "charset"),
    gives=_OUT,
    statuses=(200, 204, 400, 401, 403, 406),
)
_CREATE: Final = _Method(
    "POST", "CreateWorkitem", ("workitem",), _IN, statuses=(201, 400, 401, 403, 409, 415)
)
_RETRIEVE: Final = _Method(
    "GET",
    "RetrieveWorkitem",
    ("accept", "charset"),
    gives=(*_OUT, str(DICOM_XML)),
    statuses=(200, 400, 401, 403, 404, 406, 410),
)
_UPDATE: Final = _Method("POST", "UpdateWorkitem", ("transaction-uid",), _IN, statuses=(*_CHANGE, 415))
_STATE: Final = _Method("PUT", "ChangeWorkitemState", ("requester",), _IN, statuses=(*_CHANGE, 415))
_CANCEL: Final = _Method(
    "POST",
    "RequestWorkitemCancellation",
    ("requester",),
    _IN,
    statuses=(202, 400, 401, 403, 404, 409, 410, 415),
)
_WORKITEM: Final = _Node(
    "{Workitem}",
    (_RETRIEVE, _UPDATE),
    (_Node("state", (_STATE,)), _Node("cancelrequest", (_CANCEL,)), _subscribers()),
)
_TREE: Final = (
    _Node(
        "workitems",
        (_SEARCH, _CREATE),
        (
            _WORKITEM,
            _Node(tags.GLOBAL_SUBSCRIPTION, (), (_subscribers(_SUSPEND),)),
            _Node(
                tags.FILTERED_SUBSCRIPTION,
                (),
                (_subscribers(_SUSPEND, subscribe=_SUBSCRIBE_FILTERED),),
            ),
        ),
    ),
    _Node(
        "subscribers",
        (),
        (
            _Node(
                "{AETitle}",
                (_Method("GET", "OpenNotificationConnection", ("since",), statuses=(101, 400, 401, 403)),),
            ),
        ),
    ),
)


def _without_queries(node: _Node) -> _Node:
    """A resource on Orthanc's own port, which drops the query of a POST, PUT or DELETE."""
    methods = (
        method if method.name == "GET" else replace(method, parameters=(), headers=("X-Ups-Query",))
        for method in node.methods
    )
    return _Node(node.path, tuple(methods), tuple(map(_without_queries, node.children)))


# Orthanc has no WebSockets.
_TREE_OF_ORTHANC: Final = tuple(_without_queries(node) for node in _TREE if node.path != "subscribers")


def document(
    service: str, web_socket_service: str, media_type: MediaType, *, drops_queries: bool = False
) -> tuple[bytes, str]:
    """The description in a media type of OFFERED, and its entity tag.

    ``drops_queries``: as on Orthanc's own port, which drops the query of a POST, PUT or DELETE.
    """
    return _document(service, web_socket_service, media_type in (WADL, PLAIN_XML), drops_queries)


@lru_cache(64)
def _document(service: str, web_socket_service: str, in_xml: bool, drops_queries: bool) -> tuple[bytes, str]:
    tree = _TREE_OF_ORTHANC if drops_queries else _TREE
    if in_xml:
        body = _wadl(tree, service, web_socket_service).encode()
    else:
        body = orjson.dumps(_json(tree, service, web_socket_service), option=orjson.OPT_INDENT_2)
    return body, f'"{hashlib.sha256(body).hexdigest()[:32]}"'


def has_changed(if_none_match: str | None, entity_tag: str) -> bool:
    """False if the client has the description already (RFC 9110 §13.1.2)."""
    own = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" not in own and entity_tag not in own


# --- WADL -------------------------------------------------------------------------------------------


def _notes(web_socket_service: str) -> dict[str, str]:
    return {
        "NotificationConnection": f"{web_socket_service}/subscribers/{{AETitle}}",
        "FuzzyMatching": "supported",
        "EmptyValueMatching": "supported",
        "MultipleValueMatching": "supported",
        "FilteredWorklistSubscriptions": "supported",
    }


def _wadl(tree: tuple[_Node, ...], service: str, web_socket_service: str) -> str:
    notes = "".join(
        f"<doc title={quoteattr(title)}>{escape(text)}</doc>"
        for title, text in _notes(web_socket_service).items()
    )
    resources = "".join(map(_resource, tree))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<application xmlns="{_NAMESPACE}">{notes}'
        f"<resources base={quoteattr(service)}>{resources}</resources></application>\n"
    )


def _resource(node: _Node) -> str:
    template = node.path.startswith("{")
    own = f'<param name="{node.path[1:-1]}" style="template" required="true"/>' if template else ""
    inner = "".join(map(_method, node.methods)) + "".join(map(_resource, node.children))
    return f'<resource path="{node.path}">{own}{inner}</resource>'


def _method(method: _Method) -> str:
    parameters = "".join(f'<param name="{name}" style="query"/>' for name in method.parameters)
    parameters += "".join(f'<param name="{name}" style="header"/>' for name in method.headers)
    accepted = "".join(f"<representation mediaType={quoteattr(name)}/>" for name in method.takes)
    returned = "".join(f"<representation mediaType={quoteattr(name)}/>" for name in method.gives)
    request = f"<request>{parameters}{accepted}</request>" if parameters or accepted else ""
    success, *failures = [str(status) for status in method.statuses]
    answers = f'<response status="{success}">{returned}</response><response status="{" ".join(failures)}"/>'
    return f'<method name="{method.name}" id="{method.transaction}">{request}{answers}</method>'


# --- JSON -------------------------------------------------------------------------------------------


def _json(tree: tuple[_Node, ...], service: str, web_socket_service: str) -> dict[str, Any]:
    resources = {"base": service, "resource": [_resource_json(node) for node in tree]}
    return {"application": {"doc": _notes(web_socket_service), "resources": resources}}


def _resource_json(node: _Node) -> dict[str, Any]:
    methods = [
        {
            "name": method.name,
            "id": method.transaction,
            "request": {
                "param": list(method.parameters),
                "header": list(method.headers),
                "representation": list(method.takes),
            },
            "response": {"status": list(method.statuses), "representation": list(method.gives)},
        }
        for method in node.methods
    ]
    return {
        "path": node.path,
        "method": methods,
        "resource": [_resource_json(child) for child in node.children],
    }
