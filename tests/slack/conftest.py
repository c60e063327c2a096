"""The real app, ledger, policy and runner, connected by Socket Mode to the strict fake of Slack. The database server is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.slack.connection import SocketConnection, build_bolt_app, web_client
from bot.slack.directory import SlackDirectory
from bot.slack.messenger import SlackMessenger
from storage.records import Request
from tests.access.environment import ADA, ADMIN, ALERTS, AUDIT, CARDS, LEAD, PEOPLE, SECOND, STRANGER, AccessEnvironment
from tests.fake_slack.server import FakeSlack, running_fake_slack
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN

OUTSIDER, GUEST, GONE, ROBOT = "U0OUTSIDER", "U0GUEST", "U0GONE", "U0ROBOT"


@dataclass
class SlackEnvironment:
    """A workspace with the bot in it."""

    slack: FakeSlack
    environment: AccessEnvironment
    connection: SocketConnection

    async def make_request(self, text: str = "shop readonly 1h looking at a refund", user: str = ADA) -> dict[str, Any]:
        """Send a request command and return the card that it posts."""
        before = len(self.slack.messages(CARDS))
        await self.slack.command(user, f"request {text}")
        cards = await self.slack.wait("a card", lambda: self.slack.messages(CARDS)[before:])
        return dict(cards[0])

    def card(self, ts: str) -> dict[str, Any]:
        return next(m for m in self.slack.messages(CARDS) if m["ts"] == ts)

    async def request(self, request_id: int = 1) -> Request:
        return await self.environment.ledger.requests.get(request_id)

    async def expect_reply(self, user: str, text: str) -> str:
        return str(
            await self.slack.wait(
                f"{user} gets a reply with {text!r}",
                lambda: next((a for a in self.slack.answers(user) if text in a), None),
            )
        )

    async def expect_dm(self, user: str, text: str) -> dict[str, Any]:
        return dict(
            await self.slack.wait(
                f"a DM of {user} has {text!r}",
                lambda: next((m for m in self.slack.dm(user) if text in str(m)), None),
            )
        )

    async def expect_card(self, ts: str, text: str) -> dict[str, Any]:
        return dict(
            await self.slack.wait(
                f"the card has {text!r}", lambda: next((m for m in [self.card(ts)] if text in str(m)), None)
            )
        )


@pytest.fixture
async def slack_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlackEnvironment]:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    environment = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await environment.open()
    environment.clock.run()
    async with running_fake_slack() as slack:
        for person, name in PEOPLE.items():
            slack.workspace.add_person(person, name)
        slack.workspace.add_outsider(OUTSIDER, "outsider")
        slack.workspace.add_person(GUEST, "guest", is_restricted=True)
        slack.workspace.add_person(GONE, "gone", deleted=True)
        slack.workspace.add_person(ROBOT, "robot", is_bot=True)
        for channel, name in ((CARDS, "cards"), (AUDIT, "audit"), (ALERTS, "alerts")):
            slack.workspace.add_channel(channel, name)
        client = web_client(BOT_TOKEN, f"{slack.url}/api/")
        environment.context = replace(
            environment.context, directory=SlackDirectory(client), messenger=SlackMessenger(client)
        )
        environment.runner = Runner(environment.context, JOBS)
        connection, stop = SocketConnection(build_bolt_app(client, environment.context), APP_TOKEN), asyncio.Event()
        tasks = [asyncio.create_task(connection.run(stop)), asyncio.create_task(environment.runner.run(stop))]
        try:
            yield SlackEnvironment(slack, environment, connection)
            assert slack.problems == []
        finally:
            stop.set()
            await asyncio.gather(*tasks)
            await environment.close()


__all__ = ["ADA", "ADMIN", "GONE", "GUEST", "LEAD", "OUTSIDER", "ROBOT", "SECOND", "STRANGER", "SlackEnvironment"]
