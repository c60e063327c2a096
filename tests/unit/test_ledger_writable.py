"""Whether the ledger can be written: found out by a write of its own, within seconds, whatever else runs."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from storage.errors import LedgerUnavailable
from storage.ledger import Ledger
from storage.schema import meta
from tests.unit.ledgers import open_ledger, open_transaction

LONGER_THAN_A_CHECK = 30.0
LONG_ROW = text("INSERT INTO meta (name, value) VALUES ('long', hex(randomblob(40000)) || :value)")
"""A row that needs more room than the pages of the file have."""


async def written_at(ledger: Ledger) -> str | None:
    query = meta.select().where(meta.c.name == "written_at")
    found = await ledger.database.read(lambda tx: tx.execute(query).mappings().first())
    return None if found is None else str(found["value"])


async def is_writable(ledger: Ledger) -> bool:
    begun = time.monotonic()
    try:
        await ledger.check_writable()
    except LedgerUnavailable:
        return False
    finally:
        assert time.monotonic() - begun < LONGER_THAN_A_CHECK
    return True


async def test_a_check_writes_each_time(ledger: Ledger, replica: Ledger) -> None:
    assert await is_writable(ledger)
    first = await written_at(ledger)
    assert await is_writable(replica)
    assert first is not None
    assert await written_at(ledger) not in (None, first)


async def test_many_checks_at_once_all_succeed(ledger: Ledger, replica: Ledger) -> None:
    found = await asyncio.gather(*(is_writable(on) for on in (ledger, replica) * 5))
    assert found == [True] * 10


async def test_a_check_waits_for_no_other_transaction_of_the_process(ledger: Ledger) -> None:
    """All threads are busy with reading, and on PostgreSQL with writing, too."""
    go_on, loop = threading.Event(), asyncio.get_running_loop()
    begun = [asyncio.Event() for _ in range(8)]

    def read(one: asyncio.Event) -> None:
        loop.call_soon_threadsafe(one.set)
        go_on.wait(LONGER_THAN_A_CHECK)

    reads = [asyncio.create_task(ledger.database.read(lambda _tx, one=one: read(one))) for one in begun]
    try:
        for one in begun:
            await asyncio.wait_for(one.wait(), LONGER_THAN_A_CHECK)
        assert await is_writable(ledger)
    finally:
        go_on.set()
        await asyncio.gather(*reads)


async def test_a_check_waits_for_no_row_that_another_transaction_writes(ledger: Ledger) -> None:
    """SQLite has one writer: a transaction that lasts longer than a check makes the ledger unavailable."""
    async with open_transaction(ledger, "UPDATE meta SET value = value WHERE name = 'ledger'"):
        assert await is_writable(ledger) is not ledger.is_sqlite
    assert await is_writable(ledger)


async def test_a_file_that_another_process_has_locked_is_not_writable(tmp_path: Path) -> None:
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")
    other = sqlite3.connect(tmp_path / "ledger.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert not await is_writable(ledger)
    other.execute("ROLLBACK")
    other.close()
    assert await is_writable(ledger)
    await ledger.close()


async def test_a_full_disk_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection of the check finds that the file may not grow."""
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")
    with sqlite3.connect(tmp_path / "ledger.db") as other:
        filler = "x" * 4000
        other.execute("DELETE FROM meta WHERE name = 'written_at'")
        other.executemany("INSERT INTO meta VALUES (?, ?)", [(f"filler {n}", filler) for n in range(50)])
        (pages,) = other.execute("PRAGMA page_count").fetchone()
    other.close()
    create = create_async_engine

    def full(*arguments: object, **named: object) -> object:
        engine = create(*arguments, **named)

        @event.listens_for(engine.sync_engine, "connect")
        def prepare(connection: object, _record: object) -> None:
            cursor = connection.cursor()  # type: ignore[attr-defined]
            cursor.execute(f"PRAGMA max_page_count = {pages}")
            cursor.close()

        return engine

    monkeypatch.setattr("storage.database.create_async_engine", full)
    monkeypatch.setattr("storage.database.WRITE_ROW", LONG_ROW)
    assert not await is_writable(ledger)
    monkeypatch.undo()
    assert await is_writable(ledger)
    await ledger.close()


async def test_a_file_that_may_only_be_read_is_not_writable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root no mode keeps a program from writing, so the file is opened for reading only."""
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")
    readable = make_url(f"sqlite+aiosqlite:///file:{tmp_path / 'ledger.db'}?mode=ro&uri=true")
    monkeypatch.setattr(ledger.database, "url", readable)
    assert not await is_writable(ledger)
    monkeypatch.undo()
    assert await is_writable(ledger)
    await ledger.close()


class Freezable:
    """A server in front of another one. While it is frozen it takes what it is sent, and nothing comes back."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.thawed = asyncio.Event()
        self.thawed.set()
        self.freezes_at: bytes | None = None
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        there, to = await asyncio.open_connection(self.host, self.port)
        try:
            with suppress(asyncio.CancelledError, OSError):
                await asyncio.gather(self._pass(reader, to), self._pass(there, writer))
        finally:
            for one in (to, writer):
                one.close()

    async def _pass(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while found := await source.read(65536):
            if self.freezes_at is not None and self.freezes_at in found:
                self.thawed.clear()
            await self.thawed.wait()
            to.write(found)
        to.close()


@asynccontextmanager
async def freezable(url: str) -> AsyncIterator[tuple[Ledger, Freezable]]:
    """A ledger that reaches its PostgreSQL server through a server that can be frozen."""
    behind = make_url(url)
    proxy = Freezable(behind.host or str(behind.query["host"]), behind.port or int(str(behind.query["port"])))
    async with AsyncExitStack() as stack:
        server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
        stack.callback(server.close)
        port = server.sockets[0].getsockname()[1]
        through = behind.set(host="127.0.0.1", port=port).difference_update_query(["host", "port"])
        ledger = Ledger(through.render_as_string(hide_password=False))
        stack.push_async_callback(ledger.close)
        await ledger.open(create=True)
        stack.callback(proxy.thawed.set)
        yield ledger, proxy


@pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("freezes_at", [None, b"INSERT INTO meta"], ids=["while it connects", "at the statement"])
async def test_a_server_that_hangs_is_not_writable(ledger_url: str, freezes_at: bytes | None) -> None:
    async with freezable(ledger_url) as (ledger, proxy):
        assert await is_writable(ledger)
        begun, proxy.freezes_at = proxy.connections, freezes_at
        if freezes_at is None:
            proxy.thawed.clear()
        assert await asyncio.gather(*(is_writable(ledger) for _ in range(9))) == [False] * 9
        assert proxy.connections <= begun + 2, (
            "checks at the same time share one, which psycopg cancels over another one"
        )
        assert not await is_writable(ledger)
        proxy.freezes_at = None
        proxy.thawed.set()
        deadline = time.monotonic() + LONGER_THAN_A_CHECK
        while not await is_writable(ledger):
            assert time.monotonic() < deadline
