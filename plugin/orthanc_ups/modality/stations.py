# SPDX-License-Identifier: AGPL-3.0-or-later
"""Maps scheduled stations to AE titles and back (``Ups.ModalityWorklist.Stations``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from ..core import tags
from ..core.ae_titles import AeTitles, InvalidAeTitle, valid_ae_title
from ..core.dataset import DataSet, element, items, text
from ..settings import ModalityWorklist

STATION_CLASS: Final = "00404026"
DCM: Final = "DCM"


@dataclass(frozen=True, slots=True)
class StationCode:
    """The code of a station; ``scheme`` is "" for a code of any scheme."""

    value: str
    scheme: str = ""

    @classmethod
    def of_setting(cls, setting: str) -> StationCode:
        """Read ``CODE`` or ``CODE^SCHEME``."""
        value, _, scheme = setting.partition("^")
        return cls(value.strip(), scheme.strip())

    def fits(self, item: DataSet) -> bool:
        """True if an item of a code sequence holds this code."""
        if text(item, tags.CODE_VALUE).strip() != self.value:
            return False
        return self.scheme in ("", text(item, tags.CODING_SCHEME).strip())

    def key(self) -> DataSet:
        """The item of a matching key for the code."""
        key = {tags.CODE_VALUE: element("SH", self.value)}
        return {**key, tags.CODING_SCHEME: element("SH", self.scheme)} if self.scheme else key


class Stations:
    """The stations of a site; used on the loop only."""

    def __init__(self, worklist: ModalityWorklist, titles: AeTitles) -> None:
        self._titles = titles
        self._codes = {ae: StationCode.of_setting(code) for ae, code in worklist.stations.items()}
        self._modalities = dict(worklist.modalities)

    def same(self, first: str, second: str) -> bool:
        """True if both AE titles name the same application entity."""
        return self._titles.same(first, second)

    def key(self, title: str) -> str:
        """A key that is equal for all spellings of an AE title."""
        return self._titles.key(title)

    def titles_of(self, workitem: DataSet) -> list[str]:
        """The AE titles of the stations that a workitem is scheduled at.

        If the settings do not name a station, its code is taken as its AE title, if it can be one.
        """
        titles: dict[str, None] = {}
        for item in items(workitem, tags.STATION_NAME):
            listed = [ae for ae, code in self._codes.items() if code.fits(item)]
            titles.update(dict.fromkeys(listed or _as_title(text(item, tags.CODE_VALUE))))
        return list(titles)

    def codes_of(self, ae: str) -> list[StationCode]:
        """All codes at which a workitem for an AE title may be scheduled."""
        listed = [code for title, code in self._codes.items() if self.same(title, ae)]
        return list(dict.fromkeys([*listed, *self._own_codes(ae)]))

    def _own_codes(self, ae: str) -> Iterable[StationCode]:
        spellings = dict.fromkeys((ae.strip(), self._titles.spelled(ae)))
        return (StationCode(title) for title in spellings)

    def code_of(self, ae: str) -> StationCode | None:
        """The code of an AE title in the settings, or None."""
        return next((code for title, code in self._codes.items() if self.same(title, ae)), None)

    def modality_of(self, titles: Iterable[str]) -> str:
        """The modality in the settings of the first AE title that they name, or ""."""
        for title in titles:
            for ae, modality in self._modalities.items():
                if self.same(ae, title):
                    return modality.strip()
        return ""

    def titles_with(self, modality: str) -> list[str]:
        """The AE titles with a modality in the settings."""
        return [ae for ae, own in self._modalities.items() if own.strip() == modality]


def _as_title(code: str) -> list[str]:
    try:
        return [valid_ae_title(code)]
    except InvalidAeTitle:
        return []
