# SPDX-License-Identifier: AGPL-3.0-or-later
"""A PostgreSQL of its own for tests of Orthancs that share an index: on a free port."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, Self

from tests.support.ports import free_port, is_listening
from tests.support.programs import program
from tests.support.waiting import wait_until

INDEX_PLUGIN: Final = "${ORTHANC_PLUGINS}/libOrthancPostgreSQLIndex.so"
_PACKAGE: Final = "orthanc-postgresql"
_DATABASE: Final = "postgres"
_USER: Final = "nobody"  # PostgreSQL refuses to run as root


class PostgreSql:
    """One server, in a folder that is deleted on leaving."""

    def __init__(self) -> None:
        self.port = free_port()
        self._folder = Path(tempfile.mkdtemp(prefix="postgresql-", dir="/tmp"))
        self._server: subprocess.Popen[bytes] | None = None

    def _command(self, name: str, *arguments: str) -> list[str]:
        folder = program("postgres").path.resolve().parent
        prefix = ["setpriv", "--reuid", _USER, "--clear-groups", "--"] if os.geteuid() == 0 else []
        return [*prefix, str(folder / name), *arguments]

    def __enter__(self) -> Self:
        if os.geteuid() == 0:
            shutil.chown(self._folder, _USER)
        data = str(self._folder / "data")
        environment = {**os.environ, **program("postgres").environment}
        quietly = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", "env": environment}
        initialise = self._command("initdb", "-D", data, "-U", "orthanc", "--auth=trust", "-E", "UTF8")
        subprocess.run(initialise, check=True, **quietly)  # type: ignore[call-overload]
        server = self._command("postgres", "-D", data, "-p", str(self.port), "-k", str(self._folder),
                               "-c", "listen_addresses=127.0.0.1", "-c", "fsync=off")  # fmt: skip
        self._server = subprocess.Popen(server, **quietly)  # type: ignore[call-overload]
        wait_until(lambda: is_listening(self.port), lambda: "PostgreSQL is up", 30)
        return self

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.terminate()
            self._server.wait(30)
        shutil.rmtree(self._folder, ignore_errors=True)

    def section(self, **more: Any) -> dict[str, Any]:
        """The section ``PostgreSQL`` of orthanc.json."""
        return {
            "EnableIndex": True,
            "EnableStorage": False,
            "Host": "127.0.0.1",
            "Port": self.port,
            "Database": _DATABASE,
            "Username": "orthanc",
            "Password": "",
            "Lock": False,
            **more,
        }

    @staticmethod
    def environment() -> dict[str, str]:
        """For the Orthanc that is to have the index plugin."""
        return {"ORTHANC_UPS_MORE_PACKAGES": _PACKAGE}
