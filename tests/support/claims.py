# SPDX-License-Identifier: AGPL-3.0-or-later
"""Performers that claim the same workitems through several nodes at once, and the proof that each has one owner."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

import requests

from orthanc_ups.codecs import dicom_json
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from tests.support.workitems import UID_ROOT, minimal

_JSON: Final = {"Content-Type": "application/dicom+json"}
_RIVALS: Final = 4
_DONE: Final = (200, 201)


class ClaimRaces:
    """Runs races until the context ends. Then ``claims`` says how many were won, ``complaints`` what went wrong.

    A claim that was answered with success belongs to its transaction for ever: nobody else is answered so for the same
    workitem, and the same claim again is that of its owner (B306 or success), never that of a stranger.
    """

    def __init__(self, urls: Sequence[str]) -> None:
        """``urls`` of the workitems, one for each node."""
        self._urls = urls
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.claims = 0
        self.complaints: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(60)

    def _run(self) -> None:
        number = 0
        with ThreadPoolExecutor(_RIVALS) as rivals:
            while not self._ending.wait(0.05):
                number += 1
                uid = f"{UID_ROOT}.9.{number}"
                if self._sent("POST", number, f"?{uid}", dicom_json.encode(minimal())) not in _DONE:
                    continue
                wins = list(rivals.map(lambda rival, uid=uid: self._claim(uid, rival), range(_RIVALS)))
                self._judge(uid, [rival for rival, status in enumerate(wins) if status == 200])

    def _claim(self, uid: str, rival: int) -> int:
        return self._change(uid, rival, "IN PROGRESS")

    def _change(self, uid: str, rival: int, state: str) -> int:
        body = {
            tags.STATE: element("CS", state),
            tags.TRANSACTION_UID: element("UI", f"{UID_ROOT}.10.{rival + 1}"),
        }
        return self._sent("PUT", rival, f"/{uid}/state", dicom_json.encode(body))

    def _judge(self, uid: str, winners: list[int]) -> None:
        if len(winners) > 1:
            self.complaints.append(f"{uid} was claimed by {winners}")
        for winner in winners:
            self.claims += 1
            for loser in range(_RIVALS):
                status = self._change(uid, loser, "CANCELED") if loser != winner else 0
                if status == 200:
                    self.complaints.append(f"{uid} is {winner}'s, but {loser} canceled it")

    def _sent(self, method: str, number: int, path: str, body: bytes) -> int:
        """The status; 0 if there was no answer or the answer leaves the outcome open."""
        url = self._urls[number % len(self._urls)]
        try:
            status = requests.request(method, url + path, data=body, headers=_JSON, timeout=15).status_code
        except requests.RequestException:
            return 0
        return 0 if status in (502, 503) else status
