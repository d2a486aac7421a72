# SPDX-License-Identifier: AGPL-3.0-or-later
"""Asks Orthanc by loopback what it thinks of a request."""

from __future__ import annotations

from collections.abc import Mapping

from ..orthanc.loopback import Loopback
from ..store.port import StoreUnavailable


class OrthancQuestions:
    """Implements ports.OrthancPort over a Loopback that has **no** authorization of its own."""

    def __init__(self, anonymous: Loopback) -> None:
        self._anonymous = anonymous

    async def ask(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
        """Send a request without body; returns the status (this client keeps no headers).

        Raises:
            OSError: Orthanc did not answer.
        """
        try:
            reply = await self._anonymous.request(method, path, None, headers)
        except StoreUnavailable as error:
            raise OSError(str(error)) from error
        return reply.status, {}
