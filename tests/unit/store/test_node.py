# SPDX-License-Identifier: AGPL-3.0-or-later
"""Of several nodes on one store one holds the worklist; the others wait until it is gone."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orthanc_ups.store import keys
from orthanc_ups.store.node import RENEW_EVERY, STALE_AFTER, Node, NodeFile, NodeMark
from orthanc_ups.store.port import Entry
from tests.support.delivery import VirtualClock, run, settle
from tests.support.memory_store import InMemoryEntries


class Nodes:
    """A store and the nodes on it, in virtual time."""

    def __init__(self) -> None:
        self.entries = InMemoryEntries()
        self.clock = VirtualClock()
        self.reasons: list[str] = []

    def node(self, name: str) -> NodeMark:
        return NodeMark(self.entries.another(), Node(name, name), self.clock, self.reasons.append)

    async def mark(self) -> Entry | None:
        return await self.entries.another().read(keys.NODE)


def test_a_second_node_says_in_one_line_who_holds_the_worklist_and_waits(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        nodes = Nodes()
        first, second = nodes.node("first"), nodes.node("second")
        await first.acquire()
        keeping = asyncio.ensure_future(first.keep())
        waiting = asyncio.ensure_future(second.acquire())
        await nodes.clock.advance(10 * STALE_AFTER)
        assert not waiting.done() and not keeping.done()
        assert len(nodes.reasons) == 1 and "another node holds the worklist" in nodes.reasons[0]
        assert "first" in nodes.reasons[0] and caplog.text.count(nodes.reasons[0]) == 1
        waiting.cancel()
        keeping.cancel()

    run(scenario())


def test_a_clean_stop_lets_the_other_node_in_at_once() -> None:
    async def scenario() -> None:
        nodes = Nodes()
        first, second = nodes.node("first"), nodes.node("second")
        await first.acquire()
        waiting = asyncio.ensure_future(second.acquire())
        await nodes.clock.advance(5)
        await first.release()
        await nodes.clock.advance(3)
        assert waiting.done()

    run(scenario())


def test_after_a_kill_the_same_node_goes_on_at_once_and_another_once_the_mark_is_stale() -> None:
    async def scenario() -> None:
        nodes = Nodes()
        await nodes.node("first").acquire()
        await asyncio.wait_for(nodes.node("first").acquire(), 1)
        waiting = asyncio.ensure_future(nodes.node("second").acquire())
        await nodes.clock.advance(STALE_AFTER - 1)
        assert not waiting.done()
        await nodes.clock.advance(5)
        assert waiting.done()

    run(scenario())


def test_a_node_that_was_paused_learns_that_another_has_taken_over(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        nodes = Nodes()
        first, second = nodes.node("first"), nodes.node("second")
        await first.acquire()
        taking = asyncio.ensure_future(second.acquire())
        await nodes.clock.advance(2 * STALE_AFTER)
        assert taking.done()
        keeping = asyncio.ensure_future(first.keep())
        await nodes.clock.advance(RENEW_EVERY + 1)
        assert keeping.done()
        assert "Another node has taken the worklist over: second" in caplog.text

    run(scenario())


def test_two_with_the_same_identity_do_not_take_it_from_each_other_in_turns() -> None:
    async def scenario() -> None:
        nodes = Nodes()
        first, clone = nodes.node("cloned"), nodes.node("cloned")
        await first.acquire()
        await clone.acquire()
        keeping = asyncio.ensure_future(clone.keep())
        losing = asyncio.ensure_future(first.keep())
        await nodes.clock.advance(RENEW_EVERY + 1)
        assert losing.done() and not keeping.done()
        again = asyncio.ensure_future(first.acquire())
        await nodes.clock.advance(5 * STALE_AFTER)
        assert not again.done() and not keeping.done()
        for task in (again, keeping):
            task.cancel()

    run(scenario())


def test_an_outage_or_a_deletion_of_the_mark_does_not_cost_it() -> None:
    async def scenario() -> None:
        nodes = Nodes()
        own = nodes.entries.another()
        mark = NodeMark(own, Node("first"), nodes.clock, nodes.reasons.append)
        await mark.acquire()
        keeping = asyncio.ensure_future(mark.keep())
        own.unavailable = True
        await nodes.clock.advance(3 * RENEW_EVERY)
        own.unavailable = False
        own.lost_answers = 1
        await nodes.clock.advance(3 * RENEW_EVERY)
        entry = await nodes.mark()
        assert entry is not None
        await nodes.entries.another().remove(keys.NODE, entry.version)
        await nodes.clock.advance(3 * RENEW_EVERY)
        assert not keeping.done() and await nodes.mark() is not None
        keeping.cancel()
        await settle()

    run(scenario())


def test_a_restart_of_the_holder_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        nodes = Nodes()
        await nodes.node("first").acquire()
        waiting = asyncio.ensure_future(nodes.node("second").acquire())
        await nodes.clock.advance(5)
        again = nodes.node("first")
        await again.acquire()
        keeping = asyncio.ensure_future(again.keep())
        await nodes.clock.advance(2 * STALE_AFTER)
        assert not waiting.done()
        assert caplog.text.count("another node holds the worklist") == 1
        for task in (waiting, keeping):
            task.cancel()

    run(scenario())


def test_a_node_keeps_its_name_and_two_in_one_folder_have_different_ones(tmp_path: Path) -> None:
    first = NodeFile(tmp_path / "node")
    second = NodeFile(tmp_path / "node")
    assert first.node.name != second.node.name
    for file in (first, second):
        file.close()
    again = NodeFile(tmp_path / "node")
    assert again.node.name == first.node.name and again.node.run != first.node.run
    again.close()
