"""Sets up a MySQL or MariaDB server for the contract suite: a shop database with two roles, and a bot with the rights that ``check`` asks for."""

from __future__ import annotations

import hashlib
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar, TypeVar

import pymysql
import pytest

from adapters.base import Connect, Level, LoginRefused, PrivilegeGrant, Secrets, Target, Tls, UserSpec
from adapters.harness import Denied, Died
from adapters.mysql import MariaDB, MySQL, MySQLFamily
from adapters.mysql.connection import MySQLConnection
from adapters.usernames import make_username
from tests.servers.mysql import MARIADB, MySQLServer, unique_name

BOT_PASSWORD = "BotSecret0Login"
DENIED = (1044, 1142, 1143)


class QuickMySQL(MySQL):
    """The server's event fires at the end of the grant, without the grace period, so that tests need not wait."""

    grace: ClassVar[timedelta] = timedelta()


class QuickMariaDB(MariaDB):
    """See ``QuickMySQL``."""

    grace: ClassVar[timedelta] = timedelta()


@dataclass
class EngineHarness:
    """One database of a server, with its bot. Names are unique, so that tests can share the server. Implements ``adapters.harness.EngineHarness``."""

    server: MySQLServer
    database: str
    ops_schema: str
    bot: str
    reader: str
    writer: str
    ledger: str
    prefix: str
    admin_secrets: tuple[str, ...] = (BOT_PASSWORD,)
    counts_idle_sessions: bool = True
    rights: dict[str, str] = field(default_factory=dict)
    _number: int = 100

    @property
    def is_mariadb(self) -> bool:
        return self.server.flavour is MARIADB

    @property
    def engine(self) -> type[MySQLFamily]:
        return QuickMariaDB if self.is_mariadb else QuickMySQL

    def server_role(self, name: str) -> str:
        """A role as the server's own administrator writes it."""
        return f"`{name}`" if self.is_mariadb else f"`{name}`@`%`"

    @property
    def reading(self) -> Level:
        return Level(name="readonly", roles=(self.reader,), settings={"max_user_connections": "20"})

    @property
    def writing(self) -> Level:
        return Level(name="write", roles=(self.writer,))

    @property
    def narrow(self) -> Level:
        return Level(name="support", grants=(PrivilegeGrant(on=("customers",), privileges=("SELECT",)),))

    def target(self, **changes: object) -> Target:
        found = Target(
            name="shop",
            engine=self.server.flavour.name,
            admin_url="env:UNUSED",
            prefix=self.prefix,
            ledger=self.ledger,
            tls=Tls(mode="prefer"),
            connect=Connect(),
            ops_schema=self.ops_schema,
        )
        return replace(found, **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]

    def adapter(self, *, ledger: str | None = None, identity: str | None = None, **changes: object) -> MySQLFamily:
        secrets = Secrets(admin_url=self.server.url(self.bot, BOT_PASSWORD, self.database))
        return self.engine(self.target(ledger=ledger, identity=identity, **changes), secrets)

    def spec(self, level: Level, *, username: str | None = None, remaining: float = 300.0) -> UserSpec:
        self._number += 1
        name = username or make_username(self.prefix, request_id=self._number, who="ada", key=unique_name("")[:4])
        return UserSpec(
            username=name,
            password=unique_name("Pw") + unique_name("x"),
            level=level,
            remaining=remaining,
            request_id=self._number,
        )

    def login(self, username: str, password: str) -> Session:
        try:
            return Session(self.server.connect(username, password, self.database))
        except pymysql.MySQLError as error:
            raise LoginRefused(str(error)) from None

    def login_by(self, command: str) -> str:
        program, *options = shlex.split(command)
        flavour = self.server.flavour
        assert program == flavour.client.rpartition("/")[2]
        query = "SELECT CURRENT_USER(), COUNT(*) FROM customers"
        run = [*flavour.command(flavour.client), "--no-defaults", *options, "--batch", "-e", query]
        environment = self.server.environment
        done = subprocess.run(run, capture_output=True, text=True, check=False, timeout=120, env=environment)
        return done.stdout + done.stderr

    def make_foreign_user(self, username: str, password: str) -> None:
        self.server.run(
            f"CREATE USER `{username}`@`%` IDENTIFIED BY '{password}'",
            f"GRANT SELECT ON `{self.database}`.* TO `{username}`@`%`",
        )

    def has_user(self, username: str) -> bool:
        return bool(self.server.query("SELECT 1 FROM mysql.user WHERE HEX(user) = HEX(%s)", username))

    def log_text(self) -> str:
        return self.server.log_text()

    def stop(self) -> None:
        self.server.stop()

    def start(self) -> None:
        self.server.start()

    def lacking(self) -> dict[str, MySQLFamily]:
        """Adapters by the right that their bot lacks."""
        found = {}
        for right in self.rights:
            harness = build(self.server)
            self.server.run(harness.rights[right])
            found[right] = harness.adapter()
        return found

    @staticmethod
    @contextmanager
    def dies_after(step: int | None) -> Iterator[list[str]]:
        original, ran = MySQLConnection.run, list[str]()

        def run(self: MySQLConnection, statement: str) -> list[tuple[Any, ...]]:
            if step is not None and len(ran) >= step:
                raise Died
            answer = original(self, statement)
            ran.append(statement)
            if step is not None and len(ran) == step:
                self.close()
                raise Died
            return answer

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(MySQLConnection, "run", run)
            yield ran


