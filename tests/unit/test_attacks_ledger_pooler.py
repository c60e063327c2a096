"""The ledger on PostgreSQL behind a connection pooler: every call is answered, and a commit wakes the other programs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bot.cli import store
from storage.errors import LedgerError
from storage.ledger import Ledger
from tests.conftest import had
from tests.open_faults import require
from tests.servers import pgbouncer
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgresql import PostgresServer

KEEPER, KEEPER_PASSWORD = "keeper", "KeeperSecret0Ledger"
ROUNDS, PROGRAMS, WORKERS = 12, 3, 6
LISTENS_WITHIN, WAKES_WITHIN, QUIET = 60.0, 10.0, 0.5
numbers = count(1)


@pytest.fixture(scope="module")
def ledger_server_of_the_pooler(postgresql15: PostgresServer) -> PostgresServer:
    with postgresql15.admin() as c:
        c.execute(f"CREATE ROLE {KEEPER} LOGIN PASSWORD '{KEEPER_PASSWORD}'".encode())
    return postgresql15


@pytest.fixture(scope="module", params=["session", "transaction"])
def pooler(request: pytest.FixtureRequest, ledger_server_of_the_pooler: PostgresServer) -> Iterator[PgBouncer]:
    yield from had(lambda: pgbouncer.start(ledger_server_of_the_pooler, request.param, users={KEEPER: KEEPER_PASSWORD}))


@pytest.fixture
def ledger_url(ledger_server_of_the_pooler: PostgresServer, pooler: PgBouncer) -> str:
    database = f"kept_{pooler.mode}_{next(numbers)}"
    with ledger_server_of_the_pooler.admin() as c:
        c.execute(f"CREATE DATABASE {database} OWNER {KEEPER}".encode())
    return pooler.url(KEEPER, KEEPER_PASSWORD, database).replace("postgresql://", "postgresql+psycopg://")


@asynccontextmanager
async def programs(url: str, how_many: int) -> AsyncIterator[list[Ledger]]:
    """So many on one store, the first of which makes it."""
    opened = [Ledger(url) for _ in range(how_many)]
    try:
        for number, ledger in enumerate(opened):
            await ledger.open(create=number == 0)
        yield opened
    finally:
        for ledger in opened:
            await ledger.close()


async def assert_answers(ledger: Ledger, name: str) -> None:
    for number in range(ROUNDS):
        await ledger.observations.set_cursor(name, number)
        assert await ledger.observations.cursor(name) == number
        await ledger.tasks.claim(name, timedelta(seconds=5))
        await ledger.requests.live_grants()
        await ledger.tasks.next_due()


async def test_every_call_is_answered(ledger_url: str) -> None:
    """Statements that the driver prepared on one connection of the pooler would be missing on the next."""
    async with programs(ledger_url, PROGRAMS) as opened:
        await asyncio.gather(*(assert_answers(opened[n % PROGRAMS], f"worker {n}") for n in range(WORKERS)))


async def test_the_pooler_is_found(
    ledger_url: str, ledger_server_of_the_pooler: PostgresServer, tmp_path: Path
) -> None:
    direct = ledger_server_of_the_pooler.superuser_url("postgres").replace("postgresql://", "postgresql+psycopg://")
    for url, is_pooled in ((ledger_url, True), (direct, False), (f"sqlite+aiosqlite:///{tmp_path}/ledger.db", False)):
        ledger = Ledger(url)
        assert await ledger.is_behind_pooler() == is_pooled
        await ledger.close()


async def test_check_names_the_pooler(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBACCESS_STORE_URL", ledger_url)
    for command in ("upgrade", "check"):
        answer = await asyncio.to_thread(CliRunner().invoke, store.app, [command])
        assert answer.exit_code == 0
    assert "A connection pooler is in front of it." in answer.output


async def is_woken_by(waiting: Ledger, other: Ledger) -> bool:
    """Whether a commit of ``other`` is news to ``waiting``, which listens and has heard of all before.

    The server itself may commit meanwhile (autovacuum). Behind a pooler that wakes the ledger too, so there may be any number of wakes before.
    """
    require(await waiting.wait_for_commit(LISTENS_WITHIN), "whoever begins to listen is woken once")
    while await waiting.wait_for_commit(QUIET):
        pass
    await other.observations.set_cursor("news", 1)
    return await waiting.wait_for_commit(WAKES_WITHIN)


async def is_refused(url: str) -> bool:
    """A pooler that the ledger cannot rely on may be refused by name."""
    try:
        async with programs(url, 1):
            return False
    except LedgerError:
        return True


@pytest.mark.parametrize("pooler", ["session"], indirect=True)
async def test_a_commit_wakes_another_program(ledger_url: str) -> None:
    async with programs(ledger_url, 2) as (waiting, other):
        assert await is_woken_by(waiting, other)


@pytest.mark.parametrize("pooler", ["transaction"], indirect=True)
async def test_a_commit_wakes_another_program_or_the_pooler_is_refused(ledger_url: str) -> None:
    if await is_refused(ledger_url):
        return
    async with programs(ledger_url, 2) as (waiting, other):
        assert await is_woken_by(waiting, other)
