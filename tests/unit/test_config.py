# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ``Ups`` section: every mistake is one line that names the key, its value and what is expected."""

from __future__ import annotations

import ast
import itertools
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orthanc_ups import config
from orthanc_ups.config import (
    ConfigurationError,
    read_configuration,
    read_orthanc_settings,
    read_settings,
)
from orthanc_ups.settings import OrthancSettings, Settings, key_of


def test_an_empty_section_gives_every_default() -> None:
    assert read_settings({}) == Settings()


@pytest.mark.parametrize(
    ("field", "key"),
    [("enable", "Enable"), ("dicom_port", "DicomPort"), ("web_socket_ping", "WebSocketPing"), ("aet", "Aet")],
)
def test_keys_are_the_fields_in_camel_case(field: str, key: str) -> None:
    assert key_of(field) == key


def test_keys_have_no_runs_of_capitals() -> None:
    keys = [field.encode_name for field in msgspec.structs.fields(Settings)]
    assert not [key for key in keys if any(a.isupper() and b.isupper() for a, b in itertools.pairwise(key))]


@pytest.mark.parametrize(
    ("duration", "seconds"),
    [(5, 5.0), (0.5, 0.5), ("90s", 90.0), ("15m", 900.0), ("12h", 43_200.0), ("7d", 604_800.0)],
)
def test_durations(duration: object, seconds: float) -> None:
    assert read_settings({"RetainFinal": duration}).retain_final == seconds


def test_webhooks_and_users_are_read_into_values() -> None:
    settings = read_settings(
        {
            "Webhooks": [{"Url": "https://hooks.example/ups", "Aet": "HOOK", "EventTypes": [1, 3]}],
            "Users": {"ines": ["READER1", "READER2"]},
        }
    )
    assert (settings.webhooks[0].aet, settings.webhooks[0].event_types) == ("HOOK", (1, 3))
    assert settings.users["ines"] == ("READER1", "READER2")


