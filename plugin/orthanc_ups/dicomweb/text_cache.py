# SPDX-License-Identifier: AGPL-3.0-or-later
"""The JSON of workitems that are asked for again and again: after each event, by everybody who was told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ..codecs import dicom_json

_MOST: Final = 8 * 1024 * 1024


class TextCache:
    """Keeps what was asked for last, as many answers as have ``most`` bytes together."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._size = 0
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()

    def of(self, document: bytes, text: Callable[[], bytes]) -> bytes:
        """The attributes of a workitem as a JSON array of one.

        ``document`` is how it is stored, which tells whether they changed; ``text`` gives them as
        ``dicom_json.from_text`` takes them.
        """
        known = self._answers.get(document)
        if known is not None:
            self._answers.move_to_end(document)
            return known
        made = dicom_json.from_texts((text(),))
        self._keep(document, made)
        return made

    def _keep(self, document: bytes, answer: bytes) -> None:
        self._answers[document] = answer
        self._size += len(answer)
        while self._size > self._most:
            self._size -= len(self._answers.popitem(last=False)[1])
