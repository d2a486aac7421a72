# SPDX-License-Identifier: AGPL-3.0-or-later
"""Load on a worklist, in processes of its own, and the proof that nothing was lost.

``Writers`` change workitems and keep a journal of what was certainly done; ``Subscribers`` record what they are told.
``judged`` compares both: every change must have reached every subscriber, in the order in which it was made.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, NoReturn, Self

import requests

from orthanc_ups.core import tags
from tests.support.load_plan import WRITERS
from tests.support.orthanc import CHECKOUT, Json, RealOrthanc
from tests.support.waiting import wait_until

_WITH_PATH = f"import sys; sys.path[:0] = [{str(CHECKOUT)!r}, {str(CHECKOUT / 'plugin')!r}]; "


class _Process:
    """A module of tests/support in a process that ends when its input ends."""

    def __init__(self, module: str, *arguments: str) -> None:
        self.module = module
        command = (
            f"{_WITH_PATH}import runpy; runpy.run_module({module!r}, run_name='__main__', alter_sys=True)"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", command, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def _input(self) -> IO[str]:
        assert self._process.stdin is not None
        return self._process.stdin

    def line(self) -> str:
        """The next line of its output."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def say(self, line: str) -> None:
        """Write a line to its input."""
        self._input.write(f"{line}\n")
        self._input.flush()

    def pause(self) -> None:
        """Stop the process, as when a machine hangs, until ``go_on``."""
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """End the pause."""
        self._process.send_signal(signal.SIGCONT)

    def failed(self) -> NoReturn:
        """Raise AssertionError: the process wrote nothing more."""
        self.__exit__(None, None, None)
        raise AssertionError(f"{self.module} ended; its error stands above")

    def end(self, timeout: float = 60.0) -> None:
        """End it once it has finished its work. Raises subprocess.TimeoutExpired."""
        if not self._input.closed:
            self._input.close()
        assert self._process.wait(timeout) == 0, f"{self.module} failed"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()


class Writers(_Process):
    """Writers over DIMSE and HTTP. They start at once; ``end`` lets them finish their workitems."""

    def __init__(
        self,
        orthanc: RealOrthanc,
        journal: Path,
        *,
        dimse: int = 5,
        http: int = 3,
        reports: int = 5,
        first: int = 1,
        pace: float = 0.0,
    ) -> None:
        """Args:
        dimse, http: how many writers of each kind; they are WRITER1, WRITER2, … from ``first`` on.
        reports: Progress Reports per workitem.
        pace: seconds of rest behind each change.
        """
        self.journal = journal
        journal.touch()
        numbers = {"dimse-port": orthanc.ups_dicom_port, "http-port": orthanc.ups_http_port, "dimse": dimse}
        numbers |= {"http": http, "reports": reports, "first": first}
        arguments = [f"--{name}={value}" for name, value in numbers.items()]
        super().__init__("tests.support.load_writers", *arguments, f"--pace={pace}", f"--journal={journal}")


class Subscribers(_Process):
    """Subscribers of every kind. Enter, configure their ``modalities`` in Orthanc, then ``open_sockets``.

    Attributes:
        names: all AE titles.
        modalities: the DIMSE listeners for ``DicomModalities``.
    """

    def __init__(
        self, record: Path, dimse: Sequence[str], sockets: Sequence[str] = (), resuming: Sequence[str] = ()
    ) -> None:
        """``dimse`` are ``AE`` or ``AE:port``; ``sockets`` simply reconnect, ``resuming`` ones say ``?since=``."""
        self.record = record
        record.touch()
        self.names = (*(name.partition(":")[0] for name in dimse), *sockets, *resuming)
        arguments = [f"--dimse={name}" for name in dimse] + [f"--sockets={name}" for name in sockets]
        arguments += [f"--resuming={name}" for name in resuming]
        super().__init__("tests.support.load_subscribers", *arguments, f"--record={record}")
        ports: dict[str, int] = json.loads(self.line() or self.failed())
        self.modalities: Json = {name.lower(): [name, "127.0.0.1", port] for name, port in ports.items()}

    def open_sockets(self, orthanc: RealOrthanc) -> None:
        """Connect the sockets and wait until they are open."""
        self.say(str(orthanc.ups_http_port))
        assert self.line().strip() == "ready"


def writer_modalities(count: int = 32) -> Json:
    """The writers for ``DicomModalities``."""
    return {f"writer{number}": [f"WRITER{number}", "127.0.0.1", 104] for number in range(1, count + 1)}


