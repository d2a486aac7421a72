# SPDX-License-Identifier: AGPL-3.0-or-later
"""The JSON of workitems that are requested repeatedly: after each event, by everybody who received it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ..codecs import dicom_json

_MAXIMUM: Final = 8 * 1024 * 1024


class TextCache:
    """The latest texts, as many as have at most ``maximum`` bytes together."""

    def __init__(self, maximum: int = _MAXIMUM) -> None:
        self._maximum = maximum
        self._size = 0
        self._answers: OrderedDict[bytes, bytes] = OrderedDict()

    def of(self, document: bytes, text: Callable[[], bytes]) -> bytes:
        """The attributes of a workitem as a JSON array of one.

        ``document`` is the stored form, which differs after each change; ``text`` returns the attributes as the
        input of ``dicom_json.from_text``.
        """
        answer = self._answers.get(document)
        if answer is not None:
            self._answers.move_to_end(document)
            return answer
        answer = dicom_json.from_texts((text(),))
        self._keep(document, answer)
        return answer

    def _keep(self, document: bytes, answer: bytes) -> None:
        self._answers[document] = answer
        self._size += len(answer)
        while self._size > self._maximum:
            self._size -= len(self._answers.popitem(last=False)[1])
