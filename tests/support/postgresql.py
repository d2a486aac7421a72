# SPDX-License-Identifier: AGPL-3.0-or-later
"""A PostgreSQL server on a free port, for Orthancs that share an index."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final, Self

import psycopg

from tests.support.ports import free_port
from tests.support.programs import program
from tests.support.waiting import wait_until

INDEX_PLUGIN: Final = "${ORTHANC_PLUGINS}/libOrthancPostgreSQLIndex.so"
_PACKAGE: Final = "orthanc-postgresql"
_DATABASE: Final = "postgres"
_USER: Final = "nobody"  # PostgreSQL refuses to run as root


class PostgreSql:
    """One server, in a folder that is deleted on leaving."""

    def __init__(self, *, fsync: bool = False) -> None:
        """``fsync``: whether it waits for the disk, which only benchmarks need."""
        self._databases = 0
        self._fsync = "on" if fsync else "off"
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
        self.start()
        return self

    def start(self) -> None:
        """Start the server again after ``stop`` or ``kill``, and wait until it listens."""
        data, environment = str(self._folder / "data"), {**os.environ, **program("postgres").environment}
        quietly = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": "/", "env": environment}
        server = self._command("postgres", "-D", data, "-p", str(self.port), "-k", str(self._folder),
                               "-c", "listen_addresses=127.0.0.1", "-c", f"fsync={self._fsync}")  # fmt: skip
        self._server = subprocess.Popen(server, **quietly)  # type: ignore[call-overload]
        wait_until(self._answers, lambda: "PostgreSQL answers")

    def _answers(self) -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            psycopg.connect(self.address()).close()
            return True
        return False

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop the server fast but cleanly, or by another signal, such as SIGQUIT for a crash."""
        if self._server is not None:
            self._server.send_signal(number)
            self._server.wait(60)
            self._server = None

    def address(self, database: str = _DATABASE, user: str = "orthanc") -> str:
        """A connection string."""
        return f"host=127.0.0.1 port={self.port} dbname={database} user={user}"

    def execute(self, *statements: str) -> None:
        """Run statements, each as a transaction of its own."""
        with psycopg.connect(self.address(), autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    def __exit__(self, *_: object) -> None:
        self.stop()
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

    def new_index(self) -> dict[str, Any]:
        """The configuration of an Orthanc with an empty index of its own, which others may join."""
        self._databases += 1
        name = f"index{self._databases}"
        self.execute(f"CREATE DATABASE {name}")
        return {"PostgreSQL": self.section(Database=name)}

    @staticmethod
    def environment() -> dict[str, str]:
        """Environment for an Orthanc with the index plugin."""
        return {"ORTHANC_UPS_MORE_PACKAGES": _PACKAGE}
