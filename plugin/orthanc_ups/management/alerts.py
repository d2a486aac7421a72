# SPDX-License-Identifier: AGPL-3.0-or-later
"""Warnings for the overview: a sentence, its severity, and a link."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from . import answers, sentences
from .sentences import Sentence


@dataclass(frozen=True, slots=True)
class Alert:
    """A warning.

    Attributes:
        link: an address on the page, such as ``#/subscriber/AI``; "" for none.
        is_error: True if something does not work now.
    """

    sentence: Sentence
    link: str = ""
    is_error: bool = False

    def described(self) -> answers.AlertJson:
        """The warning as JSON."""
        return {
            "text": str(self.sentence),
            "sentence": self.sentence.described(),
            "link": self.link,
            "level": "error" if self.is_error else "warning",
        }


def subscriber_link(ae: str) -> str:
    """The address of the page of a subscriber."""
    return f"#/subscriber/{quote(ae, safe='')}"


def service_alerts(
    closed_ports: Iterable[tuple[str, int]],
    full_disks: Iterable[tuple[str, int, int]],
    store_trouble: str,
    *,
    is_alone: bool,
) -> list[Alert]:
    """Warnings about the service itself.

    Args:
        closed_ports: name and number of each port that should be open.
        full_disks: folder, free bytes, and bytes that should be free.
        store_trouble: why nothing can be stored now, "" if it can.
        is_alone: True if the worklist is shared, but no other Orthanc is on standby.
    """
    alerts = [
        Alert(Sentence(sentences.PORT_CLOSED, {"name": name, "port": str(port)}), is_error=True)
        for name, port in closed_ports
    ]
    for folder, free, least in full_disks:
        disk = Sentence(
            sentences.DISK_FULL, {"folder": folder, "free": free // 1024, "least": least // 1024**2}
        )
        alerts.append(Alert(disk, is_error=True))
    if store_trouble:
        alerts.append(Alert(Sentence(sentences.STORE_SILENT, {"why": store_trouble}), is_error=True))
    if is_alone:
        alerts.append(Alert(Sentence(sentences.NO_STANDBY), "#/administration"))
    return alerts
