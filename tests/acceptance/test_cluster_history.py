# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several nodes lose no acknowledged change, keep events in order, and give each claim one owner, whichever ends."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

from orthanc_ups.cluster.lease import LEASE
from tests.support.claims import ClaimRaces
from tests.support.dropping_relay import DroppingRelay
from tests.support.load import (
    Subscribers,
    Writers,
    sequences_of,
    subscribe_globally,
    wait_until_told,
    writer_modalities,
)
from tests.support.nodes import health, nodes, workitems
from tests.support.orthanc import CHECKOUT, PLUGIN, Json, RealOrthanc
from tests.support.plugin_scripts import with_shifted_clock
from tests.support.postgresql import PostgreSql
from tests.support.waiting import wait_until

LISTENERS, RESUMING = ("WARD1", "WARD2"), ("PHONE",)
SETTINGS: Final = {"ReplaceWaitingProgress": False, "RetryFirst": 0.2, "RetryMaximum": 1.0}
AWAY: Final = 20.0
CLEANLY: Final = (0, -signal.SIGTERM)
"""A node may lead before Orthanc, which is still starting, has come to look after signals."""
FIRST_WITH_SEVERAL_NODES: Final = "64f8f15"
"""A commit whose nodes already share a worklist, and know less of each other than those of today."""


@dataclass
class Cluster:
    """Nodes, each behind a network of its own to PostgreSQL and with a wall clock of its own."""

    nodes: list[RealOrthanc]
    database: PostgreSql
    relays: dict[RealOrthanc, DroppingRelay] = field(default_factory=dict)
    chance: random.Random = field(default_factory=random.Random)

    def leader(self) -> RealOrthanc:
        """Wait until one leads."""
        leading: list[RealOrthanc] = []

        def is_led() -> bool:
            leading[:] = filter(_leads, self.nodes)
            return bool(leading)

        wait_until(is_led, lambda: f"one leads: {self.logs()}", 120)
        return leading[0]

    def offset(self, node: RealOrthanc) -> Path:
        """The file that says by how much the node's clock is wrong."""
        return node.folder / "offset"

    def logs(self) -> str:
        """What the nodes say, and what they logged last."""
        return "\n\n".join(f"{health(node)}\n{node.log_tail()}" for node in self.nodes)


def _leads(node: RealOrthanc) -> bool:
    return health(node) == ("open", "leader")


Fault = Callable[[Cluster], None]


def kill(cluster: Cluster) -> None:
    """Kill the leader, and start it again."""
    leader = cluster.leader()
    leader.kill()
    leader.launch()


def kill_a_standby(cluster: Cluster) -> None:
    """Kill who does not lead, while it relays and follows."""
    leader = cluster.leader()
    standby = cluster.chance.choice([node for node in cluster.nodes if node is not leader])
    standby.kill()
    standby.launch()


def pause(cluster: Cluster) -> None:
    """Pause the leader for longer than its lease: it must not go on as if nothing had happened."""
    leader = cluster.leader()
    os.kill(leader.pid, signal.SIGSTOP)
    time.sleep(2 * LEASE)
    os.kill(leader.pid, signal.SIGCONT)


def stop(cluster: Cluster) -> None:
    """Stop the leader, as for an upgrade, and start it again."""
    leader = cluster.leader()
    assert leader.stop(60) in CLEANLY
    leader.launch()


def start_at_once(cluster: Cluster) -> None:
    """End every node at once, and start them at once."""
    for node in cluster.nodes:
        node.kill()
    for node in cluster.nodes:
        node.launch()


def crash_of_postgresql(cluster: Cluster) -> None:
    """PostgreSQL ends without a farewell, and comes back at once."""
    cluster.database.stop(signal.SIGQUIT)
    cluster.database.start()


def absence_of_postgresql(cluster: Cluster) -> None:
    """PostgreSQL is away for long, under load."""
    cluster.database.stop()
    time.sleep(AWAY)
    cluster.database.start()


def cut(cluster: Cluster) -> None:
    """Every session is cut, those of Orthanc and ours."""
    cluster.database.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
                             "AND backend_type = 'client backend'")  # fmt: skip


def drop(cluster: Cluster) -> None:
    """The network between the leader and PostgreSQL loses everything for longer than the lease, without a word."""
    relay = cluster.relays[cluster.leader()]
    relay.drop()
    time.sleep(2 * LEASE)
    relay.restore()


def shift_clocks(cluster: Cluster) -> None:
    """The wall clocks of the nodes jump apart, in either direction."""
    for node in cluster.nodes:
        cluster.offset(node).write_text(str(cluster.chance.choice((-86_400, -30, 0, 30, 3_600))))


FAULTS: Final = (kill, pause, crash_of_postgresql, stop, cut, drop, shift_clocks, start_at_once)
LONG: Final = (*FAULTS, kill_a_standby, kill, pause, drop)


