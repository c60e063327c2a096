"""Fixtures of the ledger's tests: the same suite on a SQLite file and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from storage.ledger import Ledger
from tests.unit.ledgers import TurnableClock, open_ledger

OpenLedger: TypeAlias = Callable[..., Awaitable[Ledger]]


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty store of its own."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    server = request.getfixturevalue("postgresql15")
    return server.superuser_url(server.new_database("ledger")).replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def clock() -> TurnableClock:
    return TurnableClock()


@pytest.fixture
async def ledger(store_url: str, clock: TurnableClock) -> AsyncIterator[Ledger]:
    opened = await open_ledger(store_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
async def replica(store_url: str, ledger: Ledger, clock: TurnableClock) -> AsyncIterator[Ledger]:
    """A second program on the same store."""
    opened = await open_ledger(store_url, clock)
    assert opened.id == ledger.id
    yield opened
    await opened.close()
