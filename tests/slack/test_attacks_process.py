"""The real process with a ledger file that has unreadable rows, cannot be written, or is gone."""

from __future__ import annotations

import asyncio
import os
import resource
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from pydantic import SecretStr

from bot.app import App
from bot.settings import Settings
from tests.access.environment import ADA, ADMIN, ALERTS, AUDIT, CARDS, LEAD, PEOPLE, AccessEnvironment
from tests.fake_slack.server import FakeSlack, running_fake_slack
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.open_faults import require
from tests.servers.postgresql import free_port
from tests.unit.ledgers import make_ledger

DETECTION_SECONDS = 10.0
"""Seconds within which a repeated check must notice the problem. An open fault costs this much time."""

DATABASES = {
    "databases": {"shop": {"engine": "postgresql", "admin_url": "env:SHOP_URL", "levels": {"readonly": {"roles": ["r"]}}}}
}  # fmt: skip
POLICY = {
    "admins": [ADMIN], "alert_channel": ALERTS, "audit_channel": AUDIT, "defaults": {"channel": CARDS},
    "rules": [{"name": "shop", "requesters": [ADA], "databases": ["shop"], "levels": ["*"], "approvals": [{"from": [LEAD, ADMIN]}]}],
}  # fmt: skip
UNKNOWN_TASK = """
INSERT INTO tasks (kind, lock_key, request_id, payload, due_at, created_at, attempts, priority, pool)
VALUES ('digest', 'slack:digest', NULL, '{}', '2020-01-01 00:00:00.000000', '2020-01-01 00:00:00.000000', 0, 0, 'slack')
"""


@dataclass
class Bot:
    """``dbaccess run`` as a process. Its output is discarded, because the limit on its files would also limit a log file."""

    folder: Path
    slack: FakeSlack
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def env(self) -> dict[str, str]:
        return {
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "DBACCESS_"))},
            "SLACK_BOT_TOKEN": BOT_TOKEN,
            "SLACK_APP_TOKEN": APP_TOKEN,
            "SLACK_API_URL": f"{self.slack.url}/api/",
            "DBACCESS_CONFIG": str(self.folder),
            "DBACCESS_STORE_URL": f"sqlite+aiosqlite:///{self.folder}/ledger.db",
            "DBACCESS_HTTP_PORT": str(self.port),
            "SHOP_URL": "postgresql://u:p@127.0.0.1:1/shop",
        }

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def begin(self) -> None:
        make_ledger(self.env["DBACCESS_STORE_URL"])
        command = [sys.executable, "-m", "bot.cli", "run"]
        self.process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.env, cwd=self.folder
        )

    async def start(self) -> None:
        self.begin()
        require(await self.comes(self.ready, 60), "the bot is ready")

    async def ready(self) -> bool:
        """Whether /readyz answers 200."""
        with suppress(aiohttp.ClientError, TimeoutError):
            async with aiohttp.request(
                "GET", f"http://127.0.0.1:{self.port}/readyz", timeout=aiohttp.ClientTimeout(total=10)
            ) as answer:
                return answer.status == 200
        return False

    async def comes(self, check: Any, seconds: float = DETECTION_SECONDS) -> bool:
        """Whether ``check`` is true within that time."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not await check():
            if asyncio.get_running_loop().time() > deadline or not self.is_running:
                return False
            await asyncio.sleep(0.1)
        return True

    def sql(self, statement: str) -> None:
        ledger = sqlite3.connect(self.folder / "ledger.db", timeout=30)
        with ledger:
            ledger.execute(statement)
        ledger.close()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


def add_people(slack: FakeSlack) -> None:
    for person, name in PEOPLE.items():
        slack.workspace.add_person(person, name)
    for channel, name in ((CARDS, "cards"), (AUDIT, "audit"), (ALERTS, "alerts")):
        slack.workspace.add_channel(channel, name)


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    (tmp_path / "databases.yml").write_text(yaml.safe_dump(DATABASES))
    (tmp_path / "policy.yml").write_text(yaml.safe_dump(POLICY))
    async with running_fake_slack() as slack:
        add_people(slack)
        found = Bot(tmp_path, slack, free_port())
        try:
            yield found
        finally:
            found.stop()


async def exits_within(bot: Bot, seconds: float = DETECTION_SECONDS) -> bool:
    """Whether the process exits within that time."""
    deadline = asyncio.get_running_loop().time() + seconds
    while bot.is_running and asyncio.get_running_loop().time() < deadline:
        await asyncio.sleep(0.05)
    return not bot.is_running


# Unreadable rows (R9).


async def test_process_survives_a_task_of_unknown_kind(bot: Bot) -> None:
    await bot.start()
    bot.sql(UNKNOWN_TASK)
    await bot.slack.command(ADA, "request shop readonly 1h looking at a refund")  # makes it look for tasks

    async def works() -> bool:
        return bool(bot.slack.messages(CARDS))

    assert await bot.comes(works, 30)
    assert not await exits_within(bot, 1.0)


async def test_process_starts_with_a_task_of_unknown_kind(bot: Bot) -> None:
    await bot.start()
    bot.stop()
    bot.sql(UNKNOWN_TASK)
    bot.begin()
    assert await bot.comes(bot.ready, 30)
    assert not await exits_within(bot, 3.0)


# A full disk (R8).


async def test_full_disk_makes_the_process_unready(bot: Bot) -> None:
    await bot.start()
    await bot.slack.command(ADA, "request shop readonly 1h looking at a refund")
    (card,) = await bot.slack.wait("a card", lambda: bot.slack.messages(CARDS))
    assert bot.process is not None
    resource.prlimit(bot.process.pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    await bot.slack.click(LEAD, card, "Approve")
    await bot.slack.wait("an answer", lambda: bot.slack.answers(LEAD))
    require("Reference" in str(bot.slack.answers(LEAD)), "the click could not be recorded")

    async def not_ready() -> bool:
        return not await bot.ready()

    assert await bot.comes(not_ready)
    assert bot.is_running


# A lost ledger (R10).


@asynccontextmanager
async def running_app(environment: AccessEnvironment, slack: FakeSlack) -> AsyncIterator[asyncio.Task[None]]:
    """Run the app with the files, ledger and server of the test environment."""
    settings = Settings(
        slack_bot_token=SecretStr(BOT_TOKEN),
        slack_app_token=SecretStr(APP_TOKEN),
        slack_api_url=f"{slack.url}/api/",
        config=environment.folder,
        store_url=SecretStr(environment.store),
        http_port=free_port(),
    )
    app = App(settings)
    app.context = app.runner.context = replace(app.context, engines=environment.engines)
    life = asyncio.create_task(app.run())
    try:
        yield life
    finally:
        app.stop.set()
        await asyncio.wait({life}, timeout=30)
        if life.done():
            life.exception()


@pytest.fixture
async def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AccessEnvironment]:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    found = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await found.open()
    yield found
    await found.close()


async def test_lost_ledger_is_not_recreated_while_its_users_exist(environment: AccessEnvironment) -> None:
    await environment.granted()
    await environment.ledger.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{environment.ledger.database.path}{suffix}").unlink(missing_ok=True)
    async with running_fake_slack() as slack:
        add_people(slack)
        async with running_app(environment, slack) as life:
            for _ in range(200):
                if life.done() or slack._sockets:
                    break
                await asyncio.sleep(0.05)
            assert not environment.ledger.database.path.exists()
            assert life.done(), "the bot does not start"
