# SPDX-License-Identifier: AGPL-3.0-or-later
"""Debian's nginx in front of a test server, without root: the host's own, or its package unpacked into a folder."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support.ports import free_port, is_listening
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


def find_nginx(folder: Path) -> Path | None:
    """The program of this host, else the one of its package; None if there is neither."""
    installed = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/sbin")
    if installed:
        return Path(installed)
    for command in (["apt-get", "download", "nginx"], ["sh", "-c", "dpkg-deb -x nginx_*.deb tree"]):
        try:
            subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=120)
        except (OSError, subprocess.SubprocessError):
            return None
    found = folder / "tree" / "usr" / "sbin" / "nginx"
    return found if found.exists() else None


class Nginx:
    """Runs a site on a port of its own.

    Attributes:
        url: where it listens.
    """

    def __init__(self, program: Path, folder: Path, site: str, ports: Mapping[str, int]) -> None:
        """Prepare. ``ports`` replaces port numbers of the site; its own (80) is replaced by a free one."""
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._command = [str(program), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
        site = site.replace("listen 80;", f"listen 127.0.0.1:{self._port};")
        for name, port in ports.items():
            assert f":{name};" in site
            site = site.replace(f":{name};", f":{port};")
        (folder / "site.conf").write_text(site)
        (folder / "nginx.conf").write_text(_FRAME.format(folder=folder))

    def __enter__(self) -> Self:
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until(self._is_up, "nginx listens")
        return self

    def _is_up(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text()
        return is_listening(self._port)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(10)
