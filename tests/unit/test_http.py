"""Health endpoints, asked over HTTP: alive, ready or what keeps it from that, figures."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from bot.http import CannotListen, HealthServer
from storage.ledger import Ledger


class Place:
    def __init__(self, ledger: Ledger) -> None:
        self.wrong: dict[str, str] = {}
        self.server = HealthServer(ledger, self.not_well)

    async def not_well(self) -> dict[str, str]:
        return self.wrong

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
async def place(ledger: Ledger) -> AsyncIterator[Place]:
    found = Place(ledger)
    await found.server.start("127.0.0.1", 0)
    yield found
    await found.server.stop()


async def test_alive_ready_and_not(place: Place) -> None:
    assert place.server.port > 0
    assert (await place.get("/healthz"))[0] == 200
    assert await place.get("/readyz") == (200, '{"ready": true, "not_well": {}}')
    place.wrong["slack"] = "not connected"
    assert await place.get("/readyz") == (503, '{"ready": false, "not_well": {"slack": "not connected"}}')
    assert (await place.get("/healthz"))[0] == 200
    assert (await place.get("/"))[0] == 404


async def test_figures(place: Place) -> None:
    status, text = await place.get("/metrics")
    assert status == 200
    for name in ("live_grants", "ending_grants", "overdue_revocations"):
        assert f"dbaccess_{name} 0.0\n" in text


async def test_figures_without_a_store(place: Place, ledger: Ledger, tmp_path: Path) -> None:
    await ledger.close()
    for file in tmp_path.glob("ledger.db*"):
        file.unlink()
    assert (await place.get("/metrics"))[0] == 503


async def test_a_taken_port_is_named(place: Place, ledger: Ledger) -> None:
    second = Place(ledger)
    with pytest.raises(CannotListen, match=f"DBACCESS_HTTP_PORT: cannot listen on 127.0.0.1:{place.server.port}"):
        await second.server.start("127.0.0.1", place.server.port)
    await second.server.stop()
