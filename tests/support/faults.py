# SPDX-License-Identifier: AGPL-3.0-or-later
"""An Orthanc under light load for tests that damage it; afterwards nothing may be lost."""

from __future__ import annotations

import asyncio
import itertools
import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import requests

from orthanc_ups.core.dataset import DataSet
from orthanc_ups.store import shelves
from tests.support.load import (
    Subscribers,
    Verdict,
    Writers,
    subscribe_globally,
    wait_until_told,
    writer_modalities,
)
from tests.support.load_plan import as_json
from tests.support.orthanc import RealOrthanc, merged
from tests.support.raw_dimse import RawScu, encoded
from tests.support.waiting import wait_until
from tests.support.workitems import UID_ROOT, full

UPS = {"ReplaceWaitingProgress": False, "RetryFirst": 0.1, "RetryMaximum": 1.0}
MARK = "UPS: "
_JSON = {"Content-Type": "application/dicom+json"}


class UnderLoad:
    """A real Orthanc with three writers, a DIMSE subscriber and one with a WebSocket.

        with UnderLoad(suite, tmp_path) as load:
            …break something…
            load.goes_on()

    Leaving it without an error lets the writers finish and asserts that nothing was lost; ``verdict`` is then known.
    """

    def __init__(
        self, suite: str, folder: Path, overrides: Mapping[str, Any] | None = None, **more: Any
    ) -> None:
        """``more`` goes to RealOrthanc."""
        self._journal, self._record = folder / "journal", folder / "record"
        self._subscribers = Subscribers(self._record, ("WARD",), ("BOARD",))
        modalities = {**self._subscribers.modalities, **writer_modalities()}
        ours = merged({"DicomModalities": modalities, "Ups": UPS}, overrides or {})
        more.setdefault("folder", folder / "orthanc")
        more["folder"].mkdir(exist_ok=True)
        self.orthanc = RealOrthanc(suite, ours, **more)
        self.verdict: Verdict | None = None
        self._writers: Writers | None = None
        self._numbers = itertools.count(1)

    def __enter__(self) -> Self:
        try:
            self.orthanc.start()
            wait_until(lambda: self.orthanc.health() == 200, "the plugin serves")
            subscribe_globally(self.orthanc, "WARD", "BOARD")
            self._subscribers.open_sockets(self.orthanc)
            self._writers = Writers(self.orthanc, self._journal, dimse=2, http=1, pace=0.02)
            self.goes_on()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._judge()
        finally:
            self._end()

    def _judge(self) -> None:
        assert self._writers is not None
        self._writers.end()
        self.verdict = wait_until_told(self._journal, self._record, ("WARD", "BOARD"))
        assert self.verdict.is_good, f"{self.verdict}\n{self.orthanc.log_tail()}"
        ours = [line for line in self.orthanc.log_text().splitlines() if MARK in line]
        assert not [line for line in ours if re.search("error of ours|internal error|Traceback", line)]

    def _end(self) -> None:
        for process in (self._writers, self._subscribers):
            if process is not None:
                process.__exit__(None, None, None)
        self.orthanc.discard()

    # --- the load ---

    def goes_on(self, changes: int = 20) -> None:
        """Wait until the writers have made a number of further changes."""
        size = self._journal.stat().st_size + changes * 30
        wait_until(
            lambda: self._journal.stat().st_size > size,
            lambda: f"the writers go on\n{self.orthanc.log_tail()}",
        )

    def logs(self, words: str, since: int = 0) -> str:
        """Wait for a line of the plugin in Orthanc's log, after ``since`` characters, and return it.

        ``words`` is a regular expression.
        """

        def is_logged() -> str:
            lines = self.orthanc.log_text()[since:].splitlines()
            return next((line for line in lines if MARK in line and re.search(words, line)), "")

        return wait_until(is_logged, lambda: f"{words!r} in the log\n{self.orthanc.log_tail()}")

    def create(self) -> tuple[int, int]:
        """Create a workitem by DIMSE and one by HTTP; return both statuses."""
        number = next(self._numbers)
        by_dimse = asyncio.run(_create(self.orthanc.ups_dicom_port, f"{UID_ROOT}.91.{number}"))
        by_http = requests.post(
            f"{self.url}/workitems?{UID_ROOT}.92.{number}",
            as_json(full()),
            headers=_JSON,
            timeout=60,
        )
        return by_dimse, by_http.status_code

    @property
    def url(self) -> str:
        """Base of the DICOMweb service."""
        return f"http://127.0.0.1:{self.orthanc.ups_http_port}/dicom-web"

    def make(self) -> str:
        """Create a workitem and return its UID; anything but success fails."""
        uid = f"{UID_ROOT}.93.{next(self._numbers)}"
        answer = requests.post(f"{self.url}/workitems?{uid}", as_json(full()), headers=_JSON, timeout=60)
        assert answer.status_code == 201, answer.text
        return uid

    def retrieve(self, uid: str) -> DataSet:
        """A workitem; fails if there is none."""
        answer = requests.get(f"{self.url}/workitems/{uid}", timeout=60)
        assert answer.status_code == 200, answer.text
        content: list[DataSet] = answer.json()
        return content[0]

    def update(self, uid: str, attributes: DataSet) -> int:
        """Update a workitem that nobody has claimed; return the HTTP status."""
        url = f"{self.url}/workitems/{uid}"
        return requests.post(url, as_json(attributes), headers=_JSON, timeout=60).status_code

    @property
    def log_size(self) -> int:
        """The present length of the log, to be passed to ``logs``."""
        return len(self.orthanc.log_text())

    def crash(self) -> None:
        """Kill Orthanc and start it again."""
        self.orthanc.kill()
        self.orthanc.start()


async def _create(port: int, uid: str) -> int:
    async with await RawScu.open(port, "WRITER1") as scu:
        return await scu.create(uid, encoded(full()))


# --- entries in the store ---


class Shelf:
    """The entry of a workitem in Orthanc's metadata, read and written as an administrator could."""

    def __init__(self, orthanc: RealOrthanc, uid: str) -> None:
        address = shelves.new_address(f"workitem/{uid}", 0, 1)
        self._url = f"{orthanc.base_url}{shelves.path(address)}"

    def read(self) -> bytes:
        """The stored value."""
        answer = requests.get(self._url, timeout=60)
        assert answer.status_code == 200, answer.text
        return answer.content

    def write(self, content: bytes) -> None:
        """Overwrite it."""
        etag = requests.get(self._url, timeout=60).headers["ETag"]
        requests.put(self._url, content, headers={"If-Match": etag}, timeout=60).raise_for_status()

    def delete(self) -> None:
        """Remove it."""
        etag = requests.get(self._url, timeout=60).headers["ETag"]
        requests.delete(self._url, headers={"If-Match": etag}, timeout=60).raise_for_status()


# --- a full disk ---


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[bool]:
    """Mount a file system of this size on a folder; False if mounting is not allowed here."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    is_mounted = subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield is_mounted
    finally:
        if is_mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Write a file that fills the disk."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    return ballast


def limit_file_size(pid: int, size: int | None) -> None:
    """Limit the size of files of a process, or lift the limit; the process must ignore SIGXFSZ."""
    limit = "unlimited" if size is None else f"{size}"
    subprocess.run(["prlimit", "--pid", str(pid), f"--fsize={limit}:unlimited"], check=True)
