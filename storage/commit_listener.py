"""Wakes everyone who waits for a commit, across processes.

Within a process an event does it. Across processes, SQLite's files are polled, and PostgreSQL notifies.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from contextlib import suppress
from typing import Any, Protocol, TypeAlias

import psycopg
from sqlalchemy import URL, Connection, text

CHANNEL = "dbaccess"
POLL_SECONDS = 0.4
"""Time between two looks at SQLite's files (a stat, no query), or at a PostgreSQL server behind a pooler."""

RETRY_SECONDS = 0.5
"""Pause before a connection that was lost is opened again."""
KEEPALIVES = {"keepalives": 1, "keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}
SERVER_KEEPALIVES = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; SET tcp_keepalives_count = 3; SET tcp_user_timeout = 11000"
"""Both sides notice within about 11 seconds that the other machine is gone, also while data is on its way. Then the lock of the process is released."""
PROCESS_CLASS = 0x64626163
"""The first number of the advisory lock of a process; the second one is its own number."""
PROCESS_BITS = 31
Stamp: TypeAlias = tuple[tuple[int, int], ...]


class CommitListener(Protocol):
    """Knows of commits in this process and in others.

    ``process`` is the number of this process while PostgreSQL holds its advisory lock, which ends with the process. None on SQLite, behind a
    connection pooler, and while there is no connection.
    """

    process: int | None

    def start(self) -> None:
        """Begin to listen, without waiting for a connection."""

    async def wait_for_commit(self, seconds: float, reader: str) -> bool:
        """True as soon as there was a commit since this reader's last call. False after ``seconds`` without one."""

    def announce(self, tx: Connection) -> None:
        """Announce the commit to other processes. Called inside the transaction, before it commits."""

    def wake(self) -> None:
        """Wake the readers of this process. Called after a commit."""

    async def is_pooled(self) -> bool:
        """Whether a connection pooler is between this process and the database. Raises what the driver raises."""

    async def close(self) -> None:
        """Stop listening."""


class Readers:
    """The readers of this process, by name. A commit wakes each of them once, also one that was busy at that time."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    def event(self, reader: str) -> asyncio.Event:
        return self._events.setdefault(reader, asyncio.Event())

    def wake(self) -> None:
        for event in self._events.values():
            event.set()


def make_commit_listener(url: URL) -> CommitListener:
    """The listener for this kind of database."""
    return (
        FileCommitListener(str(url.database)) if url.get_backend_name() == "sqlite" else PostgreSQLCommitListener(url)
    )


class FileCommitListener:
    """SQLite: a commit of another process changes the file or its write-ahead log."""

    process: int | None = None

    def __init__(self, path: str) -> None:
        self._paths = (path, f"{path}-wal")
        self._readers = Readers()
        self._seen: dict[str, Stamp] = {}
        self._first = self._stamp()

    def start(self) -> None:
        return

    def _stamp(self) -> Stamp:
        stamps = []
        for path in self._paths:
            with suppress(OSError):
                status = os.stat(path)  # noqa: PTH116 - called often; os.stat is faster
                stamps.append((status.st_mtime_ns, status.st_size))
        return tuple(stamps)

    async def wait_for_commit(self, seconds: float, reader: str) -> bool:
        end, event = asyncio.get_running_loop().time() + seconds, self._readers.event(reader)
        while True:
            left = end - asyncio.get_running_loop().time()
            with suppress(TimeoutError):
                await asyncio.wait_for(event.wait(), max(0.0, min(left, POLL_SECONDS)))
            stamp = self._stamp()
            if event.is_set() or stamp != self._seen.get(reader, self._first):
                event.clear()
                self._seen[reader] = stamp
                return True
            if left <= POLL_SECONDS:
                return False

    def announce(self, tx: Connection) -> None:
        del tx

    def wake(self) -> None:
        self._readers.wake()

    async def is_pooled(self) -> bool:
        return False

    async def close(self) -> None:
        return


async def _is_pooled(connection: psycopg.AsyncConnection[Any]) -> bool:
    """Whether a pooler answers instead of the server. In transaction mode it gives the connection with the LISTEN to somebody else."""
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    return row != (connection.info.backend_pid,)


class PostgreSQLCommitListener:
    """PostgreSQL: NOTIFY in the transaction, LISTEN on a separate connection, which holds the lock of the process. Behind a pooler it polls."""

    def __init__(self, url: URL) -> None:
        self.process: int | None = None
        self._number = secrets.randbits(PROCESS_BITS)
        self._settings = {**KEEPALIVES, **url.get_dialect()().create_connect_args(url)[1]}
        self._readers = Readers()
        self._listening: asyncio.Task[None] | None = None

    async def wait_for_commit(self, seconds: float, reader: str) -> bool:
        event = self._readers.event(reader)
        self.start()
        try:
            await asyncio.wait_for(event.wait(), seconds)
        except TimeoutError:
            return False
        event.clear()
        return True

    def start(self) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        while True:
            try:
                with suppress(psycopg.Error, OSError):
                    async with await psycopg.AsyncConnection.connect(**self._settings, autocommit=True) as connection:
                        await self._listen_on(connection)
            finally:
                self.process = None
            await asyncio.sleep(RETRY_SECONDS)

    async def _listen_on(self, connection: psycopg.AsyncConnection[Any]) -> None:
        if await _is_pooled(connection):
            await self._poll(connection)
        await self._take_lock(connection)
        await connection.execute(f"LISTEN {CHANNEL}")
        self._readers.wake()  # there may have been commits before LISTEN
        async for _ in connection.notifies():
            self._readers.wake()

    async def _take_lock(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """The lock is shared: a connection that is lost, but not for the server yet, does not keep the next one out.

        Where it cannot be had, claims keep their lease. It never keeps the process from listening.
        """
        with suppress(psycopg.Error):
            await connection.execute(SERVER_KEEPALIVES)
            taken = await connection.execute(
                "SELECT pg_try_advisory_lock_shared(%s, %s)", (PROCESS_CLASS, self._number)
            )
            self.process = self._number if await taken.fetchone() == (True,) else None

    async def _poll(self, connection: psycopg.AsyncConnection[Any]) -> None:
        """Look for new transactions on the server until the connection is lost. Writes to other databases wake the readers in vain."""
        seen: object = None
        while True:
            cursor = await connection.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
            newest = await cursor.fetchone()
            if newest != seen:
                seen = newest
                self._readers.wake()
            await asyncio.sleep(POLL_SECONDS)

    def announce(self, tx: Connection) -> None:
        tx.execute(text(f"NOTIFY {CHANNEL}"))

    def wake(self) -> None:
        self._readers.wake()

    async def is_pooled(self) -> bool:
        async with await psycopg.AsyncConnection.connect(**self._settings, autocommit=True) as connection:
            return await _is_pooled(connection)

    async def close(self) -> None:
        if self._listening is not None:
            self._listening.cancel()
            with suppress(asyncio.CancelledError):
                await self._listening
            self._listening = None
