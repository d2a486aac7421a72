# SPDX-License-Identifier: AGPL-3.0-or-later
"""An empty projection of each test's own, in a file."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from orthanc_ups.projection.projection import Projection


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "projection.sqlite"


@pytest.fixture
def projection(path: Path) -> Iterator[Projection]:
    opened = Projection.open(path)
    yield opened
    opened.close()
