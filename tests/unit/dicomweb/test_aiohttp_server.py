# SPDX-License-Identifier: AGPL-3.0-or-later
"""What aiohttp_server.py assumes about the internals of aiohttp. Read it again before aiohttp is raised."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from aiohttp import http_exceptions
from aiohttp.web import BaseRequest, RequestHandler, Server, StreamResponse, WebSocketResponse

import orthanc_ups

PACKAGE = Path(orthanc_ups.__file__).parent
PUBLIC = {"aiohttp", "aiohttp.web"}
INSIDE = PACKAGE / "dicomweb" / "aiohttp_server.py"


def modules_of_aiohttp(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name for name in names if name.split(".")[0] == "aiohttp"}


def test_one_module_knows_the_inside_of_aiohttp() -> None:
    others = {
        path.name: inside
        for path in sorted(PACKAGE.rglob("*.py"))
        if path != INSIDE and (inside := modules_of_aiohttp(path) - PUBLIC)
    }
    assert others == {}


def test_aiohttp_is_the_minor_version_whose_inside_was_read() -> None:
    assert version("aiohttp").split(".")[:2] == ["3", "14"]
    project = (PACKAGE.parents[1] / "pyproject.toml").read_text()
    assert '"aiohttp>=3.14,<3.15"' in project


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (RequestHandler.connection_made, ["self", "transport"]),
        (RequestHandler.finish_response, ["self", "request", "resp", "start_time"]),
        (RequestHandler.handle_error, ["self", "request", "status", "exc", "message"]),
        (RequestHandler.force_close, ["self"]),
        (Server.__call__, ["self"]),
        (WebSocketResponse.can_prepare, ["self", "request"]),
    ],
)
def test_methods_that_are_overridden_or_called(method: Any, parameters: list[str]) -> None:
    assert list(inspect.signature(method).parameters) == parameters


def test_settings_of_a_connection() -> None:
    names = inspect.signature(RequestHandler.__init__).parameters
    assert {
        "access_log",
        "keepalive_timeout",
        "max_line_size",
        "max_field_size",
        "lingering_time",
    } <= names.keys()
    assert "auto_decompress" in names


def test_attributes_of_a_connection_and_of_a_request() -> None:
    assert {"transport", "_manager"} <= set(dir(RequestHandler)) | set(RequestHandler.__slots__)
    assert {"protocol", "transport", "writer", "raw_headers", "raw_path", "body_exists"} <= set(
        dir(BaseRequest)
    )
    assert {"content_length", "force_close", "headers"} <= set(dir(StreamResponse))
    assert isinstance(Server.connections, property)


def test_a_line_that_is_too_long_tells_its_limit() -> None:
    error = http_exceptions.LineTooLong(b"GET /", 100)
    assert int(error.args[1]) == 100
    assert issubclass(http_exceptions.BadHttpMethod, http_exceptions.HttpProcessingError)
