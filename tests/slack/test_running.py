"""The readiness of the whole process, and starts that fail."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import yaml
from pydantic import SecretStr

from bot.app import App, CannotStart
from bot.settings import Settings
from storage.errors import LedgerUnavailable
from storage.ledger import Ledger
from tests.fake_slack.server import FakeSlack, running_fake_slack
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.servers.postgresql import free_port
from tests.unit.ledgers import make_ledger

DATABASES = {
    "databases": {
        "shop": {"engine": "postgresql", "admin_url": "env:NOWHERE_URL", "levels": {"readonly": {"roles": ["reader"]}}}
    }
}
POLICY = {
    "defaults": {"channel": "C0CARDS"},
    "rules": [
        {
            "name": "x",
            "requesters": ["U0ADA"],
            "databases": ["shop"],
            "levels": ["*"],
            "approvals": [{"from": ["U0LEAD", "U0TWO"]}],
        }
    ],
}


def build_app(
    folder: Path, slack: FakeSlack, *, bot: str = BOT_TOKEN, token: str = APP_TOKEN, has_ledger: bool = True
) -> App:
    if has_ledger:
        make_ledger(f"sqlite+aiosqlite:///{folder}/l.db")
    (folder / "databases.yml").write_text(yaml.safe_dump(DATABASES))
    (folder / "policy.yml").write_text(yaml.safe_dump(POLICY))
    return App(
        Settings(
            slack_bot_token=SecretStr(bot),
            slack_app_token=SecretStr(token),
            slack_api_url=f"{slack.url}/api/",
            config=folder,
            store_url=SecretStr(f"sqlite+aiosqlite:///{folder}/l.db"),
            http_port=free_port(),
        )
    )


async def readiness(found: App) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session:
        for path in ("healthz", "metrics"):
            async with session.get(f"http://127.0.0.1:{found.settings.http_port}/{path}") as answer:
                assert answer.status == 200
        async with session.get(f"http://127.0.0.1:{found.settings.http_port}/readyz") as answer:
            return answer.status, await answer.json()


async def wait_until_ready(found: App) -> None:
    async with asyncio.timeout(120):
        while not await is_ready(found):
            await asyncio.sleep(0.02)


async def is_ready(found: App) -> bool:
    try:
        return (await readiness(found))[0] == 200
    except aiohttp.ClientError:
        return False


async def test_readyz_names_what_is_wrong(tmp_path: Path) -> None:
    async with running_fake_slack() as slack:
        found = build_app(tmp_path, slack)
        life = asyncio.create_task(found.run())
        await wait_until_ready(found)
        await slack.drop_sockets()
        (tmp_path / "policy.yml").write_text("rules: [")
        found.context.files.refresh()
        slack.failures["apps.connections.open"] += [{"error": "fatal_error"}] * 50
        status, body = await readiness(found)
        assert body["not_well"] == {"slack": "not connected"}, "a reload that was refused leaves the bot ready"
        assert status == 503
        found.stop.set()
        await life


@pytest.mark.parametrize(
    ("bot", "token", "text"),
    [
        ("xoxb-wrong", APP_TOKEN, "SLACK_BOT_TOKEN: Slack refused it"),
        (BOT_TOKEN, "xapp-wrong", "SLACK_APP_TOKEN: Slack refused it"),
    ],
)
async def test_refused_token_stops_the_start(tmp_path: Path, bot: str, token: str, text: str) -> None:
    async with running_fake_slack() as slack:
        with pytest.raises(CannotStart, match=text):
            await build_app(tmp_path, slack, bot=bot, token=token).run()


async def test_invalid_files_stop_the_start(tmp_path: Path) -> None:
    async with running_fake_slack() as slack:
        found = build_app(tmp_path, slack)
        (tmp_path / "policy.yml").write_text("rulez: []\n")
        with pytest.raises(CannotStart, match=r"policy\.yml:1: error: rulez: unknown key; did you mean rules\?"):
            await found.run()


@pytest.mark.parametrize("look", ["fails", "finds a pooler"])
async def test_the_look_for_a_pooler_delays_no_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    """It needs a connection of its own. A ledger that has no more connections still ends what is due."""

    async def is_behind_pooler(_ledger: Ledger) -> bool:
        if look == "fails":
            raise LedgerUnavailable("OperationalError")
        return True

    said = list[str]()
    monkeypatch.setattr(Ledger, "is_behind_pooler", is_behind_pooler)
    monkeypatch.setattr("bot.app.log_events.ledger_behind_pooler", lambda: said.append("said"))
    async with running_fake_slack() as slack:
        found = build_app(tmp_path, slack)
        life = asyncio.create_task(found.run())
        await wait_until_ready(found)
        found.stop.set()
        await life
    assert said == ([] if look == "fails" else ["said"])
