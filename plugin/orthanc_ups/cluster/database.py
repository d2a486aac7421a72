# SPDX-License-Identifier: AGPL-3.0-or-later
"""Sessions of our own in the PostgreSQL that holds Orthanc's index, and the one small table in it.

The table has a row ``lease`` (who leads), a row ``fence`` (the epoch under which may be written) and a row
``node/RUN`` for each node that lives. See ``lease.py`` and ``rows.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow

from ..core.unavailable import StoreUnavailable
from ..settings import OrthancSettings, Settings

_log = logging.getLogger("orthanc_ups.cluster")
TABLE: Final = "orthanc_ups_cluster"
_CONNECT_WITHIN: Final = 2.0
_ANSWER_WITHIN: Final = 10.0
MANY_ROWS_WITHIN: Final = 120.0
"""Seconds for some megabytes of rows: they arrive in as many turns of the loop, which has much else to do meanwhile."""
_AT_ONCE: Final = 4

Session = AsyncConnection[TupleRow]

_CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
  name text PRIMARY KEY, epoch bigint NOT NULL DEFAULT 0, holder text NOT NULL DEFAULT '',
  beat bigint NOT NULL DEFAULT 0, about jsonb NOT NULL DEFAULT '{{}}')
"""
_FILL: Final = f"INSERT INTO {TABLE} (name) VALUES ('lease'), ('fence') ON CONFLICT DO NOTHING"  # noqa: S608
_COLUMNS: Final = """
SELECT table_name || '.' || column_name FROM information_schema.columns
WHERE table_schema = ANY (current_schemas(false)) AND table_name IN ('resources', 'metadata')
"""
_NEEDED: Final = frozenset(
    {
        "resources.internalid",
        "resources.publicid",
        "resources.resourcetype",
        "metadata.id",
        "metadata.type",
        "metadata.value",
        "metadata.revision",
    }
)


class CannotShare(Exception):
    """Nodes cannot share the worklist through this database; the text says why and what to do."""


def connection_string(settings: Settings, orthanc_settings: OrthancSettings) -> str:
    """Where our sessions go: ``Ups.Cluster.Database``, else what orthanc.json says of Orthanc's own.

    Raises:
        CannotShare: it is not a connection string of PostgreSQL.
    """
    own = settings.cluster.database or orthanc_settings.postgresql_uri
    try:
        if own:
            return make_conninfo(own)
        return make_conninfo(
            host=orthanc_settings.postgresql_host,
            port=orthanc_settings.postgresql_port,
            dbname=orthanc_settings.postgresql_database or None,
            user=orthanc_settings.postgresql_username or None,
            password=orthanc_settings.postgresql_password or None,
            sslmode="require" if orthanc_settings.postgresql_ssl else None,
        )
    except psycopg.ProgrammingError as error:
        raise CannotShare(f"the address of PostgreSQL cannot be used: {_first_line(error)}") from error


class Database:
    """Opens sessions. May be used from any loop; each session belongs to the one that opened it."""

    def __init__(self, address: str, name: str) -> None:
        """``address`` is a connection string; ``name`` is what PostgreSQL calls our sessions."""
        self._address = address
        self._name = name

    async def connect(self) -> Session:
        """A session in which each statement is a transaction. Raises psycopg.Error, or OSError (TimeoutError)."""
        async with asyncio.timeout(_CONNECT_WITHIN):
            return await AsyncConnection.connect(
                self._address,
                autocommit=True,
                application_name=self._name,
                connect_timeout=2,
                options="-c statement_timeout=10s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s",
            )

    async def prepare(self) -> None:
        """Make the table if it is absent, and see whether Orthanc's tables are what we know.

        Raises:
            CannotShare: a right is lacking, or the tables are others.
            StoreUnavailable: the database does not answer now.
        """
        try:
            async with asyncio.timeout(_ANSWER_WITHIN), await self.connect() as session:
                await _make_table(session)
                await _check_tables(session)
        except psycopg.errors.InsufficientPrivilege as error:
            user = await self._user()
            raise CannotShare(
                f"the database user {user} may not make the table {TABLE} ({_first_line(error)}): "
                f"GRANT CREATE ON SCHEMA public TO {user}, or make it once as another user and "
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO {user}"
            ) from error
        except (psycopg.OperationalError, OSError) as error:
            raise StoreUnavailable(f"cannot reach PostgreSQL: {_first_line(error)}", certain=True) from error
        except psycopg.Error as error:
            raise CannotShare(f"PostgreSQL refuses what several nodes need: {_first_line(error)}") from error

    async def _user(self) -> str:
        with contextlib.suppress(psycopg.Error, OSError):
            async with await self.connect() as session:
                return session.info.user
        return "of Orthanc"


