"""The stop of the real process: within its deadline, whatever hangs, and it says what stays live."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from storage.records import State
from tests.access.environment import HOUR, AccessEnvironment
from tests.fake_slack.server import FakeSlack, running_fake_slack
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.servers.postgresql import free_port
from tests.slack.test_attacks_process import add_people

PATIENCE = 120.0
"""In seconds: far above the deadline of the process under test, and far below what hangs."""


class Process:
    """The bot as a process, on the ledger of a test environment."""

    def __init__(self, environment: AccessEnvironment, slack: FakeSlack) -> None:
        self.environment = environment
        self.slack = slack
        self.output = environment.folder / "bot.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, **env: str) -> None:
        folder = self.environment.folder
        base = {k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "DBACCESS_"))}
        with self.output.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.slack.hanging_bot"],
                stdout=log,
                stderr=log,
                cwd=Path(__file__).parents[2],
                env={
                    **base,
                    "SLACK_BOT_TOKEN": BOT_TOKEN,
                    "SLACK_APP_TOKEN": APP_TOKEN,
                    "SLACK_API_URL": f"{self.slack.url}/api/",
                    "DBACCESS_CONFIG": str(folder),
                    "DBACCESS_STORE_URL": self.environment.store,
                    "DBACCESS_HTTP_PORT": str(free_port()),
                    "DBACCESS_LOG": "json",
                    **env,
                },
            )

    async def says(self, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.output.read_text():
            assert time.monotonic() < deadline, f"never said {text!r}: {self.output.read_text()[-3000:]}"
            await asyncio.sleep(0.05)

    async def ends(self, *signals: signal.Signals) -> tuple[int, float]:
        """Send these signals, and wait for the end. Returns the exit status and how many seconds it took."""
        assert self.process is not None
        began = time.monotonic()
        for one in signals:
            self.process.send_signal(one)
            await asyncio.sleep(0.5)
        status = await asyncio.to_thread(self.process.wait, PATIENCE)
        return status, time.monotonic() - began

    def logged(self, event: str) -> dict[str, Any]:
        lines = [json.loads(line) for line in self.output.read_text().splitlines() if line.startswith("{")]
        found = [line for line in lines if line["event"] == event]
        assert found, f"never logged {event}: {lines}"
        return found[0]


@pytest.fixture
async def bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Process]:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    environment = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
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
            await environment.close()


async def with_live_grant(bot: Process, *, is_over: bool) -> int:
    """A live grant in the ledger. ``is_over``: its end has come."""
    environment = bot.environment
    environment.clock.at -= (HOUR + timedelta(minutes=5)) if is_over else timedelta(0)
    request = await environment.granted()
    return request.id


async def test_stop_without_work_is_quick_and_names_what_stays_live(bot: Process) -> None:
    request_id = await with_live_grant(bot, is_over=False)
    bot.start(LIMIT="60")
    await bot.says('"connected"')
    status, seconds = await bot.ends(signal.SIGTERM)
    assert status == 0
    assert seconds < 50
    found = bot.logged("grants_stay_live")
    assert (found["grants"], found["requests"]) == (1, [request_id])
    assert found["enforced"] == "1 grant on FakeSQL: new logins are refused after the end, open sessions stay"
    assert bot.logged("bot_stopped")


@pytest.mark.parametrize("verb", ["drop", "list"], ids=["an end hangs", "the sweep hangs"])
async def test_stop_never_waits_for_a_server_that_hangs(bot: Process, verb: str) -> None:
    request_id = await with_live_grant(bot, is_over=verb == "drop")
    bot.start(HANGS=verb)
    await bot.says("HANGS before")
    status, _ = await bot.ends(signal.SIGTERM)
    assert status == 0
    assert bot.logged("grants_stay_live")["requests"] == [request_id]
    found = await bot.environment.ledger.requests.get(request_id)
    assert found.state is (State.REVOKING if verb == "drop" else State.ACTIVE)
    bot.start()  # the next start ends it
    if verb == "drop":
        await bot.says('"grant_ended"')
        assert (await bot.environment.ledger.requests.get(request_id)).state is State.REVOKED


async def test_stop_never_waits_for_slack_that_hangs(bot: Process) -> None:
    await with_live_grant(bot, is_over=True)
    bot.slack.late["auth.test"] = asyncio.Event()
    bot.start()
    await bot.says('"grant_ended"')
    status, _ = await bot.ends(signal.SIGTERM)
    assert status == 0


async def test_stop_never_waits_for_a_ledger_that_does_not_close(bot: Process) -> None:
    bot.start(HANGS="ledger")
    await bot.says('"connected"')
    assert (await bot.ends(signal.SIGTERM))[0] == 0


async def test_second_signal_stops_at_once(bot: Process) -> None:
    await with_live_grant(bot, is_over=True)
    bot.start(HANGS="drop", LIMIT="500")
    await bot.says("HANGS before")
    status, _ = await bot.ends(signal.SIGTERM, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert bot.logged("bot_stopped_at_once")


async def test_work_in_progress_is_finished_before_the_stop(bot: Process) -> None:
    await with_live_grant(bot, is_over=True)
    bot.start(SLOW="1", LIMIT="60")
    await bot.says("SLOW before drop")
    assert (await bot.ends(signal.SIGTERM))[0] == 0
    assert bot.logged("grant_ended")
