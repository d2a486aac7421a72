# SPDX-License-Identifier: AGPL-3.0-or-later
"""README and docs/ say what the code does: each setting with its default, each metric, each route."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from orthanc_ups.config import read_settings
from orthanc_ups.dicomweb.resources import ResourceKind
from orthanc_ups.monitoring.metrics import METRICS
from orthanc_ups.settings import ClusterSettings, ModalityWorklist, OrthancSettings, Settings, Webhook
from orthanc_ups.store.shelves import FULL, SHELVES
from orthanc_ups.worklist.commits import ATTEMPTS
from orthanc_ups.worklist.overflows import SPILL_ABOVE, SPILLED_AT_ONCE
from tests.unit.management.test_openapi import routes
from tests.unit.test_architecture import CHECKOUT

DOCS = CHECKOUT / "docs"
PAGES = [CHECKOUT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")] + sorted(
    DOCS.glob("*.md")
)
SETTINGS = (DOCS / "settings.md").read_text()
WEBHOOK = {"Url": "https://receiver.example/events", "Aet": "HOOK"}


def tables(text: str) -> Iterator[list[tuple[str, ...]]]:
    """The rows of each table, without its head."""
    for table in re.finditer(r"^\|.*\|\n\|[-|]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE):
        yield [tuple(cell.strip() for cell in row.strip("|").split(" | ")) for row in table[1].splitlines()]


def key(cell: str) -> str:
    assert re.fullmatch(r"`\w+`", cell), cell
    return cell.strip("`")


SETTING_ROWS = list(tables(SETTINGS))
WEBHOOK_ROWS = next(table for table in SETTING_ROWS if key(table[0][0]) == "Url")
WORKLIST_ROWS = next(
    table for table in SETTING_ROWS if key(table[1 if len(table) > 1 else 0][0]) == "Stations"
)
CLUSTER_ROWS = next(table for table in SETTING_ROWS if key(table[0][0]) == "Database")
OWN_ROWS = [
    row for table in SETTING_ROWS if table not in (WEBHOOK_ROWS, WORKLIST_ROWS, CLUSTER_ROWS) for row in table
]


def names(kind: type[msgspec.Struct]) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind)]


def test_every_setting_stands_in_the_table_once_and_nothing_else() -> None:
    assert [key(row[0]) for row in OWN_ROWS] == names(Settings)


def test_every_key_of_a_webhook_stands_in_its_table_once_and_nothing_else() -> None:
    assert [key(row[0]) for row in WEBHOOK_ROWS] == names(Webhook)


def test_every_key_of_the_modality_worklist_stands_in_its_table_once_and_nothing_else() -> None:
    assert [key(row[0]) for row in WORKLIST_ROWS] == names(ModalityWorklist)


@pytest.mark.parametrize("row", WORKLIST_ROWS, ids=lambda row: str(row[0]))
def test_the_default_of_a_key_of_the_modality_worklist_is_the_one_of_the_code(row: tuple[str, ...]) -> None:
    written = {key(row[0]): json.loads(row[1].strip("`"))}
    assert read_settings({"ModalityWorklist": written}) == Settings()


def test_every_key_of_the_cluster_stands_in_its_table_with_its_default() -> None:
    assert [key(row[0]) for row in CLUSTER_ROWS] == names(ClusterSettings)
    written = {key(row[0]): json.loads(row[1].strip("`")) for row in CLUSTER_ROWS}
    assert read_settings({"Cluster": written}) == Settings()


@pytest.mark.parametrize("row", OWN_ROWS, ids=lambda row: str(row[0]))
def test_the_default_of_a_setting_is_the_one_of_the_code(row: tuple[str, ...]) -> None:
    written = json.loads(row[1].strip("`"))
    assert read_settings({key(row[0]): written}) == Settings()


@pytest.mark.parametrize("row", WEBHOOK_ROWS, ids=lambda row: str(row[0]))
def test_the_default_of_a_webhook_is_the_one_of_the_code(row: tuple[str, ...]) -> None:
    if row[1] == "required":
        assert key(row[0]) in WEBHOOK
        return
    written = {**WEBHOOK, key(row[0]): json.loads(row[1].strip("`"))}
    assert read_settings({"Webhooks": [written]}) == read_settings({"Webhooks": [WEBHOOK]})


@pytest.mark.parametrize("row", [*OWN_ROWS, *WEBHOOK_ROWS, *WORKLIST_ROWS], ids=lambda row: str(row[0]))
def test_every_setting_has_its_meaning_in_a_sentence(row: tuple[str, ...]) -> None:
    assert len(row) == 3 and row[2].endswith(".") and len(row[2]) > 10


def test_settings_of_orthanc_that_are_named_are_those_that_are_read() -> None:
    """That each of them is used, and not only read, is tested with the configuration."""
    (paragraph,) = re.findall(r"^The plugin also follows .*$", SETTINGS, re.MULTILINE)
    by_rest = {
        "DicomModalities",
        "RegisteredUsers",
    }  # as Orthanc answers for them, changed at run time or not
    read = {field.encode_name for field in msgspec.structs.fields(OrthancSettings)}
    assert set(re.findall(r"`([\w.]+)`", paragraph)) == read | by_rest


def test_every_metric_stands_in_the_table_as_it_is_published() -> None:
    (rows,) = tables((DOCS / "metrics.md").read_text())
    assert rows == [(f"`{metric.name}`", metric.kind.value, f"{metric.meaning}.") for metric in METRICS]


def test_every_resource_of_ups_rs_is_named() -> None:
    page = (DOCS / "dicomweb.md").read_text()
    assert [
        kind.value for kind in ResourceKind if kind is not ResourceKind.SERVICE and kind.value not in page
    ] == []


def test_every_route_of_the_management_api_is_named() -> None:
    paths = {route.path for route in routes()}
    page = (DOCS / "management.md").read_text()
    assert [path for path in paths if f"`/ups/api{path}`" not in page] == []


def test_the_site_for_nginx_is_the_one_that_is_tested() -> None:
    site = (CHECKOUT / "docker" / "nginx.conf").read_text()
    assert site[site.index("map $http_upgrade") :].rstrip() in (DOCS / "deployment.md").read_text()


def test_readme_is_for_a_user_with_five_minutes() -> None:
    assert len((CHECKOUT / "README.md").read_text().splitlines()) <= 250


@pytest.mark.parametrize(
    ("figure", "constant", "value"),
    [
        ("at most five times", ATTEMPTS, 5),
        ("hold 1,000 entries each", FULL, 1_000),
        ("one of at most nine shelves", SHELVES, 2**8),
        ("more than 64 events of a workitem", SPILL_ABOVE, 64),
        ("the oldest 48 move", SPILLED_AT_ONCE, 48),
    ],
    ids=lambda item: item if isinstance(item, str) else "",
)
def test_a_figure_of_architecture_is_the_one_of_the_code(figure: str, constant: int, value: int) -> None:
    assert constant == value
    assert figure in " ".join((CHECKOUT / "ARCHITECTURE.md").read_text().split())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.name))
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    named = re.findall(r"`((?:tests|tools|docker|plugin)/[\w./-]+)`", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing + [name for name in named if not (CHECKOUT / name).exists()] == []
