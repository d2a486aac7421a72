# SPDX-License-Identifier: AGPL-3.0-or-later
"""Describes the management API in OpenAPI 3.1, from its routes and the signatures of their handlers."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypedDict, get_args

import msgspec

from .. import __version__
from ..dicomweb.response import WebResponse
from .routing import JSON, Route

_REFERENCES: Final = "#/components/schemas/{name}"
_INTRODUCTION: Final = (
    "Served on Orthanc's own port, behind Orthanc's login. Every action is a command of the worklist, with the same "
    "rules and events as over DIMSE and DICOMweb. A query may also be sent in the header `X-UPS-Query`, without the "
    "question mark, because not every Orthanc passes on all characters of a URL. Bodies are JSON with `Content-Type: "
    "application/json`. Errors state the rule in words. `Ups.Users` defines what a user may do: other requests are "
    "answered with 403, as are requests that change something and come from pages of other origins "
    "(`Ups.AllowedOrigins`)."
)
_PATH_PARAMETERS: Final[Mapping[str, dict[str, Any]]] = {
    "rule": {"schema": {"type": "string"}, "description": "Name of a rule of `Ups.Rules`."},
    "uid": {"schema": {"type": "string"}, "description": "SOP Instance UID of the workitem."},
    "ae": {
        "schema": {"type": "string", "maxLength": 16},
        "description": "AE title of the subscriber (Receiving AE).",
    },
}


class AttributeFault(TypedDict):
    """An attribute at fault."""

    attribute: str | None
    reason: str


class Error(TypedDict, total=False):
    """A refusal; nothing has changed. ``error`` is the rule in words, ``status`` its name.

    ``attribute`` is the path of the first attribute at fault in keywords, ``attributes`` has all of them.
    """

    error: str
    status: str
    attribute: str | None
    attributes: list[AttributeFault]


def description(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI document for these routes."""
    routes = tuple(routes)
    structs = list(dict.fromkeys(kind for route in routes for kind in _types(route)))
    schemas, components = msgspec.json.schema_components([Error, *structs], ref_template=_REFERENCES)
    schema_of = dict(zip([Error, *structs], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "UPS worklist management",
            "version": __version__,
            "summary": "Everything that the page of orthanc-ups does, for programs.",
            "description": _INTRODUCTION,
            "license": {"name": "AGPL-3.0-or-later", "identifier": "AGPL-3.0-or-later"},
        },
        "servers": [{"url": "/ups/api"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "responses": {
                "Error": {
                    "description": "Refused; nothing has changed.",
                    "content": _content(JSON, schema_of[Error]),
                }
            },
        },
    }


def _types(route: Route) -> Iterator[Any]:
    yield from (route.types[name] for name in ("body", "query") if name in route.types)
    if (answer := _answer(route)) is not None:
        yield answer


def _answer(route: Route) -> Any:
    """The type that the handler returns, without WebResponse; None if that is all it returns."""
    returned = route.types.get("return", Any)
    if returned is WebResponse:
        return None
    alternatives = get_args(returned)
    if WebResponse in alternatives and len(alternatives) == 2:
        return next(kind for kind in alternatives if kind is not WebResponse)
    return returned


def _operation(route: Route, schema_of: Mapping[Any, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    summary, _, more = inspect.cleandoc(route.handler.__doc__ or "").partition("\n\n")
    operation: dict[str, Any] = {
        "tags": [route.parts[0]],
        "summary": " ".join(summary.split()).removesuffix("."),
        "operationId": _name(route),
        "parameters": [*_path_parameters(route), *_query_parameters(route, schema_of, components)],
        "responses": {
            "200": _success(route, schema_of, components),
            "default": {"$ref": "#/components/responses/Error"},
        },
    }
    if more:
        operation["description"] = " ".join(more.split())
    if body := _body(route, schema_of):
        operation["requestBody"] = {"required": "body" in route.types, "content": body}
    return operation


def _name(route: Route) -> str:
    """Such as ``workitemsRequestCancel``."""
    owner, _, name = route.handler.__qualname__.rpartition(".")
    first, *rest = [*owner.split("."), *name.split("_")] if owner else name.strip("_").split("_")
    return first[:1].lower() + first[1:] + "".join(word.capitalize() for word in rest)


def _path_parameters(route: Route) -> Iterator[dict[str, Any]]:
    for name in re.findall(r"{(\w+)}", route.path):
        described = _PATH_PARAMETERS.get(name, {"schema": {"type": "string"}})
        yield {"name": name, "in": "path", "required": True, **described}


def _query_parameters(
    route: Route, schema_of: Mapping[Any, Any], components: Mapping[str, Any]
) -> Iterator[dict[str, Any]]:
    if "query" not in route.types:
        return
    schema = components[schema_of[route.types["query"]]["$ref"].rpartition("/")[2]]
    for name, described in schema["properties"].items():
        parameter = {"name": name, "in": "query", "required": name in schema.get("required", ())}
        if words := described.get("description"):
            parameter["description"] = words
        yield {
            **parameter,
            "schema": {key: value for key, value in described.items() if key != "description"},
        }


def _success(route: Route, schema_of: Mapping[Any, Any], components: Mapping[str, Any]) -> dict[str, Any]:
    if (answer := _answer(route)) is None:
        return {"description": "Success.", "content": _content(route.answer_type, {"type": "string"})}
    schema = schema_of[answer]
    component = components.get(schema.get("$ref", "").rpartition("/")[2], {})
    return {"description": component.get("description", "Success."), "content": _content(JSON, schema)}


def _body(route: Route, schema_of: Mapping[Any, Any]) -> dict[str, Any]:
    if route.method not in ("POST", "PUT"):
        return {}
    if "body" in route.types:
        return _content(JSON, schema_of[route.types["body"]])
    return _content(route.media_type, {"type": "object"} if route.media_type == JSON else {"type": "string"})


def _content(media_type: str, schema: Any) -> dict[str, Any]:
    return {media_type: {"schema": schema}}
