"""The database under the ledger: engine, transactions, clock, migrations. It knows nothing about requests.

SQLite is a file in WAL mode. Every write is a ``BEGIN IMMEDIATE`` with ``synchronous=FULL``: a change that was reported to a
person survives a power cut. ``:memory:`` is refused: it shares one connection, so two approvals could both win.
"""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, RowMapping, Select, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.commit_listener import CommitListener, make_commit_listener
from storage.errors import LedgerUnavailable, SchemaMismatch
from storage.files import make_private, restrict_to_owner

T = TypeVar("T")
Clock: TypeAlias = Callable[[], datetime]
BUSY_SECONDS = 30
"""How long a connection waits for SQLite's lock."""

BUSY_PAUSE = 0.02
CONNECT_SECONDS = 10
UPGRADE = "run `dbaccess store upgrade`"
NEWER = "the ledger was made by a newer dbaccess; install that version"
IDLE_LIMIT = "30s"
"""PostgreSQL ends a transaction that is idle for this long, and so frees the locks of a replica that was cut off."""


class Database:
    """Connections and transactions. ``url`` may hold a password and is never shown. ``clock`` replaces the time, for tests."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self.url = _with_connect_timeout(make_url(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and (self.url.database or "file:").startswith((":memory:", "file:")):
            raise ValueError("the ledger needs a file: sqlite+aiosqlite:///dbaccess.db")
        self.clock = clock
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _postgresql_engine(self.url)
        self.commit_listener: CommitListener = make_commit_listener(self.url)
        # SQLite has one writer at a time. Waiting for this lock is fair and fast; waiting inside SQLite is neither.
        self._write_lock: AbstractAsyncContextManager[None] = asyncio.Lock() if self.is_sqlite else nullcontext()

    @property
    def path(self) -> Path:
        """The SQLite file."""
        assert self.url.database is not None, "the constructor checks it"
        return Path(self.url.database)

    @property
    def place(self) -> str:
        """The location of the ledger, as text for people: the file, or the database and its host."""
        return str(self.path) if self.is_sqlite else f"{self.url.database} on {self.url.host or 'this machine'}"

    async def close(self) -> None:
        """Close every connection."""
        await self.commit_listener.close()
        await self.engine.dispose()

    # Transactions. Every error of the driver becomes LedgerUnavailable, which shows no URL and no parameters.

    @asynccontextmanager
    async def writing(self, *, announce: bool = True) -> AsyncIterator[AsyncConnection]:
        """One transaction that may write. Its commit wakes everyone who waits for a commit, in other processes too.

        ``announce=False`` wakes nobody. Claims use it: each claim would otherwise wake the runner for the next one.
        """
        with _TranslatedErrors():
            async with self._write_lock, self.engine.begin() as tx:
                yield tx
                if announce:
                    await self.commit_listener.announce(tx)
        if announce:
            self.commit_listener.wake()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One transaction that only reads and sees one consistent state."""
        with _TranslatedErrors():
            async with self.engine.connect() as connection:
                yield await connection.execution_options(read_only=True)

    async def read_all(self, query: Select[Any], record: Callable[[RowMapping], T]) -> tuple[T, ...]:
        """All rows of a query, each turned into a record."""
        async with self.reading() as tx:
            return tuple(record(row) for row in (await tx.execute(query)).mappings())

    async def now(self) -> datetime:
        """The time that decides everything, in aware UTC. On PostgreSQL the server's, so that all replicas share one clock."""
        if self.clock is not None:
            return self.clock()
        if self.is_sqlite:
            return datetime.now(UTC)
        async with self.reading() as tx:
            return await self.now_in(tx)

    async def now_in(self, tx: AsyncConnection) -> datetime:
        """``now`` inside a transaction."""
        if self.clock is not None:
            return self.clock()
        if self.is_sqlite:
            return datetime.now(UTC)
        found: datetime = (await tx.execute(text("SELECT clock_timestamp()"))).scalar_one()
        return found.astimezone(UTC)

    # Schema.

    async def check_schema(self) -> None:
        """Raises SchemaMismatch if the database is empty, older, or newer than this program."""
        if self.is_sqlite and not self.path.exists():
            raise SchemaMismatch(f"there is no ledger at {self.path}; {UPGRADE} or start the bot")
        async with self.reading() as connection:
            found = await connection.run_sync(_current_revision)
        head = _scripts().get_current_head()
        if found is None:
            raise SchemaMismatch(f"the database has no ledger yet; {UPGRADE}")
        if found != head:
            raise SchemaMismatch(
                f"the ledger is older than this program; {UPGRADE}" if found in _known_revisions() else NEWER
            )

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that first creates the tables or brings them up to date. It commits as a whole or not at all.

        Another process that upgrades at the same time waits, and then finds the work done. Raises SchemaMismatch if the database
        is newer than this program.
        """
        with _TranslatedErrors():
            if self.is_sqlite:
                self._create_private_files()
                await self._set_write_ahead_log()
            async with self.engine.begin() as tx:
                if not self.is_sqlite:
                    await tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key("upgrade"),))
                found = await tx.run_sync(_current_revision)
                if found not in (None, *_known_revisions()):
                    raise SchemaMismatch(NEWER)
                await tx.run_sync(_upgrade)
                yield tx

    def _create_private_files(self) -> None:
        """SQLite gives new files the mode of the main file. Files of an earlier run get the same mode here."""
        path = self.path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        make_private(path)
        for suffix in ("-wal", "-shm", "-journal"):
            restrict_to_owner(path.with_name(f"{path.name}{suffix}"))

    async def _set_write_ahead_log(self) -> None:
        """Set WAL mode, which the file keeps.

        SQLite may refuse this at once while another process has the file, whatever ``busy_timeout`` says. So it is tried again,
        for ``BUSY_SECONDS``.
        """
        deadline = monotonic() + BUSY_SECONDS
        while True:
            try:
                async with self.engine.connect() as connection:
                    driver = (await connection.get_raw_connection()).driver_connection
                    assert driver is not None, "the connection is open"
                    cursor = await driver.execute("PRAGMA journal_mode=WAL")
                    await cursor.close()
            except sqlite3.Error as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                    raise LedgerUnavailable(type(error).__name__) from None
                await asyncio.sleep(BUSY_PAUSE)
            else:
                return


class _TranslatedErrors:
    """The one place where errors of the driver become errors of the ledger."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DBAPIError):
            raise LedgerUnavailable(type(error.orig).__name__ if error.orig else type(error).__name__) from None
        if isinstance(error, SQLAlchemyError | OSError):
            raise LedgerUnavailable(type(error).__name__) from None


def _with_connect_timeout(url: URL) -> URL:
    """Limit how long connecting takes: the driver alone waits two minutes for a server that drops packets."""
    has_limit = url.get_backend_name() == "sqlite" or "connect_timeout" in url.query
    return url if has_limit else url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})


def _sqlite_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=5, max_overflow=10)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin or commit on its own
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_SECONDS * 1000}",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def _postgresql_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, pool_pre_ping=True)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_LIMIT}'")
        cursor.close()
        connection.commit()

    return engine


def advisory_lock_key(name: str) -> int:
    """The number of a PostgreSQL advisory lock, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)


def _config() -> Config:
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option(
        "script_location", folder.replace("%", "%%")
    )  # ``%`` has a meaning in Alembic's configuration
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _known_revisions() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


def _current_revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
