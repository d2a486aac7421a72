# SPDX-License-Identifier: AGPL-3.0-or-later
"""Copies a workitem to create another one: a duplicate, or a repeat that names the step it replaces."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from ..core import tags
from ..core.dataset import DataSet, element, ordered, text, value
from ..core.date_times import UTC, Zone, moment, since_epoch, zone
from ..core.stamps import date_time
from ..core.workitem import Workitem

_REPLACED: Final = "00741224"
_UPS_PUSH: Final = "1.2.840.10008.5.1.4.34.6.1"
_COURSE: Final = frozenset(
    {
        tags.SOP_CLASS_UID,
        tags.SOP_INSTANCE_UID,
        tags.TRANSACTION_UID,
        tags.STATE,
        tags.MODIFICATION,
        tags.PROGRESS_INFORMATION,
        tags.PERFORMED_PROCEDURE,
        _REPLACED,
    }
)
"""Attributes of the course of a workitem, which are not copied."""
_MOVED: Final = (tags.EXPECTED_COMPLETION, tags.EXPIRATION)


def copy_of(workitem: Workitem, now: datetime, *, repeats: bool) -> DataSet:
    """The initial attributes of the copy. A start in the past becomes ``now``, and later times are moved with it.

    With ``repeats`` the copy replaces the workitem (Replaced Procedure Step Sequence (0074,1224), PS3.3 C.30.3).
    """
    content = {tag: attribute for tag, attribute in workitem.attributes.items() if tag not in _COURSE}
    if repeats:
        step: DataSet = {
            "00081150": element("UI", _UPS_PUSH),
            "00081155": element("UI", workitem.uid),
        }
        content[_REPLACED] = element("SQ", step)
    return ordered({**content, **_moved(content, now)})


def _moved(content: DataSet, now: datetime) -> DataSet:
    offset = zone(text(content, tags.TIMEZONE_OFFSET))
    local: Zone = offset if offset is not None else now.tzinfo or UTC
    start = moment("DT", value(content, tags.START), local)
    if start is None or since_epoch(start) >= now.timestamp():
        return {}
    delay = timedelta(seconds=now.timestamp() - since_epoch(start))
    moved: DataSet = {tags.START: element("DT", date_time(now))}
    for tag in _MOVED:
        at = moment("DT", value(content, tag), local)
        if at is not None:
            moved[tag] = element("DT", date_time(datetime.fromtimestamp(since_epoch(at), now.tzinfo) + delay))
    return moved
