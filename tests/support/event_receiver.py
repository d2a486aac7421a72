# SPDX-License-Identifier: AGPL-3.0-or-later
"""A receiver of event reports (SCU of UPS Event), by pynetdicom, in a process of its own.

    with EventReceiver("WATCHER") as receiver:
        report, *_ = receiver.wait_for(1)

The processes are forked off one that has imported pynetdicom already, as that takes most of a second.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import queue
import socket
import ssl
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import TracebackType
from typing import Any, Final, Self

from pydicom import Dataset

from tests.support.ports import free_port

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "pynetdicom", "tests.support.event_receiver"])
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


@dataclass(frozen=True)
class _Options:
    """See `EventReceiver`."""

    ae_title: str
    statuses: Sequence[int]
    with_role: bool
    refuse_role: bool
    refuse_context: bool
    drop_after: int
    delay: float
    empty_reply: bool
    port: int
    tls: tuple[str, str] | None


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
            port: 0 chooses one that the kernel gives to no outgoing connection while the receiver is stopped.
            tls: files of certificate and key.
        """
        self.ae_title = ae_title
        self.port = port or free_port()
        self._options = _Options(
            ae_title,
            statuses,
            with_role,
            refuse_role,
            refuse_context,
            drop_after,
            delay,
            empty_reply,
            self.port,
            tls,
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._process: ForkServerProcess | None = None
        self._connection: Connection[Any, Any] | None = None
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
        self._connection, inside = _FORKS.Pipe()
        self._process = _FORKS.Process(target=_receive, args=(self._options, inside), daemon=True)
        self._process.start()
        inside.close()
        threading.Thread(target=self._read, args=(self._connection,), daemon=True).start()
        while "listening" not in (line := self._lines.get(timeout=60)):
            self._take(line)

    def stop(self) -> None:
        """End the process."""
        if self._process is not None and self._connection is not None:
            self._connection.send("stop")
            self._process.join(60)
            self._process.close()
            self._process = None

    def _read(self, connection: Connection[Any, Any]) -> None:
        with connection, contextlib.suppress(EOFError, ConnectionError):
            while True:
                self._lines.put(json.loads(connection.recv()))

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
        """True if nothing arrives for a while."""
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


def _receive(options: _Options, connection: Connection[Any, Any]) -> None:
    _Receiver(options, connection).run()


class _Receiver:
    def __init__(self, options: _Options, connection: Connection[Any, Any]) -> None:
        self._options = options
        self._connection = connection
        self._lock = threading.Lock()
        self._associations: dict[int, int] = {}
        self._count = 0

    def run(self) -> None:
        from pynetdicom import AE, evt

        ae = AE(ae_title=self._options.ae_title)
        refuses = self._options.refuse_role
        roles: dict[str, Any] = (
            {} if not self._options.with_role else {"scu_role": refuses, "scp_role": not refuses}
        )
        if not self._options.refuse_context:
            ae.add_supported_context(_EVENT, **roles)
        ae.add_supported_context(_VERIFICATION)
        handlers: list[Any] = [
            (evt.EVT_CONN_OPEN, _no_delay),
            (evt.EVT_N_EVENT_REPORT, self._report),
            (evt.EVT_RELEASED, lambda _: self._say({"ended": "released"})),
            (evt.EVT_ABORTED, lambda _: self._say({"ended": "aborted"})),
        ]
        tls = None
        if self._options.tls:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(*self._options.tls)
        address = ("127.0.0.1", self._options.port)
        server = ae.start_server(address, block=False, evt_handlers=handlers, ssl_context=tls)
        assert server is not None
        self._say({"listening": self._options.port})
        with contextlib.suppress(EOFError):  # the tests have ended
            self._connection.recv()
        server.shutdown()
        ae.shutdown()

    def _say(self, line: dict[str, Any]) -> None:
        with self._lock:
            self._connection.send(json.dumps(line))

    def _report(self, event: Any) -> tuple[int, Dataset | None]:
        self._count += 1
        if self._count == self._options.drop_after:
            event.assoc.dul.socket.socket.shutdown(socket.SHUT_RDWR)
            return 0x0110, None
        number = self._associations.setdefault(id(event.assoc), len(self._associations) + 1)
        role = event.assoc.requestor.role_selection.get(_EVENT)
        answers = self._options.statuses
        status = answers[self._count - 1] if self._count <= len(answers) else 0
        time.sleep(self._options.delay)
        self._say(
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


def _no_delay(event: Any) -> None:
    event.assoc.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
