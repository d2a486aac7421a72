# SPDX-License-Identifier: AGPL-3.0-or-later
"""Which AE titles are valid, and which are the same (PS3.5 Table 6.2-1, VR AE)."""

from __future__ import annotations

import pytest

from orthanc_ups.core.ae_titles import AeTitles, InvalidAeTitle, valid_ae_title


@pytest.mark.parametrize(
    "text", ["A", "SIXTEEN_LETTERS_", "A.B", "..A", "two words", "50%", "A%20B", "%zz", "'`~!"]
)
def test_printable_ascii_of_up_to_16_characters_is_an_ae_title(text: str) -> None:
    assert valid_ae_title(text) == text


@pytest.mark.parametrize("text", ["  AI", "AI  ", " AI ", "AI\0", "   AI             "])
def test_padding_is_insignificant(text: str) -> None:
    assert valid_ae_title(text) == "AI"


@pytest.mark.parametrize(
    "text",
    ["", "   ", "SEVENTEEN_LETTERS", "A\\B", "Ä", "A\tB", "A\nB", "A\0B", "\x7f", "\x1b[H", "A\u00a0B"],
)
def test_what_the_value_representation_forbids_is_refused(text: str) -> None:
    with pytest.raises(InvalidAeTitle):
        valid_ae_title(text)


@pytest.mark.parametrize(
    "text",
    [
        ".",
        "..",
        " .. ",
        "../X",
        "A/B",
        "/",
        "..\\X",
        "%2E%2e",
        "..%2FX",
        "a%2Fb",
        "%252E%252E",
        "%2e",
        "A%00",
        "A%5cB",
    ],
)
def test_what_a_path_could_take_for_another_segment_is_refused(text: str) -> None:
    with pytest.raises(InvalidAeTitle, match="slash"):
        valid_ae_title(text)


def test_case_and_padding_do_not_tell_ae_titles_apart() -> None:
    titles = AeTitles()
    assert titles.same("SUB4", " sub4 ")
    assert not titles.same("SUB4", "SUB5")


def test_with_strict_aet_comparison_case_tells_ae_titles_apart_and_padding_does_not() -> None:
    titles = AeTitles(strict=True)
    assert not titles.same("SUB4", "sub4")
    assert titles.same("SUB4", "SUB4 ")
    assert titles.spelled(" sub4") == "sub4"


def test_the_spelling_of_dicom_modalities_comes_before_that_of_a_request() -> None:
    titles = AeTitles()
    titles.list(["Sub4"])
    assert titles.spelled("SUB4") == titles.use("sub4") == "Sub4"


def test_an_ae_title_that_is_not_in_dicom_modalities_keeps_its_first_spelling() -> None:
    titles = AeTitles()
    assert titles.use("Viewer ") == "Viewer"
    assert titles.spelled("VIEWER") == titles.use("viewer") == "Viewer"


def test_asking_for_a_spelling_takes_none() -> None:
    titles = AeTitles()
    assert titles.spelled("viewer") == "viewer"
    assert titles.use("VIEWER") == "VIEWER"


def test_of_two_spellings_in_dicom_modalities_the_first_counts() -> None:
    titles = AeTitles()
    titles.list(["SUB4", "sub4"])
    assert titles.spelled("Sub4") == "SUB4"


def test_a_spelling_in_use_stays_when_dicom_modalities_change_and_is_told() -> None:
    titles = AeTitles()
    titles.list(["SUB4"])
    titles.use("sub4")
    assert titles.list(["Sub4", "OTHER"]) == {"SUB4": "Sub4"}
    assert titles.spelled("sub4") == "SUB4"