class Session:
    """A session of a temporary user, for the contract suite."""

    def __init__(self, connection: pymysql.Connection[Any]) -> None:
        self.connection = connection

    def read(self) -> int:
        return int(self._query("SELECT COUNT(*) FROM customers"))

    def read_beside(self) -> int:
        return int(self._query("SELECT COUNT(*) FROM orders"))

    def write(self) -> None:
        self._query("UPDATE orders SET customer = customer + 1 WHERE id = 1")

    def work(self, seconds: float) -> None:
        """MySQL's SLEEP returns 1 when it is interrupted; the next statement then fails."""
        self._query(f"SELECT SLEEP({seconds})")
        self._query("SELECT 1")

    def _query(self, query: str) -> Any:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute(query)
                row = cursor.fetchone()
        except pymysql.MySQLError as error:
            if error.args[0] in DENIED:
                raise Denied(str(error)) from None
            raise
        return row[0] if row else None

    def is_alive(self) -> bool:
        try:
            with self.connection.cursor() as cursor:
                cursor.execute("SELECT 1")
        except (pymysql.MySQLError, OSError):
            return False
        return True

    def close(self) -> None:
        if self.connection.open:
            self.connection.close()


H = TypeVar("H", bound=EngineHarness)


def build(server: MySQLServer, *, prefix: str | None = None, of: type[H] = EngineHarness) -> H:  # type: ignore[assignment]
    """Set up as ``dbaccess doctor`` asks, on new databases. The shop's name contains ``_``, which is a wildcard in GRANT."""
    database, ops = server.new_database("my_shop"), unique_name("ops_")
    tag = unique_name("")
    harness = of(
        server=server,
        database=database,
        ops_schema=ops,
        bot=f"bot_{tag}",
        reader=f"reader_{tag}",
        writer=f"writer_{tag}",
        ledger=f"ledger{tag}",
        prefix=prefix or f"j{tag}_",
    )
    _shop(harness)
    _bot(harness)
    return harness


def _shop(harness: EngineHarness) -> None:
    many = ", ".join(f"({n}, 'customer {n}')" for n in range(1, 101))
    escaped = harness.database.replace("_", "\\_")
    harness.server.run(
        "CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(40))",
        "CREATE TABLE orders (id INT PRIMARY KEY, customer INT)",
        f"INSERT INTO customers VALUES {many}",
        "INSERT INTO orders SELECT id, id FROM customers",
        f"CREATE ROLE {harness.reader}",
        f"CREATE ROLE {harness.writer}",
        f"GRANT SELECT ON `{escaped}`.* TO {harness.reader}",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON `{escaped}`.* TO {harness.writer}",
        database=harness.database,
    )


def _bot(harness: EngineHarness) -> None:
    """Grant what ``doctor`` asks for. ``harness.rights`` has the statement that revokes each right again."""
    bot, ops, mariadb = f"`{harness.bot}`@`%`", harness.ops_schema, harness.is_mariadb
    kill = "CONNECTION ADMIN" if mariadb else "CONNECTION_ADMIN"
    run = harness.server.run
    digest = hashlib.sha1(hashlib.sha1(BOT_PASSWORD.encode()).digest()).hexdigest().upper()
    # MariaDB writes the statement to its log unchanged, so the log must not contain the password.
    identified = f"BY PASSWORD '*{digest}'" if mariadb else f"BY '{BOT_PASSWORD}'"
    run(f"CREATE USER {bot} IDENTIFIED {identified}", f"CREATE DATABASE {ops}")
    everywhere = ["CREATE USER", "PROCESS", kill, *([] if mariadb else ["ROLE_ADMIN", "ALLOW_NONEXISTENT_DEFINER"])]
    for right in everywhere:
        run(f"GRANT {right} ON *.* TO {bot}")
    run(f"GRANT EVENT ON `{ops}`.* TO {bot}", f"GRANT SELECT ON mysql.* TO {bot}")
    if not mariadb:
        run(f"GRANT SELECT ON performance_schema.* TO {bot}", f"GRANT XA_RECOVER_ADMIN ON *.* TO {bot}")
    run(f"GRANT SELECT ON `{harness.database}`.customers TO {bot} WITH GRANT OPTION")
    for role in (harness.reader, harness.writer):
        run(f"GRANT {role} TO {bot} WITH ADMIN OPTION")
    harness.rights = {
        right: f"REVOKE {right} ON *.* FROM {bot}" for right in everywhere if right != "ALLOW_NONEXISTENT_DEFINER"
    }
    harness.rights |= {
        "EVENT": f"REVOKE EVENT ON `{ops}`.* FROM {bot}",
        "mysql.*": f"REVOKE SELECT ON mysql.* FROM {bot}",
        "customers": f"REVOKE SELECT ON `{harness.database}`.customers FROM {bot}",
        "ADMIN OPTION": f"REVOKE {'ADMIN OPTION FOR ' if mariadb else ''}{harness.reader} FROM {bot}",
    }
    if mariadb:
        _procedure(harness)
        harness.rights["set_default_role"] = f"DROP PROCEDURE {ops}.set_default_role"
    else:
        del harness.rights["ADMIN OPTION"]  # ROLE_ADMIN, which managed roles need, is enough


def _procedure(harness: EngineHarness) -> None:
    """Create the procedure with the statements that ``check`` prints."""
    health = harness.adapter().check([harness.reading, harness.writing])
    remedy = next(f.remedy for f in health.problems if "set_default_role" in f.what)
    assert remedy is not None
    _, _, rest = remedy.partition("DELIMITER //\n")
    body, _, grant = rest.partition(" //\nDELIMITER ;\n")
    harness.server.run(body, grant)
