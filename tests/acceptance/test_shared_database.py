# SPDX-License-Identifier: AGPL-3.0-or-later
"""Two Orthancs on one PostgreSQL (``"Lock": false``): one holds the worklist, the other says so and waits."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from orthanc_ups.codecs import dicom_json
from orthanc_ups.store.node import STALE_AFTER
from tests.support import postgresql
from tests.support.orthanc import PYTHON_PLUGIN, RealOrthanc
from tests.support.ports import is_listening
from tests.support.postgresql import PostgreSql
from tests.support.waiting import wait_until
from tests.support.workitems import minimal, uid

pytestmark = pytest.mark.one_suite(
    "the mark of the node is ours; the contract tests hold its compare-and-set on each suite"
)

WAITS = "as another node holds the worklist on this database"


@contextlib.contextmanager
def two_nodes(
    suite: str, folder: Path, *, one_index: bool = False
) -> Iterator[tuple[RealOrthanc, RealOrthanc]]:
    """Two Orthancs, not started, with one database and one storage folder, and perhaps one ``IndexDirectory``."""
    with PostgreSql() as database, contextlib.ExitStack() as stack:
        nodes = []
        for name in ("a", "b"):
            (folder / name).mkdir(parents=True)
            (folder / "index").mkdir(exist_ok=True)
            overrides = {
                "Name": name,
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / ("index" if one_index else name)),
                "PostgreSQL": database.section(),
                "Plugins": [postgresql.INDEX_PLUGIN, PYTHON_PLUGIN],
            }
            node = RealOrthanc(suite, overrides, folder=folder / name, environment=PostgreSql.environment())
            stack.callback(node._end)
            nodes.append(node)
        yield nodes[0], nodes[1]


def is_open(node: RealOrthanc) -> bool:
    return state(node) == "open"


def state(node: RealOrthanc) -> str:
    """What the health route says; nothing if nobody answers."""
    if not node.is_running() or not is_listening(node.ups_http_port):
        return ""
    try:
        answer = requests.get(f"http://127.0.0.1:{node.ups_http_port}/ups/health", timeout=5)
    except requests.RequestException:
        return ""
    return str(answer.json()["State"])


def opens(node: RealOrthanc, within: float) -> None:
    wait_until(lambda: is_open(node), lambda: f"the worklist opens\n{node.log_tail()}", within)


def waits(node: RealOrthanc, lines: int) -> None:
    wait_until(lambda: node.log.read_text().count(WAITS) == lines, lambda: f"it waits\n{node.log_tail()}", 60)


def test_the_second_node_waits_until_the_first_is_gone(suite: str, tmp_path: Path) -> None:
    with two_nodes(suite, tmp_path) as (a, b):
        a.start(120)
        base = f"http://127.0.0.1:{a.ups_http_port}/dicom-web"
        created = requests.post(
            f"{base}/workitems?{uid(1)}",
            dicom_json.encode(minimal()),
            headers={"Content-Type": "application/dicom+json"},
        )
        assert created.status_code == 201, created.text
        b.launch()
        waits(b, 1)
        assert state(b) == "standby"
        refused = requests.get(f"{b.base_url}/dicom-web/workitems")
        assert refused.status_code == 503 and "another node holds the worklist" in refused.text
        a.kill()
        a.start(STALE_AFTER - 5)
        assert not is_open(b)
        assert a.stop() == 0
        opens(b, STALE_AFTER / 2)
        found = requests.get(f"http://127.0.0.1:{b.ups_http_port}/dicom-web/workitems/{uid(1)}")
        assert found.status_code == 200
        a.launch()
        waits(a, 1)
        b.kill()
        opens(a, 2 * STALE_AFTER)
        assert b.log.read_text().count(WAITS) == a.log.read_text().count(WAITS) == 1
        assert a.stop() == 0


def test_a_node_that_was_paused_steps_down_and_waits(suite: str, tmp_path: Path) -> None:
    with two_nodes(suite, tmp_path) as (a, b):
        a.start(120)
        b.launch()
        waits(b, 1)
        os.kill(a.pid, signal.SIGSTOP)
        opens(b, 2 * STALE_AFTER)
        os.kill(a.pid, signal.SIGCONT)
        waits(a, 1)
        wait_until(lambda: state(a) == "standby", lambda: f"it steps down\n{a.log_tail()}", 30)
        assert is_open(b)
        assert b.stop() == 0
        opens(a, STALE_AFTER / 2)
        assert a.stop() == 0


def test_two_nodes_in_one_folder_are_not_taken_for_the_same(suite: str, tmp_path: Path) -> None:
    with two_nodes(suite, tmp_path, one_index=True) as (a, b):
        a.start(120)
        b.launch()
        waits(b, 1)
        assert state(b) == "standby"
        a.kill()
        opens(b, 2 * STALE_AFTER)
        assert b.stop() == 0
