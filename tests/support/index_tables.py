# SPDX-License-Identifier: AGPL-3.0-or-later
"""The two tables of Orthanc's index that nodes write to, for tests without an Orthanc."""

from __future__ import annotations

from typing import Final

import psycopg

from orthanc_ups.store import shelves
from tests.support.postgresql import PostgreSql

_TABLES: Final = """
CREATE TABLE resources (internalid bigint PRIMARY KEY, resourcetype int, publicid varchar(64));
CREATE TABLE metadata (id bigint REFERENCES resources (internalid) ON DELETE CASCADE, type int, value text,
  revision int, PRIMARY KEY (id, type));
"""


def address(server: PostgreSql, user: str = "orthanc") -> str:
    """A connection string."""
    return f"host=127.0.0.1 port={server.port} dbname=postgres user={user}"


def make(server: PostgreSql) -> None:
    """Make the tables, with one shelf."""
    with psycopg.connect(address(server), autocommit=True) as session:
        session.execute(_TABLES)
        session.execute("INSERT INTO resources VALUES (7, 3, %s)", (shelves.INSTANCES[0],))
