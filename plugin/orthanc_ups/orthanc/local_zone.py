# SPDX-License-Identifier: AGPL-3.0-or-later
"""The time zone of this machine, with daylight saving time. It applies to date-times without an offset."""

from __future__ import annotations

import os
from datetime import UTC, datetime, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_LOCALTIME: Final = Path("/etc/localtime")
_FOLDER: Final = "zoneinfo/"


def local_zone() -> tzinfo:
    """The zone that TZ or /etc/localtime names; else today's offset, without daylight saving time."""
    name = os.environ.get("TZ", "").lstrip(":") or _named()
    try:
        return ZoneInfo(name) if name else _of_today()
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return _of_today()


def _named() -> str:
    target = os.path.realpath(_LOCALTIME) if _LOCALTIME.exists() else ""
    return target.partition(_FOLDER)[2]


def _of_today() -> tzinfo:
    return datetime.now().astimezone().tzinfo or UTC
