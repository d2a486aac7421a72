# SPDX-License-Identifier: AGPL-3.0-or-later
"""The zone of the machine knows summer time, and a broken one does no harm."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from orthanc_ups.orthanc.local_zone import local_zone


def test_a_named_zone_has_its_summer_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Europe/Paris")
    result = local_zone()
    offsets = [datetime(2026, month, 1, tzinfo=result).utcoffset() for month in (1, 7)]
    assert offsets == [timedelta(hours=1), timedelta(hours=2)]


@pytest.mark.parametrize("name", ["", "Nowhere/AtAll", "/etc/passwd", "CET-1CEST,M3.5.0,M10.5.0/3"])
def test_without_a_usable_name_the_offset_of_today_holds(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", name)
    assert datetime.now(local_zone()).utcoffset() is not None
