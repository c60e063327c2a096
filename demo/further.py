"""Further databases of the shop, where this machine has their servers: reports on MariaDB, sessions on Redis."""

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
END_SECONDS = 30
RIGHTS = "acl|setuser acl|getuser acl|deluser acl|users acl|save acl|dryrun client|list client|kill info config|rewrite script|kill function|kill"


class DoesNotStart(Exception):
    """A server that is on this machine and does not run here; the demo goes on without it."""


@dataclass(frozen=True)
class Further:
    """One more database: its name, and how the bot reaches it."""

    name: str
    variable: str
    admin_url: str


def found(*programs: str) -> list[str] | None:
    """Where these programs are, or None where one is not on this machine."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    places = [shutil.which(program, path=path) for program in programs]
    return [place for place in places if place] if all(places) else None


@contextmanager
def running(folder: Path, account: dict[str, Any], port: Any, passwords: dict[str, str]) -> Iterator[list[Further]]:
    """Those that are here and start. ``account``: whom a server runs as that refuses root. ``port(n)`` gives a free one."""
    with ExitStack() as stack:
        started = []
        for start in (_mariadb, _redis):
            try:
                if (one := start(stack, folder, account, port, passwords)) is not None:
                    started.append(one)
            except (DoesNotStart, OSError, pymysql.MySQLError, redis.RedisError) as error:
                print(f"Without {start.__name__.strip('_')}: {error}", flush=True)
        yield started


def write_config(folder: Path, started: list[Further]) -> Path:
    """The demo's configuration with these databases in it."""
    config = folder / "config"
    shutil.copytree(HERE / "config", config)
    with (config / "databases.yml").open("a") as file:
        for one in started:
            file.write((HERE / f"{one.name}.yml").read_text())
    return config


def _own(path: Path, account: dict[str, Any]) -> Path:
    path.mkdir(mode=0o700)
    if account:
        shutil.chown(path, account["user"], account["group"])
    return path


def _spawn(stack: ExitStack, folder: Path, account: dict[str, Any], *command: str | Path) -> subprocess.Popen[bytes]:
    with (folder / f"{Path(command[0]).name}.log").open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True, **account)
    stack.callback(_end, process)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# MariaDB.


def _mariadb(
    stack: ExitStack, folder: Path, account: dict[str, Any], port: Any, passwords: dict[str, str]
) -> Further | None:
    programs = found("mariadb-install-db", "mariadbd")
    if programs is None:
        return None
    data, number, me = _own(folder / "mariadb", account), port(0), getpass.getuser()
    made = subprocess.run(
        [programs[0], "--no-defaults", f"--datadir={data / 'd'}", "--auth-root-authentication-method=socket", f"--auth-root-socket-user={me}", "--skip-test-db"],
        capture_output=True, text=True, check=False, cwd=data, **account,
    )  # fmt: skip
    if made.returncode != 0:
        raise DoesNotStart((made.stderr or made.stdout)[-400:])
    server = _spawn(
        stack, folder, account, programs[1], "--no-defaults", f"--datadir={data / 'd'}", f"--socket={data / 's'}", f"--pid-file={data / 'pid'}",
        f"--tmpdir={data}", f"--port={number}", "--bind-address=127.0.0.1", "--event-scheduler=ON",
    )  # fmt: skip
    connection = _answers(server, lambda: _by_socket(data / "s", me), (pymysql.MySQLError, FileNotFoundError))
    url = f"mysql://dbaccess_bot:{passwords['bot']}@127.0.0.1:{number}/shop_reports"
    with connection, connection.cursor() as cursor:
        for statement in (HERE / "further.sql").read_text().split(";\n"):
            if statement.strip():
                cursor.execute(statement.replace("{password}", passwords["bot"]))
        for statement in _procedure(url):
            cursor.execute(statement)
    return Further("shop-reports", "REPORTS_ADMIN_URL", url)


def _by_socket(path: Path, user: str) -> pymysql.Connection[Any]:
    """As the account of this operating system user, which needs no password. Not tried before the socket is there: the driver would leave its own open."""
    path.stat()
    return pymysql.connect(unix_socket=str(path), user=user)


def _procedure(url: str) -> list[str]:
    """As ``dbaccess doctor`` prints it."""
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


def _answers(
    server: subprocess.Popen[bytes], connect: Any, error: type[Exception] | tuple[type[Exception], ...]
) -> Any:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            return connect()
        except error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise DoesNotStart("it does not answer") from None
            time.sleep(0.1)


# Redis.


def _redis(
    stack: ExitStack, folder: Path, account: dict[str, Any], port: Any, passwords: dict[str, str]
) -> Further | None:
    programs = found("redis-server")
    if programs is None:
        return None
    data, number = _own(folder / "redis", account), port(0)
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
    server = _spawn(stack, folder, account, programs[0], config)
    client = redis.Redis(port=number, username="root", password=passwords["superuser"])
    _answers(server, client.ping, redis.RedisError)
    with client:
        for n in range(1, 101):
            client.hset(f"cart:{n}", mapping={"customer": n, "items": n % 7 + 1})
    return Further("shop-cache", "CACHE_ADMIN_URL", f"redis://dbaccess_bot:{passwords['bot']}@127.0.0.1:{number}/0")
