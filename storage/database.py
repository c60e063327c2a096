"""The database under the ledger: transactions, clock, schema. It knows nothing about requests.

SQLite is a file in WAL mode. Every write is a ``BEGIN IMMEDIATE`` with ``synchronous=FULL``: a change that was reported to a
person survives a power cut. ``:memory:`` is refused: it shares one connection, so two approvals could both win.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import psycopg
from sqlalchemy import (
    Connection,
    NullPool,
    RowMapping,
    Select,
    make_url,
    text,
)
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import create_async_engine

from storage.commit_listener import CommitListener, make_commit_listener
from storage.engine import BUSY_SECONDS, THREADS, postgresql_engine, sqlite_engine, with_connect_timeout
from storage.errors import LedgerReplaced, LedgerUnavailable, SchemaMismatch
from storage.files import make_private, restrict_to_owner
from storage.revisions import current_revision, is_readable, known_revisions, scripts, upgrade
from storage.run_lock import RunLock
from storage.write_queue import Work, WriteQueue

T = TypeVar("T")
Clock: TypeAlias = Callable[[], datetime]
BUSY_PAUSE = 0.02
WRITE_CHECK_SECONDS = 5.0
WRITE_ROW = text(
    "INSERT INTO meta (name, value) VALUES ('written_at', :value) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
UPGRADE = "run `dbaccess store upgrade`"
RESTORE = "if it was lost, run `dbaccess store restore FILE` with a copy"
NEWER = "the ledger was made by a newer dbaccess; install that version"


class Database:
    """Connections and transactions. ``url`` may hold a password and is never shown. ``clock`` replaces the time, for tests.

    A transaction is one function: it runs from its first to its last statement in one thread, and the event loop waits for its result.
    """

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        self.url = with_connect_timeout(make_url(url))
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        if self.is_sqlite and (self.url.database or "file:").startswith((":memory:", "file:")):
            raise ValueError("the ledger needs a file: sqlite+aiosqlite:///dbaccess.db")
        self.clock = clock
        self.run_lock = RunLock(self.path) if self.is_sqlite else None
        self.engine = sqlite_engine(self.url, self._check_file) if self.is_sqlite else postgresql_engine(self.url)
        self.commit_listener: CommitListener = make_commit_listener(self.url)
        self._readers = ThreadPoolExecutor(THREADS, "ledger")
        self._writes = WriteQueue(self.engine) if self.is_sqlite else None
        self._write_check: asyncio.Task[None] | None = None

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
        """Finish the running transactions and close every connection."""
        await self.commit_listener.close()
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        if self._writes is not None:
            self._writes.close()
        self._readers.shutdown(wait=True)
        self.engine.dispose()
        if self.run_lock is not None:
            self.run_lock.close()

    @property
    def is_replaced(self) -> bool:
        """Whether the SQLite file was removed or replaced since the run lock was taken."""
        return self.run_lock is not None and self.run_lock.is_replaced

    def _check_file(self) -> None:
        """Raises LedgerReplaced: a new connection would read and write another ledger than the open ones."""
        if self.is_replaced:
            raise LedgerReplaced

    # Transactions. Every error of the driver becomes LedgerUnavailable, which shows no URL and no parameters.

    async def write(self, work: Work[T], *, announce: bool = True) -> T:
        """Run one transaction that may write. Its commit wakes everyone who waits for a commit, in other processes too.

        ``announce=False`` wakes nobody. Claims use it: each claim would otherwise wake the runner for the next one. If the caller is
        cancelled, a transaction that has begun is finished all the same.
        """
        result = await self._result(self._submit(work, announce=announce))
        if announce:
            self.commit_listener.wake()
        return result

    def _submit(self, work: Work[T], *, announce: bool) -> Future[T]:
        if self._writes is not None:
            return self._writes.submit(work)

        def transaction() -> T:
            with self.engine.begin() as tx:
                result = work(tx)
                if announce:
                    self.commit_listener.announce(tx)
                return result

        return self._readers.submit(transaction)

    async def read(self, work: Work[T], *, is_snapshot: bool = False) -> T:
        """Run one transaction that only reads. Each of its statements sees a consistent state; with ``is_snapshot`` all see the same one."""
        options: dict[str, Any] = {"read_only": True}
        if is_snapshot and not self.is_sqlite:
            options["isolation_level"] = "REPEATABLE READ"

        def transaction() -> T:
            with self.engine.connect() as connection:
                return work(connection.execution_options(**options))

        return await self._result(self._readers.submit(transaction))

    async def _result(self, future: Future[T]) -> T:
        with _TranslatedErrors():
            return await asyncio.wrap_future(future)

    async def read_all(self, query: Select[Any], record: Callable[[RowMapping], T]) -> tuple[T, ...]:
        """All rows of a query, each turned into a record."""
        return await self.read(lambda tx: tuple(record(row) for row in tx.execute(query).mappings()))

    async def check_writable(self) -> None:
        """Write and commit one row, on a connection of its own that waits for no other transaction of this process.

        Raises LedgerReplaced, or LedgerUnavailable, also where there is no answer within ``WRITE_CHECK_SECONDS``: a disk that is full, a server that hangs.
        Checks at the same time share one write. A write that hangs is given up, and none is begun before it has ended.
        """
        self._check_file()
        with _TranslatedErrors():
            try:
                async with asyncio.timeout(WRITE_CHECK_SECONDS):
                    await self._wait_for_write()
            except TimeoutError:
                if self._write_check is not None:
                    self._write_check.cancel()
                raise

    async def _wait_for_write(self) -> None:
        if self._write_check is not None and self._write_check.cancelling():
            await asyncio.wait({self._write_check})
        if self._write_check is None or self._write_check.done():
            self._write_check = asyncio.create_task(self._write_row())
        check = self._write_check
        await asyncio.wait({check})
        if check.cancelled():
            raise TimeoutError
        check.result()

    async def _write_row(self) -> None:
        engine = create_async_engine(self.url, poolclass=NullPool)
        try:
            async with engine.begin() as tx:
                await tx.execute(WRITE_ROW, {"value": datetime.now(UTC).isoformat()})
        finally:
            await engine.dispose()

    async def is_behind_pooler(self) -> bool:
        """Whether a connection pooler is in front of PostgreSQL. Raises LedgerUnavailable."""
        try:
            return await self.commit_listener.is_pooled()
        except (psycopg.Error, OSError) as error:
            raise LedgerUnavailable(type(error).__name__) from None

    async def now(self) -> datetime:
        """The time that decides everything, in aware UTC. On PostgreSQL the server's, so that all replicas share one clock."""
        known = self.local_now()
        return await self.read(self.now_in) if known is None else known

    def local_now(self) -> datetime | None:
        """``now`` where this process knows it without asking; None on PostgreSQL."""
        if self.clock is not None:
            return self.clock()
        return datetime.now(UTC) if self.is_sqlite else None

    def now_in(self, tx: Connection) -> datetime:
        """``now`` inside a transaction."""
        if (known := self.local_now()) is not None:
            return known
        found: datetime = tx.execute(text("SELECT clock_timestamp()")).scalar_one()
        return found.astimezone(UTC)

    # Schema.

    async def check_schema(self) -> None:
        """Raises SchemaMismatch if the database is empty, older than this program, or so much newer that this program cannot use it."""
        if self.is_sqlite and not self.path.exists():
            raise SchemaMismatch(f"there is no ledger at {self.path}; {UPGRADE} or start the bot; {RESTORE}")
        if self.is_sqlite and not os.access(self.path, os.R_OK):
            raise LedgerUnavailable(f"this operating system user may not read {self.path}")
        found = await self.read(current_revision)
        head = scripts().get_current_head()
        if found is None:
            raise SchemaMismatch(f"the database has no ledger yet; {UPGRADE}")
        if found in known_revisions() and found != head:
            raise SchemaMismatch(f"the ledger is older than this program; {UPGRADE}")
        if found != head and not await self.read(is_readable):
            raise SchemaMismatch(NEWER)

    async def has_ledger(self) -> bool:
        """Whether there is a ledger of any version. Creates nothing."""
        if self.is_sqlite and not self.path.exists():
            return False
        return await self.read(current_revision) is not None

    async def migrate(self, afterwards: Work[None]) -> None:
        """Create the tables or bring them up to date, then run ``afterwards``, all in one transaction.

        Another process that upgrades at the same time waits, and then finds the work done. A newer database stays as it is. Raises
        SchemaMismatch if this program cannot use it.
        """

        def transaction(tx: Connection) -> None:
            if not self.is_sqlite:
                tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key("upgrade"),))
            found = current_revision(tx)
            if found in (None, *known_revisions()):
                upgrade(tx)
                afterwards(tx)
            elif not is_readable(tx):
                raise SchemaMismatch(NEWER)

        if self.is_sqlite:
            with _TranslatedErrors():
                await asyncio.to_thread(self._prepare_files)
        await self.write(transaction)

    def _prepare_files(self) -> None:
        """SQLite gives new files the mode of the main file. Files of an earlier run get the same mode here."""
        path = self.path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        make_private(path)
        for suffix in ("-wal", "-shm", "-journal"):
            restrict_to_owner(path.with_name(f"{path.name}{suffix}"))
        self._set_write_ahead_log()

    def _set_write_ahead_log(self) -> None:
        """Set WAL mode, which the file keeps.

        SQLite may refuse this at once while another process has the file, whatever ``busy_timeout`` says. So it is tried again,
        for ``BUSY_SECONDS``.
        """
        deadline = monotonic() + BUSY_SECONDS
        while True:
            try:
                with self.engine.connect() as connection:
                    driver = connection.connection.driver_connection
                    assert driver is not None, "the connection is open"
                    driver.execute("PRAGMA journal_mode=WAL").close()
            except sqlite3.Error as error:
                if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > deadline:
                    raise LedgerUnavailable(type(error).__name__) from None
                sleep(BUSY_PAUSE)
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
        if isinstance(error, SQLAlchemyError | OSError | TimeoutError):
            raise LedgerUnavailable(type(error).__name__) from None


def advisory_lock_key(name: str) -> int:
    """The number of a PostgreSQL advisory lock, the same in every process."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
