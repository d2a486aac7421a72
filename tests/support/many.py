# SPDX-License-Identifier: AGPL-3.0-or-later
"""A worklist of any size in a real Orthanc: its metadata are written while the plugin is not loaded."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

from orthanc_ups.config import read_orthanc_settings
from orthanc_ups.core import tags
from orthanc_ups.core.dataset import element
from orthanc_ups.core.workitem import HistoryEntry, Workitem
from orthanc_ups.orthanc.loopback import Loopback
from orthanc_ups.store.documents import encode
from orthanc_ups.store.metadata import OrthancEntries
from tests.support.orthanc import RealOrthanc
from tests.support.workitems import stored, uid

_AT_ONCE: Final = 64
_FAMILIES: Final = ("Aokawa", "Fairweather", "Lindqvist", "Okonkwo", "Zhukova")
_STATES: Final = ("SCHEDULED", "SCHEDULED", "IN PROGRESS", "COMPLETED")


def fill(orthanc: RealOrthanc, count: int) -> None:
    """Put workitems ``Step 000001`` … into a running Orthanc, which is restarted for that."""
    orthanc.stop()
    orthanc.configuration["Ups"]["Enable"] = False
    orthanc.start()
    with ThreadPoolExecutor(1) as thread:  # this one may have Playwright's loop
        thread.submit(asyncio.run, _write(orthanc, count)).result()
    orthanc.stop()
    orthanc.configuration["Ups"]["Enable"] = True
    orthanc.start(120.0)


async def _write(orthanc: RealOrthanc, count: int) -> None:
    loopback = Loopback.of(read_orthanc_settings(orthanc.configuration), "")
    entries = OrthancEntries(loopback)
    await entries.open()
    async for _ in entries.load():
        pass
    workitems = map(_workitem, range(1, count + 1))
    while some := list(islice(workitems, _AT_ONCE)):
        await asyncio.gather(
            *(entries.create(f"workitem/{workitem.uid}", encode(workitem)) for workitem in some)
        )
    await loopback.close()


def _workitem(number: int) -> Workitem:
    state, now = _STATES[number % len(_STATES)], time.time()
    changes = {
        f"t{tags.LABEL}": element("LO", f"Step {number:06}"),
        f"t{tags.PATIENT_NAME}": element("PN", {"Alphabetic": f"{_FAMILIES[number % 5]}^{number:06}"}),
        f"t{tags.PATIENT_ID}": element("LO", f"P{number}"),
    }
    return Workitem(
        uid(number),
        number,
        stored(number, state, **changes),
        owner=None if state == "SCHEDULED" else "0" * 64,
        history=(HistoryEntry(now, "RIS by DIMSE", "created"),),
        ended=now if state == "COMPLETED" else None,
        revision=1,
    )
