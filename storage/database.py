"""The store under the ledger: engine, transactions, clock, migrations. Nothing here knows a request.

SQLite: a file in WAL mode, every write in ``BEGIN IMMEDIATE``, ``synchronous=FULL`` (what was answered to a person as done
must survive a power cut). Never ``:memory:``, which shares one connection and lets two approvals win.
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
from typing import Any, TypeAlias

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, event, make_url, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from storage.commit_listener import CommitListener, make_commit_listener
from storage.errors import SchemaMissing, StoreUnavailable
from storage.files import make_private, narrow

Clock: TypeAlias = Callable[[], datetime]
BUSY_SECONDS = 30
BUSY_PAUSE = 0.02
CONNECT_SECONDS = 10
UPGRADE = "run `dbaccess store upgrade`"
NEWER = "the ledger was made by a newer dbaccess; install that version"
IDLE_LIMIT = "30s"
"""What a replica that was cut off in the middle of a transaction had locked is free again after this."""


class Database:
    """Connections and transactions. ``url`` may hold a password: it is never shown."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self.url = _patient(make_url(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and (self.url.database or "file:").startswith((":memory:", "file:")):
            raise ValueError("the ledger needs a file: sqlite+aiosqlite:///dbaccess.db")
        self.clock = clock
        self.engine = _sqlite_engine(self.url) if self.is_sqlite else _postgresql_engine(self.url)
        self.waker: CommitListener = make_commit_listener(self.url)
        # SQLite has one writer at a time; waiting in line here is fair and quick, its own waiting is neither.
        self._turn: AbstractAsyncContextManager[None] = asyncio.Lock() if self.is_sqlite else nullcontext()

    @property
    def path(self) -> Path:
        """The SQLite file."""
        assert self.url.database is not None, "checked at the start"
        return Path(self.url.database)

    @property
    def place(self) -> str:
        """Where it is, for people: the file, or the database and its host."""
        return str(self.path) if self.is_sqlite else f"{self.url.database} on {self.url.host or 'this machine'}"

    async def close(self) -> None:
        """Give back every connection."""
        await self.waker.close()
        await self.engine.dispose()

    # Transactions. Whatever the driver raises becomes StoreUnavailable, which shows no URL and no parameters.

    @asynccontextmanager
    async def writing(self, *, wakes: bool = True) -> AsyncIterator[AsyncConnection]:
        """One transaction that may write; wakes whoever waits for a commit, in other processes too.

        ``wakes=False`` is for looking for work: were that news, every look would cause the next one.
        """
        with _translated():
            async with self._turn, self.engine.begin() as tx:
                yield tx
                if wakes:
                    await self.waker.announce(tx)
        if wakes:
            self.waker.wake()

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[AsyncConnection]:
        """One consistent look that writes nothing."""
        with _translated():
            async with self.engine.connect() as connection:
                yield await connection.execution_options(reads_only=True)

    async def now(self) -> datetime:
        """The time by which everything is decided: the store's own on PostgreSQL, never a replica's."""
        if self.clock is not None:
            return self.clock()
        if self.is_sqlite:
            return datetime.now(UTC)
        async with self.reading() as tx:
            return await self.moment(tx)

    async def moment(self, tx: AsyncConnection) -> datetime:
        """``now`` inside a transaction."""
        if self.clock is not None:
            return self.clock()
        if self.is_sqlite:
            return datetime.now(UTC)
        found: datetime = (await tx.execute(text("SELECT clock_timestamp()"))).scalar_one()
        return found.astimezone(UTC)

    # Schema.

    async def check_schema(self) -> None:
        """Raises SchemaMissing where the store is empty, older, or newer than this program."""
        if self.is_sqlite and not self.path.exists():
            raise SchemaMissing(f"there is no ledger at {self.path}; {UPGRADE} or start the bot")
        async with self.reading() as connection:
            found = await connection.run_sync(_revision)
        head = _scripts().get_current_head()
        if found is None:
            raise SchemaMissing(f"the store has no ledger yet; {UPGRADE}")
        if found != head:
            raise SchemaMissing(f"the ledger is older than this program; {UPGRADE}" if found in _known() else NEWER)

    @asynccontextmanager
    async def migrated(self) -> AsyncIterator[AsyncConnection]:
        """A transaction in which the tables were made or brought up to date: all of it is kept, or nothing.

        Whoever else upgrades at the same time waits and finds it done. Raises SchemaMissing where the store is newer.
        """
        with _translated():
            if self.is_sqlite:
                self._make_files()
                await self._write_ahead()
            async with self.engine.begin() as tx:
                if not self.is_sqlite:
                    await tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (lock_number("upgrade"),))
                found = await tx.run_sync(_revision)
                if found not in (None, *_known()):
                    raise SchemaMissing(NEWER)
                await tx.run_sync(_upgrade)
                yield tx

    def _make_files(self) -> None:
        """SQLite gives its further files the rights of the first; those of an earlier run are narrowed like it."""
        path = self.path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        make_private(path)
        for suffix in ("-wal", "-shm", "-journal"):
            narrow(path.with_name(f"{path.name}{suffix}"))

    async def _write_ahead(self) -> None:
        """Set WAL, which stays with the file.

        Where somebody else has the file SQLite may refuse this at once, whatever ``busy_timeout`` says; so ask again.
        """
        deadline = monotonic() + BUSY_SECONDS
        while True:
            try:
                async with self.engine.connect() as connection:
                    driver = (await connection.get_raw_connection()).driver_connection
                    assert driver is not None, "it was just connected"
                    cursor = await driver.execute("PRAGMA journal_mode=WAL")
                    await cursor.close()
            except sqlite3.Error as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                    raise StoreUnavailable(type(error).__name__) from None
                await asyncio.sleep(BUSY_PAUSE)
            else:
                return


class _translated:  # noqa: N801 - reads as a word where it is used
    """The one point at which errors of the driver become the ledger's."""

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, DBAPIError):
            raise StoreUnavailable(type(error.orig).__name__ if error.orig else type(error).__name__) from None
        if isinstance(error, SQLAlchemyError | OSError):
            raise StoreUnavailable(type(error).__name__) from None


def _patient(url: URL) -> URL:
    """A server that swallows packets is given up after a while; the driver alone would wait for two minutes."""
    is_told = url.get_backend_name() == "sqlite" or "connect_timeout" in url.query
    return url if is_told else url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})


def _sqlite_engine(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=5, max_overflow=10)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin or commit by itself
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
        reads_only = connection.get_execution_options().get("reads_only")
        connection.exec_driver_sql("BEGIN" if reads_only else "BEGIN IMMEDIATE")

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


def lock_number(what: str) -> int:
    """The key of an advisory lock of PostgreSQL, the same in every program."""
    return int.from_bytes(hashlib.sha256(what.encode()).digest()[:8], signed=True)


def _config() -> Config:
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))  # a sign of its own in such files
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _known() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(connection: Connection) -> None:
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
