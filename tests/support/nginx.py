# SPDX-License-Identifier: AGPL-3.0-or-later
"""Debian's nginx in front of a test server, without root."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port, is_listening
from tests.support.programs import program
from tests.support.waiting import wait_until

_FRAME = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/site.conf;
}}
"""


class Nginx:
    """Runs a site on a port of its own.

    Attributes:
        url: where it listens.
    """

    def __init__(self, folder: Path, site: str, ports: Mapping[str, int]) -> None:
        """Prepare. ``ports`` replaces port numbers of the site; its own (80) is replaced by a free one."""
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        nginx = program("nginx")
        self._environment = {**os.environ, **nginx.environment}
        self._command = [str(nginx.path), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        site = site.replace("listen 80;", f"listen 127.0.0.1:{self._port};")
        for name, port in ports.items():
            assert f":{name};" in site
            site = site.replace(f":{name};", f":{port};")
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(_FRAME.format(folder=folder))

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )
        wait_until(self._is_up, "nginx listens")
        return self

    def _is_up(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        return is_listening(self._port)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(60)
