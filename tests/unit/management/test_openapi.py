# SPDX-License-Identifier: AGPL-3.0-or-later
"""openapi.json is made from the routes of the management API and their handlers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import orthanc_ups
from orthanc_ups.core.ae_titles import AeTitles
from orthanc_ups.dicomweb.origins import Origins
from orthanc_ups.dicomweb.rights import Rights
from orthanc_ups.management.api import ManagementApi, Ports
from orthanc_ups.management.explorer_files import explorer_files
from orthanc_ups.management.nodes import Nodes
from orthanc_ups.management.openapi import description
from orthanc_ups.management.performed_steps import PerformedStepRoutes
from orthanc_ups.management.ports import ORDERS
from orthanc_ups.management.routing import Route
from orthanc_ups.management.storage import Storage
from orthanc_ups.rules.routes import RuleRoutes
from orthanc_ups.transfer.routes import Transfer
from tests.support.fake_management import (
    FakeClock,
    FakeDelivery,
    FakeDimse,
    FakeModalities,
    FakeOrthanc,
    FakeWorklist,
    activity,
    facts,
)

PAGE = Path(orthanc_ups.__file__).parent / "explorer"


def routes() -> tuple[Route, ...]:
    """Every route of a running plugin."""
    clock = FakeClock()
    worklist = FakeWorklist(clock)
    ports = Ports(
        worklist,
        worklist,
        FakeDelivery(),
        FakeDimse(),
        FakeOrthanc(),
        FakeModalities(),
        activity(worklist, clock),
        clock,
        facts(),
        Rights({}, AeTitles()),
        Origins(()),
    )
    transfer = Transfer(cast("Any", None), cast("Any", None))
    storage = Storage(cast("Any", None), clock.now)
    steps = PerformedStepRoutes(None, cast("Any", None))
    nodes = Nodes(cast("Any", None))
    more = (
        *nodes.routes(),
        *storage.routes(),
        *transfer.routes(),
        *RuleRoutes(None).routes(),
        *steps.routes(),
    )
    return ManagementApi(ports, more).routes


DESCRIPTION: dict[str, Any] = description(routes())


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation."""
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def references(part: Any) -> Iterator[str]:
    """Every ``$ref`` below."""
    if isinstance(part, dict):
        yield from ([part["$ref"]] if "$ref" in part else [])
        part = list(part.values())
    if isinstance(part, list):
        for member in part:
            yield from references(member)


def test_every_route_is_described_once() -> None:
    offered = [(route.method, route.path) for route in routes()]
    assert sorted((method, path) for method, path, _ in operations()) == sorted(offered)


def test_each_operation_has_a_summary_a_name_of_its_own_and_answers() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    for _, path, operation in operations():
        assert operation["summary"], path
        assert {"200", "default"} <= operation["responses"].keys(), path


def test_parameters_of_the_path_are_described() -> None:
    for _, path, operation in operations():
        names = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert names == re.findall(r"\{(\w+)\}", path), path


def test_bodies_are_described_where_they_are_taken_with_their_media_type() -> None:
    types = {(route.method, route.path): route.media_type for route in routes()}
    for method, path, operation in operations():
        body = operation.get("requestBody")
        assert (body is not None) == (method in ("POST", "PUT")), path
        if body:
            assert list(body["content"]) == [types[method, path]], path


def test_answers_in_json_have_a_type() -> None:
    """A handler that answers a plain dictionary would leave programs in the dark."""
    for _, path, operation in operations():
        (content,) = operation["responses"]["200"]["content"].items()
        if content[0] == "application/json" and path != "/openapi.json":
            assert "$ref" in content[1]["schema"], path


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DESCRIPTION):
        part: Any = DESCRIPTION
        for name in reference.removeprefix("#/").split("/"):
            part = part[name]
        assert part


def test_the_orders_of_the_list_are_those_of_the_code() -> None:
    parameters = DESCRIPTION["paths"]["/workitems"]["get"]["parameters"]
    order = next(parameter for parameter in parameters if parameter["name"] == "order")
    assert {name.removeprefix("-") for name in order["schema"]["enum"]} == set(ORDERS)


def test_the_page_needs_no_file_that_is_not_there() -> None:
    files = explorer_files()
    for name, content in files.items():
        if name.endswith(".js"):
            text = content.decode()
            for path in re.findall(r'^(?:import|export) .*?from "(\.[^"]+)";', text, re.MULTILINE):
                target = (PAGE / name).parent.joinpath(path).resolve().relative_to(PAGE.resolve())
                assert str(target) in files, f"{name} imports {path}"
    for path in re.findall(r'(?:href|src)="([\w./-]+)"', files["index.html"].decode()):
        assert path in files


def test_the_page_never_writes_markup() -> None:
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function")
    for name, content in explorer_files().items():
        if name.endswith(".js"):
            assert not [word for word in forbidden if word in content.decode()], name


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    for name, content in explorer_files().items():
        result = re.findall(r"https?://[\w.-]+", content.decode())
        assert {address for address in result if "www.w3.org" not in address} == set(), name
