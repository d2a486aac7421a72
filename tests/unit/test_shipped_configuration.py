# SPDX-License-Identifier: AGPL-3.0-or-later
"""orthanc.json, which the image, `make run` and README use, is valid for the plugin."""

from __future__ import annotations

import json
from typing import Any

from orthanc_ups.config import read_settings
from orthanc_ups.management.explorer_files import explorer_files
from orthanc_ups.management.templates import read_templates
from tests.unit.test_architecture import CHECKOUT


def shipped() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((CHECKOUT / "orthanc.json").read_text())
    return content


def test_the_plugin_takes_the_shipped_settings() -> None:
    settings = read_settings({**shipped()["Ups"], "BindAddress": "127.0.0.1"})
    assert settings.enable
    assert [template.name for template in read_templates(settings.templates)] == [
        "Lung segmentation",
        "Second reading",
    ]


def test_the_shipped_buttons_of_orthanc_explorer_2_are_those_of_the_page() -> None:
    proposed = json.loads(explorer_files()["custom-buttons.json"])
    assert shipped()["OrthancExplorer2"] == proposed["OrthancExplorer2"]
