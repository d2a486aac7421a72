# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an AE title may be: one rule for every interface (PS3.5 §6.2, VR AE)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import unquote

LONGEST_AE_TITLE: Final = 16
"""Characters, without padding."""
_PADDING: Final = " \0"
_RELATIVE_PATHS: Final = frozenset({".", ".."})


class InvalidAeTitle(ValueError):
    """A text that cannot be an AE title. The message says what it is and what is expected."""


def valid_ae_title(text: str) -> str:
    """The AE title in a text, without padding.

    Leading and trailing spaces are insignificant (PS3.5 Table 6.2-1). Beyond the standard's rule, an AE title
    holds no slash and is neither ``.`` nor ``..``, not even percent-encoded: it is a segment of UPS-RS paths and of
    paths in Orthanc, which proxies and servers may decode more than once.

    Raises:
        InvalidAeTitle: it is empty, longer than 16 characters, not printable ASCII, or holds a slash or a backslash.
    """
    title = text.strip(_PADDING)
    if not 1 <= len(title) <= LONGEST_AE_TITLE or not all(map(_is_plain, _spellings(title))):
        raise InvalidAeTitle(
            f"{text[:40]!r} is not an AE title: expected 1 to 16 printable ASCII characters"
            ' without slash or backslash, other than "." and ".."'
        )
    return title


def _spellings(title: str) -> Iterator[str]:
    """The title, and what becomes of it each time it is percent-decoded."""
    yield title
    while (decoded := unquote(title)) != title:
        title = decoded
        yield title


def _is_plain(title: str) -> bool:
    printable = title.isascii() and title.isprintable()
    return printable and not {"\\", "/"} & set(title) and title.strip(_PADDING) not in _RELATIVE_PATHS
