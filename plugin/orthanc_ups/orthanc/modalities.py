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
_PAUSE_FACTOR: Final = (
    10  # pauses are this many times as long as an answer takes, so Orthanc is asked a tenth of the time
)


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
    """A view of ``DicomModalities``. Lives on the loop. AE titles are compared by ``AeTitles``.

    Attributes:
        moved: called with each AE title that is new or has another address than before.
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
        self._asked_at = float("-inf")
        self._took = 0.0  # seconds for the last answer
        self._questions = 0
        self._asking: asyncio.Task[None] | None = None
        self._available = True
        self._changed = asyncio.Event()
        self.moved: Callable[[str], object] = lambda _: None

    def by_ae_title(self, ae_title: str) -> tuple[Modality, ...]:
        """The entries with this AE title, from memory; () if there are none."""
        return self._by_ae_title.get(self._titles.key(ae_title), ())

    def ae_titles(self) -> tuple[str, ...]:
        """Every AE title, sorted."""
        return tuple(
            sorted({self._titles.spelled(group[0].ae_title) for group in self._by_ae_title.values()})
        )

    def all(self) -> tuple[Modality, ...]:
        """Every entry, from memory."""
        return tuple(modality for group in self._by_ae_title.values() for modality in group)

    async def lookup(self, ae_title: str) -> tuple[Modality, ...]:
        """Like ``by_ae_title``, but asks Orthanc first if the AE title is unknown or the view is old.

        An AE title is never reported as unknown from a view that is older than the call: it may be new. As
        strangers may call at will, requests for unknown AE titles are spaced, usually by _SHORTEST_PAUSE, and the
        callers wait. If Orthanc does not answer, the last view is used.
        """
        if not self.by_ae_title(ae_title):
            await self._ask_again(min(_LONGEST_PAUSE, max(_SHORTEST_PAUSE, _PAUSE_FACTOR * self._took)))
        elif self._clock() - self._asked_at >= _STALE_AFTER:
            await self.refresh()
        return self.by_ae_title(ae_title)

    async def refresh(self) -> None:
        """Ask Orthanc now; simultaneous callers share one request."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
            self._asking.add_done_callback(self._answered)
        await asyncio.shield(self._asking)

    async def _ask_again(self, pause: float = 0.0) -> None:
        """Wait for the answer to a request that is sent from now on, at least ``pause`` seconds after the last one."""
        begun = self._questions
        if self._asking is not None:
            await asyncio.shield(self._asking)
        await asyncio.sleep(max(0.0, self._asked_at + pause - self._clock()))
        if self._questions == begun or self._asking is not None:
            await self.refresh()

    def _answered(self, _: asyncio.Task[None]) -> None:
        self._asking = None

    def changed(self) -> None:
        """Orthanc reports that its modalities were changed: ``keep_fresh`` asks again now."""
        self._changed.set()

    async def keep_fresh(self) -> None:
        """Ask every 30 seconds and after changes, for ever."""
        while True:
            self._changed.clear()
            await self._ask_again()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _STALE_AFTER)

    async def _ask(self) -> None:
        self._asked_at = self._clock()
        self._questions += 1
        try:
            reply = await self._loopback.request("GET", "/modalities?expand")
            self._took = self._clock() - self._asked_at
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
