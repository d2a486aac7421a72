# SPDX-License-Identifier: AGPL-3.0-or-later
"""The JSON of workitems that are asked for again and again: after each event, by everybody who was told."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from ..core.dataset import DataSet
from . import dicom_json

_MOST: Final = 8 * 1024 * 1024


class SpelledOut:
    """Keeps what was asked for last, as many texts as have ``most`` bytes together."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._size = 0
        self._texts: OrderedDict[str, tuple[DataSet, bytes]] = OrderedDict()

    def of(self, uid: str, attributes: DataSet, text: Callable[[], bytes]) -> bytes:
        """The attributes of a workitem as a JSON array of one; a data set never changes, so neither does its text.

        ``text`` gives them as ``dicom_json.from_text`` takes them.
        """
        known = self._texts.get(uid)
        if known is not None and known[0] is attributes:
            self._texts.move_to_end(uid)
            return known[1]
        made = dicom_json.from_texts((text(),))
        self._forget(uid)
        self._keep(uid, attributes, made)
        return made

    def _keep(self, uid: str, attributes: DataSet, text: bytes) -> None:
        self._texts[uid] = attributes, text
        self._size += len(text)
        while self._size > self._most:
            self._forget(next(iter(self._texts)))

    def _forget(self, uid: str) -> None:
        found = self._texts.pop(uid, None)
        if found is not None:
            self._size -= len(found[1])
