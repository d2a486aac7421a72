# SPDX-License-Identifier: AGPL-3.0-or-later
"""TCP ports for test servers."""

import os
import random
import socket
from pathlib import Path

_LOWEST = 15000
_ATTEMPTS = 500
_LISTEN = "0A"
_handed_out: set[int] = set()


def free_port() -> int:
    """A free TCP port that no process of this run has returned before.

    The processes of a run (pytest-xdist) deal the ports out among themselves by their number. A port lies
    below the range from which the kernel takes ports for outgoing connections, so that a server which is
    stopped and started again finds its port free.

    Raises:
        RuntimeError: no free port was found.
    """
    chooser = random.SystemRandom()
    number, processes = _share()
    for _ in range(_ATTEMPTS):
        port = chooser.randrange(_LOWEST + number, _first_ephemeral_port(), processes)
        if port not in _handed_out and _can_be_bound(port):
            _handed_out.add(port)
            return port
    raise RuntimeError("no free TCP port found")


def is_listening(port: int) -> bool:
    """Whether a server of this host listens on the TCP port, by the kernel's tables, without connecting."""
    suffix = f":{port:04X}"
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state = line.split()[:4]
            if state == _LISTEN and local.endswith(suffix):
                return True
    return False


def _share() -> tuple[int, int]:
    """Number of this process among those of the run, and how many these are."""
    number = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    return int(number), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def _first_ephemeral_port() -> int:
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    return low if low > _LOWEST else 65536


def _can_be_bound(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind(("0.0.0.0", port))  # Orthanc's DICOM server listens on all addresses
        except OSError:
            return False
    return True
