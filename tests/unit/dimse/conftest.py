# SPDX-License-Identifier: AGPL-3.0-or-later
"""A DIMSE server of each test's own, with default settings, and a client of it."""

from collections.abc import Iterator

import pytest

from tests.support.dimse_client import UpsClient
from tests.support.dimse_server import DimseRig


@pytest.fixture
def rig() -> Iterator[DimseRig]:
    with DimseRig() as running:
        yield running


@pytest.fixture
def client(rig: DimseRig) -> Iterator[UpsClient]:
    with UpsClient(rig.port) as associated:
        yield associated