async def _make_table(session: Session) -> None:
    table = await (await session.execute("SELECT to_regclass(%s)", (TABLE,))).fetchone()
    if table is None or table[0] is None:
        with contextlib.suppress(psycopg.errors.UniqueViolation):  # two nodes at once
            await session.execute(_CREATE)
    await session.execute(_FILL)


async def _check_tables(session: Session) -> None:
    rows = await (await session.execute(_COLUMNS)).fetchall()
    missing = sorted(_NEEDED - {str(row[0]).lower() for row in rows})
    if missing:
        raise CannotShare(
            f"this index of Orthanc has other tables than expected (no {', '.join(missing)}), so that nodes cannot "
            "write under a lease"
        )


class Sessions:
    """A few sessions of one loop that are used in turn."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._idle: list[Session] = []
        self._open: set[Session] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def rows(
        self, statement: str, parameters: tuple[Any, ...], within: float = _ANSWER_WITHIN
    ) -> list[TupleRow]:
        """Run one statement as a transaction of its own and return its rows, ``within`` so many seconds.

        Raises:
            StoreUnavailable: no answer; ``certain`` if the statement surely was not run.
        """
        async with self._turn() as session:
            try:
                async with asyncio.timeout(within), _allowed(session, within):
                    cursor = await session.execute(statement, parameters)
                    return await cursor.fetchall()
            except (psycopg.Error, OSError) as error:
                await self._drop(session)
                if isinstance(error, psycopg.OperationalError):
                    await (
                        self._drop_idle()
                    )  # PostgreSQL was restarted, say: they would fail one after the other
                certain = isinstance(error, psycopg.Error) and _was_refused(error)
                raise StoreUnavailable(f"PostgreSQL: {_first_line(error)}", certain=certain) from error
            except BaseException:
                await self._drop(session)
                raise

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[Session]:
        async with self._turns:
            session = await self._session()
            yield session
            if session in self._open:
                self._idle.append(session)

    async def _session(self) -> Session:
        while self._idle:
            session = self._idle.pop()
            if not session.closed and not session.broken:
                return session
            self._open.discard(session)
        try:
            session = await self._database.connect()
        except (psycopg.Error, OSError) as error:
            raise StoreUnavailable(f"cannot reach PostgreSQL: {_first_line(error)}", certain=True) from error
        self._open.add(session)
        return session

    async def _drop(self, session: Session) -> None:
        self._open.discard(session)
        await session.close()

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._drop(self._idle.pop())

    async def close(self) -> None:
        """End every session."""
        self._idle.clear()
        while self._open:
            await self._open.pop().close()


@contextlib.asynccontextmanager
async def _allowed(session: Session, seconds: float) -> AsyncIterator[None]:
    """PostgreSQL's own limit for a statement, which counts until the last row has left."""
    if seconds <= _ANSWER_WITHIN:
        yield
        return
    await session.execute(f"SET statement_timeout = '{seconds:g}s'")
    yield
    await session.execute("RESET statement_timeout")


def _was_refused(error: psycopg.Error) -> bool:
    """True if the server itself said that it did not do it; the end of a session leaves that open."""
    return error.sqlstate is not None and error.sqlstate[:2] not in ("08", "57")


def _first_line(error: BaseException) -> str:
    words = str(error).strip().splitlines()
    return words[0] if words else type(error).__name__


def in_words(error: BaseException) -> str:
    """What went wrong, in one line."""
    return _first_line(error)
