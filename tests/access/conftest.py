from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.access.house import House


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setenv("HOUSE_ADMIN_URL", "postgresql://bot:HouseAdminSecret@localhost/shop")
    found = House(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await found.open()
    yield found
    await found.close()
