# SPDX-License-Identifier: AGPL-3.0-or-later
"""Images built and run by podman, for tests: no daemon, no registry, everything in one folder.

The base image is made by mmdebstrap, as no registry need be in reach. Root, podman, runc and mmdebstrap must be there;
``why_not`` names what is missing.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.support.orthanc import CHECKOUT
from tests.support.waiting import wait_until

_TOOLS: Final = ("podman", "runc", "mmdebstrap")
_OTHERS: Final = Path(__file__).parent / "images_of_others"
_CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_CONTAINERS: Final = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
_STORAGE: Final = '[storage]\ndriver = "overlay"\nrunroot = "{folder}/run"\ngraphroot = "{folder}/graph"\n'


def why_not() -> str:
    """What this host lacks for building and running images; "" if nothing."""
    missing = [tool for tool in _TOOLS if not shutil.which(tool)]
    if missing:
        return f"images are not built here: install {', '.join(missing)}"
    return "" if os.geteuid() == 0 else "images are not built here: mmdebstrap and podman need root for it"


class Podman:
    """Podman with images and containers of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "containers.conf").write_text(_CONTAINERS)
        (folder / "storage.conf").write_text(_STORAGE.format(folder=folder))
        (folder / "pip.conf").write_text("[global]\ncert = /etc/certificates-of-host.crt\n")
        names = {"CONTAINERS_CONF": "containers.conf", "CONTAINERS_STORAGE_CONF": "storage.conf"}
        self._environment = {**os.environ, **{key: str(folder / name) for key, name in names.items()}}

    def run(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run podman and return its output."""
        ended = subprocess.run(
            ["podman", *words], env=self._environment, capture_output=True, text=True, cwd=CHECKOUT
        )
        assert not check or ended.returncode == 0, f"{words}: {ended.stdout[-2000:]}{ended.stderr[-4000:]}"
        return ended

    def has(self, image: str) -> bool:
        """Whether an image of that name exists."""
        return self.run("image", "exists", image, check=False).returncode == 0

    def make_base(self, suite: str) -> None:
        """``debian:SUITE-slim``, from Debian's own packages."""
        if self.has(f"debian:{suite}-slim"):
            return
        file = self._folder / "base.tar"
        old = ("--aptopt=Acquire::Check-Valid-Until false", "--aptopt=Acquire::Check-Date false")
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", *old, suite, file], check=True)
        self.run("import", file, f"docker.io/library/debian:{suite}-slim")
        file.unlink()

    def build(self, suite: str) -> str:
        """Build the image of a suite; return its name."""
        name = f"localhost/orthanc-ups:{suite}"
        if not self.has(name):
            self.make_base(suite)
            self._build(name, CHECKOUT, f"--build-arg=SUITE={suite}", "--build-arg=VERSION=1.2.3")
        return name

    def build_other(self, program: str) -> str:
        """Build a stand-in for the official image of PostgreSQL or nginx from Debian's packages; return its name."""
        name = f"localhost/{program}:latest"
        if not self.has(name):
            self.make_base("trixie")
            self._build(name, _OTHERS, f"--file={_OTHERS / program}.Dockerfile")
        return name

    def _build(self, name: str, context: Path, *more: str) -> None:
        mounts = (
            f"{_CERTIFICATES}:/etc/certificates-of-host.crt:ro",
            f"{self._folder}/pip.conf:/etc/pip.conf:ro",
        )
        volumes = [f"--volume={mount}" for mount in mounts]
        options = ("--pull=never", "--network=host", "--format=docker", *more)
        self.run("build", *options, *volumes, "--tag", name, context)

    def compose(
        self, files: Sequence[Path], variables: dict[str, str], *words: str, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """Run podman-compose on these files."""
        program = Path(sys.executable).with_name("podman-compose")
        chosen = [f"--file={file}" for file in files]
        ended = subprocess.run(
            [program, *chosen, *words], env={**self._environment, **variables}, capture_output=True, text=True
        )
        assert not check or ended.returncode == 0, f"{words}: {ended.stdout[-2000:]}{ended.stderr[-4000:]}"
        return ended

    def labels(self, image: str) -> dict[str, str]:
        """The labels of an image."""
        (shown,) = json.loads(self.run("image", "inspect", image).stdout)
        labels: dict[str, str] = shown["Labels"]
        return labels

    def end(self) -> None:
        """Remove everything."""
        self.run("system", "reset", "--force", check=False)


class Container:
    """Runs an image as docker/compose.yml does: read-only, without any capability."""

    def __init__(self, podman: Podman, image: str, variables: dict[str, str], *options: str) -> None:
        self._podman, self._image, self._variables, self._options = podman, image, variables, options
        self._id = ""

    def __enter__(self) -> Self:
        hardened = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges")
        variables = [f"--env={name}={value}" for name, value in self._variables.items()]
        started = self._podman.run(
            "run", "--detach", "--network=host", *hardened, *variables, *self._options, self._image
        )
        self._id = started.stdout.strip()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._podman.run("rm", "--force", self._id, check=False)

    def exec(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run a command inside."""
        return self._podman.run("exec", self._id, *words, check=False)

    def health(self) -> tuple[int, str]:
        """Exit code and words of the health check of the image, run now."""
        ended = self.exec("python3", "-I", "/opt/orthanc-ups/docker/healthcheck.py")
        return ended.returncode, ended.stderr

    def wait_until_healthy(self) -> None:
        """Wait until it is healthy. Raises AssertionError with the log if that does not happen."""
        wait_until(
            lambda: self.health()[0] == 0,
            lambda: f"the container is healthy: {self.log()[-4000:]}",
            60,
            interval=1.0,
        )

    def stop(self) -> int:
        """Stop it as compose does; return the exit code of Orthanc."""
        self._podman.run("stop", "--time=30", self._id)
        shown: list[dict[str, Any]] = json.loads(self._podman.run("inspect", self._id).stdout)
        return int(shown[0]["State"]["ExitCode"])

    def log(self) -> str:
        """The output of the container."""
        ended = self._podman.run("logs", self._id, check=False)
        return ended.stdout + ended.stderr


class Composition:
    """The services of compose files with volumes of their own; stopped at the end of the context."""

    def __init__(self, podman: Podman, files: Sequence[str], variables: dict[str, str]) -> None:
        """``files``: names in docker/."""
        self._podman = podman
        self._files = [CHECKOUT / "docker" / name for name in files]
        self._variables = variables

    def __enter__(self) -> Self:
        self._run("up", "--detach")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._run("down", "--volumes", check=False)

    def _run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self._podman.compose(self._files, self._variables, *words, check=check)

    def address(self, service: str) -> str:
        """The IP address of its container."""
        (shown,) = json.loads(self._podman.run("inspect", self._container(service)).stdout)
        (network,) = shown["NetworkSettings"]["Networks"].values()
        address: str = network["IPAddress"]
        return address

    def _container(self, service: str) -> str:
        label = f"--filter=label=com.docker.compose.service={service}"
        return self._podman.run("ps", "--all", "--quiet", label).stdout.strip()

    def kill(self, service: str) -> None:
        """Kill a service by SIGKILL."""
        self._podman.run("kill", "--signal=KILL", self._container(service))

    def start(self, service: str) -> None:
        """Start a container again."""
        self._podman.run("start", self._container(service))

    def log(self) -> str:
        """The last output of all services."""
        ended = self._run("logs", check=False)
        return (ended.stdout + ended.stderr)[-6000:]