MISTAKES: list[tuple[Any, str]] = [
    ([], '"Ups" is [], expected an object'),
    ({"DicomPrt": 1}, 'unknown setting "Ups.DicomPrt"; did you mean "DicomPort"?'),
    ({"dicomport": 1}, 'unknown setting "Ups.dicomport"; did you mean "DicomPort"?'),
    ({"Zebra": 1}, 'unknown setting "Ups.Zebra"'),
    ({"DicomPort": "4243"}, "\"Ups.DicomPort\" is '4243', expected a whole number"),
    ({"DicomPort": True}, '"Ups.DicomPort" is true, expected a whole number'),
    ({"DicomPort": 70_000}, '"Ups.DicomPort" is 70000, expected 1 to 65535'),
    ({"Enable": 1}, '"Ups.Enable" is 1, expected true or false'),
    ({"RetainFinal": "a week"}, '"Ups.RetainFinal" is \'a week\', expected seconds, or a text such as "90s"'),
    ({"RetainFinal": -1}, '"Ups.RetainFinal" is -1, expected seconds'),
    ({"Aet": "SEVENTEEN_LETTERS"}, "\"Ups.Aet\" is 'SEVENTEEN_LETTERS', expected an AE title"),
    ({"Aet": "BACK\\SLASH"}, '"Ups.Aet" is'),
    ({"StatusChangeReceivers": ["OK", ""]}, "\"Ups.StatusChangeReceivers[1]\" is '', expected an AE title"),
    ({"Webhooks": [{"Url": "https://a"}]}, '"Ups.Webhooks[0].Aet" is missing'),
    ({"ModalityWorklist": {"Enabel": True}}, 'did you mean "Enable"?'),
    ({"ModalityWorklist": {"Enable": "yes"}}, '"Ups.ModalityWorklist.Enable" is'),
    ({"ModalityWorklist": {"Stations": ["CT1"]}}, '"Ups.ModalityWorklist.Stations" is'),
    ({"ModalityWorklist": {"Stations": {"CT/1": "A"}}}, '"Ups.ModalityWorklist.Stations.CT/1" is'),
    ({"ModalityWorklist": {"Stations": {"CT1": ""}}}, '"Ups.ModalityWorklist.Stations.CT1" is'),
    ({"ModalityWorklist": {"Stations": {"CT1": "A^"}}}, '"Ups.ModalityWorklist.Stations.CT1" is'),
    ({"ModalityWorklist": {"Stations": {"CT1": "A" * 17}}}, '"Ups.ModalityWorklist.Stations.CT1" is'),
    ({"ModalityWorklist": {"Modalities": {"CT1": "ct"}}}, '"Ups.ModalityWorklist.Modalities.CT1" is'),
    ({"ModalityWorklist": {"MaximumAnswers": 0}}, '"Ups.ModalityWorklist.MaximumAnswers" is'),
    ({"Webhooks": [{"Url": "ftp://a", "Aet": "A"}]}, '"Ups.Webhooks[0].Url" is'),
    ({"Webhooks": [{"Url": "https://a", "Aet": "A", "Ulr": 1}]}, 'did you mean "Url"?'),
    ({"Users": {"a": "X"}}, "\"Ups.Users.a\" is 'X', expected a list"),
    ({"Root": "dicom-web"}, '"Ups.Root" is'),
    ({"HttpPort": 4243}, '"Ups.HttpPort" and "Ups.DicomPort" are the same'),
    ({"WorklistLabel": " "}, "\"Ups.WorklistLabel\" is ' ', expected 1 to 64 characters"),
    ({"WorklistLabel": "a\\b"}, '"Ups.WorklistLabel" is'),
    ({"Root": "/studies"}, "\"Ups.Root\" is '/studies', which Orthanc or the worklist page uses"),
    ({"Root": "/ups/api"}, '"Ups.Root" is'),
    ({"Root": "/a/../b"}, '"Ups.Root" is'),
    ({"BindAddress": "300.1.1.1"}, "\"Ups.BindAddress\" is '300.1.1.1', expected an IP address"),
    ({"BindAddress": "no such host"}, '"Ups.BindAddress" is'),
    ({"PublicUrl": "pacs.example"}, "\"Ups.PublicUrl\" is 'pacs.example', expected a URL"),
    ({"PublicUrl": "https://pacs.example/?x=1"}, '"Ups.PublicUrl" is'),
    ({"TrustedProxies": ["10.0.0.0/33"]}, "\"Ups.TrustedProxies[0]\" is '10.0.0.0/33', expected an address"),
    (
        {"AllowedOrigins": ["viewer.example"]},
        "\"Ups.AllowedOrigins[0]\" is 'viewer.example', expected an origin",
    ),
    ({"AllowedOrigins": ["https://viewer.example/app"]}, '"Ups.AllowedOrigins[0]" is'),
    ({"Users": {"ai": ["*", "SEVENTEEN_LETTERS"]}}, '"Ups.Users.ai[1]" is'),
    ({"Webhooks": [{"Url": "https://a:port/", "Aet": "A"}]}, '"Ups.Webhooks[0].Url" is'),
    ({"Webhooks": [{"Url": "https:///path", "Aet": "A"}]}, '"Ups.Webhooks[0].Url" is'),
    (
        {"Webhooks": [{"Url": "https://a", "Aet": "A", "EventTypes": [6]}]},
        '"Ups.Webhooks[0].EventTypes" has 6',
    ),
    (
        {"Webhooks": [{"Url": "https://a", "Aet": "A", "Secret": "whsec_!"}]},
        '"Ups.Webhooks[0].Secret" begins with',
    ),
    (
        {"Webhooks": [{"Url": "https://a", "Aet": "A", "Timeout": 0}]},
        '"Ups.Webhooks[0].Timeout" is 0, expected 0.1 to',
    ),
    ({"RetryFirst": 0}, '"Ups.RetryFirst" is 0, expected 0.1 to 31622400 seconds'),
    ({"WebSocketPing": "0s"}, '"Ups.WebSocketPing" is'),
    (
        {"RetryFirst": "10m"},
        '"Ups.RetryMaximum" is 300 s, expected at least "Ups.RetryFirst", which is 600 s',
    ),
    ({"ProjectionFile": "/no/such/folder/ups.sqlite"}, 'but there is no folder "/no/such/folder"'),
    ({"ProjectionFile": "/tmp"}, '"Ups.ProjectionFile" is "/tmp", which is a folder'),
    (
        {"ProjectionFile": "/proc/ups.sqlite"},
        'is "/proc/ups.sqlite", which Orthanc may not write to',
    ),
]


