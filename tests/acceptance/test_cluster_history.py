# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several nodes lose nothing they acknowledged, tell events in order, and give a claim one owner, whatever ends."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from orthanc_ups.cluster.lease import LEASE
from tests.support.claims import ClaimRaces
from tests.support.load import (
    Subscribers,
    Writers,
    sequences_of,
    subscribe_globally,
    wait_until_told,
    writer_modalities,
)
from tests.support.nodes import health, nodes, workitems
from tests.support.orthanc import RealOrthanc
from tests.support.postgresql import PostgreSql
from tests.support.waiting import wait_until

LISTENERS, RESUMING = ("WARD1", "WARD2"), ("PHONE",)
SETTINGS: Final = {"ReplaceWaitingProgress": False, "RetryFirst": 0.2, "RetryMaximum": 1.0}
Fault = Callable[[list[RealOrthanc], PostgreSql], None]


def leader_of(everyone: list[RealOrthanc]) -> RealOrthanc:
    wait_until(lambda: any(map(_leads, everyone)), lambda: f"one leads: {list(map(health, everyone))}", 60)
    return next(node for node in everyone if _leads(node))


def _leads(node: RealOrthanc) -> bool:
    return health(node) == ("open", "leader")


def kill(everyone: list[RealOrthanc], _: PostgreSql) -> None:
    """Kill the leader, and start it again."""
    leader = leader_of(everyone)
    leader.kill()
    leader.launch()


def pause(everyone: list[RealOrthanc], _: PostgreSql) -> None:
    """Pause the leader for longer than its lease: it must not go on as if nothing had happened."""
    leader = leader_of(everyone)
    os.kill(leader.pid, signal.SIGSTOP)
    time.sleep(2 * LEASE)
    os.kill(leader.pid, signal.SIGCONT)


def stop(everyone: list[RealOrthanc], _: PostgreSql) -> None:
    """Stop the leader, as for an upgrade, and start it again."""
    leader = leader_of(everyone)
    assert leader.stop(60) == 0
    leader.launch()


def crash_of_postgresql(_: list[RealOrthanc], database: PostgreSql) -> None:
    """PostgreSQL ends without a farewell, and comes back at once."""
    database.stop(signal.SIGQUIT)
    database.start()


def cut(_: list[RealOrthanc], database: PostgreSql) -> None:
    """Every session is cut, those of Orthanc and ours."""
    database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                     "AND backend_type = 'client backend'")  # fmt: skip


FAULTS: Final = (kill, pause, crash_of_postgresql, stop, cut)


@pytest.mark.one_suite("lease, fence and relay are our own; each suite has tests of two nodes")
@pytest.mark.parametrize(
    ("count", "faults"),
    [
        pytest.param(2, FAULTS, id="two nodes"),
        pytest.param(3, 12 * FAULTS, id="three nodes", marks=pytest.mark.torture),
    ],
)
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_and_every_claim_has_one_owner(
    suite: str, tmp_path: Path, count: int, faults: tuple[Fault, ...]
) -> None:
    chance = random.Random()
    journal, record = tmp_path / "journal", tmp_path / "record"
    subscribers = Subscribers(record, LISTENERS, (), RESUMING)
    overrides = {
        "DicomModalities": {**subscribers.modalities, **writer_modalities()},
        "Ups": {**SETTINGS},
    }
    with (
        subscribers,
        PostgreSql() as database,
        nodes(suite, tmp_path, database, count, overrides=overrides) as everyone,
    ):
        for node in everyone:
            node.launch()
        leader = leader_of(everyone)
        subscribe_globally(leader, *subscribers.names)
        subscribers.open_sockets(everyone[-1])
        with (
            Writers(everyone[0], journal, dimse=1, http=1, reports=2, pace=0.02) as first,
            Writers(everyone[1], journal, dimse=1, http=1, reports=2, pace=0.02, first=3) as second,
            ClaimRaces([workitems(node) for node in everyone]) as races,
        ):
            for fault in faults:
                time.sleep(chance.uniform(0.5, 1.5))
                fault(everyone, database)
                leader_of(everyone)
            time.sleep(1.0)
            first.end()
            second.end()
        verdict = wait_until_told(journal, record, subscribers.names, timeout=60)
        subscribers.end()
        logs = "\n\n".join(node.log_tail() for node in everyone)
    print(f"\n{suite}: {len(faults)} faults: {verdict}; {races.claims} claims")
    assert verdict.is_good, f"{verdict}\n{logs}"
    assert races.complaints == [] and races.claims > len(faults)
    assert verdict.changes > 10 * len(faults), "the writers hardly wrote"
    rising = sequences_of(record, RESUMING[0])
    assert rising == sorted(set(rising)), "a socket that resumes was told something twice or out of order"
