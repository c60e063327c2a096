"""A bot that cannot start for new grants still ends its live grants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from bot import app as application
from bot.app import App, CannotStart
from bot.http import CannotListen
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.settings import SettingsError
from bot.slack.connection import SocketConnection
from storage.errors import LedgerUnavailable
from storage.ledger import Ledger
from storage.records import Request, State
from tests.access.environment import HOUR, AccessEnvironment
from tests.fake_slack.server import FakeSlack, running_fake_slack
from tests.slack.test_running import build_app

FAILED_QUERIES = 5
"""Number of queries for live grants before the server answers again."""


@pytest.fixture
async def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AccessEnvironment]:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    found = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await found.open()
    yield found
    await found.close()


async def app_with_live_grant(environment: AccessEnvironment, slack: FakeSlack, **settings: Any) -> tuple[App, Request]:
    """Build a bot on the ledger of the test environment, in which a grant has just expired."""
    request = await environment.granted()
    environment.clock.at += HOUR
    found = build_app(environment.folder, slack)
    environment.write()
    found.settings = found.settings.model_copy(update=settings)
    slack_side = {"directory": found.context.directory, "messenger": found.context.messenger}
    found.context = replace(environment.context, **slack_side)  # type: ignore[arg-type]
    found.runner = Runner(found.context, JOBS)
    return found, request


async def assert_ended(environment: AccessEnvironment, request: Request) -> None:
    environment.ledger = Ledger(environment.store, clock=environment.clock)
    await environment.ledger.open(create=False)
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.server.users == {}


@pytest.mark.parametrize("missing", ["slack_bot_token", "slack_app_token"])
async def test_live_grant_ends_before_a_missing_token_is_reported(environment: AccessEnvironment, missing: str) -> None:
    async with running_fake_slack() as slack:
        found, request = await app_with_live_grant(environment, slack, **{missing: None})
        with pytest.raises(SettingsError, match=f"{missing.upper()}: is not set"):
            await found.run()
        await assert_ended(environment, request)


async def test_live_grant_ends_before_a_taken_port_is_reported(
    environment: AccessEnvironment,
) -> None:
    async with running_fake_slack() as slack:
        taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        port = taken.sockets[0].getsockname()[1]
        found, request = await app_with_live_grant(environment, slack, http_port=port)
        with pytest.raises(CannotListen, match=str(port)):
            await found.run()
        taken.close()
        await assert_ended(environment, request)


async def test_live_grant_ends_before_a_refused_token_is_reported(environment: AccessEnvironment) -> None:
    async with running_fake_slack() as slack:
        found, request = await app_with_live_grant(environment, slack, slack_app_token=SecretStr("xapp-wrong"))
        with pytest.raises(CannotStart, match="SLACK_APP_TOKEN: Slack refused it"):
            await found.run()
        await assert_ended(environment, request)


async def test_unexpected_connection_error_does_not_stop_revocations(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object) -> None:
        raise KeyError("url")

    monkeypatch.setattr(SocketConnection, "run", fails)
    async with running_fake_slack() as slack:
        found, request = await app_with_live_grant(environment, slack)
        life = asyncio.create_task(found.run())
        await slack.wait("the user is gone", lambda: not environment.server.users)
        assert not life.done()
        found.stop.set()
        await life
        await assert_ended(environment, request)


async def test_no_ledger_is_created_without_a_token(tmp_path: Path) -> None:
    async with running_fake_slack() as slack:
        found = build_app(tmp_path, slack, has_ledger=False)
        found.settings = found.settings.model_copy(update={"slack_bot_token": None})
        with pytest.raises(SettingsError, match="SLACK_BOT_TOKEN: is not set"):
            await found.run()
        assert not (tmp_path / "l.db").exists()


async def test_bot_that_waits_for_ends_survives_a_ledger_failure(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(application, "RETRY_SECONDS", 0.01)
    async with running_fake_slack() as slack:
        found, request = await app_with_live_grant(environment, slack, slack_bot_token=None)
        environment.server.is_up = False
        live, calls = found.context.ledger.requests.live_grants, list[int]()

        async def sometimes(**which: Any) -> Any:
            calls.append(len(calls))
            if len(calls) in {3, 4}:
                raise LedgerUnavailable("OperationalError")
            if len(calls) > FAILED_QUERIES:
                environment.server.is_up = True
            environment.clock.at += timedelta(seconds=30)
            return await live(**which)

        monkeypatch.setattr(found.context.ledger.requests, "live_grants", sometimes)
        with pytest.raises(SettingsError, match="SLACK_BOT_TOKEN: is not set"):
            await found.run()
        await assert_ended(environment, request)
