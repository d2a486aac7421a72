# SPDX-License-Identifier: AGPL-3.0-or-later
"""Helpers that prepare a creation or an update at a fixed time, or expect its refusal."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import pytest

from orthanc_ups.core import attributes
from orthanc_ups.core.dataset import DataSet, element
from orthanc_ups.core.statuses import UpsError
from tests.support.workitems import full, stored

NOW: Final = datetime(2026, 11, 22, 18, 30, tzinfo=UTC)
STAMP: Final = element("DT", "20261122183000.000000+0000")


def create(dataset: DataSet, *, strict: bool = False) -> attributes.Prepared:
    return attributes.prepare_create(dataset, NOW, "OURS", strict=strict)


def update(base: DataSet, modification_list: DataSet, *, strict: bool = False) -> attributes.Prepared:
    return attributes.prepare_update(base, modification_list, NOW, strict=strict)


def refused_create(dataset: DataSet, *, strict: bool = False) -> UpsError:
    with pytest.raises(UpsError) as caught:
        create(dataset, strict=strict)
    return caught.value


def refused_update(
    modification_list: DataSet, base: DataSet | None = None, *, strict: bool = False
) -> UpsError:
    with pytest.raises(UpsError) as caught:
        update(base or stored(base=full()), modification_list, strict=strict)
    return caught.value