def subscribe_globally(orthanc: RealOrthanc, *names: str) -> None:
    """Subscribe AEs to everything."""
    for name in names:
        url = f"http://127.0.0.1:{orthanc.ups_http_port}/dicom-web/workitems/{tags.GLOBAL_SUBSCRIPTION}/subscribers/{name}"
        answer = requests.post(url, timeout=60)
        assert answer.status_code == 201, answer.text


# --- the result ---


@dataclass(frozen=True)
class Verdict:
    """The comparison of journal and record.

    Attributes:
        changes: how many were certainly made.
        complaints: what writers found wrong themselves.
        missing: (AE, UID, change) that were not told.
        misplaced: (AE, UID, what was told, what was expected) where the order is wrong or something was invented.
        repeated: how many events came more than once, by AE.
    """

    changes: int
    complaints: list[str] = field(default_factory=list)
    missing: list[tuple[str, str, str]] = field(default_factory=list)
    misplaced: list[tuple[str, str, list[str], list[str]]] = field(default_factory=list)
    repeated: dict[str, int] = field(default_factory=dict)

    @property
    def is_good(self) -> bool:
        """True if nothing was lost, invented or sent out of order."""
        return not (self.complaints or self.missing or self.misplaced)

    def __str__(self) -> str:
        words = f"{self.changes} changes, repeated {self.repeated}"
        for name in ("complaints", "missing", "misplaced"):
            result = getattr(self, name)
            if result:
                words += f"\n{len(result)} {name}, the first: {result[:5]}"
        return words


def journal_of(file: Path) -> tuple[dict[str, list[str]], list[str]]:
    """Per workitem the changes that were certainly made, in order; and the complaints."""
    changes: dict[str, list[str]] = defaultdict(list)
    complaints = []
    for line in _whole_lines(file):
        uid, _, change = line.partition(" ")
        if uid == "!":
            complaints.append(change)
        else:
            changes[uid].append(change)
    return dict(changes), complaints


Told = dict[str, dict[str, list[str]]]


def record_of(file: Path) -> tuple[Told, dict[str, int]]:
    """Per AE and workitem the changes reported, each once, in order of first arrival; and the repeats per AE."""
    record: Told = defaultdict(lambda: defaultdict(list))
    repeated: dict[str, int] = defaultdict(int)
    changes: set[tuple[str, str, str]] = set()
    for line in _whole_lines(file):
        receiving_ae, uid, change, *_ = line.split("\t")
        if (receiving_ae, uid, change) in changes:
            repeated[receiving_ae] += 1
        else:
            changes.add((receiving_ae, uid, change))
            record[receiving_ae][uid].append(change)
    return record, dict(repeated)


def sequences_of(file: Path, receiving_ae: str) -> list[int]:
    """The sequences that an AE received over its WebSocket, in order of arrival."""
    result = (line.split("\t") for line in _whole_lines(file))
    return [int(parts[3]) for parts in result if parts[0] == receiving_ae]


def _whole_lines(file: Path) -> list[str]:
    return file.read_text("ascii").rpartition("\n")[0].splitlines()


def judged(journal: Path, record: Path, subscribers: Sequence[str]) -> Verdict:
    """Compare the changes that were made with those reported."""
    changes, complaints = journal_of(journal)
    reports, repeated = record_of(record)
    count = sum(map(len, changes.values()))
    verdict = Verdict(count, complaints, repeated={name: repeated.get(name, 0) for name in subscribers})
    for receiving_ae in subscribers:
        _compare(receiving_ae, changes, reports.get(receiving_ae, {}), verdict)
    return verdict


def _compare(
    receiving_ae: str, changes: Mapping[str, list[str]], reports: Mapping[str, list[str]], verdict: Verdict
) -> None:
    for uid, expected in changes.items():
        got = reports.get(uid, [])
        missing = [change for change in expected if change not in got]
        verdict.missing.extend((receiving_ae, uid, change) for change in missing)
        if not missing and got != expected:
            verdict.misplaced.append((receiving_ae, uid, got, expected))
    invented = (uid for uid in reports.keys() - changes.keys() if uid.startswith(WRITERS))
    verdict.misplaced.extend((receiving_ae, uid, reports[uid], []) for uid in invented)


def wait_until_told(
    journal: Path, record: Path, subscribers: Sequence[str], timeout: float = 60.0
) -> Verdict:
    """Wait until every change was reported to every subscriber; return the verdict then, or when time is up."""
    verdict = judged(journal, record, subscribers)

    def is_complete() -> bool:
        nonlocal verdict
        verdict = judged(journal, record, subscribers)
        return not verdict.missing

    try:
        wait_until(is_complete, "", timeout, interval=0.5)
    except AssertionError:
        return verdict
    return verdict
