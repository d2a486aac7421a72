# SPDX-License-Identifier: AGPL-3.0-or-later
"""Counts of deliveries: per endpoint for the page, and per channel and event type for the metrics."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final

from ..core.events import EventType

MINUTES: Final = 60
_LATENCIES: Final = 64
_TYPES: Final = max(EventType) + 1


@dataclass(slots=True)
class ChannelCounts:
    """Counters of a channel, each a list by event type.

    Attributes:
        failed: attempts, by the type of their first event.
        dead: became dead letters.
        lost: deleted from the dead letters because there were too many, or SCP Status Changes that were given up.
        dropped: discarded by an operator.
        replaced: replaced by a newer event while waiting.
        repeated: resent on demand.
    """

    offered: list[int] = field(default_factory=lambda: [0] * _TYPES)
    delivered: list[int] = field(default_factory=lambda: [0] * _TYPES)
    failed: list[int] = field(default_factory=lambda: [0] * _TYPES)
    dead: list[int] = field(default_factory=lambda: [0] * _TYPES)
    lost: list[int] = field(default_factory=lambda: [0] * _TYPES)
    dropped: list[int] = field(default_factory=lambda: [0] * _TYPES)
    replaced: list[int] = field(default_factory=lambda: [0] * _TYPES)
    repeated: list[int] = field(default_factory=lambda: [0] * _TYPES)


class DeliveryCounts:
    """The counters of all channels."""

    def __init__(self) -> None:
        self._channels: dict[str, ChannelCounts] = {}

    def of(self, channel: str) -> ChannelCounts:
        """The counters of a channel, to be incremented in place."""
        return self._channels.setdefault(channel, ChannelCounts())

    def all(self) -> Mapping[tuple[str, str, EventType], int]:
        """Every counter that is not 0, by name, channel and event type."""
        return {
            (counter.name, channel, kind): number
            for channel, counts in self._channels.items()
            for counter in fields(counts)
            for kind in EventType
            if (number := getattr(counts, counter.name)[kind])
        }


class Tally:
    """The figures of an endpoint. Counts, last times and the last error survive a restart; the rest starts at zero."""

    __slots__ = (
        "_latencies",
        "_minute",
        "_minutes",
        "dead",
        "delivered",
        "failed",
        "last_error",
        "last_error_at",
        "last_success_at",
    )

    def __init__(self) -> None:
        self.delivered = 0
        self.failed = 0
        self.dead = 0
        self.last_success_at: float | None = None
        self.last_error = ""
        self.last_error_at: float | None = None
        self._minute = 0
        self._minutes = [0] * MINUTES
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)

    def add_delivery(self, now: float, latency: float) -> None:
        """Count an event that was delivered ``latency`` seconds after it was committed."""
        self.delivered += 1
        self.last_success_at = now
        minute = int(now // 60)
        if minute != self._minute:
            self._advance_to(minute)
        self._minutes[minute % MINUTES] += 1
        self._latencies.append(latency)

    def note_error(self, now: float, reason: str) -> None:
        """Note why an attempt failed."""
        self.last_error, self.last_error_at = reason, now

    def _advance_to(self, minute: int) -> None:
        for new in range(max(self._minute + 1, minute - MINUTES + 1), minute + 1):
            self._minutes[new % MINUTES] = 0
        self._minute = minute

    def per_minute(self, now: float) -> tuple[int, ...]:
        """Deliveries in each of the last 60 minutes, the current one last."""
        self._advance_to(int(now // 60))
        first = self._minute + 1
        return tuple(self._minutes[(first + offset) % MINUTES] for offset in range(MINUTES))

    def latency(self, quantile: float) -> float | None:
        """A quantile (0 to 1) of the latest latencies in seconds; None if there are none."""
        ordered = sorted(self._latencies)
        return ordered[min(int(quantile * len(ordered)), len(ordered) - 1)] if ordered else None

    # --- what is stored ---

    def document(self) -> dict[str, Any]:
        """The part that survives a restart."""
        return {
            "delivered": self.delivered,
            "failed": self.failed,
            "dead": self.dead,
            "last_success_at": self.last_success_at,
            "last_error": self.last_error,
            "last_error_at": self.last_error_at,
        }

    def restore(self, document: Mapping[str, Any]) -> None:
        """Restore what was stored; counts never decrease. Raises TypeError or ValueError."""
        self.delivered = max(self.delivered, int(document.get("delivered", 0)))
        self.failed = max(self.failed, int(document.get("failed", 0)))
        self.dead = max(self.dead, int(document.get("dead", 0)))
        if self.last_success_at is None:
            self.last_success_at = document.get("last_success_at")
        if self.last_error_at is None:
            self.last_error = str(document.get("last_error", ""))
            self.last_error_at = document.get("last_error_at")
