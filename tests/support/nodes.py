# SPDX-License-Identifier: AGPL-3.0-or-later
"""Several Orthancs on one PostgreSQL that share a worklist."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import requests

from tests.support.orthanc import PYTHON_PLUGIN, RealOrthanc
from tests.support.ports import is_listening
from tests.support.postgresql import INDEX_PLUGIN, PostgreSql
from tests.support.waiting import PATIENCE, wait_until


@contextlib.contextmanager
def nodes(
    suite: str,
    folder: Path,
    database: PostgreSql,
    count: int = 2,
    *,
    overrides: Mapping[str, Any] | None = None,
    one_index: bool = False,
) -> Iterator[list[RealOrthanc]]:
    """Orthancs, not started, with one storage folder, and perhaps one ``IndexDirectory``."""
    with contextlib.ExitStack() as stack:
        orthancs = []
        for name in "abcdef"[:count]:
            (folder / name).mkdir(parents=True)
            (folder / "index").mkdir(exist_ok=True)
            configuration = {
                "Name": name,
                "StorageDirectory": str(folder / "storage"),
                "IndexDirectory": str(folder / ("index" if one_index else name)),
                "PostgreSQL": database.section(),
                "Plugins": [INDEX_PLUGIN, PYTHON_PLUGIN],
                **(overrides or {}),
            }
            node = RealOrthanc(suite, configuration, folder=folder / name, environment=database.environment())
            stack.callback(node.end)
            orthancs.append(node)
        yield orthancs


def health(node: RealOrthanc) -> tuple[str, str]:
    """State and role by the health route; ("", "") if it does not answer."""
    if not node.is_running() or not is_listening(node.ups_http_port):
        return "", ""
    try:
        answer = requests.get(f"http://127.0.0.1:{node.ups_http_port}/ups/health", timeout=5)
    except requests.RequestException:
        return "", ""
    content = answer.json()
    return str(content["State"]), str(content["Role"])


def leads(node: RealOrthanc, within: float = PATIENCE) -> None:
    """Wait until the node leads and is open."""
    wait_until(
        lambda: health(node) == ("open", "leader"),
        lambda: f"it leads; {health(node)}\n{node.log_tail()}",
        within,
    )


def stands_by(node: RealOrthanc, within: float = PATIENCE) -> None:
    """Wait until the node relays requests."""
    wait_until(
        lambda: health(node) == ("standby", "standby"),
        lambda: f"it stands by; {health(node)}\n{node.log_tail()}",
        within,
    )


def workitems(node: RealOrthanc) -> str:
    """The workitems' URL on the plugin's own port."""
    return f"http://127.0.0.1:{node.ups_http_port}/dicom-web/workitems"


def listed(node: RealOrthanc) -> list[dict[str, Any]]:
    """The nodes as this node lists them; empty if it cannot at present."""
    answer = requests.get(f"{node.base_url}/ups/api/nodes", timeout=60)
    result: list[dict[str, Any]] = answer.json()["nodes"] if answer.ok else []
    return result


def is_warm(standby: RealOrthanc, within: float = PATIENCE) -> None:
    """Wait until the search index of the node is up to date."""
    stands_by(standby, within)

    def lags() -> list[float]:
        name = standby.configuration["Name"]
        return [
            entry["lag"]
            for entry in listed(standby)
            if entry["name"] == name and entry["process"] == standby.pid
        ]

    wait_until(lambda: lags() == [0.0], lambda: f"it is in step: {listed(standby)}", within)
