# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator should look at, for the overview: a sentence, how bad it is, and where to go."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote

from . import answers, sentences
from .sentences import Sentence


@dataclass(frozen=True, slots=True)
class Alert:
    """One warning.

    Attributes:
        link: where on the page to look, such as ``#/subscriber/AI``; "" for nowhere.
        is_error: something does not work now.
    """

    sentence: Sentence
    link: str = ""
    is_error: bool = False

    def described(self) -> answers.AlertJson:
        """For the page."""
        return {
            "text": str(self.sentence),
            "sentence": self.sentence.described(),
            "link": self.link,
            "level": "error" if self.is_error else "warning",
        }


def subscriber_link(ae: str) -> str:
    """The page of a subscriber."""
    return f"#/subscriber/{quote(ae, safe='')}"


def service_alerts(
    closed_ports: Iterable[tuple[str, int]],
    full_disks: Iterable[tuple[str, int, int]],
    store_trouble: str,
    *,
    is_alone: bool,
) -> list[Alert]:
    """What of the service itself does not work now.

    Args:
        closed_ports: name and number of each port that should be open.
        full_disks: folder, free bytes and the least that should be free.
        store_trouble: why nothing can be stored now, "" if it can.
        is_alone: whether none of the Orthancs that share the worklist stands by.
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
