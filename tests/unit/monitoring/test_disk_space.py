# SPDX-License-Identifier: AGPL-3.0-or-later
"""A full disk is logged once, and so is its recovery."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from orthanc_ups.monitoring.disk_space import MINIMUM_FREE, DiskSpace

INDEX, OTHER = Path("/index"), Path("/other")


class Disks:
    def __init__(self) -> None:
        self.free = {INDEX: MINIMUM_FREE, OTHER: MINIMUM_FREE}

    def __call__(self, folder: Path) -> int:
        if self.free[folder] < 0:
            raise OSError("gone")
        return self.free[folder]


def said(caplog: pytest.LogCaptureFixture) -> list[tuple[int, str]]:
    result = [
        (record.levelno, record.getMessage())
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]
    caplog.clear()
    return result


def test_a_full_disk_is_logged_once_and_so_is_its_recovery(caplog: pytest.LogCaptureFixture) -> None:
    disks = Disks()
    space = DiskSpace([INDEX, OTHER, INDEX], disks)
    space.check()
    assert (said(caplog), space.warnings()) == ([], ())
    disks.free[INDEX] = 5 * 1024
    for _ in range(2):
        space.check()
    ((level, line),) = said(caplog)
    assert level == logging.ERROR
    assert "The disk of /index is full: 5 kB are free, expected at least 16 MB" in line
    assert [line for line in space.warnings() if "/index" in line] == list(space.warnings())
    disks.free[INDEX] = MINIMUM_FREE
    for _ in range(2):
        space.check()
    assert said(caplog) == [(logging.WARNING, "The disk of /index has free space again")]
    assert space.warnings() == ()


def test_a_disk_that_cannot_be_looked_at_counts_as_before(caplog: pytest.LogCaptureFixture) -> None:
    disks = Disks()
    space = DiskSpace([INDEX], disks)
    disks.free[INDEX] = 0
    space.check()
    disks.free[INDEX] = -1
    space.check()
    assert len(said(caplog)) == 1
    assert len(space.warnings()) == 1


def test_a_real_disk_is_looked_at(tmp_path: Path) -> None:
    space = DiskSpace([tmp_path])
    space.check()
    assert space.warnings() == ()
