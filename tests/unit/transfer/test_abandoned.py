# SPDX-License-Identifier: AGPL-3.0-or-later
"""A client disappears in the middle of an import: what arrived takes effect, and no AE is held for ever."""

from __future__ import annotations

import asyncio

import pytest

from orthanc_ups.core.commands import Update
from orthanc_ups.transfer.importer import PATIENCE
from orthanc_ups.transfer.routes import ImportStopped
from tests.support.service import SCHEDULER, TRANSACTION, on_loop
from tests.support.transfer import exported, imported
from tests.support.workitems import progress, uid
from tests.unit.transfer.test_restore import busy_rig, empty_rig


@on_loop
async def test_an_import_whose_client_went_away_is_abandoned_and_what_came_is_delivered() -> None:
    source, target = await busy_rig(), await empty_rig()
    lines = await exported(source)
    await imported(target, lines[:-1])
    assert not target.events_for("AI")
    await target.pass_by(2 * PATIENCE + 1)
    assert target.events_for("AI")
    assert target.service.import_session.report.state == "abandoned"
    with pytest.raises(ImportStopped, match="header"):
        await imported(target, lines[-1:])


@on_loop
async def test_an_abandoned_import_is_let_go_once_the_store_answers_again() -> None:
    source, target = await busy_rig(), await empty_rig()
    lines = await exported(source)
    await imported(target, lines[:-1])
    target.service.locks.patience = 0.01
    key = f"workitem/{uid(1)}"
    target.entries.before[key] = asyncio.Event()
    update = Update(SCHEDULER, uid(1), progress("80"), TRANSACTION)
    slow = asyncio.ensure_future(target.service.worklist.execute(update))
    await target.until(lambda: target.service.locks.commands == 1)
    await target.pass_by(2 * PATIENCE + 1)
    await target.until(lambda: target.service.import_session.report.state == "abandoned")
    await target.until(lambda: not target.service.locks.is_global)
    assert not target.events_for("AI") and target.service.delivery.held_from("AI") is not None
    target.entries.before.pop(key).set()
    await slow
    await target.pass_by(PATIENCE + 1)
    assert target.events_for("AI") and target.service.delivery.held_from() is None
