"""More databases of the shop, where this machine has their servers: reports on MariaDB, carts on Redis."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pymysql
import redis

from adapters.base import Level, Secrets, Target, Tls
from adapters.mysql import MariaDB

HERE = Path(__file__).parent
START_SECONDS = 120
STOP_SECONDS = 30
RIGHTS = "acl|setuser acl|getuser acl|deluser acl|users acl|save acl|dryrun client|list client|kill info config|rewrite script|kill function|kill"


class ServerDoesNotStart(Exception):
    """A server is installed but does not start. The demo continues without it."""


@dataclass(frozen=True)
class ExtraDatabase:
    """One more database: its name, and how the bot connects to it."""

    name: str
    variable: str
    admin_url: str


def find_programs(*programs: str) -> list[str] | None:
    """The paths of these programs, or None where one is not installed."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    places = [shutil.which(program, path=path) for program in programs]
    return [place for place in places if place] if all(places) else None


@contextmanager
def running(
    folder: Path, account: dict[str, Any], port: Any, passwords: dict[str, str]
) -> Iterator[list[ExtraDatabase]]:
    """Start the servers that are installed. ``account``: the account of servers that refuse root. ``port(0)`` returns a free port."""
    with ExitStack() as stack:
        started = []
        for start in (_mariadb, _redis):
            try:
                if (one := start(stack, folder, account, port, passwords)) is not None:
                    started.append(one)
            except (ServerDoesNotStart, OSError, pymysql.MySQLError, redis.RedisError) as error:
                print(f"Without {start.__name__.strip('_')}: {error}", flush=True)
        yield started


def write_config(folder: Path, started: list[ExtraDatabase]) -> Path:
    """Write the demo's configuration with these databases added."""
    config = folder / "config"
    shutil.copytree(HERE / "config", config)
    with (config / "databases.yml").open("a") as file:
        for one in started:
            file.write((HERE / f"{one.name}.yml").read_text())
    return config


def _private_folder(path: Path, account: dict[str, Any]) -> Path:
    path.mkdir(mode=0o700)
    if account:
        shutil.chown(path, account["user"], account["group"])
    return path


def _start(stack: ExitStack, folder: Path, account: dict[str, Any], *command: str | Path) -> subprocess.Popen[bytes]:
    with (folder / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True, **account)
    stack.callback(_stop, process)
    return process


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# MariaDB.


def _mariadb(
    stack: ExitStack, folder: Path, account: dict[str, Any], port: Any, passwords: dict[str, str]
) -> ExtraDatabase | None:
    programs = find_programs("mariadb-install-db", "mariadbd")
    if programs is None:
        return None
    data, number, me = _private_folder(folder / "mariadb", account), port(0), getpass.getuser()
    made = subprocess.run(
        [programs[0], "--no-defaults", f"--datadir={data / 'd'}", "--auth-root-authentication-method=socket", f"--auth-root-socket-user={me}", "--skip-test-db"],
        capture_output=True, text=True, check=False, cwd=data, **account,
    )  # fmt: skip
    if made.returncode != 0:
        raise ServerDoesNotStart((made.stderr or made.stdout)[-400:])
    server = _start(
        stack, folder, account, programs[1], "--no-defaults", f"--datadir={data / 'd'}", f"--socket={data / 's'}", f"--pid-file={data / 'pid'}",
        f"--tmpdir={data}", f"--port={number}", "--bind-address=127.0.0.1", "--event-scheduler=ON",
    )  # fmt: skip
    connection = _wait_until_it_answers(
        server, lambda: _connect_by_socket(data / "s", me), (pymysql.MySQLError, FileNotFoundError)
    )
    url = f"mysql://dbaccess_bot:{passwords['bot']}@127.0.0.1:{number}/shop_reports"
    with connection, connection.cursor() as cursor:
        for statement in (HERE / "shop-reports.sql").read_text().split(";\n"):
            if statement.strip():
                cursor.execute(statement.replace("{password}", passwords["bot"]))
        for statement in _procedure_statements(url):
            cursor.execute(statement)
    return ExtraDatabase("shop-reports", "REPORTS_ADMIN_URL", url)


def _connect_by_socket(path: Path, user: str) -> pymysql.Connection[Any]:
    """Connect as this operating system user, without a password. Checks for the socket first, because the driver leaks its own without it."""
    path.stat()
    return pymysql.connect(unix_socket=str(path), user=user)


def _procedure_statements(url: str) -> list[str]:
    """The statements that create the bot's procedure, as ``dbaccess doctor`` prints them."""
    target = Target(
        name="shop-reports",
        engine="mariadb",
        admin_url="env:REPORTS_ADMIN_URL",
        prefix="jit_",
        ledger="demo",
        tls=Tls(mode="prefer"),
    )
    health = MariaDB(target, Secrets(admin_url=url)).check([Level(name="readonly", roles=("reports_reader",))])
    remedy = next(f.remedy for f in health.problems if f.remedy and "set_default_role" in f.what)
    _, _, rest = remedy.partition("DELIMITER //\n")
    body, _, grant = rest.partition(" //\nDELIMITER ;\n")
    return [body, grant]


def _wait_until_it_answers(
    server: subprocess.Popen[bytes], connect: Any, error: type[Exception] | tuple[type[Exception], ...]
) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return connect()
        except error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise ServerDoesNotStart("it does not answer") from None
            time.sleep(0.1)


# Redis.


def _redis(
    stack: ExitStack, folder: Path, account: dict[str, Any], port: Any, passwords: dict[str, str]
) -> ExtraDatabase | None:
    programs = find_programs("redis-server")
    if programs is None:
        return None
    data, number = _private_folder(folder / "redis", account), port(0)
    acl = data / "users.acl"
    acl.touch(mode=0o600)
    rights = " ".join(f"+{right}" for right in RIGHTS.split())
    acl.write_text(
        "user default off resetpass -@all\n"
        f"user root on >{passwords['superuser']} ~* &* +@all\n"
        f"user dbaccess_bot on >{passwords['bot']} resetchannels -@all {rights}\n"
    )
    if account:
        shutil.chown(acl, account["user"], account["group"])
    config = data / "redis.conf"
    config.write_text(f'port {number}\nbind 127.0.0.1\ndir "{data}"\naclfile "{acl}"\nsave ""\n')
    if account:
        shutil.chown(config, account["user"], account["group"])
    server = _start(stack, folder, account, programs[0], config)
    client = redis.Redis(port=number, username="root", password=passwords["superuser"])
    _wait_until_it_answers(server, client.ping, redis.RedisError)
    with client:
        for n in range(1, 101):
            client.hset(f"cart:{n}", mapping={"customer": n, "items": n % 7 + 1})
    return ExtraDatabase(
        "shop-cache", "CACHE_ADMIN_URL", f"redis://dbaccess_bot:{passwords['bot']}@127.0.0.1:{number}/0"
    )
