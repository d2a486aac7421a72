# SPDX-License-Identifier: AGPL-3.0-or-later
"""MPPS on the plugin's DICOM port: N-CREATE, N-SET and N-GET of performed procedure steps (PS3.4 F.7 and F.8).

A step is stored first and then applied to its workitems. So nothing acknowledged is lost: what a crash interrupted is
completed at the next start, and a request that is sent again changes nothing.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Final

from ..codecs.attribute_names import vr_of
from ..core import statuses, tags
from ..core.commands import Requester
from ..core.dataset import DataSet, element, text
from ..core.decide import is_uid
from ..core.refusals import spelled
from ..core.statuses import UpsError
from ..core.unavailable import StoreUnavailable
from ..core.value_rules import DataSetLimits
from ..core.workitem import HistoryEntry
from ..dimse.message import ATTRIBUTE_LIST, CommandField
from ..dimse.services import Exchange, FurtherService, shortened
from ..settings import Settings
from .performances import VIA, Performances
from .performed_step_store import PerformedSteps
from .performed_steps import (
    PERFORMED_STEP,
    RETRIEVE,
    PerformedStep,
    StepCircumstances,
    created,
    updated,
)

_log = logging.getLogger("orthanc_ups.modality")
_EVERY: Final = 60.0  # seconds
_WAITS: Final = "not yet: "
_ABANDONED: Final = 30 * 86_400.0  # seconds
_CLASSES: Final = frozenset({PERFORMED_STEP, RETRIEVE})


def services_by(serve: Callable[[Exchange], Awaitable[None]]) -> Mapping[str, FurtherService]:
    """The SOP classes of MPPS, served by a function."""
    change = frozenset({CommandField.N_CREATE, CommandField.N_SET})
    return {
        PERFORMED_STEP: FurtherService(change, frozenset({PERFORMED_STEP}), serve),
        RETRIEVE: FurtherService(frozenset({CommandField.N_GET}), _CLASSES, serve),
    }


class PerformedStepService:
    """Serves performed procedure steps, one change at a time; used on the loop only.

    Attributes:
        steps: the stored steps.
    """

    def __init__(
        self,
        steps: PerformedSteps,
        performances: Performances,
        settings: Settings,
        now: Callable[[], datetime],
        counters: Counter[str] | None = None,
    ) -> None:
        """``now`` returns the current time in the local zone."""
        self.steps = steps
        self._performances = performances
        self._settings = settings
        self._now = now
        self._counters = Counter() if counters is None else counters
        self._lock = asyncio.Lock()
        self._unsettled: set[str] = set()

    def services(self) -> Mapping[str, FurtherService]:
        """The SOP classes of MPPS for the DIMSE port."""
        return services_by(self.serve)

    async def serve(self, exchange: Exchange) -> None:
        """Answer a request. Raises UpsError to refuse it."""
        if exchange.field == CommandField.N_GET:
            await self._get(exchange)
            return
        dataset, corrections = await exchange.corrected_data_set()
        async with self._lock:
            if exchange.field == CommandField.N_CREATE:
                await self._create(exchange, dataset, corrections)
            else:
                await self._set(exchange, dataset, corrections)

    # --- requests ---

    async def _create(self, exchange: Exchange, dataset: DataSet, corrections: tuple[str, ...]) -> None:
        uid = exchange.instance or text(dataset, tags.SOP_INSTANCE_UID) or f"2.25.{uuid.uuid4().int}"
        if not is_uid(uid):
            raise UpsError(statuses.INVALID_INSTANCE, "the SOP Instance UID is not a valid UID")
        if uid in self.steps:
            raise UpsError(statuses.DUPLICATE_INSTANCE, f"already exists: performed procedure step {uid}")
        change = created(uid, exchange.calling, dataset, self._circumstances())
        uids, reason = await self._performances.workitems_of(change.step)
        sentences = (*corrections, *change.corrections)
        step = replace(change.step, workitems=uids, notes={"": reason} if reason else {})
        await self._keep(exchange.requester.ae, step, "created IN PROGRESS", sentences)
        await exchange.answer(statuses.SUCCESS, uid)

    async def _set(self, exchange: Exchange, dataset: DataSet, corrections: tuple[str, ...]) -> None:
        step = self._existing(exchange.instance)
        change = updated(step, dataset, self._circumstances())
        ended = f", {change.step.status.value}" if change.step.status.is_final else ""
        sentences = (*corrections, *change.corrections)
        await self._keep(exchange.requester.ae, change.step, f"set{ended}", sentences)
        if change.ignored:
            left_out = ", ".join(map(spelled, change.ignored))
            comment = shortened(f"not changed by N-SET: {left_out}")
            await exchange.answer(statuses.ATTRIBUTES_IGNORED, step.uid, None, comment)
        else:
            await exchange.answer(statuses.SUCCESS, step.uid)

    async def _get(self, exchange: Exchange) -> None:
        """N-GET (PS3.4 F.8.2): the requested attributes, or all of them."""
        attributes = self._existing(exchange.instance).attributes
        requested = [
            tag for tag in exchange.message.tags(ATTRIBUTE_LIST) if tag != tags.SPECIFIC_CHARACTER_SET
        ]
        if not requested:
            await exchange.answer(statuses.SUCCESS, exchange.instance, attributes)
            return
        chosen = {tag: attributes.get(tag) or element(vr_of(tag) or "UN") for tag in sorted(requested)}
        missing = [tag for tag in requested if tag not in attributes]
        status = statuses.OPTIONAL_UNSUPPORTED if missing else statuses.SUCCESS
        await exchange.answer(status, exchange.instance, chosen, "some attributes do not exist")

    def _existing(self, uid: str) -> PerformedStep:
        step = self.steps.get(uid)
        if step is None:
            raise UpsError(statuses.NO_SUCH_INSTANCE)
        return step

    def _circumstances(self) -> StepCircumstances:
        limits = DataSetLimits(self._settings.maximum_nesting)
        return StepCircumstances(self._now(), limits, strict=self._settings.strict)

    # --- workitems ---

    async def _keep(self, ae: str, step: PerformedStep, what: str, corrections: tuple[str, ...]) -> None:
        """Store a step, then apply it to its workitems."""
        entry = HistoryEntry(self._now().timestamp(), str(Requester(ae, VIA)), what, "; ".join(corrections))
        history = (*step.history, entry)[-self._settings.history_length :]
        stored = await self.steps.write(replace(step, history=history))
        _log.info("%s: performed procedure step %s %s", entry.who, step.uid, what)
        if not step.revision:
            self._counters["mpps_created"] += 1
        if step.status.is_final:
            self._counters[f"mpps_{step.status.value.lower()}"] += 1
        await self._settle(stored)

    async def _settle(self, step: PerformedStep) -> None:
        """Apply a step to its workitems, and note why that is not done or must wait."""
        noted = {uid: await self._note(step, uid) for uid in step.workitems}
        notes = {uid: note for uid, note in {**step.notes, **noted}.items() if note}
        if any(note.startswith(_WAITS) for note in notes.values()):
            self._unsettled.add(step.uid)
        else:
            self._unsettled.discard(step.uid)
        if notes == dict(step.notes):
            return
        for uid in notes.keys() & noted.keys():
            _log.warning("Performed procedure step %s and workitem %s: %s", step.uid, uid, notes[uid])
        try:
            await self.steps.write(replace(step, notes=notes))
        except UpsError as error:
            _log.warning("A note on performed procedure step %s is lost: %s", step.uid, error.detail)

    async def _note(self, step: PerformedStep, uid: str) -> str:
        try:
            return await self._performances.apply(step, uid)
        except UpsError as error:
            return f"{_WAITS}{error.detail}"

    async def resume(self) -> None:
        """Apply steps that a crash kept from being applied to their workitems."""
        self._unsettled.update(
            uid for uid in self.steps.newest() if (step := self.steps.get(uid)) and self._is_open(step)
        )
        await self._settle_all()

    def _is_open(self, step: PerformedStep) -> bool:
        return any(step.notes.get(uid, _WAITS).startswith(_WAITS) for uid in step.workitems)

    async def _settle_all(self) -> None:
        for uid in list(self._unsettled):
            async with self._lock:
                step = self.steps.get(uid)
                if step is None:
                    self._unsettled.discard(uid)
                else:
                    await self._settle(step)

    async def run(self) -> None:
        """Apply steps that wait, and delete old ones, until canceled."""
        await self.resume()
        while True:
            await asyncio.sleep(_EVERY)
            await self._settle_all()
            try:
                now = self._now().timestamp()
                final_before = now - self._settings.retain_final
                await self.steps.forget(final_before, min(final_before, now - _ABANDONED))
            except StoreUnavailable as error:
                _log.warning("Cannot delete old performed procedure steps now: %s", error)
