"""Fixtures of the ledger's tests: the same suite on a SQLite file and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count
from pathlib import Path

import pytest

from storage.ledger import Ledger
from tests.servers.postgresql import PostgresServer
from tests.unit.ledgers import TurnableClock, open_ledger

numbers = count(1)


@pytest.fixture(scope="session")
def ledger_server(postgresql15: PostgresServer) -> tuple[PostgresServer, str]:
    """One database for all tests. Each test gets an empty schema in it, which is faster than a new database."""
    return postgresql15, postgresql15.new_database("ledgers")


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database for one ledger."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    server, database = request.getfixturevalue("ledger_server")
    schema = f"ledger_{next(numbers)}"
    with server.admin(database) as connection:
        connection.execute(f"CREATE SCHEMA {schema}")
    url = server.superuser_url(database).replace("postgresql://", "postgresql+psycopg://")
    return f"{url}?options=-csearch_path%3D{schema}"


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


@pytest.fixture
async def ledger(ledger_url: str, clock: TurnableClock) -> AsyncIterator[Ledger]:
    opened = await open_ledger(ledger_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def replica(ledger_url: str, ledger: Ledger, clock: TurnableClock) -> AsyncIterator[Ledger]:
    """A second Ledger object on the same database, as in another process."""
    opened = await open_ledger(ledger_url, clock)
    assert opened.id == ledger.id
    yield opened
    await opened.close()
