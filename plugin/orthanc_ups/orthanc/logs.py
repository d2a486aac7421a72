# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sends the log records of the plugin and its libraries to Orthanc's log."""

from __future__ import annotations

import logging
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from typing import Final, Protocol

_OURS: Final = "orthanc_ups"
_LIBRARIES: Final = ("pynetdicom", "pydicom", "aiohttp", "asyncio")


class LogSink(Protocol):
    """The logging functions of the module ``orthanc``."""

    def LogInfo(self, message: str) -> None:
        """Log what an operator may want to follow."""
        ...

    def LogWarning(self, message: str) -> None:
        """Log what an operator should look at."""
        ...

    def LogError(self, message: str) -> None:
        """Log what went wrong."""
        ...


class OrthancHandler(logging.Handler):
    """Passes records to Orthanc's log at the matching level, one line each and in order.

    Every change makes records up to INFO, so those made on the loop are gathered for a moment before they are logged. A
    record of a higher level is logged at once, after the gathered ones.
    """

    def __init__(self, sink: LogSink) -> None:
        super().__init__()
        self._sink = sink
        self._gathered: list[logging.LogRecord] = []
        self._later: Callable[[Callable[[], None]], object] | None = None
        self._loop_thread = 0
        self.setFormatter(logging.Formatter("UPS: %(message)s"))

    def gather(self, later: Callable[[Callable[[], None]], object]) -> None:
        """Gather what this thread logs from now on; ``later`` schedules a function on its loop."""
        self._later, self._loop_thread = later, threading.get_ident()

    def settle(self) -> None:
        """Log the gathered records, and stop gathering."""
        self._later = None
        self.hand_over()

    def hand_over(self) -> None:
        """Log the gathered records."""
        with self.lock or nullcontext():
            gathered, self._gathered = self._gathered, []
            for record in gathered:
                self._log(record)

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record; never raises into the caller."""
        if self._later and record.levelno <= logging.INFO and threading.get_ident() == self._loop_thread:
            self._gathered.append(record)
            if len(self._gathered) == 1:
                self._later(self.hand_over)
        else:
            self.hand_over()
            self._log(record)

    def _log(self, record: logging.LogRecord) -> None:
        try:
            line = " | ".join(self.format(record).splitlines())
            if record.levelno >= logging.ERROR:
                self._sink.LogError(line)
            elif record.levelno >= logging.WARNING:
                self._sink.LogWarning(line)
            else:
                self._sink.LogInfo(line)
        except Exception:
            self.handleError(record)


def attach(sink: LogSink) -> OrthancHandler:
    """Send the plugin's records from INFO on, and errors of the libraries, to Orthanc's log.

    Warnings of pydicom are ignored: it warns about every odd value that a peer sends, so any peer could fill the log.
    """
    warnings.filterwarnings("ignore", module="pydicom")
    _skip_unused_details()
    handler = OrthancHandler(sink)
    for name, level in ((_OURS, logging.INFO), *((library, logging.ERROR) for library in _LIBRARIES)):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(level)
    for name, existing in logging.root.manager.loggerDict.items():
        if name.startswith(_OURS) and isinstance(existing, logging.Logger):
            existing.findCaller = _nowhere  # type: ignore[method-assign]
    return handler


def _skip_unused_details() -> None:
    """Do not look up names of thread, process and task, which Orthanc's log does not show. It halves the time of a
    record, and every change makes one.
    """
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    if sys.version_info >= (3, 12):
        logging.logAsyncioTasks = False


def _nowhere(*_: object, **__: object) -> tuple[str, int, str, str | None]:
    """Replaces ``findCaller``: Orthanc's log does not show Python's file and line, and finding them takes 20 µs."""
    return "", 0, "", None


class Seldom:
    """Logs a warning that may occur thousands of times a second only once a minute."""

    def __init__(
        self, log: logging.Logger, every: float = 60.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``every``: seconds between two lines of the same text."""
        self._log = log
        self._every = every
        self._clock = clock
        self._logged_at: dict[str, float] = {}

    def warning(self, text: str, *arguments: object) -> None:
        """Like ``Logger.warning``."""
        now = self._clock()
        if now - self._logged_at.get(text, float("-inf")) >= self._every:
            self._logged_at[text] = now
            self._log.warning(text, *arguments)
