"""The system that is measured: the real bot as a process, the fake Slack, a private PostgreSQL 15 as target, and the ledger."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.ledger import LedgerReader
from benchmarks.slack import TimedSlack, TooLate, running_slack, until
from bot.policy.model import LimitsEntry
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, build
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.servers import postgresql
from tests.servers.postgresql import PostgresServer, free_port

REQUESTERS = tuple(f"U0R{n:03}" for n in range(100))
LEADS = tuple(f"U0L{n:03}" for n in range(64))
ADMIN, APPROVERS = "U0ADMIN", "S0LEADS"
FIVE_GROUPS = "U0FIVE"
"""The requester whose requests five groups may approve."""
CHANNELS = tuple(f"C0CARDS{n:02}" for n in range(16))
"""Each rule has its own: Slack takes one message a second in a channel."""
AUDIT, ALERTS = "C0AUDIT", "C0ALERTS"
FAST_SERVER = """
log_statement = 'none'
log_min_duration_statement = -1
log_connections = off
max_connections = 1300
shared_buffers = 128MB
log_line_prefix = '%p %d %a '
"""
STOP_SECONDS = 60
TICKS = os.sysconf("SC_CLK_TCK")


def new_server(extra: str = "") -> PostgresServer:
    """A PostgreSQL 15 that loses nothing when the power fails, as in production."""
    return postgresql.start(15, extra=FAST_SERVER + extra, fsync=True)


@dataclass
class World:
    """One bot with one ledger. ``databases`` and ``admin_urls`` may get further databases before ``start_bot``."""

    folder: Path
    slack: TimedSlack
    server: PostgresServer
    harness: EngineHarness
    ledger: LedgerReader
    port: int
    databases: dict[str, Any]
    admin_urls: dict[str, str]
    environment: dict[str, str] = field(default_factory=dict)
    bot: subprocess.Popen[bytes] | None = None

    @property
    def prefix(self) -> str:
        return self.harness.prefix

    @property
    def pid(self) -> int:
        assert self.bot is not None, "the bot runs"
        return self.bot.pid

    # The bot.

    def _environment(self) -> dict[str, str]:
        base = {k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "DBACCESS_"))}
        return {
            **base,
            "SLACK_BOT_TOKEN": BOT_TOKEN,
            "SLACK_APP_TOKEN": APP_TOKEN,
            "SLACK_API_URL": f"{self.slack.url}/api/",
            "DBACCESS_CONFIG": str(self.folder / "config"),
            "DBACCESS_STORE_URL": self.ledger.store_url,
            "DBACCESS_HTTP_PORT": str(self.port),
            "DBACCESS_USER_PREFIX": self.prefix,
            "DBACCESS_LOG": "json",
            **self.admin_urls,
            **self.environment,
        }

    async def start_bot(self, *, wait_ready: bool = True) -> None:
        """Start the bot, and wait until it is ready, or only until it is connected to Slack."""
        write_config(self.folder / "config", self.databases)
        with (self.folder / "bot.log").open("ab") as log:
            self.bot = await asyncio.to_thread(
                subprocess.Popen,
                [sys.executable, "-m", "bot.cli", "run"],
                stdout=log,
                stderr=log,
                env=self._environment(),
                cwd=self.folder,
            )
        if not wait_ready:
            await until("the bot is connected", lambda: self.slack.is_connected)
            return
        for _ in range(600):
            if await asyncio.to_thread(self._is_ready):
                return
            await asyncio.sleep(0.1)
        raise TooLate(f"the bot is not ready: {self.log_text()[-2000:]}")

    def _is_ready(self) -> bool:
        assert self.bot is not None, "just started"
        if self.bot.poll() is not None:
            raise TooLate(f"the bot has stopped: {self.log_text()[-2000:]}")
        with suppress(urllib.error.URLError, OSError):
            return bool(self.readyz()["ready"])
        return False

    def readyz(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
            return dict(json.load(answer))

    async def stop_bot(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop the bot, by force where it takes too long."""
        if self.bot is None:
            return
        self.bot.send_signal(how)
        try:
            await asyncio.to_thread(self.bot.wait, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.bot.kill()
            await asyncio.to_thread(self.bot.wait)
        self.bot = None

    async def restart_bot(self) -> None:
        """A bot that has used up none of its turns to send messages to Slack."""
        await self.until_idle()
        await self.stop_bot()
        await self.start_bot()

    async def command_line(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run ``dbaccess`` with these arguments, with the settings of the bot."""
        command = [sys.executable, "-m", "bot.cli", *arguments]
        return await asyncio.to_thread(
            subprocess.run,
            command,
            capture_output=True,
            text=True,
            check=False,
            env=self._environment(),
            cwd=self.folder,
        )

    def log_text(self) -> str:
        return (self.folder / "bot.log").read_text(errors="replace")

    # What the operating system knows of the bot.

    def processor_seconds(self) -> float:
        """The processor time that the bot has used: all its threads, user and system."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def resident_megabytes(self) -> float:
        status = Path(f"/proc/{self.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) / 1024

    # The state after a measurement.

    async def until_idle(self, seconds: float = 300, *, ahead: float = 0.0) -> None:
        """Wait until no task is due, so that the next figure measures only its own work.

        ``ahead``: nor in the next so many seconds. A message whose turn at Slack has not come is a task that is due later.
        """
        await until("no task is due", lambda: self.ledger.due_tasks(ahead) == 0, seconds, pause=0.2)
        await asyncio.sleep(0.3)


def write_config(folder: Path, databases: dict[str, Any]) -> None:
    """Sixteen rules, each for some of the requesters and with a channel of its own. A group approves."""
    folder.mkdir(exist_ok=True)
    plenty = dict.fromkeys(LimitsEntry.model_fields, 1_000_000)
    rules = [
        {
            "name": f"team {n}", "requesters": list(REQUESTERS[n :: len(CHANNELS)]), "databases": ["*"], "levels": ["*"],
            "channel": channel, "max_duration": "8h", "approvals": [{"from": [APPROVERS]}],
        }
        for n, channel in enumerate(CHANNELS)
    ]  # fmt: skip
    five = {
        "name": "five groups",
        "requesters": [FIVE_GROUPS],
        "approvals": [{"from": [f"{APPROVERS}{n}" for n in range(5)]}],
    }
    rules.append({**rules[0], **five})
    policy = {"admins": [ADMIN], "audit_channel": AUDIT, "alert_channel": ALERTS, "limits": plenty, "rules": rules}
    for name, content in (("databases", {"databases": databases}), ("policy", policy)):
        (folder / f"{name}.yml").write_text(yaml.safe_dump(json.loads(json.dumps(content))))


def database_entry(harness: EngineHarness, variable: str) -> dict[str, Any]:
    levels = {"readonly": {"roles": ["shop_reader"], "description": "Read every table of the shop schema"}}
    return {"engine": "postgresql", "admin_url": f"env:{variable}", "admin_role": harness.owner, "levels": levels}


def admin_url(harness: EngineHarness) -> str:
    return harness.server.url(harness.bot, BOT_PASSWORD, harness.database)


def fill_workspace(slack: TimedSlack) -> None:
    slack.workspace.members_page = 1000  # as Slack's
    for person in (*REQUESTERS, FIVE_GROUPS, *LEADS, ADMIN):
        slack.workspace.add_person(person, person.lower())
    slack.workspace.add_group(APPROVERS, "leads", *LEADS)
    for n in range(5):
        slack.workspace.add_group(f"{APPROVERS}{n}", f"leads{n}", *LEADS)
    for channel in (*CHANNELS, AUDIT, ALERTS):
        slack.workspace.add_channel(channel, channel.lower())


@asynccontextmanager
async def running_world(server: PostgresServer, *, ledger: str = "sqlite") -> AsyncIterator[World]:
    """A world whose bot is not started yet. Nothing of it is left afterwards, except databases and roles on the server."""
    with tempfile.TemporaryDirectory(prefix="dbaccess-figures-") as name:
        folder, harness = Path(name), build(server)
        reader = LedgerReader.sqlite(folder / "ledger.db") if ledger == "sqlite" else LedgerReader.postgresql(server)
        async with running_slack() as slack:
            fill_workspace(slack)
            world = World(
                folder=folder, slack=slack, server=server, harness=harness, ledger=reader, port=free_port(),
                databases={"shop": database_entry(harness, "SHOP_ADMIN_URL")}, admin_urls={"SHOP_ADMIN_URL": admin_url(harness)},
            )  # fmt: skip
            try:
                if ledger != "sqlite":
                    await world.command_line("store", "upgrade")
                yield world
            finally:
                await world.stop_bot()
                reader.close()
