# SPDX-License-Identifier: AGPL-3.0-or-later
"""A loopback to a real Orthanc that records requests and fails on demand."""

from __future__ import annotations

from typing import Any

from orthanc_ups.orthanc.loopback import Loopback, Reply
from orthanc_ups.store.port import StoreUnavailable


class WatchedLoopback(Loopback):
    """As Loopback.

    Attributes:
        paths: of all requests so far.
        is_away: while True, no request reaches Orthanc.
        is_full: while True, Orthanc has no storage for instances.
        lost_answers: so many of the next PUTs are done, and nobody knows.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.paths: list[str] = []
        self.is_away = False
        self.is_full = False
        self.lost_answers = 0

    async def request(self, method: str, path: str, *arguments: Any, **options: Any) -> Reply:
        self.paths.append(path)
        if self.is_away:
            raise StoreUnavailable("cannot reach Orthanc's HTTP server", certain=True)
        if self.is_full and (method, path) == ("POST", "/instances"):
            return Reply(507, b'{"Message": "Full storage"}')
        reply = await super().request(method, path, *arguments, **options)
        if self.lost_answers and method == "PUT":
            self.lost_answers -= 1
            raise StoreUnavailable("no answer from Orthanc's HTTP server", certain=False)
        return reply
