# SPDX-License-Identifier: AGPL-3.0-or-later
"""A line in Orthanc's log for each refused request, at the level that Orthanc shows without ``--verbose``.

    N-SET of 1.2.3 by CT1 at 10.0.0.5 refused with C301: The correct Transaction UID was not provided
    N-SET by CT1 at 10.0.0.5 refused with C301: 240 more within a minute, the last of 1.2.9

A client that is refused thousands of times does not fill the log: beyond a few lines a minute, equal refusals are only
counted. No line contains a password, a Transaction UID or patient data.
"""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Final, TypeAlias

_log = logging.getLogger("orthanc_ups.refused")
_MINUTE: Final = 60.0
_LINES_OF_A_KIND: Final = 5  # per minute, as the following
_LINES_OF_A_HOST: Final = 20
_LINES: Final = 60
_SUMMARIES: Final = 20
_KINDS: Final = 1_000  # counted separately
_LONGEST: Final = 300  # characters of a reason
_QUOTED: Final = re.compile(r"""(?<![\w=])(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""")

_Kind: TypeAlias = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that was refused.

    Attributes:
        operation: such as ``N-SET``, ``Update`` or ``association``.
        host: address of the requester; "" if unknown.
        requester: AE title or user; "" if unknown.
        target: the workitem or AE title of the request; "" if it has none.
        status: DIMSE or HTTP status; "" if it has none.
        reason: why it was refused. Quoted parts were sent by the client and are not logged.
    """

    operation: str
    host: str
    requester: str = ""
    target: str = ""
    status: str = ""
    reason: str = ""

    @property
    def _sender(self) -> str:
        return " at ".join(filter(None, (self.requester or "somebody", self.host)))

    @property
    def _result(self) -> str:
        return f"refused with {self.status}" if self.status else "refused"

    def line(self) -> str:
        """The log line."""
        target = f" of {self.target}" if self.target else ""
        reason = _QUOTED.sub("'…'", self.reason)
        reason = reason[:_LONGEST] + ("…" if len(reason) > _LONGEST else "")
        return _printable(f"{self.operation}{target} by {self._sender} {self._result}: {reason}")

    def summary(self, count: int) -> str:
        """The log line for ``count`` more refusals of the same kind, of which this is the last."""
        last = f", the last of {self.target}" if self.target else ""
        text = f"{self.operation} by {self._sender} {self._result}: {count} more within a minute{last}"
        return _printable(text)

    def kind(self) -> _Kind:
        """What equal refusals have in common."""
        return self.operation, self.host, self.requester, self.status


class RefusalLog:
    """Logs refusals, from any thread. ``run``, on the loop, logs every minute how many were only counted."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lines = 0
        self._lines_of: Counter[_Kind | str] = Counter()  # of a kind, of a host
        self._counted: dict[_Kind, tuple[Refusal, int]] = {}
        self._others = 0

    def add(self, refusal: Refusal) -> None:
        """Log or count a refused request."""
        kind = refusal.kind()
        with self._lock:
            has_line = self._takes_line(kind, refusal.host)
            if not has_line:
                self._count(kind, refusal)
        if has_line:
            _log.warning("%s", refusal.line())

    def _takes_line(self, kind: _Kind, host: str) -> bool:
        lines = self._lines_of
        if self._lines >= _LINES or lines[host] >= _LINES_OF_A_HOST or lines[kind] >= _LINES_OF_A_KIND:
            return False
        lines.update((kind, host))
        self._lines += 1
        return True

    def _count(self, kind: _Kind, refusal: Refusal) -> None:
        _, count = self._counted.get(kind, (refusal, 0))
        if count or len(self._counted) < _KINDS:
            self._counted[kind] = refusal, count + 1
        else:
            self._others += 1

    def summarize(self) -> None:
        """Log how many refusals had no line of their own, and start counting again; called every minute."""
        with self._lock:
            counted, others = list(self._counted.values()), self._others
            self._lines = 0
            self._lines_of.clear()
            self._counted.clear()
            self._others = 0
        counted.sort(key=lambda pair: pair[1], reverse=True)
        for refusal, count in counted[:_SUMMARIES]:
            _log.warning("%s", refusal.summary(count))
        others += sum(count for _, count in counted[_SUMMARIES:])
        if others:
            _log.warning("%d more requests of other clients refused within a minute", others)

    async def run(self) -> None:
        """Summarize every minute, and when canceled."""
        try:
            while True:
                await asyncio.sleep(_MINUTE)
                self.summarize()
        finally:
            self.summarize()


def _printable(text: str) -> str:
    """The text without control characters, which could fake a line or disturb a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
