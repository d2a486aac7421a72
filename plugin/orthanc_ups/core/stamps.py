# SPDX-License-Identifier: AGPL-3.0-or-later
"""Date-times in the form of VR DT."""

from __future__ import annotations

from datetime import datetime


def date_time(now: datetime) -> str:
    """``now`` as DT: local date-time, microseconds and offset, ``20261122183000.123456+0100`` (PS3.5 §6.2).

    The offset is always written, so that a stamp means the same wherever it is read, and whatever
    Timezone Offset From UTC (0008,0201) a scheduler sets.

    Raises:
        ValueError: ``now`` has no time zone.
    """
    offset = now.utcoffset()
    if offset is None:
        raise ValueError("a stamp needs a time zone")
    minutes = round(offset.total_seconds() / 60)
    sign = "-" if minutes < 0 else "+"
    return f"{now.year:04}{now:%m%d%H%M%S.%f}{sign}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"
