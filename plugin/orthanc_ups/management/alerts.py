# SPDX-License-Identifier: AGPL-3.0-or-later
"""What an operator should look at, for the overview: a sentence, how bad it is, and where to go."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from . import answers


@dataclass(frozen=True, slots=True)
class Alert:
    """One warning.

    Attributes:
        text: a sentence.
        link: where on the page to look, such as ``#/subscriber/AI``; "" for nowhere.
        is_error: something does not work now.
    """

    text: str
    link: str = ""
    is_error: bool = False

    def described(self) -> answers.AlertJson:
        """For the page."""
        return {"text": self.text, "link": self.link, "level": "error" if self.is_error else "warning"}


def subscriber_link(ae: str) -> str:
    """The page of a subscriber."""
    return f"#/subscriber/{quote(ae, safe='')}"
