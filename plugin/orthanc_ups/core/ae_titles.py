# SPDX-License-Identifier: AGPL-3.0-or-later
"""AE titles: which texts are valid (PS3.5 §6.2, VR AE), and which of them name the same application entity.

Every interface uses the same rule. Orthanc ignores the case of AE titles unless ``StrictAetComparison`` is set; padding
never counts. Whatever the spelling in a request, the worklist uses one for each application entity: that in
``DicomModalities``, else that in the settings, else the first that was used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final
from urllib.parse import unquote

LONGEST_AE_TITLE: Final = 16
"""Characters, without padding."""
_PADDING: Final = " \0"


class InvalidAeTitle(ValueError):
    """A text that cannot be an AE title. The message says what it is and what is expected."""


def valid_ae_title(text: str) -> str:
    """The AE title in a text, without padding.

    Leading and trailing spaces are insignificant (PS3.5 Table 6.2-1). Beyond the rule of the standard, an AE title
    must not contain a slash or consist of dots only (``.``, ``..``), not even percent-encoded: it is a segment of
    UPS-RS paths and of paths in Orthanc, which proxies and servers may decode more than once.

    Raises:
        InvalidAeTitle: it is empty, longer than 16 characters, not printable ASCII, or holds a slash or a backslash.
    """
    title = text.strip(_PADDING)
    if not 1 <= len(title) <= LONGEST_AE_TITLE or not all(map(_is_plain, _spellings(title))):
        raise InvalidAeTitle(
            f"{text[:40]!r} is not an AE title: expected 1 to 16 printable ASCII characters"
            " without slash or backslash, not dots only"
        )
    return title


def _spellings(title: str) -> Iterator[str]:
    """The title, and the result of each further percent-decoding of it."""
    yield title
    while (decoded := unquote(title)) != title:
        title = decoded
        yield title


def _is_plain(title: str) -> bool:
    printable = title.isascii() and title.isprintable()
    only_dots = "." in title and not title.strip(_PADDING + ".")
    return printable and not {"\\", "/"} & set(title) and not only_dots


class AeTitles:
    """The spelling of each AE title. Lives on the loop."""

    def __init__(self, *, strict: bool = False) -> None:
        """Args:
        strict: Orthanc's ``StrictAetComparison``: titles that differ in case are different.
        """
        self._strict = strict
        self._listed: dict[str, str] = {}
        self._in_use: dict[str, str] = {}

    def key(self, title: str) -> str:
        """A key that is equal for all spellings of an AE title, and for no other title."""
        bare = title.strip(_PADDING)
        return bare if self._strict else bare.lower()

    def same(self, first: str, second: str) -> bool:
        """True if both name the same application entity."""
        return self.key(first) == self.key(second)

    def spelled(self, title: str) -> str:
        """The AE title in the spelling that the worklist uses; a new title as it is, without padding."""
        key = self.key(title)
        return self._in_use.get(key) or self._listed.get(key) or title.strip(_PADDING)

    def is_in_use(self, title: str) -> bool:
        """True if ``use`` was called with the AE title in any spelling."""
        return self.key(title) in self._in_use

    def use(self, title: str) -> str:
        """As ``spelled``; the spelling then stays until the plugin stops, even if ``DicomModalities`` change.

        To be called for every AE title that subscribes, opens a WebSocket, or is in the settings.
        """
        return self._in_use.setdefault(self.key(title), self.spelled(title))

    def list(self, titles: Iterable[str]) -> dict[str, str]:
        """Take over the AE titles of ``DicomModalities``; the first of several spellings counts.

        Returns:
            The spellings in use that differ from ``DicomModalities``, each with the spelling there, which the next
            start adopts.
        """
        self._listed = {}
        for title in titles:
            self._listed.setdefault(self.key(title), title)
        return {
            used: self._listed[key]
            for key, used in self._in_use.items()
            if self._listed.get(key, used) != used
        }