@pytest.mark.parametrize(("section", "line"), MISTAKES)
def test_a_mistake_is_one_line_with_the_key(section: object, line: str) -> None:
    with pytest.raises(ConfigurationError) as mistake:
        read_settings(section)
    assert str(mistake.value).startswith(line) or line in str(mistake.value)
    assert "\n" not in str(mistake.value)


ENABLED: dict[str, Any] = {"CheckRevisions": True, "Ups": {"Enable": True}}

MISTAKES_OF_BOTH: list[tuple[dict[str, Any], str]] = [
    ({"UPS": {"Enable": True}}, 'unknown section "UPS"; did you mean "Ups"?'),
    ({**ENABLED, "ups": {}}, 'unknown section "ups"; did you mean "Ups"?'),
    ({**ENABLED, "ReadOnly": True}, '"ReadOnly" is true, expected false'),
    ({**ENABLED, "HttpPort": 8043}, '"Ups.HttpPort" is 8043, which is Orthanc\'s own "HttpPort"'),
    ({**ENABLED, "DicomPort": 8043}, '"Ups.HttpPort" is 8043, which is Orthanc\'s own "DicomPort"'),
    ({**ENABLED, "DicomPort": 4243}, '"Ups.DicomPort" is 4243, which is Orthanc\'s own "DicomPort"'),
    ({**ENABLED, "HttpPort": "8042"}, "\"HttpPort\" is '8042', expected a whole number"),
    ({**ENABLED, "Python": {"AllowThreads": 1}}, '"Python.AllowThreads" is 1, expected true or false'),
]


@pytest.mark.parametrize(("configuration", "line"), MISTAKES_OF_BOTH)
def test_a_mistake_that_concerns_orthanc_too_is_one_line_with_the_key(
    configuration: dict[str, Any], line: str
) -> None:
    with pytest.raises(ConfigurationError) as mistake:
        read_configuration(configuration)
    assert str(mistake.value).startswith(line)
    assert "\n" not in str(mistake.value)


def test_what_orthanc_does_not_open_does_not_collide() -> None:
    read_configuration({**ENABLED, "DicomPort": 4243, "DicomServerEnabled": False})


def test_a_plugin_that_is_not_enabled_does_not_look_at_the_rest() -> None:
    settings, _ = read_configuration({"ReadOnly": True, "HttpPort": 8043})
    assert not settings.enable


def test_settings_of_orthanc_have_its_defaults() -> None:
    result = read_orthanc_settings({})
    assert (result.dicom_aet, result.http_port, result.check_revisions) == ("ORTHANC", 8042, False)
    assert result.always_allow_echo
    assert not result.allow_threads


def test_settings_of_orthanc_follow_its_section() -> None:
    result = read_orthanc_settings(
        {
            "DicomAet": "PACS",
            "Python": {"AllowThreads": True},
            "RemoteAccessAllowed": True,
            "CheckRevisions": True,
        }
    )
    assert (result.dicom_aet, result.allow_threads, result.check_revisions) == ("PACS", True, True)
    assert result.authentication_enabled
    assert not read_orthanc_settings(
        {"RemoteAccessAllowed": True, "AuthenticationEnabled": False}
    ).authentication_enabled


def test_each_setting_of_orthanc_that_is_read_is_used() -> None:
    """A field of OrthancSettings that nobody reads would be a promise that nobody keeps."""
    package = Path(config.__file__).parent
    used = {
        node.attr
        for file in package.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load)
    }
    assert {field.name for field in msgspec.structs.fields(OrthancSettings)} - used == set()
