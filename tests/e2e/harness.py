"""The test environment: the real bot process between local-slack and a private PostgreSQL server, driven as people drive it."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psycopg
import yaml

from demo import local_slack
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, build
from tests.e2e.messages import buttons, number, text_of
from tests.servers import postgresql as servers
from tests.servers.postgresql import PostgresServer, free_port

REQUESTER, LEAD, SECOND, ADMIN, BYSTANDER = "U01REQUESTER", "U01LEAD", "U01SECOND", "U01ADMIN", "U01BYSTANDER"
CARDS, AUDIT, ALERTS = "C01DBACCESS", "C01AUDIT", "C01ALERTS"
BOT_TOKEN, APP_TOKEN = "xoxb-e2e-secret-token", "xapp-e2e-secret-token"
PEOPLE = {REQUESTER: "requester", LEAD: "lead", SECOND: "second", ADMIN: "admin", BYSTANDER: "bystander"}
T = TypeVar("T")
PATIENCE = 120.0
"""Seconds to wait for a condition. Far above what anything takes, so that a busy machine does not fail a test."""

WORKSPACE = {
    "workspace": {"name": "Shop", "domain": "shop", "teamId": "T01SHOP"},
    "apps": [
        {
            "appId": "A01APP",
            "botUserId": "U0BOT",
            "botName": "dbaccess",
            "botToken": BOT_TOKEN,
            "appToken": APP_TOKEN,
            "mode": "socket",
        }
    ],
    "users": [{"id": i, "name": n, "real_name": n.title(), "email": f"{n}@example.com"} for i, n in PEOPLE.items()],
    "channels": [
        {"id": c, "name": n, "members": [*PEOPLE, "U0BOT"]}
        for c, n in ((CARDS, "db-access"), (AUDIT, "db-audit"), (ALERTS, "db-alerts"))
    ],
}


def wait(what: str, found: Callable[[], T | None], seconds: float = PATIENCE) -> T:
    """Wait until ``found`` returns something true, and return it. Fails with ``what`` after ``seconds``."""
    deadline = time.monotonic() + seconds
    while True:
        value = found()
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.05)


@dataclass
class Environment:
    """The processes of a test and their configuration files. ``start`` starts the bot."""

    folder: Path
    slack: local_slack.LocalSlack
    harness: EngineHarness
    admin_url: str
    http_port: int
    ledger_url: str = ""
    bot: subprocess.Popen[bytes] | None = None
    prefix: str = field(default_factory=lambda: f"e{secrets.token_hex(3)}_")
    extra_env: dict[str, str] = field(default_factory=dict)
    policy: dict[str, Any] = field(default_factory=dict)
    databases: dict[str, Any] = field(default_factory=dict)

    # The bot.

    @property
    def env(self) -> dict[str, str]:
        base = {k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "DBACCESS_"))}
        return {
            **base,
            "SLACK_BOT_TOKEN": BOT_TOKEN,
            "SLACK_APP_TOKEN": APP_TOKEN,
            "SLACK_API_URL": self.slack.api_url,
            "DBACCESS_CONFIG": str(self.folder / "config"),
            "DBACCESS_STORE_URL": self.ledger_url,
            "DBACCESS_HTTP_PORT": str(self.http_port),
            "DBACCESS_USER_PREFIX": self.prefix,
            "SHOP_ADMIN_URL": self.admin_url,
            "DBACCESS_LOG": "json",
            "DBACCESS_LOG_LEVEL": "debug",
            **self.extra_env,
        }

    def write_config(self) -> None:
        folder = self.folder / "config"
        folder.mkdir(exist_ok=True)
        for name, data in (("databases", self.databases), ("policy", self.policy)):
            temporary = folder / f"{name}.new"
            temporary.write_text(
                yaml.safe_dump(json.loads(json.dumps(data)))
            )  # through JSON, so that YAML has no aliases
            temporary.rename(folder / f"{name}.yml")

    def start(self, *, wait_ready: bool = True) -> None:
        self.write_config()
        with (self.folder / "bot.log").open("ab") as log:
            self.bot = subprocess.Popen(
                [sys.executable, "-m", "bot.cli", "run"], stdout=log, stderr=log, env=self.env, cwd=self.folder
            )
        if wait_ready:
            wait("the bot is ready", self.is_ready)

    def is_ready(self) -> bool:
        assert self.bot is not None
        assert self.bot.poll() is None, self.log()[-3000:]
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=5) as answer:
                return bool(json.load(answer)["ready"])
        except (urllib.error.URLError, OSError):
            return False

    def log(self) -> str:
        return (self.folder / "bot.log").read_text(errors="replace")

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        if self.bot is None:
            return 0
        self.bot.send_signal(how)
        status = self.bot.wait(PATIENCE)
        self.bot = None
        return status

    def restart(self, how: signal.Signals = signal.SIGKILL) -> None:
        self.stop(how)
        self.start()

    def cli(self, *arguments: str, expect: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "bot.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self.env,
            cwd=self.folder,
        )
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        return done.stdout

    # People.

    def request_access(self, text: str, user: str = REQUESTER) -> dict[str, Any]:
        """Send ``/dbaccess request TEXT`` and return the request card."""
        before = {m["ts"] for m in self.slack.messages(CARDS)}
        self.slack.command(user, CARDS, f"request {text}")
        return wait(
            "a card",
            lambda: next(
                (m for m in self.slack.messages(CARDS) if m["ts"] not in before and "Access request" in text_of(m)),
                None,
            ),
        )

    def card(self, ts: str) -> dict[str, Any]:
        return next(m for m in self.slack.messages(CARDS) if m["ts"] == ts)

    def click(self, user: str, message: dict[str, Any], label: str) -> None:
        self.slack.click(user, message.get("channel", CARDS), message["ts"], buttons(message)[label])

    def card_says(self, ts: str, text: str, seconds: float = PATIENCE) -> dict[str, Any]:
        return wait(
            f"the card says {text!r}", lambda: next((m for m in [self.card(ts)] if text in text_of(m)), None), seconds
        )

    def dm_says(self, text: str, user: str = REQUESTER, seconds: float = PATIENCE) -> dict[str, Any]:
        return wait(
            f"a DM says {text!r}", lambda: next((m for m in self.slack.dm(user) if text in text_of(m)), None), seconds
        )

    def feed_says(self, text: str, seconds: float = PATIENCE) -> None:
        wait(
            f"the audit feed says {text!r}",
            lambda: any(text in text_of(m) for m in self.slack.messages(AUDIT)),
            seconds,
        )

    def answer_says(self, text: str, user: str, seconds: float = PATIENCE) -> None:
        """Wait for an ephemeral message, which only this person sees."""
        wait(f"an answer to {user} says {text!r}", lambda: any(text in m["text"] for m in self.answers(user)), seconds)

    def answers(self, user: str) -> list[dict[str, Any]]:
        everywhere = [c["id"] for c in self.slack.get("state")["channels"]]
        return [m for c in everywhere for m in self.slack.messages(c) if m.get("ephemeral_to") == user]

    def request_and_approve(self, text: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Request access, approve it, and wait for the credentials. Returns the request card and the credential message."""
        card = self.request_access(text)
        self.click(LEAD, card, "Approve")
        message = self.dm_says(f"is ready (#{number(card)})")
        self.feed_says(f"#{number(card)} granted")
        return self.card_says(card["ts"], "Revoke"), message

    # The database.

    def users(self) -> list[str]:
        """The temporary users of this environment's bot. The server is shared with other tests."""
        with self.harness.superuser("postgres") as connection:
            rows = connection.execute(
                "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s) ORDER BY 1", (self.prefix,)
            )
            return [str(row[0]) for row in rows.fetchall()]

    def wait_until_no_users(self, seconds: float = PATIENCE) -> None:
        wait("no temporary user is left", lambda: not self.users(), seconds)

    def request(self, request_id: int) -> dict[str, Any]:
        """The request as ``dbaccess list --json`` shows it."""
        found: list[dict[str, Any]] = json.loads(self.cli("list", "--all", "--json"))
        return next(r for r in found if r["id"] == request_id)


