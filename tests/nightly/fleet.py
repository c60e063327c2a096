"""Real bot processes with one ledger, between the fake Slack and real servers. Each link goes through a proxy."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import Engine, create_engine, select

from bot.policy.model import LimitsEntry
from storage.audit_kinds import AuditKind
from storage.schema import audit_events
from tests.contract.postgresql import harness as postgresql_harness
from tests.contract.redis import harness as redis_harness
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.nightly.proxy import Proxy, running_proxy
from tests.nightly.slack import NightSlack, running_night_slack
from tests.servers import postgresql, redis
from tests.servers.postgresql import PostgresServer, free_port
from tests.servers.redis import RedisServer

REQUESTERS = tuple(f"U0R{n:03}" for n in range(300))
LEADS = tuple(f"U0L{n:03}" for n in range(60))
ADMIN, GROUP = "U0ADMIN", "S0LEADS"
CHANNELS = tuple(f"C0CARDS{n:02}" for n in range(20))
"""Each rule has its own: Slack takes one message a second in a channel."""
AUDIT, ALERTS = "C0AUDIT", "C0ALERTS"
READY_SECONDS = 90.0
QUIET_SERVER = """
log_statement = 'none'
log_min_duration_statement = -1
log_connections = off
max_connections = 600
"""


@dataclass(frozen=True)
class Servers:
    """The servers that all runs share."""

    postgresql: PostgresServer
    redis: RedisServer


@contextmanager
def running_servers() -> Iterator[Servers]:
    database = postgresql.start(15, extra=QUIET_SERVER)
    try:
        cache = redis.start()
        try:
            yield Servers(database, cache)
        finally:
            cache.remove()
    finally:
        database.remove()


@dataclass(frozen=True)
class Outage:
    """One kill of one bot. Times are of ``time.time``. ``ready_at`` is infinite while the bot is down."""

    bot: int
    killed_at: float
    ready_at: float


@dataclass
class Bot:
    """One process."""

    number: int
    port: int
    log: Path
    process: subprocess.Popen[bytes] | None = None
    killed_at: float | None = None

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None and self.killed_at is None

    def kill(self) -> None:
        """SIGKILL, at once."""
        if self.is_running and self.process is not None:
            self.process.kill()
            self.killed_at = time.time()

    def is_ready(self) -> bool:
        assert self.process is not None, "started"
        if self.process.poll() is not None and self.killed_at is None:
            raise AssertionError(f"bot {self.number} has stopped by itself: {self.log.read_text()[-3000:]}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
                return bool(json.load(answer)["ready"])
        except (urllib.error.URLError, OSError, ValueError):
            return False


@dataclass
class Fleet:
    """The bots and what is around them. ``links`` are the proxies to ``slack``, ``shop``, ``cache``, and ``ledger`` where it is in PostgreSQL."""

    folder: Path
    slack: NightSlack
    servers: Servers
    shop: postgresql_harness.EngineHarness
    cache: redis_harness.EngineHarness
    links: dict[str, Proxy]
    ledger: Engine
    bots: list[Bot]
    store_url: str
    prefix: str
    databases: dict[str, Any] = field(default_factory=dict)
    """Their entries in ``databases.yml``."""
    admin_urls: dict[str, str] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    workers: dict[str, int] = field(default_factory=dict)
    """The number of the bot for each name by which a process claims tasks."""

    # Processes.

    def environment(self, bot: Bot) -> dict[str, str]:
        base = {k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "DBACCESS_"))}
        return {
            **base,
            "SLACK_BOT_TOKEN": BOT_TOKEN,
            "SLACK_APP_TOKEN": APP_TOKEN,
            "SLACK_API_URL": f"http://127.0.0.1:{self.links['slack'].port}/api/",
            "DBACCESS_CONFIG": str(self.folder / "config"),
            "DBACCESS_STORE_URL": self.store_url,
            "DBACCESS_HTTP_PORT": str(bot.port),
            "DBACCESS_USER_PREFIX": self.prefix,
            "DBACCESS_LOG": "json",
            **self.admin_urls,
        }

    def launch(self, bot: Bot) -> None:
        """Start a process, without waiting."""
        with bot.log.open("ab") as log:
            command = [sys.executable, "-m", "bot.cli", "run"]
            bot.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=self.environment(bot), cwd=self.folder, start_new_session=True
            )
        bot.killed_at = None

    async def until_ready(self, bot: Bot) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not await asyncio.to_thread(bot.is_ready):
            if time.monotonic() > deadline:
                raise AssertionError(f"bot {bot.number} is not ready: {bot.log.read_text()[-3000:]}")
            await asyncio.sleep(0.1)

    async def start(self, *bots: Bot) -> None:
        """Start these bots, or all, one after the other, and wait until they are ready."""
        for bot in bots or self.bots:
            self.launch(bot)
            await self.until_ready(bot)
            self.note_worker(bot)

    async def restart(self, bot: Bot) -> None:
        """Start a killed bot again, and note its outage."""
        assert bot.process is not None, "killed, so it was started"
        assert bot.killed_at is not None, "killed"
        await asyncio.to_thread(bot.process.wait)
        killed_at = bot.killed_at
        self.launch(bot)
        await self.until_ready_or_killed(bot)
        self.note_worker(bot)
        self.outages.append(Outage(bot.number, killed_at, time.time()))

    def note_worker(self, bot: Bot) -> None:
        """Bots start one after the other, so an unknown name is that of the bot that started last."""
        query = select(audit_events.c.facts).where(audit_events.c.kind == AuditKind.BOT_STARTED)
        with self.ledger.connect() as connection:
            for (facts,) in connection.execute(query):
                self.workers.setdefault(str(facts["worker"]), bot.number)

    async def until_ready_or_killed(self, bot: Bot) -> None:
        while bot.killed_at is None:
            with suppress(TimeoutError):
                await asyncio.wait_for(self.until_ready(bot), 0.5)
                return

    async def stop(self) -> list[int]:
        """End the bots by SIGTERM. Returns their exit statuses."""
        found = []
        for bot in self.bots:
            if bot.process is not None and bot.process.poll() is None:
                bot.process.terminate()
        for bot in self.bots:
            if bot.process is None:
                continue
            try:
                found.append(await asyncio.to_thread(bot.process.wait, 60))
            except subprocess.TimeoutExpired:
                bot.process.kill()
                found.append(await asyncio.to_thread(bot.process.wait))
        return found

    async def command_line(self, *arguments: str) -> str:
        """The output of ``dbaccess`` with these arguments."""
        command = [sys.executable, "-m", "bot.cli", *arguments]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, check=False,
            env=self.environment(self.bots[0]), cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout[-500:], done.stderr[-2000:])
        return str(done.stdout)

    # Who is who.

    def owner(self, port: int) -> Bot | None:
        """The bot of the connection whose client, or whose peer at Slack, has this port."""
        inodes = set(_inodes(self.links["slack"].clients.get(port, port)))
        for bot in self.bots:
            if bot.is_running and bot.process is not None and inodes & set(_sockets(bot.process.pid)):
                return bot
        return None

    # The servers.

    def users(self) -> set[str]:
        """The temporary users on all servers."""
        with self.shop.superuser("postgres") as connection:
            rows = connection.execute("SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (self.prefix,))
            found = {str(row[0]) for row in rows.fetchall()}
        names = self.servers.redis.run("ACL", "USERS")
        return found | {name for name in names if name.startswith(self.prefix)}

    def sessions(self) -> set[str]:
        """The temporary users that have a session, and those of ended users under another name."""
        with self.shop.superuser("postgres") as connection:
            query = "SELECT usename FROM pg_stat_activity WHERE starts_with(usename, %s) OR starts_with(usename, 'dbaccess_left_')"
            found = {str(row[0]) for row in connection.execute(query, (self.prefix,)).fetchall()}
        clients = str(self.servers.redis.run("CLIENT", "LIST"))
        return found | {name for name in re.findall(r"\buser=(\S+)", clients) if name.startswith(self.prefix)}

    def log_text(self) -> str:
        return "".join(bot.log.read_text(errors="replace") for bot in self.bots if bot.log.exists())


def add_database(fleet: Fleet, name: str, entry: Mapping[str, Any], admin_url: str) -> None:
    """A database that the bots reach through the proxy of this name. Before ``write_config``."""
    variable = f"{name.upper()}_ADMIN_URL"
    fleet.databases[name] = {**entry, "admin_url": f"env:{variable}"}
    fleet.admin_urls[variable] = at_port(admin_url, fleet.links[name].port)


def at_port(url: str, port: int) -> str:
    """The same URL on another port of loopback."""
    head, _, tail = url.partition("@127.0.0.1:")
    return f"{head}@127.0.0.1:{port}{'/' + tail.split('/', 1)[1]}" if "/" in tail else f"{head}@127.0.0.1:{port}"


def _inodes(port: int) -> Iterator[str]:
    """The sockets whose own port this is, in the kernel's table."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rsplit(":", 1)[1], 16) == port:
            yield f"socket:[{fields[9]}]"


