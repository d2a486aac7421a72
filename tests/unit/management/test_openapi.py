# SPDX-License-Identifier: AGPL-3.0-or-later
"""openapi.json and the routes of the management API say the same."""

from __future__ import annotations

import json
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
from orthanc_ups.management.ports import ORDERS
from orthanc_ups.management.routing import Route
from orthanc_ups.transfer.routes import Transfer
from tests.support.fake_management import (
    FakeClock,
    FakeDesk,
    FakeDimse,
    FakeModalities,
    FakeOrthanc,
    FakeWorklist,
    activity,
    facts,
)

DESCRIPTION: dict[str, Any] = json.loads(explorer_files()["openapi.json"])
PAGE = Path(orthanc_ups.__file__).parent / "explorer"


def routes() -> tuple[Route, ...]:
    """Every route of a running plugin."""
    clock = FakeClock()
    worklist = FakeWorklist(clock)
    ports = Ports(
        worklist,
        worklist,
        FakeDesk(),
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
    return ManagementApi(ports, transfer.routes()).routes


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Method, path and description of every operation."""
    for path, methods in DESCRIPTION["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def references(found: Any) -> Iterator[str]:
    """Every ``$ref`` below."""
    if isinstance(found, dict):
        yield from ([found["$ref"]] if "$ref" in found else [])
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from references(one)


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    described = {(method, path) for method, path, _ in operations()}
    offered = [(route.method, route.path) for route in routes()]
    assert len(offered) == len(set(offered))
    assert described == set(offered)


def test_each_operation_has_a_summary_a_name_of_its_own_and_answers() -> None:
    names = [operation["operationId"] for _, _, operation in operations()]
    assert len(names) == len(set(names))
    for _, path, operation in operations():
        assert operation["summary"], path
        assert {"200", "default"} <= operation["responses"].keys(), path


def test_parameters_of_the_path_are_described() -> None:
    for _, path, operation in operations():
        named = [one["$ref"].rpartition("/")[2] for one in operation.get("parameters", ()) if "$ref" in one]
        assert named == re.findall(r"\{(\w+)\}", path), path


def test_bodies_are_described_where_they_are_taken_with_their_media_type() -> None:
    types = {(route.method, route.path): route.media_type for route in routes()}
    for method, path, operation in operations():
        body = operation.get("requestBody")
        assert (body is not None) == (method in ("POST", "PUT")), path
        if body:
            assert list(body["content"]) == [types[method, path]], path


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DESCRIPTION):
        found: Any = DESCRIPTION
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        assert found


def test_the_orders_of_the_list_are_those_of_the_code() -> None:
    parameters = DESCRIPTION["paths"]["/workitems"]["get"]["parameters"]
    order = next(one for one in parameters if one.get("name") == "order")
    assert {one.removeprefix("-") for one in order["schema"]["enum"]} == set(ORDERS)


def test_the_page_needs_no_file_that_is_not_there() -> None:
    files = explorer_files()
    for name, content in files.items():
        if name.endswith(".js"):
            text = content.decode()
            for found in re.findall(r'^(?:import|export) .*?from "(\.[^"]+)";', text, re.MULTILINE):
                target = (PAGE / name).parent.joinpath(found).resolve().relative_to(PAGE.resolve())
                assert str(target) in files, f"{name} imports {found}"
    for found in re.findall(r'(?:href|src)="([\w./-]+)"', files["index.html"].decode()):
        assert found in files


def test_the_page_never_writes_markup() -> None:
    forbidden = ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function")
    for name, content in explorer_files().items():
        if name.endswith(".js"):
            assert not [word for word in forbidden if word in content.decode()], name


def test_the_page_fetches_nothing_from_elsewhere() -> None:
    for name, content in explorer_files().items():
        found = re.findall(r"https?://[\w.-]+", content.decode())
        assert {one for one in found if "www.w3.org" not in one} == set(), name
