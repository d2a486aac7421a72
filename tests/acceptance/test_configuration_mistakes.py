# SPDX-License-Identifier: AGPL-3.0-or-later
"""A mistake in orthanc.json ends a real Orthanc at its start, with one line that names the key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.orthanc import PLUGIN, RealOrthanc

OUR_SETTINGS = pytest.mark.one_suite("the plugin itself reads and judges its settings")
MISTAKES: list[Any] = [
    ({"Ups": {"HttpPrt": 1}}, 'unknown setting "Ups.HttpPrt"; did you mean "HttpPort"?'),
    ({"ReadOnly": True}, '"ReadOnly" is true'),
    ({"Ups": {"ProjectionFile": "/no/such/folder/ups.sqlite"}}, '"Ups.ProjectionFile" is'),
    pytest.param(
        {"Ups": {"Webhooks": [{"Url": "http://127.0.0.1/", "Aet": "A", "Filter": {"NoSuchKey": "1"}}]}},
        '"Ups.Webhooks[0].Filter"',
        marks=pytest.mark.torture,
    ),
    ({"UPS": {"Enable": True}}, 'unknown section "UPS"; did you mean "Ups"?'),
    pytest.param(
        {"DicomTlsEnabled": True}, '"DicomTlsEnabled" needs "DicomTlsCertificate"', marks=pytest.mark.torture
    ),
    pytest.param(
        {"Ups": {"Templates": [{"Name": "A", "Attributes": {"NoSuchKeyword": 1}}]}},
        '"Ups.Templates[0]',
        marks=pytest.mark.torture,
    ),
]


@OUR_SETTINGS
@pytest.mark.parametrize(("overrides", "line"), MISTAKES, ids=lambda value: str(value)[:40])
def test_a_mistake_ends_the_start_with_one_line(suite: str, overrides: dict[str, Any], line: str) -> None:
    orthanc = RealOrthanc(suite, overrides)
    try:
        orthanc.launch()
        assert orthanc.wait(60) != 0
        log = orthanc.log_text()
    finally:
        orthanc.discard()
    assert [text for text in log.splitlines() if f"UPS: {line}" in text], log
    assert log.count("UPS: ") == 1
    assert "raceback" not in log and "File " not in log


def test_a_start_without_the_python_packages_says_which_and_how_to_get_them(
    suite: str, tmp_path: Path
) -> None:
    script = tmp_path / "without_packages.py"
    script.write_text(
        "import sys\n"
        "sys.path[:] = [folder for folder in sys.path if '/site-' not in folder]\n"
        f"sys.path.append({str(PLUGIN.parent)!r})\n"
        f"exec(compile(open({str(PLUGIN)!r}).read(), {str(PLUGIN)!r}, 'exec'))\n"
    )
    orthanc = RealOrthanc(suite, script=script)
    try:
        orthanc.launch()
        assert orthanc.wait(60) != 0
        log = orthanc.log_text()
    finally:
        orthanc.discard()
    (line,) = [text for text in log.splitlines() if "UPS: " in text]
    assert "aiohttp" in line and "pynetdicom" in line and "-m pip install --requirement" in line
    assert "raceback" not in log


@OUR_SETTINGS
@pytest.mark.parametrize("key", ["HttpPort", "DicomPort"])
def test_a_port_that_is_orthancs_own_ends_the_start(suite: str, key: str) -> None:
    orthanc = RealOrthanc(suite)
    orthanc.configuration["Ups"][key] = orthanc.http_port
    try:
        orthanc.launch()
        assert orthanc.wait(60) != 0
        assert f'"Ups.{key}" is {orthanc.http_port}, which is Orthanc\'s own "HttpPort"' in orthanc.log_text()
    finally:
        orthanc.discard()


def test_receivers_that_nobody_knows_are_named_and_the_service_opens(suite: str) -> None:
    overrides = {
        "DicomModalities": {"known": ["KNOWN", "127.0.0.1", 104]},
        "Ups": {"StatusChangeReceivers": ["KNOWN", "TYPO"]},
    }
    with RealOrthanc(suite, overrides) as orthanc:
        log = orthanc.logs("StatusChangeReceivers")
        warnings = [text for text in log.splitlines() if "StatusChangeReceivers" in text]
        assert len(warnings) == 1
        assert "TYPO" in warnings[0]
        assert requests.get(f"{orthanc.base_url}/system", timeout=60).status_code == 200