def _sockets(pid: int) -> Iterator[str]:
    with suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                yield str(entry.readlink())


def write_config(fleet: Fleet, **changes: Any) -> None:
    """Rules for the requesters, each part with a channel of its own: one click, automatic, and break-glass."""
    folder = fleet.folder / "config"
    folder.mkdir(exist_ok=True)
    size = len(CHANNELS)
    rules: list[dict[str, Any]] = []
    for n, channel in enumerate(CHANNELS):
        people = {"requesters": list(REQUESTERS[n::size]), "databases": ["*"], "levels": ["*"], "channel": channel}
        glass = {"break_glass": True, "review": {"from": [GROUP], "within": "24h"}}
        rules.append({**people, "name": f"break glass {n}", "approvals": [], **glass})
        rules.append({**people, "name": f"team {n}", "approvals": [] if n % 4 == 0 else [{"from": [GROUP]}]})
    policy = {
        "admins": [ADMIN], "audit_channel": AUDIT, "alert_channel": ALERTS, "rules": rules,
        "limits": dict.fromkeys(LimitsEntry.model_fields, 1_000_000), **changes,
    }  # fmt: skip
    for name, content in (("databases", {"databases": fleet.databases}), ("policy", policy)):
        (folder / f"{name}.yml").write_text(yaml.safe_dump(json.loads(json.dumps(content))))


