# SPDX-License-Identifier: AGPL-3.0-or-later
"""The plugin's own sessions in the PostgreSQL that has Orthanc's index, and its one small table there.

The table has a row ``lease`` (who leads), a row ``fence`` (the only epoch that may write) and a row ``node/RUN`` for
each live node. See ``lease.py`` and ``rows.py``.
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
"""Seconds for some megabytes of rows: they arrive over many turns of a loop that has other work to do."""
_AT_ONCE: Final = 4

Session = AsyncConnection[TupleRow]

_CREATE: Final = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
  name text PRIMARY KEY, epoch bigint NOT NULL DEFAULT 0, holder text NOT NULL DEFAULT '',
  beat bigint NOT NULL DEFAULT 0, about jsonb NOT NULL DEFAULT '{{}}')
"""
# How PostgreSQL reports that another node created the table at the same moment: IF NOT EXISTS looks before it locks.
_CREATED_BY_ANOTHER: Final = (
    psycopg.errors.UniqueViolation,
    psycopg.errors.DuplicateObject,
    psycopg.errors.DuplicateTable,
)
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
    """Nodes cannot share the worklist through this database; the text says why and what to do about it."""


def connection_string(settings: Settings, orthanc_settings: OrthancSettings) -> str:
    """``Ups.Cluster.Database``, or else the connection of Orthanc's PostgreSQL plugin in orthanc.json.

    Raises:
        CannotShare: the setting is not a PostgreSQL connection string.
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
        raise CannotShare(f"invalid PostgreSQL connection string: {first_line(error)}") from error


class Database:
    """Opens sessions, on any loop. A session belongs to the loop that opened it."""

    def __init__(self, address: str, name: str) -> None:
        """``address`` is a connection string; ``name`` is the sessions' application_name."""
        self._address = address
        self._name = name

    async def connect(self) -> Session:
        """Open a session with autocommit. Raises psycopg.Error or OSError (TimeoutError)."""
        async with asyncio.timeout(_CONNECT_WITHIN):
            return await AsyncConnection.connect(
                self._address,
                autocommit=True,
                application_name=self._name,
                connect_timeout=2,
                options="-c statement_timeout=10s -c lock_timeout=2s -c idle_in_transaction_session_timeout=10s",
            )

    async def prepare(self) -> None:
        """Create the table if it is absent, and check that Orthanc's tables have the expected columns.

        Raises:
            CannotShare: the user lacks a privilege, or Orthanc's tables lack a column.
            StoreUnavailable: the database does not answer.
        """
        try:
            async with asyncio.timeout(_ANSWER_WITHIN), await self.connect() as session:
                await _create_table(session)
                await _check_tables(session)
        except psycopg.errors.InsufficientPrivilege as error:
            user = await self._user()
            raise CannotShare(
                f"the database user {user} may not create the table {TABLE} ({first_line(error)}): "
                f"GRANT CREATE ON SCHEMA public TO {user}, or create it once as another user and "
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON {TABLE} TO {user}"
            ) from error
        except (psycopg.OperationalError, OSError) as error:
            raise StoreUnavailable(f"cannot reach PostgreSQL: {first_line(error)}", certain=True) from error
        except psycopg.Error as error:
            raise CannotShare(
                f"PostgreSQL refused to prepare the table {TABLE}: {first_line(error)}"
            ) from error

    async def _user(self) -> str:
        with contextlib.suppress(psycopg.Error, OSError):
            async with await self.connect() as session:
                return session.info.user
        return "of Orthanc"


async def _create_table(session: Session) -> None:
    table = await (await session.execute("SELECT to_regclass(%s)", (TABLE,))).fetchone()
    if table is None or table[0] is None:
        with contextlib.suppress(*_CREATED_BY_ANOTHER):
            await session.execute(_CREATE)
    await session.execute(_FILL)


async def _check_tables(session: Session) -> None:
    rows = await (await session.execute(_COLUMNS)).fetchall()
    missing = sorted(_NEEDED - {str(row[0]).lower() for row in rows})
    if missing:
        raise CannotShare(
            f"the tables of Orthanc's index are not as expected (no {', '.join(missing)}): nodes cannot share a "
            "worklist in it"
        )


class Sessions:
    """A small pool of sessions for one loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._idle: list[Session] = []
        self._open: set[Session] = set()
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def rows(
        self, statement: str, parameters: tuple[Any, ...], within: float = _ANSWER_WITHIN
    ) -> list[TupleRow]:
        """Run one statement in a transaction of its own and return its rows, within so many seconds.

        Raises:
            StoreUnavailable: it failed; ``certain`` if the statement certainly had no effect.
        """
        async with self._turn() as session:
            try:
                async with asyncio.timeout(within), _allowed(session, within):
                    cursor = await session.execute(statement, parameters)
                    return await cursor.fetchall()
            except (psycopg.Error, OSError) as error:
                await self._drop(session)
                if isinstance(error, psycopg.OperationalError):
                    await self._drop_idle()  # after a restart of PostgreSQL, say, all of them are broken
                certain = isinstance(error, psycopg.Error) and _was_refused(error)
                raise StoreUnavailable(f"PostgreSQL: {first_line(error)}", certain=certain) from error
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
            raise StoreUnavailable(f"cannot reach PostgreSQL: {first_line(error)}", certain=True) from error
        self._open.add(session)
        return session

    async def _drop(self, session: Session) -> None:
        self._open.discard(session)
        await session.close()

    async def _drop_idle(self) -> None:
        while self._idle:
            await self._drop(self._idle.pop())

    async def close(self) -> None:
        """Close every session."""
        self._idle.clear()
        while self._open:
            await self._open.pop().close()


@contextlib.asynccontextmanager
async def _allowed(session: Session, seconds: float) -> AsyncIterator[None]:
    """Raise PostgreSQL's own time limit for a statement, which counts until the last row is sent."""
    if seconds <= _ANSWER_WITHIN:
        yield
        return
    await session.execute(f"SET statement_timeout = '{seconds:g}s'")
    yield
    await session.execute("RESET statement_timeout")


def _was_refused(error: psycopg.Error) -> bool:
    """True if the server reported the failure itself; if the session broke, the outcome is unknown."""
    return error.sqlstate is not None and error.sqlstate[:2] not in ("08", "57")


def first_line(error: BaseException) -> str:
    """The first line of the error's message, or the name of its class if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
