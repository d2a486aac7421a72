# SPDX-License-Identifier: AGPL-3.0-or-later
"""The image of each suite: built by podman from the Dockerfile, run unprivileged and read-only, healthy and not."""

from __future__ import annotations

import pytest
import requests

from tests.support.containers import Container, Podman, why_not
from tests.support.ports import free_port
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.torture,
    pytest.mark.timeout(1800),  # an image is made of 300 MB of packages
    pytest.mark.skipif(bool(why_not()), reason=why_not()),
]

VERSIONS = {"forky": "1.13.0", "trixie": "1.12.7"}
PASSWORD = 'se"cret'
ADMIN = ("admin", PASSWORD)


@pytest.fixture(scope="module")
def image(podman: Podman, suite: str) -> str:
    return podman.build(suite)


@pytest.fixture
def variables() -> dict[str, str]:
    ports = ("HTTP_PORT", "DICOM_PORT", "UPS__HTTP_PORT", "UPS__DICOM_PORT")
    return {
        "ORTHANC_UPS_PASSWORD": PASSWORD,
        "ORTHANC__NAME": "Radiology",
        **{f"ORTHANC__{name}": str(free_port()) for name in ports},
    }


def test_it_runs_with_settings_of_the_environment(
    podman: Podman, image: str, variables: dict[str, str], suite: str
) -> None:
    with Container(podman, image, variables) as container:
        container.wait_until_healthy()
        base = f"http://127.0.0.1:{variables['ORTHANC__HTTP_PORT']}"
        assert requests.get(f"{base}/system", timeout=10).status_code == 401
        system = requests.get(f"{base}/system", auth=ADMIN, timeout=10).json()
        assert (system["Name"], system["Version"]) == ("Radiology", VERSIONS[suite])
        plugins = requests.get(f"{base}/plugins", auth=ADMIN, timeout=10).json()
        assert {"python", "dicom-web", "postgresql-index", "worklists"} <= set(plugins)
        workitems = f"http://127.0.0.1:{variables['ORTHANC__UPS__HTTP_PORT']}/dicom-web/workitems"
        assert requests.get(workitems, auth=ADMIN, timeout=10).status_code == 204
        assert container.stop() == 0


def test_it_is_unprivileged_and_read_only(podman: Podman, image: str, variables: dict[str, str]) -> None:
    with Container(podman, image, variables) as container:
        container.wait_until_healthy()
        assert container.exec("id", "--user").stdout.strip() == "4243"
        assert "Read-only file system" in container.exec("touch", "/opt/file").stderr
        assert container.exec("ls", "-l", "/tmp/orthanc-ups").stdout.split()[2].startswith("-rw-------")


def test_its_labels_are_those_of_the_open_container_initiative(podman: Podman, image: str) -> None:
    labels = podman.labels(image)
    assert labels["org.opencontainers.image.version"] == "1.2.3"
    assert labels["org.opencontainers.image.licenses"] == "AGPL-3.0-or-later"


def test_it_carries_no_package_caches(podman: Podman, image: str) -> None:
    shown = podman.run("run", "--rm", "--network=host", "--entrypoint=find", image,
                       "/var/lib/apt/lists", "/var/cache/apt", "-size", "+100k")  # fmt: skip
    assert shown.stdout == ""


def test_it_does_not_start_without_a_password(podman: Podman, image: str) -> None:
    ended = podman.run("run", "--rm", "--network=host", image, check=False)
    assert ended.returncode == 64
    assert "orthanc-ups: set ORTHANC_UPS_PASSWORD" in ended.stderr


def test_it_is_unhealthy_while_nothing_can_be_stored(
    podman: Podman, image: str, variables: dict[str, str]
) -> None:
    """Its disk is full."""
    small = {**variables, "ORTHANC_UPS_DATA": "/data"}
    with Container(podman, image, small, "--tmpfs=/data:size=48m,mode=1777") as container:
        container.wait_until_healthy()
        container.exec("dd", "if=/dev/zero", "of=/data/filling", "bs=4096")
        wait_until(lambda: container.health()[0] != 0, lambda: "it is unhealthy", 60, interval=1.0)
        assert "/ups/health" in container.health()[1]
        container.exec("rm", "/data/filling")
        container.wait_until_healthy()
