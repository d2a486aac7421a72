# SPDX-License-Identifier: AGPL-3.0-or-later
"""Every text of the page is translated: one file per language, keyed by the English text."""

from __future__ import annotations

import json
import re

import pytest

from orthanc_ups.management.explorer_files import explorer_files
from orthanc_ups.management.fields import FIELDS, reasons
from orthanc_ups.management.operating import LISTENERS
from orthanc_ups.management.queries import filters
from orthanc_ups.management.sentences import ALL
from orthanc_ups.management.starting import BLANK
from orthanc_ups.management.views import EVENT_NAMES, GROUP_ORDER

LANGUAGES = ("en", "fr", "de")
_CALL = re.compile(r'(?<![\w.])(?:tx?\(\s*|pattern\(\s*|n\([^"]*?,\s*)"((?:[^"\\]|\\.)*)"')
_FORMS = re.compile(r'"(\{n\} [^"|]*\|[^"]*)"')
_PLACEHOLDER = re.compile(r"\{\w+\}")


def texts() -> set[str]:
    """Every text of the page, and the words of the server that it shows."""
    result: set[str] = set()
    for name, content in explorer_files().items():
        if name.endswith(".js"):
            source = content.decode()
            result |= {json.loads(f'"{text}"') for text in _CALL.findall(source)}
            result |= set(_FORMS.findall(source))
    words = {text for field in FIELDS for text in (field.label, field.group, field.help) if text}
    result |= {*words, *ALL}
    result |= {part for key in filters() for part in key["label"].split(" › ")}
    result |= {BLANK.name, BLANK.description}
    result |= {text for pair in LISTENERS.values() for text in pair}
    return result | {reason["CodeMeaning"] for reason in reasons()} | {*EVENT_NAMES.values(), *GROUP_ORDER}


def words(language: str) -> dict[str, str]:
    content: dict[str, str] = json.loads(explorer_files()[f"languages/{language}.json"])
    return content


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_language_has_every_text_of_the_page_and_no_others(language: str) -> None:
    assert texts() - words(language).keys() == set()
    assert words(language).keys() - texts() == set()
    assert all(words(language).values())


@pytest.mark.parametrize("language", LANGUAGES)
def test_placeholders_and_plurals_are_the_same_in_every_language(language: str) -> None:
    for english, text in words(language).items():
        assert set(_PLACEHOLDER.findall(text)) == set(_PLACEHOLDER.findall(english)), english
        assert text.count("|") == english.count("|"), english


def test_texts_are_translated() -> None:
    english = words("en")
    for language in ("fr", "de"):
        same = [text for text, own in words(language).items() if own == english[text]]
        assert len(same) < len(english) / 20, same
