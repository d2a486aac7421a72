# SPDX-License-Identifier: AGPL-3.0-or-later
"""The compose files, run by podman-compose: one Orthanc, one on PostgreSQL, two that are one worklist behind nginx.

No registry need be in reach: PostgreSQL and nginx are Debian's, in images that take what the official ones take.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest
import requests

from orthanc_ups.core import tags
from orthanc_ups.core.dataset import text
from tests.support.containers import Composition, Podman, why_not
from tests.support.dimse_client import UpsClient
from tests.support.ports import free_port
from tests.support.waiting import wait_until
from tests.support.web_client import WebClient

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

ADMIN: Final = ("admin", "se'cret")
PERFORMER: Final = "DEMO_PERFORMER"  # of orthanc.json
STARTED: Final = 120.0
FAILOVER: Final = 30.0


@pytest.fixture
def variables(podman: Podman, suite: str, tmp_path: Path) -> dict[str, str]:
    """As an operator sets them."""
    podman.build(suite)
    password = tmp_path / "password"
    password.write_text("pass-word\n")  # Orthanc's index plugin takes no spaces
    tmp_path.chmod(0o755)
    return {
        "SUITE": suite,
        "ORTHANC_UPS_PASSWORD": ADMIN[1],
        "ORTHANC_DATABASE_PASSWORD_FILE": str(password),
        "POSTGRESQL_IMAGE": podman.build_other("postgresql"),
        "NGINX_IMAGE": podman.build_other("nginx"),
    }


def ports(variables: dict[str, str], *names: str) -> tuple[int, ...]:
    """Free ports of this host, by which the services are called; enters them into the variables."""
    chosen = tuple(free_port() for _ in names)
    variables.update(zip(names, map(str, chosen), strict=True))
    return chosen


def client(base: str) -> WebClient:
    """Of UPS-RS below a base URL."""
    web = WebClient(f"{base}/dicom-web")
    web.session.auth = ADMIN
    return web


def is_open(base: str) -> bool:
    """Whether workitems can be asked for."""
    try:
        return requests.get(f"{base}/dicom-web/workitems", auth=ADMIN, timeout=5).status_code in (200, 204)
    except requests.RequestException:
        return False


def system(base: str) -> dict[str, Any]:
    content: dict[str, Any] = requests.get(f"{base}/system", auth=ADMIN, timeout=10).json()
    return content


def state_of(web: WebClient, uid: str) -> str:
    return text(web.retrieve(uid), tags.STATE)


@pytest.mark.parametrize("index", ["SQLite", "PostgreSQL"])
def test_one_orthanc_is_called_by_every_interface(
    podman: Podman, variables: dict[str, str], index: str
) -> None:
    orthanc, worklist, dimse, _ = ports(
        variables, "ORTHANC_HTTP_PORT", "UPS_HTTP_PORT", "UPS_DICOM_PORT", "ORTHANC_DICOM_PORT"
    )
    files = ["compose.yml", *(["compose.postgresql.yml"] if index == "PostgreSQL" else [])]
    with Composition(podman, files, variables) as composition:
        base = f"http://127.0.0.1:{worklist}"
        wait_until(lambda: is_open(base), composition.log, STARTED, interval=1.0)
        plugin = system(f"http://127.0.0.1:{orthanc}")["DatabaseBackendPlugin"]
        assert ("Postgre" in str(plugin)) == (index == "PostgreSQL")
        uid = client(base).create()
        with UpsClient(dimse, calling=PERFORMER) as scu:
            assert scu.get(uid).code == 0


def roles(bases: dict[str, str]) -> dict[str, str]:
    """What each node says that it is; "" if it does not answer."""

    def role(base: str) -> str:
        try:
            answer = requests.get(f"{base}/ups/health", timeout=5)
        except requests.RequestException:
            return ""
        content = answer.json()
        return str(content["Role"]) if content["State"] in ("open", "standby") else ""

    return {name: role(base) for name, base in bases.items()}


def test_two_orthancs_behind_nginx_are_one_worklist_and_one_goes_on_alone(
    podman: Podman, variables: dict[str, str]
) -> None:
    """What is created on one is read on the other; the leader is killed; the other goes on; the first comes back."""
    http, *dimse = ports(variables, "HTTP_PORT", "FIRST_DICOM_PORT", "SECOND_DICOM_PORT")
    nginx = f"http://127.0.0.1:{http}"
    with Composition(podman, ["compose.cluster.yml"], variables) as composition:
        bases = {name: f"http://{composition.address(name)}:8043" for name in ("first", "second")}
        wait_until(
            lambda: sorted(roles(bases).values()) == ["leader", "standby"],
            lambda: f"one leads: {roles(bases)} {composition.log()}",
            STARTED,
            interval=1.0,
        )
        wait_until(lambda: is_open(nginx), composition.log, STARTED, interval=1.0)
        leader, standby = sorted(bases, key=lambda name: roles(bases)[name])
        uid = client(bases[standby]).create()
        assert state_of(client(bases[leader]), uid) == state_of(client(nginx), uid) == "SCHEDULED"
        ports_of = dict(zip(bases, dimse, strict=True))
        with (
            UpsClient(ports_of[leader], calling=PERFORMER) as performer,
            UpsClient(ports_of[standby], calling=PERFORMER) as other,
        ):
            assert performer.change_state(uid, "IN PROGRESS", "2.25.77").code == 0
            assert other.change_state(uid, "IN PROGRESS", "2.25.78").code == 0xC301
        listed = requests.get(f"{nginx}/ups/api/nodes", auth=ADMIN, timeout=10).json()
        assert {node["name"] for node in listed["nodes"]} == {"first", "second"}

        composition.kill(leader)
        wait_until(
            lambda: roles(bases) == {leader: "", standby: "leader"}, composition.log, FAILOVER, interval=0.5
        )
        assert state_of(client(nginx), uid) == "IN PROGRESS"
        with UpsClient(ports_of[standby], calling=PERFORMER) as performer:
            assert performer.get(uid).code == 0
        assert client(nginx).create()

        composition.start(leader)
        wait_until(lambda: roles(bases)[leader] == "standby", composition.log, STARTED, interval=1.0)
        assert composition.address(leader) in bases[leader], "nginx still knows it"
        assert state_of(client(bases[leader]), uid) == state_of(client(nginx), uid)
