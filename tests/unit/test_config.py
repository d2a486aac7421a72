# SPDX-License-Identifier: AGPL-3.0-or-later
"""The ``Ups`` section: every mistake is one line that names the key, what was found, what was expected."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import pytest

from orthanc_ups.config import ConfigurationError, key_of, read_settings, read_surroundings
from orthanc_ups.settings import Settings


def test_an_empty_section_gives_every_default() -> None:
    assert read_settings({}) == Settings()


@pytest.mark.parametrize(
    ("field", "key"),
    [("enable", "Enable"), ("dicom_port", "DicomPort"), ("web_socket_ping", "WebSocketPing"), ("aet", "Aet")],
)
def test_keys_are_the_fields_in_camel_case(field: str, key: str) -> None:
    assert key_of(field) == key


def test_keys_have_no_runs_of_capitals() -> None:
    keys = [key_of(field.name) for field in dataclasses.fields(Settings)]
    assert not [key for key in keys if any(a.isupper() and b.isupper() for a, b in itertools.pairwise(key))]


@pytest.mark.parametrize(
    ("found", "seconds"),
    [(5, 5.0), (0.5, 0.5), ("90s", 90.0), ("15m", 900.0), ("12h", 43_200.0), ("7d", 604_800.0)],
)
def test_durations(found: object, seconds: float) -> None:
    assert read_settings({"RetainFinal": found}).retain_final == seconds


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
    ({"DicomPrt": 1}, '"Ups.DicomPrt" is no setting; did you mean "DicomPort"?'),
    ({"dicomport": 1}, '"Ups.dicomport" is no setting; did you mean "DicomPort"?'),
    ({"Zebra": 1}, '"Ups.Zebra" is no setting'),
    ({"DicomPort": "4243"}, "\"Ups.DicomPort\" is '4243', expected a whole number"),
    ({"DicomPort": True}, '"Ups.DicomPort" is True, expected a whole number'),
    ({"DicomPort": 70_000}, '"Ups.DicomPort" is 70000, expected 1 to 65535'),
    ({"Enable": 1}, '"Ups.Enable" is 1, expected true or false'),
    ({"RetainFinal": "a week"}, '"Ups.RetainFinal" is \'a week\', expected seconds, or a text such as "90s"'),
    ({"RetainFinal": -1}, '"Ups.RetainFinal" is -1, expected seconds'),
    ({"Aet": "SEVENTEEN_LETTERS"}, "\"Ups.Aet\" is 'SEVENTEEN_LETTERS', expected an AE title"),
    ({"Aet": "BACK\\SLASH"}, '"Ups.Aet" is'),
    ({"StatusChangeReceivers": ["OK", ""]}, "\"Ups.StatusChangeReceivers[1]\" is '', expected an AE title"),
    ({"Webhooks": [{"Url": "https://a"}]}, '"Ups.Webhooks[0].Aet" is missing'),
    ({"Webhooks": [{"Url": "ftp://a", "Aet": "A"}]}, '"Ups.Webhooks[0].Url" is'),
    ({"Webhooks": [{"Url": "https://a", "Aet": "A", "Ulr": 1}]}, 'did you mean "Url"?'),
    ({"Users": {"a": "X"}}, "\"Ups.Users.a\" is 'X', expected a list"),
    ({"Root": "dicom-web"}, '"Ups.Root" is'),
    ({"HttpPort": 4243}, '"Ups.HttpPort" and "Ups.DicomPort" are the same'),
    ({"WorklistLabel": " "}, '"Ups.WorklistLabel" is empty'),
]


@pytest.mark.parametrize(("section", "line"), MISTAKES)
def test_a_mistake_is_one_line_with_the_key(section: object, line: str) -> None:
    with pytest.raises(ConfigurationError) as mistake:
        read_settings(section)
    assert str(mistake.value).startswith(line) or line in str(mistake.value)
    assert "\n" not in str(mistake.value)


def test_surroundings_have_orthancs_defaults() -> None:
    found = read_surroundings({})
    assert (found.dicom_aet, found.http_port, found.check_revisions) == ("ORTHANC", 8042, False)
    assert found.always_allow_echo
    assert not found.allow_threads


def test_surroundings_follow_orthancs_section() -> None:
    found = read_surroundings(
        {
            "DicomAet": "PACS",
            "Python": {"AllowThreads": True},
            "RemoteAccessAllowed": True,
            "CheckRevisions": True,
        }
    )
    assert (found.dicom_aet, found.allow_threads, found.check_revisions) == ("PACS", True, True)
    assert found.authentication_enabled