def psql(message: dict[str, Any], statement: str) -> subprocess.CompletedProcess[str]:
    """Run the pasted command in a shell, as the requester would, with one statement."""
    found = re.search(r'psql "postgresql://[^"]+"', text_of(message).replace('\\"', '"'))
    assert found is not None, text_of(message)
    env = {**os.environ, "PATH": f"{os.environ['PATH']}:{servers.psql().parent}"}
    command = ["sh", "-c", f"{found[0]} -XAtc '{statement}'"]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=PATIENCE)


def is_dead(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("SELECT 1")
    except psycopg.Error:
        return True
    return False


@contextmanager
def running_environment(server: PostgresServer, folder: Path) -> Iterator[Environment]:
    """Start local-slack. The test starts the bot."""
    harness = build(server)
    slack = local_slack.start(WORKSPACE, port=free_port(), folder=folder)
    found = Environment(
        folder=folder, slack=slack, harness=harness, admin_url=server.url(harness.bot, BOT_PASSWORD, harness.database),
        http_port=free_port(), ledger_url=f"sqlite+aiosqlite:///{folder}/ledger.db",
        databases={"databases": {"shop": {
            "engine": "postgresql", "description": "The shop", "admin_url": "env:SHOP_ADMIN_URL", "admin_role": harness.owner,
            "levels": {"readonly": {"roles": ["shop_reader"], "description": "Read every table of the shop schema"}},
        }}},
        policy={
            "admins": [ADMIN], "audit_channel": AUDIT, "alert_channel": ALERTS, "defaults": {"channel": CARDS},
            "rules": [{"name": "the shop", "requesters": [REQUESTER, SECOND], "databases": ["shop"], "levels": ["*"], "approvals": [{"from": [LEAD, SECOND], "count": 1}]}],
        },
    )  # fmt: skip
    try:
        yield found
    finally:
        if found.bot is not None and found.bot.poll() is None:
            found.stop(signal.SIGKILL)
        slack.stop()
