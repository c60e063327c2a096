from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.access.fake_engine import FakeServer
from tests.access.hanging import Quarter
from tests.access.house import House


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("HOUSE_ADMIN_URL", "postgresql://bot:HouseAdminSecret@localhost/shop")
    found = House(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await found.open()
    yield found
    await found.close()


@pytest.fixture
async def quarter(house: House, monkeypatch: pytest.MonkeyPatch) -> Quarter:
    for n in range(20):
        monkeypatch.setenv(f"FAR{n}", f"mysql://bot:FarAdminSecret@localhost/far{n}")
    return Quarter(house, FakeServer(clock=house.clock, identity="far-1"))