def fill_workspace(slack: NightSlack) -> None:
    for person in (*REQUESTERS, *LEADS, ADMIN):
        slack.workspace.add_person(person, person.lower())
    slack.workspace.add_group(GROUP, "leads", *LEADS)
    for channel in (*CHANNELS, AUDIT, ALERTS):
        slack.workspace.add_channel(channel, channel.lower())


@asynccontextmanager
async def running_fleet(servers: Servers, *, ledger: str, replicas: int = 1) -> AsyncIterator[Fleet]:
    """A fleet whose bots are not started yet. ``ledger``: sqlite or postgresql."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dbaccess-nightly-")))
        slack = await stack.enter_async_context(running_night_slack())
        fill_workspace(slack)
        links = {"slack": slack.port, "shop": servers.postgresql.port, "cache": servers.redis.port}
        if ledger == "postgresql":
            links["ledger"] = servers.postgresql.port
        proxies = {name: await stack.enter_async_context(running_proxy(port)) for name, port in links.items()}
        slack.url = f"http://127.0.0.1:{proxies['slack'].port}"
        store_url, engine = _ledger(servers, folder, proxies.get("ledger"))
        stack.callback(engine.dispose)
        fleet = Fleet(
            folder=folder, slack=slack, servers=servers, shop=postgresql_harness.build(servers.postgresql),
            cache=redis_harness.EngineHarness((servers.redis,)), links=proxies, ledger=engine, store_url=store_url,
            bots=[Bot(n, free_port(), folder / f"bot{n}.log") for n in range(replicas)], prefix=f"n{secrets.token_hex(3)}_",
        )  # fmt: skip
        levels = {"readonly": {"roles": ["shop_reader"]}}
        shop_url = servers.postgresql.url(fleet.shop.bot, postgresql_harness.BOT_PASSWORD, fleet.shop.database)
        add_database(
            fleet, "shop", {"engine": "postgresql", "admin_role": fleet.shop.owner, "levels": levels}, shop_url
        )
        levels = {"readonly": {"roles": ["readonly"]}}
        cache_url = servers.redis.url(fleet.cache.bot, redis_harness.BOT_PASSWORD)
        add_database(fleet, "cache", {"engine": "redis", "levels": levels}, cache_url)
        write_config(fleet)
        await fleet.command_line("store", "upgrade")
        try:
            yield fleet
        finally:
            for bot in fleet.bots:
                bot.kill()
                if bot.process is not None:
                    await asyncio.to_thread(bot.process.wait)


def _ledger(servers: Servers, folder: Path, proxy: Proxy | None) -> tuple[str, Engine]:
    """The store URL of the bots, and a direct way to the same ledger for the test."""
    if proxy is None:
        return f"sqlite+aiosqlite:///{folder}/ledger.db", create_engine(f"sqlite:///{folder}/ledger.db")
    name = servers.postgresql.new_database("ledger")
    url = servers.postgresql.superuser_url(name).replace("postgresql:", "postgresql+psycopg:")
    return at_port(url, proxy.port), create_engine(url, isolation_level="AUTOCOMMIT")
