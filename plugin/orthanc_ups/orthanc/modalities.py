# SPDX-License-Identifier: AGPL-3.0-or-later
"""Orthanc's modalities as its REST API lists them: from orthanc.json, from its database, or changed at run time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from ..core.ae_titles import AeTitles
from ..core.unavailable import StoreUnavailable
from .loopback import Loopback, refused

_log = logging.getLogger("orthanc_ups.orthanc.modalities")
_STALE_AFTER: Final = 30.0  # seconds
_SHORTEST_PAUSE: Final = 0.05  # seconds between two requests that unknown AE titles may cause
_LONGEST_PAUSE: Final = 1.0  # seconds
# Pauses are this many times as long as a response takes: such requests take at most a tenth of the time.
_PAUSE_FACTOR: Final = 10


@dataclass(frozen=True, slots=True)
class Modality:
    """One entry of ``DicomModalities``.

    Attributes:
        name: the key of the entry in Orthanc.
        ae_title: its AE title, without padding.
        host: name or address.
        port: DICOM port, 1–65535.
        use_dicom_tls: True if associations to it use TLS.
        local_aet: the calling AE title to use with it, or "" for the default.
        timeout: seconds for its network operations, 0 for the default.
        allow_find_worklist: False if Orthanc would refuse its worklist queries.
        allow_echo: False if Orthanc would refuse its C-ECHO.
    """

    name: str
    ae_title: str
    host: str
    port: int
    use_dicom_tls: bool = False
    local_aet: str = ""
    timeout: float = 0.0
    allow_find_worklist: bool = True
    allow_echo: bool = True


class OrthancModalities:
    """A cached list of ``DicomModalities``, for use on the loop. AE titles are compared by ``AeTitles``.

    Attributes:
        moved: called with each AE title that is new or has a new address.
    """

    def __init__(
        self, loopback: Loopback, titles: AeTitles, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Prepare; empty until ``refresh``. ``titles`` learns every spelling."""
        self._loopback = loopback
        self._titles = titles
        self._respelled: dict[str, str] = {}
        self._clock = clock
        self._by_ae_title: dict[str, tuple[Modality, ...]] = {}
        self._requested_at = float("-inf")
        self._duration = 0.0  # seconds that the last response took
        self._request_count = 0
        self._refreshing: asyncio.Task[None] | None = None
        self._available = True
        self._changed = asyncio.Event()
        self.moved: Callable[[str], object] = lambda _: None

    def by_ae_title(self, ae_title: str) -> tuple[Modality, ...]:
        """The cached entries with this AE title; () if there are none."""
        return self._by_ae_title.get(self._titles.key(ae_title), ())

    def ae_titles(self) -> tuple[str, ...]:
        """Every AE title, sorted."""
        return tuple(
            sorted({self._titles.spelled(group[0].ae_title) for group in self._by_ae_title.values()})
        )

    def all(self) -> tuple[Modality, ...]:
        """Every cached entry."""
        return tuple(modality for group in self._by_ae_title.values() for modality in group)

    async def lookup(self, ae_title: str) -> tuple[Modality, ...]:
        """Like ``by_ae_title``, but refreshes the list first if the AE title is unknown or the list is old.

        An AE title is never reported as unknown from a list that is older than the call: it may be new. Because
        unknown peers can cause such requests at will, these are spaced, usually by _SHORTEST_PAUSE, and the callers
        wait. If Orthanc does not respond, the last list is used.
        """
        if not self.by_ae_title(ae_title):
            await self._refresh_again(
                min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, _PAUSE_FACTOR * self._duration))
            )
        elif self._clock() - self._requested_at >= _STALE_AFTER:
            await self.refresh()
        return self.by_ae_title(ae_title)

    async def refresh(self) -> None:
        """Request the list now; simultaneous callers share one request."""
        if self._refreshing is None:
            self._refreshing = asyncio.ensure_future(self._request())
            self._refreshing.add_done_callback(self._finish)
        await asyncio.shield(self._refreshing)

    async def _refresh_again(self, pause: float = 0.0) -> None:
        """Wait for the response to a request sent from now on, at least ``pause`` seconds after the last one."""
        count = self._request_count
        if self._refreshing is not None:
            await asyncio.shield(self._refreshing)
        await asyncio.sleep(max(0.0, self._requested_at + pause - self._clock()))
        if self._request_count == count or self._refreshing is not None:
            await self.refresh()

    def _finish(self, _: asyncio.Task[None]) -> None:
        self._refreshing = None

    def changed(self) -> None:
        """Note that Orthanc's modalities have changed: ``keep_fresh`` requests the list at once."""
        self._changed.set()

    async def keep_fresh(self) -> None:
        """Refresh the list every 30 seconds and after changes, until canceled."""
        while True:
            self._changed.clear()
            await self._refresh_again()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _STALE_AFTER)

    async def _request(self) -> None:
        self._requested_at = self._clock()
        self._request_count += 1
        try:
            reply = await self._loopback.request("GET", "/modalities?expand")
            self._duration = self._clock() - self._requested_at
            if reply.status != 200:
                raise refused(reply, "cannot read DicomModalities")
            self._take(self._grouped(reply.json()))
        except StoreUnavailable as error:
            self._note(False, error)
        else:
            self._note(True)

    def _take(self, grouped: dict[str, tuple[Modality, ...]]) -> None:
        before, self._by_ae_title = self._by_ae_title, grouped
        self._note_spellings(self._titles.list(group[0].ae_title for group in grouped.values()))
        changed = [
            modality for key, group in grouped.items() if group != before.get(key) for modality in group
        ]
        for ae_title in dict.fromkeys(modality.ae_title for modality in changed):
            self.moved(ae_title)

    def _note_spellings(self, respelled: dict[str, str]) -> None:
        for used, listed in respelled.items():
            if self._respelled.get(used) != listed:
                _log.warning(
                    "AE title %s is now spelled %s in DicomModalities; the worklist adopts that at its next start",
                    used,
                    listed,
                )
        self._respelled = respelled

    def _note(self, available: bool, error: Exception | None = None) -> None:
        if self._available and not available:
            _log.warning("Cannot refresh DicomModalities; using the last known list: %s", error)
        self._available = available

    def _grouped(self, entries: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[Modality, ...]]:
        grouped: dict[str, tuple[Modality, ...]] = {}
        for name, entry in entries.items():
            modality = _modality(name, entry)
            if modality is not None:
                key = self._titles.key(modality.ae_title)
                grouped[key] = (*grouped.get(key, ()), modality)
        return grouped


def _modality(name: str, entry: Mapping[str, Any]) -> Modality | None:
    try:
        return Modality(
            name=name,
            ae_title=str(entry["AET"]).strip(" \0"),
            host=str(entry["Host"]),
            port=int(entry["Port"]),
            use_dicom_tls=bool(entry.get("UseDicomTls", False)),
            local_aet=str(entry.get("LocalAet", "")).strip(),
            timeout=float(entry.get("Timeout", 0)),
            allow_find_worklist=bool(entry.get("AllowFindWorklist", True)),
            allow_echo=bool(entry.get("AllowEcho", True)),
        )
    except (KeyError, TypeError, ValueError) as error:
        _log.warning("Cannot read modality %s: %r", name, error)
        return None
