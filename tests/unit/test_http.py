"""The HTTP endpoints: health, readiness with its problems, metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bot.http import CannotListen, HealthServer
from storage.ledger import Ledger


class Endpoints:
    def __init__(self, ledger: Ledger) -> None:
        self.problems: dict[str, str] = {}
        self.server = HealthServer(ledger, self.readiness)

    async def readiness(self) -> dict[str, str]:
        return self.problems

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def ledger(tmp_path: Path) -> AsyncIterator[Ledger]:
    found = Ledger(f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await found.open(create=True)
    yield found
    await found.close()


@pytest.fixture
async def endpoints(ledger: Ledger) -> AsyncIterator[Endpoints]:
    found = Endpoints(ledger)
    await found.server.start("127.0.0.1", 0)
    yield found
    await found.server.stop()


async def test_health_and_readiness_are_reported(endpoints: Endpoints) -> None:
    assert endpoints.server.port > 0
    assert (await endpoints.get("/healthz"))[0] == 200
    assert await endpoints.get("/readyz") == (200, '{"ready": true, "not_well": {}}')
    endpoints.problems["slack"] = "not connected"
    assert await endpoints.get("/readyz") == (503, '{"ready": false, "not_well": {"slack": "not connected"}}')
    assert (await endpoints.get("/healthz"))[0] == 200
    assert (await endpoints.get("/"))[0] == 404


async def test_metrics_are_served(endpoints: Endpoints) -> None:
    status, text = await endpoints.get("/metrics")
    assert status == 200
    for name in ("live_grants", "ending_grants", "overdue_revocations"):
        assert f"dbaccess_{name} 0.0\n" in text


async def test_metrics_fail_without_a_ledger(endpoints: Endpoints, ledger: Ledger, tmp_path: Path) -> None:
    await ledger.close()
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    assert (await endpoints.get("/metrics"))[0] == 503


async def test_port_in_use_is_named(endpoints: Endpoints, ledger: Ledger) -> None:
    second = Endpoints(ledger)
    with pytest.raises(CannotListen, match=f"DBACCESS_HTTP_PORT: cannot listen on 127.0.0.1:{endpoints.server.port}"):
        await second.server.start("127.0.0.1", endpoints.server.port)
    await second.server.stop()
