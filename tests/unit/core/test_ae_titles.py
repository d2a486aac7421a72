# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an AE title may be (PS3.5 Table 6.2-1, VR AE)."""

from __future__ import annotations

import pytest

from orthanc_ups.core.ae_titles import InvalidAeTitle, valid_ae_title


@pytest.mark.parametrize(
    "text", ["A", "SIXTEEN_LETTERS_", "A.B", "...", "two words", "50%", "A%20B", "%zz", "'`~!"]
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
