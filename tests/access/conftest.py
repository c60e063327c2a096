from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.access.environment import AccessEnvironment
from tests.access.fake_engine import FakeServer
from tests.access.hanging import HangingServers


@pytest.fixture
async def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AccessEnvironment]:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    found = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await found.open()
    yield found
    await found.close()


@pytest.fixture
async def fleet(environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch) -> HangingServers:
    for n in range(20):
        monkeypatch.setenv(f"FAR{n}", f"mysql://bot:FarAdminSecret@localhost/far{n}")
    return HangingServers(environment, FakeServer(clock=environment.clock, identity="far-1"))
