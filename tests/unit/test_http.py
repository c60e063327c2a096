"""The HTTP endpoints: health, readiness with its problems, metrics."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest

from bot.http import CannotListen, HealthServer


class Endpoints:
    def __init__(self) -> None:
        self.problems: dict[str, str] = {}
        self.server = HealthServer(self.readiness, self.metrics)

    async def readiness(self) -> dict[str, str]:
        return self.problems

    async def metrics(self) -> bytes:
        return b"dbaccess_live_grants 0.0\n"

    async def get(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.server.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()


@pytest.fixture
async def endpoints() -> AsyncIterator[Endpoints]:
    found = Endpoints()
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
    assert await endpoints.get("/metrics") == (200, "dbaccess_live_grants 0.0\n")


async def test_port_in_use_is_named(endpoints: Endpoints) -> None:
    second = Endpoints()
    with pytest.raises(CannotListen, match=f"DBACCESS_HTTP_PORT: cannot listen on 127.0.0.1:{endpoints.server.port}"):
        await second.server.start("127.0.0.1", endpoints.server.port)
    await second.server.stop()
