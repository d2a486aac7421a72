# SPDX-License-Identifier: AGPL-3.0-or-later
"""The state of the service, without asking Orthanc: for the health route, refusals, metrics and the page."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum


class ServiceState(Enum):
    """What the service is doing."""

    STARTING = "starting"
    OPEN = "open"
    STANDBY = "standby"
    LEADERLESS = "no leader"
    STORE_SILENT = "store silent"
    FAILED = "failed"
    STOPPING = "stopping"


class Role(Enum):
    """What an Orthanc is among those that share a worklist."""

    ALONE = "alone"
    LEADER = "leader"
    STANDBY = "standby"


@dataclass(frozen=True, slots=True)
class HealthReport:
    """The state at a moment.

    Attributes:
        reason: why, in words; "" if there is no reason.
    """

    state: ServiceState
    role: Role
    reason: str = ""

    @property
    def is_well(self) -> bool:
        """True if this Orthanc can answer requests, or relay them, or waits for its turn."""
        return self.state in (ServiceState.OPEN, ServiceState.STANDBY)

    def __str__(self) -> str:
        """The state as a sentence without full stop."""
        text = _SENTENCES[self.state]
        return f"{text}: {self.reason}" if self.reason else text


_SENTENCES = {
    ServiceState.STARTING: "the UPS service is not open yet",
    ServiceState.OPEN: "the UPS service is open",
    ServiceState.STANDBY: "the UPS service is on standby",
    ServiceState.LEADERLESS: "no node keeps the worklist now",
    ServiceState.STORE_SILENT: "nothing can be stored now",
    ServiceState.FAILED: "the UPS service cannot start",
    ServiceState.STOPPING: "the UPS service is being stopped",
}


class Health:
    """Has the state of the service from the start of Orthanc to its end."""

    def __init__(self) -> None:
        self._state = ServiceState.STARTING
        self._reason = ""
        self._trouble: Callable[[], str] = str
        self._leader: Callable[[], str] | None = None
        self._has_leader: Callable[[], bool] | None = None
        self.role = Role.ALONE

    def starting(self) -> None:
        """The service is being opened again after a stop."""
        self._state, self._reason, self.role = ServiceState.STARTING, "", Role.ALONE

    def waits_for(self, reason: str) -> None:
        """The service is not open yet; ``reason`` says what it waits for."""
        if self._state is ServiceState.STARTING:
            self._reason = reason

    def stands_by(self, reason: str) -> None:
        """Another Orthanc on the same database keeps the worklist; ``reason`` names it."""
        self._state, self._reason, self.role = ServiceState.STANDBY, reason, Role.STANDBY
        self._leader, self._has_leader = None, None

    def follows(self, leader: Callable[[], str], has_leader: Callable[[], bool]) -> None:
        """Another Orthanc leads, and this one relays requests to it.

        ``leader`` names it in words; ``has_leader`` is False while none leads.
        """
        self._state, self.role = ServiceState.STANDBY, Role.STANDBY
        self._leader, self._has_leader = leader, has_leader

    def leads(self) -> None:
        """Of several Orthancs on one database, this one now opens the worklist and keeps it."""
        self._state, self._reason, self.role = ServiceState.STARTING, "", Role.LEADER

    def opened(self, trouble: Callable[[], str]) -> None:
        """The service is open. ``trouble`` says why nothing can be stored now; "" if storing works."""
        self._state, self._reason, self._trouble = ServiceState.OPEN, "", trouble

    def failed(self, reason: str) -> None:
        """The service cannot be opened until an administrator changes something."""
        self._state, self._reason = ServiceState.FAILED, reason

    def stopping(self) -> None:
        """Orthanc has been told to stop."""
        self._state, self._reason = ServiceState.STOPPING, ""

    def report(self) -> HealthReport:
        """The present state."""
        if self._state is ServiceState.STANDBY and self._leader is not None and self._has_leader is not None:
            state = ServiceState.STANDBY if self._has_leader() else ServiceState.LEADERLESS
            return HealthReport(state, self.role, self._leader())
        trouble = self._trouble() if self._state is ServiceState.OPEN else ""
        if trouble:
            return HealthReport(ServiceState.STORE_SILENT, self.role, trouble)
        return HealthReport(self._state, self.role, self._reason)
