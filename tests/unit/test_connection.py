"""The supervised connection ends only if Slack refuses a token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from slack_bolt.async_app import AsyncApp

from bot.slack import connection
from bot.slack.connection import SocketConnection, TokenRefused, shared_connections, web_client
from tests.unit.stub_web_api import AUTH_TEST, StubWebApi, stub_web_api
from tests.unit.test_messenger import INVALID_ANSWERS


@pytest.fixture
async def slack(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StubWebApi]:
    monkeypatch.setattr(connection, "RETRY_SECONDS", 0.01)
    async with stub_web_api() as stub:
        yield stub


def connection_to(slack: StubWebApi) -> SocketConnection:
    return SocketConnection(AsyncApp(client=web_client("xoxb-1", slack.url)), "xapp-1")


@pytest.mark.parametrize("method", ["auth.test", "apps.connections.open"])
@pytest.mark.parametrize(
    "answer", [{"ok": False, "error": "internal_error"}, {"ok": False, "error": "ratelimited"}, *INVALID_ANSWERS]
)
async def test_connection_is_retried_after_every_temporary_failure(
    slack: StubWebApi, method: str, answer: object
) -> None:
    slack.answers |= {"auth.test": AUTH_TEST, method: answer}
    stop, connected = asyncio.Event(), connection_to(slack)
    running = asyncio.create_task(connected.run(stop))
    async with asyncio.timeout(120):
        while slack.times(method) < 3 and not running.done():
            await asyncio.sleep(0.01)
    assert not running.done(), running
    assert not connected.is_connected
    stop.set()
    await running


@pytest.mark.parametrize(
    ("method", "variable"), [("auth.test", "SLACK_BOT_TOKEN"), ("apps.connections.open", "SLACK_APP_TOKEN")]
)
@pytest.mark.parametrize("code", ["invalid_auth", "token_revoked", "account_inactive", "not_allowed_token_type"])
async def test_refused_token_ends_the_connection(slack: StubWebApi, method: str, variable: str, code: str) -> None:
    slack.answers |= {"auth.test": AUTH_TEST, method: {"ok": False, "error": code}}
    async with asyncio.timeout(120):
        with pytest.raises(TokenRefused, match=f"{variable}: Slack refused it .{code}."):
            await connection_to(slack).run(asyncio.Event())
    assert slack.times(method) == 1


async def test_calls_of_the_running_bot_share_a_connection(slack: StubWebApi) -> None:
    client = web_client("xoxb-1", slack.url)
    async with shared_connections(client):
        for _ in range(3):
            await client.auth_test()
    assert len(set(slack.peers)) == 1
    await client.auth_test()
    assert len(set(slack.peers)) == 2, "after the block, each call has its own again"


async def test_calls_that_hang_keep_no_other_call_waiting(slack: StubWebApi) -> None:
    client = web_client("xoxb-1", slack.url)
    slack.answers["chat.postMessage"], slack.hangs = {"ok": True}, {"chat.postMessage"}
    async with shared_connections(client), asyncio.timeout(120):
        hanging = [asyncio.create_task(client.chat_postMessage(channel="C1", text="x")) for _ in range(150)]
        while slack.times("chat.postMessage") < 150:
            await asyncio.sleep(0.01)
        assert (await client.auth_test())["ok"]
        assert not any(one.done() for one in hanging)
        slack.is_over.set()
        await asyncio.gather(*hanging)