@contextlib.contextmanager
def started(
    suite: str, folder: Path, count: int, modalities: Json, plugin: Path = PLUGIN
) -> Iterator[Cluster]:
    """Nodes that were started at once, one of which leads."""
    overrides = {"DicomModalities": modalities, "Ups": {**SETTINGS}}
    with (
        contextlib.ExitStack() as stack,
        PostgreSql() as database,
        nodes(suite, folder, database, count, overrides=overrides) as everyone,
    ):
        cluster = Cluster(everyone, database)
        for node in everyone:
            relay = stack.enter_context(DroppingRelay(database.port))
            cluster.relays[node] = relay
            node.configuration["PostgreSQL"]["Port"] = relay.port
            script = with_shifted_clock(node.folder, cluster.offset(node), plugin)
            node.configuration["PythonScript"] = str(script)
            node.launch()
        cluster.leader()
        yield cluster


def judged(
    suite: str, folder: Path, cluster: Cluster, subscribers: Subscribers, faults: Sequence[Fault]
) -> None:
    """Write through every node while faults happen; then compare what was acknowledged with what was told."""
    journal = folder / "journal"
    everyone = cluster.nodes
    subscribe_globally(cluster.leader(), *subscribers.names)
    subscribers.open_sockets(everyone[-1])
    with (
        Writers(everyone[0], journal, dimse=1, http=1, reports=2, pace=0.02) as first,
        Writers(everyone[1], journal, dimse=1, http=1, reports=2, pace=0.02, first=3) as second,
        ClaimRaces([workitems(node) for node in everyone]) as races,
    ):
        for fault in faults:
            time.sleep(cluster.chance.uniform(0.5, 1.5))
            fault(cluster)
            cluster.leader()
            print(fault.__name__, end=" ", flush=True)
        time.sleep(1.0)
        first.end()
        second.end()
    verdict = wait_until_told(journal, subscribers.record, subscribers.names, timeout=120)
    subscribers.end()
    print(f"\n{suite}: {len(faults)} faults: {verdict}; {races.claims} claims")
    assert verdict.is_good, f"{verdict}\n{cluster.logs()}"
    assert races.complaints == [] and races.claims > len(faults)
    assert verdict.changes > 10 * len(faults), "the writers hardly wrote"
    rising = sequences_of(subscribers.record, RESUMING[0])
    assert rising == sorted(set(rising)), "a socket that resumes was told something twice or out of order"


@pytest.mark.one_suite("lease, fence and relay are our own; each suite has tests of two nodes")
@pytest.mark.parametrize(
    ("count", "faults"),
    [
        pytest.param(2, FAULTS, id="two nodes"),
        pytest.param(3, (*5 * LONG, absence_of_postgresql), id="three nodes", marks=pytest.mark.torture),
    ],
)
@pytest.mark.timeout(3600)
def test_nothing_acknowledged_is_lost_and_every_claim_has_one_owner(
    suite: str, tmp_path: Path, count: int, faults: tuple[Fault, ...]
) -> None:
    with Subscribers(tmp_path / "record", LISTENERS, (), RESUMING) as subscribers:
        modalities = {**subscribers.modalities, **writer_modalities()}
        with started(suite, tmp_path, count, modalities) as cluster:
            judged(suite, tmp_path, cluster, subscribers, faults)


def upgrade(cluster: Cluster) -> None:
    """One node after the other gets the plugin of today, the leader among them; in between both versions work."""
    for node in cluster.nodes:
        assert node.stop(60) in CLEANLY
        with_shifted_clock(node.folder, cluster.offset(node))
        node.launch()
        wait_until(lambda: health(node)[0] in ("open", "standby"), node.log_tail, 120)  # noqa: B023
        time.sleep(3.0)
        stop(cluster)


@pytest.mark.torture
@pytest.mark.one_suite("lease, fence and relay are our own; each suite has tests of two nodes")
@pytest.mark.timeout(1200)
def test_nothing_is_lost_while_nodes_are_upgraded_one_by_one(suite: str, tmp_path: Path) -> None:
    archive = subprocess.run(
        ["git", "-C", str(CHECKOUT), "archive", FIRST_WITH_SEVERAL_NODES, "plugin"],
        check=False,
        stdout=subprocess.PIPE,
    )
    if archive.returncode:
        pytest.skip("this checkout has no history")
    before = tmp_path / "before"
    before.mkdir()
    subprocess.run(["tar", "--extract", "--directory", before], check=True, input=archive.stdout)
    with Subscribers(tmp_path / "record", LISTENERS, (), RESUMING) as subscribers:
        modalities = {**subscribers.modalities, **writer_modalities()}
        plugin = before / "plugin" / PLUGIN.name
        with started(suite, tmp_path, 2, modalities, plugin) as cluster:
            judged(suite, tmp_path, cluster, subscribers, (upgrade,))
