# SPDX-License-Identifier: AGPL-3.0-or-later
"""One PostgreSQL for all tests of this folder."""

from collections.abc import Iterator

import pytest

from tests.support.postgresql import PostgreSql


@pytest.fixture(scope="session")
def server() -> Iterator[PostgreSql]:
    with PostgreSql() as running:
        yield running
