# SPDX-License-Identifier: AGPL-3.0-or-later
"""The container's settings: environment variables become Orthanc's configuration; the health check asks its ports."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from orthanc_ups.config import read_settings
from tests.unit.test_architecture import CHECKOUT


def script(name: str) -> ModuleType:
    specification = importlib.util.spec_from_file_location(name, CHECKOUT / "docker" / f"{name}.py")
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


entrypoint = script("entrypoint")
healthcheck = script("healthcheck")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The configuration folder of the image."""
    for name in ("orthanc.json", "docker/container.json"):
        (tmp_path / Path(name).name).write_text((CHECKOUT / name).read_text())
    return tmp_path


def configuration(folder: Path, **variables: str) -> dict[str, Any]:
    result: dict[str, Any] = entrypoint.configuration(folder, {"ORTHANC_UPS_PASSWORD": "secret", **variables})
    return result


@pytest.mark.parametrize(
    ("variable", "text", "path", "value"),
    [
        ("ORTHANC__NAME", "Radiology 2", ("Name",), "Radiology 2"),
        ("ORTHANC__UPS__HTTP_PORT", "8143", ("Ups", "HttpPort"), 8143),
        ("ORTHANC__UPS__STRICT", "true", ("Ups", "Strict"), True),
        ("ORTHANC__UPS__TRUSTED_PROXIES", '["10.0.0.1"]', ("Ups", "TrustedProxies"), ["10.0.0.1"]),
        ("ORTHANC__POSTGRESQL__ENABLE_INDEX", "true", ("PostgreSQL", "EnableIndex"), True),
        ("ORTHANC__DICOM_WEB__ROOT", "/dicom-web/", ("DicomWeb", "Root"), "/dicom-web/"),
        ("ORTHANC__HTTPS_CA_CERTIFICATES", "/etc/ca.pem", ("HttpsCACertificates",), "/etc/ca.pem"),
        ("ORTHANC__ORTHANC_EXPLORER_2__ENABLE", "false", ("OrthancExplorer2", "Enable"), False),
        ("ORTHANC__DICOM_AET", '"4711"', ("DicomAet",), "4711"),
    ],
)
def test_a_variable_is_a_setting(
    folder: Path, variable: str, text: str, path: tuple[str, ...], value: Any
) -> None:
    result: Any = configuration(folder, **{variable: text})
    for key in path:
        result = result[key]
    assert result == value


def test_a_secret_is_read_from_a_file_as_text(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("0815\n")
    result = configuration(folder, ORTHANC__POSTGRESQL__PASSWORD_FILE=str(tmp_path / "password"))
    assert result["PostgreSQL"] == {"Password": "0815"}


def test_users_may_come_from_a_file(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "users").write_text('{"anna": "x"}')
    result = configuration(folder, ORTHANC__REGISTERED_USERS_FILE=str(tmp_path / "users"))
    assert result["RegisteredUsers"] == {"anna": "x"}


def test_the_password_may_come_from_a_file_and_hold_quotes(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "password").write_text('a"b\\c')
    result = entrypoint.configuration(folder, {"ORTHANC_UPS_PASSWORD_FILE": str(tmp_path / "password")})
    assert result["RegisteredUsers"] == {"admin": 'a"b\\c'}


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({}, "set ORTHANC_UPS_PASSWORD"),
        ({"ORTHANC_UPS_PASSWORD": "a${HOME}"}, "must not contain"),
        ({"ORTHANC__UPS__USERS": "[{"}, "ORTHANC__UPS__USERS is not valid JSON"),
        ({"ORTHANC__NAME__FIRST": "x"}, "NAME is not a section"),
        ({"ORTHANC__NAME_FILE": "/nowhere"}, "ORTHANC__NAME_FILE: .*nowhere"),
    ],
)
def test_what_cannot_be_understood_ends_the_start_with_its_name(
    folder: Path, variables: dict[str, str], reason: str
) -> None:
    with pytest.raises(entrypoint.ContainerError, match=reason):
        entrypoint.configuration(folder, variables)


def test_comments_are_no_part_of_the_configuration(tmp_path: Path) -> None:
    """Orthanc takes them; an address in a text is none."""
    file = tmp_path / "a.json"
    file.write_text('{ // "Name": "no"\n "Url": "http://x/*y*/", /* more\n */ "Name": "yes" }')
    assert entrypoint.read(file) == {"Url": "http://x/*y*/", "Name": "yes"}


def test_the_plugins_of_the_image_are_loaded_once_each(folder: Path) -> None:
    plugins = configuration(folder)["Plugins"]
    names = [Path(plugin).name for plugin in plugins]
    assert len(names) == len(set(names))
    expected = ("OrthancPython", "OrthancDicomWeb", "OrthancPostgreSQLIndex", "ModalityWorklists")
    assert {f"lib{name}.so" for name in expected} <= set(names)


def test_the_section_of_the_plugin_is_one_that_it_reads(folder: Path) -> None:
    ups = configuration(folder, ORTHANC__UPS__RETAIN_FINAL="1d", ORTHANC__UPS__HTTP_PORT="9043")["Ups"]
    assert read_settings({**ups, "BindAddress": "0.0.0.0"}).http_port == 9043


def test_the_health_check_asks_the_ports_of_the_configuration(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "written"
    written.write_text(
        json.dumps(configuration(folder, ORTHANC__UPS__HTTP_PORT="9043", ORTHANC__SSL_ENABLED="true"))
    )
    monkeypatch.setattr(healthcheck, "CONFIGURATION", written)
    assert healthcheck.default_urls() == [
        "https://127.0.0.1:8042/system",
        "dicom://127.0.0.1:4242",
        "https://127.0.0.1:9043/ups/health",
        "dicom://127.0.0.1:4243",
    ]
