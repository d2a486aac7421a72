# SPDX-License-Identifier: AGPL-3.0-or-later
"""A receiver of event reports (SCU of UPS Event) in a process of its own; each report is a line of JSON.

``with EventReceiver("WATCHER") as receiver:`` starts it; run as a module it is that process.
"""

from __future__ import annotations

import argparse
import json
import queue
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset

_CHECKOUT = Path(__file__).resolve().parents[2]
_EVENT = "1.2.840.10008.5.1.4.34.6.4"
_VERIFICATION = "1.2.840.10008.1.1"


@dataclass(frozen=True)
class Report:
    """An N-EVENT-REPORT as it came.

    Attributes:
        type: Event Type ID.
        uid: Affected SOP Instance UID.
        information: the event information as DICOM JSON.
        sop_class: Affected SOP Class UID.
        association: numbers the associations of the receiver from 1.
        roles: what was proposed as (SCU, SCP) role for UPS Event, or None.
        calling: AE title of the sender.
    """

    type: int
    uid: str
    information: dict[str, Any]
    sop_class: str
    association: int
    roles: tuple[bool, bool] | None
    calling: str
    message_id: int


class EventReceiver:
    """Starts, watches and ends the process."""

    def __init__(
        self,
        ae_title: str,
        *,
        statuses: Sequence[int] = (),
        with_role: bool = True,
        refuse_role: bool = False,
        refuse_context: bool = False,
        drop_after: int = 0,
        delay: float = 0.0,
        empty_reply: bool = False,
        port: int = 0,
        tls: tuple[str, str] | None = None,
    ) -> None:
        """Prepare.

        Args:
            ae_title: its AE title.
            statuses: answers to the first reports; then success.
            with_role: False leaves SCP/SCU Role Selection unanswered.
            refuse_role: True answers that the sender may not be SCP.
            refuse_context: True accepts Verification only.
            drop_after: cut the connection instead of answering this report (1 is the first); 0 never.
            delay: seconds to wait before each answer.
            empty_reply: True answers with an empty data set, which pynetdicom announces and does not send.
            port: 0 chooses a free one.
            tls: files of certificate and key.
        """
        self.ae_title = ae_title
        self._arguments = ["--aet", ae_title, "--port", str(port), "--drop-after", str(drop_after)]
        self._arguments += ["--delay", str(delay)]
        self._arguments += [f"--status={status}" for status in statuses]
        self._arguments += ["--refuse-role"] * refuse_role
        self._arguments += ["--empty-reply"] * empty_reply
        self._arguments += ["--no-role"] * (not with_role) + ["--refuse-context"] * refuse_context
        self._arguments += ["--tls", *tls] if tls else []
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: subprocess.Popen[str] | None = None
        self.port = port
        self.reports: list[Report] = []
        self._endings: list[str] = []

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start the process and wait until it listens."""
        command = [sys.executable, "-m", "tests.support.event_receiver", *self._arguments]
        self._process = subprocess.Popen(command, cwd=_CHECKOUT, stdout=subprocess.PIPE, text=True)
        threading.Thread(target=self._read, args=(self._process,), daemon=True).start()
        while "listening" not in (line := self._lines.get(timeout=60)):
            self._take(line)
        self.port = int(line["listening"])
        self._arguments[3] = str(self.port)  # a second start takes the same port

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.send_signal(signal.SIGTERM)
            self._process.wait(60)
            self._process = None

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.put(json.loads(line))

    def wait_for(self, count: int, timeout: float = 60.0) -> list[Report]:
        """The first ``count`` reports since the start. Raises AssertionError if they do not come in time."""
        while len(self.reports) < count:
            try:
                self._take(self._lines.get(timeout=timeout))
            except queue.Empty:
                raise AssertionError(
                    f"{self.ae_title} got {len(self.reports)} of {count} reports: {self.reports}"
                ) from None
        return self.reports[:count]

    def silent_for(self, seconds: float) -> bool:
        """True if nothing more comes for a while."""
        before = len(self.reports)
        try:
            while len(self.reports) == before:
                self._take(self._lines.get(timeout=seconds))
        except queue.Empty:
            return True
        return False

    def endings(self, count: int, timeout: float = 60.0) -> list[str]:
        """How the first ``count`` associations that ended did: ``released`` or ``aborted``."""
        while len(self._endings) < count:
            self._take(self._lines.get(timeout=timeout))
        return self._endings[:count]

    def _take(self, line: dict[str, Any]) -> None:
        if "ended" in line:
            self._endings.append(line["ended"])
            return
        roles = line.pop("roles")
        self.reports.append(Report(**line, roles=tuple(roles) if roles else None))


# --- the process ---


def _main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--aet", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--status", type=int, action="append", default=[])
    parser.add_argument("--drop-after", type=int, default=0)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--no-role", action="store_true")
    parser.add_argument("--refuse-role", action="store_true")
    parser.add_argument("--refuse-context", action="store_true")
    parser.add_argument("--empty-reply", action="store_true")
    parser.add_argument("--tls", nargs=2)
    _Receiver(parser.parse_args()).run()


class _Receiver:
    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._associations: dict[int, int] = {}
        self._count = 0
        self._server: Any = None

    def run(self) -> None:
        from pynetdicom import AE, evt

        ae = AE(ae_title=self._options.aet)
        refuses = self._options.refuse_role
        roles: dict[str, Any] = (
            {} if self._options.no_role else {"scu_role": refuses, "scp_role": not refuses}
        )
        if not self._options.refuse_context:
            ae.add_supported_context(_EVENT, **roles)
        ae.add_supported_context(_VERIFICATION)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, _no_delay),
            (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_RELEASED, lambda _: _say({"ended": "released"})),
            (evt.EVT_ABORTED, lambda _: _say({"ended": "aborted"})),
        ]
        tls = None
        if self._options.tls:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(*self._options.tls)
        address = ("127.0.0.1", self._options.port)
        self._server = ae.start_server(address, block=False, evt_handlers=handlers, ssl_context=tls)
        _say({"listening": self._server.socket.getsockname()[1]})
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
        self._server.shutdown()
        ae.shutdown()

    def _report(self, event: Any) -> tuple[int, Dataset | None]:
        self._count += 1
        if self._count == self._options.drop_after:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            return 0x0110, None
        number = self._associations.setdefault(id(event.assoc), len(self._associations) + 1)
        role = event.assoc.requestor.role_selection.get(_EVENT)
        answers = self._options.status
        status = answers[self._count - 1] if self._count <= len(answers) else 0
        time.sleep(self._options.delay)
        _say(
            {
                "type": event.request.EventTypeID,
                "uid": str(event.request.AffectedSOPInstanceUID),
                "information": event.event_information.to_json_dict(),
                "sop_class": str(event.request.AffectedSOPClassUID),
                "association": number,
                "roles": (bool(role.scu_role), bool(role.scp_role)) if role else None,
                "calling": event.assoc.requestor.ae_title.strip(),
                "message_id": event.request.MessageID,
            }
        )
        return status, Dataset() if self._options.empty_reply else None


def _say(line: dict[str, Any]) -> None:
    print(json.dumps(line), flush=True)


def _no_delay(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    _main()
