"""Connections to the job database, with its failures as errors of the domain."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, make_url, select, text
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from detex_core.errors import DetexError, ResourceExhaustedError, UnavailableError
from detex_core.object_store.disk import disk_errors
from detex_trainer.jobs.schema import upgrade_schema

_BUSY_TIMEOUT_SECONDS = 10


class Database:
    """A SQLite file or a PostgreSQL server; safe to use from several threads."""

    def __init__(self, url: str) -> None:
        """Open the database and bring its tables up to date.

        Args:
            url: SQLAlchemy URL, for example `sqlite:////var/lib/detex/jobs.db`; the folder of the file is created.

        Raises:
            FailedPreconditionError: Its tables are of a later version of detex.
            UnavailableError: It does not answer.
            ResourceExhaustedError: Its disk is full.
        """
        self._engine = _open_engine(url)
        # Readers must not wait for the write lock that writers take at once, see _begin.
        self._reading_engine = self._engine.execution_options(read_only=True)
        with domain_errors(), self._engine.begin() as connection:
            upgrade_schema(connection)

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A transaction that writes; committed at the end, rolled back on any exception.

        Raises:
            UnavailableError: The database does not answer, or other writers hold it too long.
            ResourceExhaustedError: Its disk is full (reason `STORAGE_FULL`).
        """
        with domain_errors(), Session(self._engine) as session, session.begin():
            yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A transaction that only reads; raises UnavailableError as `writing` does."""
        with domain_errors(), Session(self._reading_engine) as session, session.begin():
            yield session

    def wait_for_turn(self, session: Session, what: str) -> None:
        """Let one writing transaction at a time do something that depends on what others write, such as counting.

        Args:
            session: Of the transaction, whose end lets the next one in.
            what: Names what is done.
        """
        # SQLite has one writer at a time anyway.
        if session.connection().dialect.name == "postgresql":
            session.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(what, 0))))

    def check(self) -> None:
        """Raise what a read would raise now; for readiness probes."""
        with self.reading() as session:
            session.execute(text("SELECT version_num FROM alembic_version"))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def _open_engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    if parsed.database and parsed.database != ":memory:":
        with disk_errors("The folder of the job database"):
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, connect_args={"timeout": _BUSY_TIMEOUT_SECONDS})
    event.listen(engine, "connect", _connect)
    event.listen(engine, "begin", _begin)
    return engine


def _connect(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
    # Python's own transaction control would begin too late for the reads that a transition depends on.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "foreign_keys = ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin(connection: Connection) -> None:
    # A transaction that reads first and writes later could fail to get the write lock half way: writers take it first.
    read_only = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextmanager
def domain_errors() -> Iterator[None]:
    """Turn failures of the database into errors of the domain, but violated constraints and values out of range."""
    try:
        yield
    except (IntegrityError, DataError):
        raise  # the latter is a bug: what callers send is checked before
    except DBAPIError as error:
        raise _domain_error(error.orig) from error
    except PoolTimeoutError as error:
        raise UnavailableError("All connections to the job database are busy; try again later.") from error


def _domain_error(cause: Any) -> DetexError:
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL or getattr(cause, "sqlstate", None) == "53100":
        return ResourceExhaustedError(
            "The disk of the job database is full; free space and try again.", reason="STORAGE_FULL"
        )
    return UnavailableError("The job database does not answer; try again later.")
