# SPDX-License-Identifier: AGPL-3.0-or-later
"""A PostgreSQL for tests and trials: the host's or a downloaded one, on loopback, with its data in a folder.

Uses only the standard library, as tools/run.py does.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NATIVE = Path(__file__).resolve().parents[1] / "docker" / "native.sh"
USER = "nobody"  # PostgreSQL refuses to run as root


@contextlib.contextmanager
def server(folder: Path) -> Iterator[int]:
    """Run a PostgreSQL with its data in a folder, which is created if it does not exist; yields its port.

    Raises:
        subprocess.CalledProcessError: it cannot be downloaded or initialised; standard error says why.
    """
    programs, environment = _programs()
    folder.mkdir(parents=True, exist_ok=True)
    prefix: list[str] = []
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
        prefix = ["setpriv", "--reuid", USER, "--clear-groups", "--"]
    data, port = folder / "data", _free_port()
    settings = {"cwd": "/", "env": {**os.environ, **environment}, "stdout": subprocess.DEVNULL}
    if not (data / "PG_VERSION").exists():
        initialise = [*prefix, programs / "initdb", "-D", data, "-U", "orthanc", "--auth=trust", "-E", "UTF8"]
        subprocess.run(initialise, check=True, **settings)  # type: ignore[call-overload]
    command = [*prefix, programs / "postgres", "-D", data, "-p", str(port), "-k", folder,
               "-c", "listen_addresses=127.0.0.1", "-c", "log_min_messages=fatal"]  # fmt: skip
    process = subprocess.Popen(command, start_new_session=True, **settings)  # type: ignore[call-overload]
    try:
        _wait(process, port)
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()


def section(port: int) -> dict[str, Any]:
    """The section ``PostgreSQL`` of orthanc.json."""
    return {
        "EnableIndex": True,
        "EnableStorage": False,
        "Lock": False,
        "Host": "127.0.0.1",
        "Port": port,
        "Database": "postgres",
        "Username": "orthanc",
        "Password": "",
    }


def _programs() -> tuple[Path, dict[str, str]]:
    """The folder of initdb and postgres, and the environment variables that they need."""
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), reverse=True)
    if installed:
        return installed[0].parent, {}
    shown = subprocess.run([NATIVE, "programs"], check=True, stdout=subprocess.PIPE, text=True).stdout
    (words,) = shlex.split(shown)
    tree = Path(words.removeprefix("ORTHANC_UPS_PROGRAMS="))
    libraries = (tree / "usr/lib/x86_64-linux-gnu", tree / "lib/x86_64-linux-gnu")
    program = next(tree.glob("usr/lib/postgresql/*/bin/postgres"))
    return program.parent, {"LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries))}


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    while process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        time.sleep(0.1)
    raise subprocess.CalledProcessError(process.returncode, "postgres")
