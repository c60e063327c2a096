"""Outages of the real process on a PostgreSQL ledger: it is stopped and started again, also while everything else is down at the start."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from storage.ledger import Ledger
from storage.records import State
from tests.access.environment import ALERTS, AccessEnvironment
from tests.conftest import had
from tests.fake_slack.server import running_fake_slack
from tests.servers import postgresql as servers
from tests.servers.postgresql import PostgresServer, free_port
from tests.slack.test_attacks_process import add_people
from tests.slack.test_stop import PATIENCE, Process


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A server of its own, which the tests stop."""
    yield from had(lambda: servers.start(15))


@pytest.fixture
async def bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: PostgresServer) -> AsyncIterator[Process]:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    store = server.superuser_url(server.new_database()).replace("postgresql://", "postgresql+psycopg://")
    environment = AccessEnvironment(folder=tmp_path, store=store)
    environment.clock.at = datetime.now(UTC)
    await environment.open()
    async with running_fake_slack() as slack:
        add_people(slack)
        found = Process(environment, slack)
        try:
            yield found
        finally:
            if found.process is not None:
                found.process.kill()
                found.process.wait()


def not_well(port: int) -> dict[str, str]:
    """What /readyz names; ``http`` where nothing answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=20) as answer:
            found: dict[str, str] = json.load(answer)["not_well"]
    except urllib.error.HTTPError as no:
        found = json.load(no)["not_well"]
    except (urllib.error.URLError, OSError):
        found = {"http": "no answer"}
    return found


def metrics(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


async def until_named(port: int, *names: str) -> dict[str, str]:
    """Wait until /readyz names exactly these components."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while set(found := await asyncio.to_thread(not_well, port)) != set(names):
        assert asyncio.get_running_loop().time() < deadline, found
        await asyncio.sleep(0.1)
    return found


async def state_of(bot: Process, request_id: int) -> State:
    """Read on a connection of its own."""
    ledger = Ledger(bot.environment.store)
    await ledger.open(create=False)
    try:
        return (await ledger.requests.get(request_id)).state
    finally:
        await ledger.close()


async def until_over(bot: Process, request_id: int) -> None:
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while await state_of(bot, request_id) is not State.REVOKED:
        assert asyncio.get_running_loop().time() < deadline, bot.output.read_text()[-3000:]
        await asyncio.sleep(0.2)


async def grant(bot: Process, *, minutes_ago: float) -> int:
    """A grant of one hour that began some time ago."""
    environment = bot.environment
    environment.clock.at = datetime.now(UTC) - timedelta(minutes=minutes_ago)
    request = await environment.granted()
    await environment.close()
    return request.id


async def test_bot_that_starts_while_everything_is_down_recovers_by_itself(
    bot: Process, server: PostgresServer
) -> None:
    """The ledger, Slack, and then the database are down."""
    request_id, port = await grant(bot, minutes_ago=65), free_port()
    bot.slack.failures["auth.test"] += [503] * 3
    server.stop()
    bot.start(DBACCESS_HTTP_PORT=str(port), DOWN_SECONDS="8")
    assert (await until_named(port, "store", "slack"))["store"] == "is being opened"
    await bot.says("ledger_unavailable")
    assert bot.process is not None
    assert bot.process.poll() is None, "it stays up"
    server.start()
    await until_over(bot, request_id)
    await until_named(port)
    assert bot.slack.messages(ALERTS), "an alert said that its database did not answer"


async def test_ledger_that_is_stopped_and_started_again(bot: Process, server: PostgresServer) -> None:
    request_id, port = await grant(bot, minutes_ago=59.7), free_port()
    bot.start(DBACCESS_HTTP_PORT=str(port), OUTAGE_SECONDS="1")
    await until_named(port)
    server.stop()
    assert "cannot be written" in (await until_named(port, "store"))["store"]
    assert "dbaccess_ledger_reachable 0.0" in await asyncio.to_thread(metrics, port)
    await asyncio.sleep(20)  # the end comes meanwhile
    server.start()
    await until_over(bot, request_id)
    await until_named(port)
    await bot.slack.wait("the outage is told", lambda: "could not be written" in str(bot.slack.messages(ALERTS)))
