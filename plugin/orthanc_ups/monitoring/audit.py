# SPDX-License-Identifier: AGPL-3.0-or-later
"""One audit record per accepted change, for plugins of Orthanc that keep audit logs (Orthanc 1.12.9 and later).

Orthanc hands a record to those plugins at once, on the thread that emits it, and they may write to a database.
So records are emitted by a thread of their own, and only if ``Python.AllowThreads`` is on: otherwise the whole
interpreter, and with it the worklist, would be blocked.

A record says who did what to which workitem, why, and what the answer was. It has neither patient data nor a
Transaction UID.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import orjson

from ..core.commands import Command
from ..core.outcome import Outcome
from ..orthanc.sdk import Orthanc

_log = logging.getLogger("orthanc_ups.monitoring.audit")
SOURCE: Final = "orthanc-ups"
MAXIMUM_WAITING: Final = 10_000
_WORDS: Final = re.compile("(?<!^)(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """An audit record.

    Attributes:
        user: the authenticated user, else the AE title of the requester.
        uid: SOP Instance UID of the workitem, or of the Global or Filtered Global Subscription.
        action: such as ``ups-change-state``.
        data: a JSON object.
    """

    user: str
    uid: str
    action: str
    data: bytes


Emit = Callable[[AuditRecord], None]


def record_of(command: Command, outcome: Outcome) -> AuditRecord:
    """The record of a command that was accepted."""
    requester = command.requester
    content: dict[str, Any] = {"ae": requester.ae, "via": requester.via, "status": outcome.status.name}
    for name in ("receiving_ae", "state", "lock"):
        if hasattr(command, name):
            content[name] = getattr(command, name)
    if outcome.reason:
        content["reason"] = outcome.reason
    user = requester.user or requester.ae
    return AuditRecord(user, command.uid, _action_of(type(command).__name__), orjson.dumps(content))


@cache
def _action_of(kind: str) -> str:
    """``ups-change-state`` for ``ChangeState``."""
    return "ups-" + _WORDS.sub("-", kind).lower()


def emitter(orthanc: Orthanc, *, allow_threads: bool) -> Emit | None:
    """The function that emits a record; None if Orthanc has no audit logs, or if emitting could block the worklist."""
    emit = getattr(orthanc, "EmitAuditLog", None)
    if emit is None or not allow_threads:
        return None
    level = orthanc.ResourceType.NONE

    def emit_record(record: AuditRecord) -> None:
        emit(SOURCE, record.user, level, record.uid, record.action, record.data)

    return emit_record


class AuditLog:
    """Takes records on the loop without waiting, and emits them from a thread of its own, in order."""

    def __init__(
        self, emit: Emit, soon: Callable[[Callable[[], None]], object] = lambda work: work()
    ) -> None:
        """``soon`` schedules a function on the loop, some milliseconds later.

        The thread that a record wakes competes with the loop for Python's lock, so the loop first sends the events of
        the change.
        """
        self._emit = emit
        self._soon = soon
        self._gathered: list[AuditRecord] = []
        self._waiting: queue.Queue[AuditRecord | None] = queue.Queue(MAXIMUM_WAITING)
        self._thread = threading.Thread(target=self._run, name="ups-audit", daemon=True)
        self._is_full = False
        self._is_failing = False

    def accepted(self, command: Command, outcome: Outcome) -> None:
        """Record a command that was accepted. Never raises."""
        try:
            self._gathered.append(record_of(command, outcome))
        except Exception:
            _log.exception("Cannot create an audit record")
        else:
            if len(self._gathered) == 1:
                self._soon(self.hand_over)

    def hand_over(self) -> None:
        """Hand the gathered records to the thread. Called on the loop, also before ``stop``."""
        gathered, self._gathered = self._gathered, []
        try:
            for record in gathered:
                self._waiting.put_nowait(record)
                self._is_full = False
        except queue.Full:
            if not self._is_full:
                _log.error("Orthanc takes audit records too slowly; some are discarded")
            self._is_full = True

    def start(self) -> None:
        """Start the thread that emits the records."""
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Emit the waiting records and end the thread. True if it ended within ``timeout`` seconds."""
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=timeout)
            except queue.Full:
                return False
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (record := self._waiting.get()) is not None:
            try:
                self._emit(record)
                self._is_failing = False
            except Exception as error:
                if not self._is_failing:
                    _log.error("Orthanc does not accept audit records: %s", error)
                self._is_failing = True
