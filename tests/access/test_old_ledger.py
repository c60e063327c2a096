"""A grant of version 0.1.0 ends under this version: the ledger migrates, and the runner removes the user."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from storage.records import Receipt, ReceiptOutcome, State
from tests.access.environment import BEGIN, HOUR, AccessEnvironment
from tests.access.fake_engine import User
from tests.open_faults import require

DUMP = Path(__file__).parent.parent / "unit" / "ledgers_of_versions" / "0.1.0.sqlite.sql"
LIVE = 5


async def test_live_grant_of_an_old_ledger_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    connection = sqlite3.connect(tmp_path / "ledger.db")
    connection.executescript(DUMP.read_text())
    connection.close()
    environment = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await environment.open()
    grant = await environment.ledger.requests.get(LIVE)
    require(grant.state is State.ACTIVE, "the grant is live in the dump")
    environment.server.users[str(grant.username)] = User(
        password="x", ledger=environment.ledger.id, request_id=LIVE, roles=("reader",), expires_at=BEGIN + 2 * HOUR
    )  # fmt: skip
    await environment.turn(hours=1)
    require(str(grant.username) in environment.server.users, "its end has not come")
    await environment.turn(minutes=6)
    ended = await environment.now(grant)
    assert environment.server.users == {}
    assert ended.state is State.REVOKED
    at = BEGIN + timedelta(minutes=65)
    assert ended.receipt == Receipt(outcome=ReceiptOutcome.VERIFIED, read_back_at=at)
    await environment.close()
