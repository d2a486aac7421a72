# SPDX-License-Identifier: AGPL-3.0-or-later
"""SCP Status Change with GOING DOWN: told at once or not at all (PS3.4 CC.2.4: about to stop)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from ..core.events import Event
from .port import Clock, Refused, Unreachable
from .worker import Worker

_log = logging.getLogger("orthanc_ups.delivery")


async def announce_going_down(
    event: Event, workers: Iterable[Worker], clock: Clock, deadline: float, high_water: int
) -> None:
    """Tell the receivers that are in reach, all side by side, within ``deadline`` seconds.

    An endpoint whose last attempt failed is left out. One that is just being told something may go on with
    what waits for half of the time; the rest is told after the restart.
    """
    reachable = [worker for worker in workers if _in_reach(worker, event)]
    if not reachable:
        return
    telling = [asyncio.ensure_future(_tell(worker, event, high_water, deadline / 2)) for worker in reachable]
    everyone = asyncio.ensure_future(asyncio.wait(telling))
    limit = asyncio.ensure_future(clock.sleep(deadline))
    await asyncio.wait((everyone, limit), return_when=asyncio.FIRST_COMPLETED)
    for unfinished in (limit, everyone, *telling):
        unfinished.cancel()
    done, _ = await asyncio.wait(telling)
    reached = sum(not task.cancelled() and task.result() for task in done)
    _log.info("Told %d of %d endpoints that the SCP is going down", reached, len(reachable))


def _in_reach(worker: Worker, event: Event) -> bool:
    receiving_ae = worker.endpoint.receiving_ae
    here = receiving_ae in event.receivers and worker.channel.serves(receiving_ae)
    return here and not worker.backoff.failing


async def _tell(worker: Worker, event: Event, high_water: int, patience: float) -> bool:
    await worker.finish(patience)
    if worker.backoff.failing:
        return False
    report = replace(event, sequence=worker.settled_through(high_water))
    try:
        await worker.channel.deliver(worker.endpoint.receiving_ae, [report])
    except (Unreachable, Refused):
        return False
    except Exception:
        _log.exception("Telling %s failed: internal error", worker.endpoint)
        return False
    return True
