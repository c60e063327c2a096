"""A PostgreSQL server with the setup of a team: a shop database closed to PUBLIC, roles, and a bot that is no superuser."""

from __future__ import annotations

import secrets
import shlex
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, LiteralString
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from adapters.base import Connect, Level, PrivilegeGrant, Secrets, Target, Tls, UserSpec
from adapters.contract import Denied, Died, LoginRefused
from adapters.postgresql import PostgreSQL, held
from adapters.usernames import make_username
from tests.servers.postgresql import RESERVES_SINCE, PostgresServer, psql

BOT_PASSWORD = "BotSecret0Login"
READONLY = "shop_reader"

LACKING: dict[str, LiteralString] = {
    "CREATEROLE": "ALTER ROLE {holder} NOCREATEROLE",
    "SELECT": "REVOKE SELECT ON shop.customers FROM {holder}",
    "USAGE": "REVOKE USAGE ON SCHEMA shop FROM {holder}",
}

SHOP = """
CREATE SCHEMA shop AUTHORIZATION shop_owner;
SET ROLE shop_owner;
CREATE TABLE shop.customers (id int PRIMARY KEY, name text);
CREATE TABLE shop.orders (id int PRIMARY KEY, customer int);
INSERT INTO shop.customers SELECT n, 'customer ' || n FROM generate_series(1, 1000) n;
INSERT INTO shop.orders SELECT n, n FROM generate_series(1, 1000) n;
GRANT USAGE ON SCHEMA shop TO shop_reader, shop_writer;
GRANT CREATE ON SCHEMA shop TO shop_writer;
GRANT SELECT ON ALL TABLES IN SCHEMA shop TO shop_reader, shop_writer;
GRANT INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA shop TO shop_writer;
RESET ROLE;
"""


@dataclass
class EngineHarness:
    """One database of a server with its bot. Names are unique, so that tests can share the server."""

    server: PostgresServer
    database: str
    other: str
    bot: str
    owner: str | None
    ledger: str = "testledger01"
    prefix: str = "jit_"
    standbys: tuple[PostgresServer, ...] = ()
    _number: int = field(default=100)

    def target(self, **changes: object) -> Target:
        found = Target(
            name="shop",
            engine="postgresql",
            admin_url="env:UNUSED",
            prefix=self.prefix,
            ledger=self.ledger,
            tls=Tls(mode="prefer"),
            connect=Connect(),
            admin_role=self.owner,
            replicas=tuple(f"env:STANDBY_{number}" for number, _ in enumerate(self.standbys, 1)),
        )
        return replace(found, **changes)  # type: ignore[arg-type]

    def secrets(self) -> Secrets:
        replicas = tuple(standby.url(self.bot, BOT_PASSWORD, self.database) for standby in self.standbys)
        return Secrets(admin_url=self.server.url(self.bot, BOT_PASSWORD, self.database), replicas=replicas)

    def adapter(self, **changes: object) -> PostgreSQL:
        return PostgreSQL(self.target(**changes), self.secrets())

    def username(self) -> str:
        self._number += 1
        return make_username(self.prefix, request_id=self._number, who="ada", key=secrets.token_hex(4))

    def spec(self, level: Level, *, username: str | None = None, remaining: float = 300.0) -> UserSpec:
        return UserSpec(
            username=username or self.username(),
            password=secrets.token_urlsafe(24).replace("-", "x"),
            level=level,
            remaining=remaining,
            request_id=self._number,
        )

    def login(
        self, spec: UserSpec, database: str | None = None, password: str | None = None
    ) -> psycopg.Connection[tuple[object, ...]]:
        url = self.server.url(spec.username, password or spec.password, database or self.database)
        return psycopg.connect(url, autocommit=True, connect_timeout=60)

    def superuser(self, database: str | None = None) -> psycopg.Connection[tuple[object, ...]]:
        return self.server.admin(database or self.database)

    def role_exists(self, name: str) -> bool:
        with self.superuser() as connection:
            return connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,)).fetchone() is not None


class Login:
    """A session of a temporary user, for the contract suite."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def read(self) -> int:
        return int(self._asked("SELECT count(*) FROM shop.customers"))

    def read_beside(self) -> int:
        return int(self._asked("SELECT count(*) FROM shop.orders"))

    def work(self, seconds: float) -> None:
        self.connection.execute(f"SELECT pg_sleep({seconds})".encode())

    def write(self) -> None:
        self._asked("UPDATE shop.orders SET customer = customer WHERE id = 1 RETURNING id")

    def _asked(self, query: str) -> Any:
        try:
            row = self.connection.execute(query.encode()).fetchone()
        except psycopg.errors.InsufficientPrivilege as error:
            raise Denied(str(error)) from None
        assert row is not None
        return row[0]

    def is_alive(self) -> bool:
        try:
            self.connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def close(self) -> None:
        self.connection.close()


@contextmanager
def dies_after(step: int | None) -> Iterator[list[str]]:
    """Close the connection after ``step`` statements and raise Died. Yields the statements that ran."""
    original, ran = psycopg.Connection.execute, list[str]()

    def execute(self: psycopg.Connection[Any], query: Any, *rest: Any, **named: Any) -> Any:
        if threading.current_thread().name == held.KEEPER:
            return original(self, query, *rest, **named)
        if step is not None and len(ran) >= step:
            raise Died
        answer = original(self, query, *rest, **named)
        ran.append(str(query))
        if step is not None and len(ran) == step:
            self.pgconn.finish()
            raise Died
        return answer

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(psycopg.Connection, "execute", execute)
        yield ran


class ContractHarness:
    """The harness in the form that ``adapters.contract`` needs."""

    counts_idle_sessions = True
    dies_after = staticmethod(dies_after)

    def __init__(self, harness: EngineHarness) -> None:
        self.harness = harness
        self.prefix, self.ledger = harness.prefix, harness.ledger
        self.reading, self.writing, self.narrow = readonly(), writer(), support()
        self.admin_secrets = (BOT_PASSWORD,)

    def adapter(self, *, ledger: str | None = None, identity: str | None = None) -> PostgreSQL:
        return self.harness.adapter(ledger=ledger or self.ledger, identity=identity)

    def lacking(self) -> dict[str, PostgreSQL]:
        """Adapters of new bots, each without one right."""
        found = {}
        for right, statement in LACKING.items():
            spoiled = build(self.harness.server, with_owner=self.harness.owner is not None)
            with spoiled.superuser() as connection:
                names = {"holder": sql.Identifier(spoiled.owner or spoiled.bot)}
                connection.execute(sql.SQL(statement).format(**names))
            found[right] = spoiled.adapter()
        return found

    def login(self, username: str, password: str) -> Login:
        url = self.harness.server.url(username, quote(password, safe=""), self.harness.database)
        try:
            return Login(psycopg.connect(url, autocommit=True, connect_timeout=60))
        except psycopg.OperationalError as error:
            raise LoginRefused(str(error)) from None

    def login_by(self, command: str) -> str:
        arguments = [
            str(psql()),
            *shlex.split(command)[1:],
            "-XAtc",
            "SELECT current_user, count(*) FROM shop.customers",
        ]
        done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=120)
        return done.stdout + done.stderr

    def make_foreign_user(self, username: str, password: str) -> None:
        with self.harness.superuser() as connection:
            name = sql.Identifier(username)
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(name, sql.Literal(password)))
            connection.execute(sql.SQL("GRANT shop_reader TO {}").format(name))

    def has_user(self, username: str) -> bool:
        return self.harness.role_exists(username)

    def log_text(self) -> str:
        return self.harness.server.log_text()

    def stop(self) -> None:
        self.harness.server.stop()

    def start(self) -> None:
        self.harness.server.start()


def readonly() -> Level:
    return Level(name="readonly", roles=("shop_reader",), settings={"statement_timeout": "5min"})


def writer() -> Level:
    return Level(name="write", roles=("shop_writer",))


def acting_writer() -> Level:
    """A level whose users may act as its role: SET ROLE, on every version."""
    return Level(name="act", roles=("shop_writer",), set_role=True)


def support() -> Level:
    return Level(name="support", grants=(PrivilegeGrant(on=("shop.customers",), privileges=("SELECT",)),))


def make_login(connection: psycopg.Connection[Any], name: str) -> None:
    """Create a login for a bot. The server's log does not see its password."""
    verifier = connection.pgconn.encrypt_password(BOT_PASSWORD.encode(), name.encode(), b"scram-sha-256").decode()
    statement = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}")
    connection.execute(statement.format(sql.Identifier(name), sql.Literal(verifier)))


def build(server: PostgresServer, *, with_owner: bool = True) -> EngineHarness:
    """Set up a new database as ``dbaccess doctor`` requires it."""
    database, other = server.new_database("shop"), server.new_database("other")
    tag = secrets.token_hex(3)
    bot, owner = f"bot_{tag}", f"owner_{tag}" if with_owner else None
    with server.admin() as c:
        for role in ("shop_owner", "shop_reader", "shop_writer"):
            if c.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)).fetchone() is None:
                c.execute(sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(role)))
        make_login(c, bot)
        if server.version >= RESERVES_SINCE:
            c.execute(sql.SQL("GRANT pg_use_reserved_connections TO {}").format(sql.Identifier(bot)))
        holder = owner or bot
        if owner:
            c.execute(sql.SQL("CREATE ROLE {} NOLOGIN CREATEROLE").format(sql.Identifier(owner)))
            c.execute(sql.SQL("GRANT {} TO {}").format(sql.Identifier(owner), sql.Identifier(bot)))
        else:
            c.execute(sql.SQL("ALTER ROLE {} CREATEROLE").format(sql.Identifier(bot)))
        for role in ("shop_reader", "shop_writer"):
            c.execute(sql.SQL("GRANT {} TO {} WITH ADMIN OPTION").format(sql.Identifier(role), sql.Identifier(holder)))
        for name in (database, other):
            c.execute(sql.SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
            c.execute(
                sql.SQL("GRANT CONNECT ON DATABASE {} TO {} WITH GRANT OPTION").format(
                    sql.Identifier(name), sql.Identifier(holder)
                )
            )
        c.execute(sql.SQL("GRANT CONNECT ON DATABASE {} TO shop_reader, shop_writer").format(sql.Identifier(database)))
        c.execute(sql.SQL("GRANT CREATE ON DATABASE {} TO shop_owner").format(sql.Identifier(database)))
    with server.admin(database) as c:
        c.execute(SHOP)
        c.execute(sql.SQL("GRANT USAGE ON SCHEMA shop TO {} WITH GRANT OPTION").format(sql.Identifier(holder)))
        c.execute(sql.SQL("GRANT SELECT ON shop.customers TO {} WITH GRANT OPTION").format(sql.Identifier(holder)))
    return EngineHarness(
        server=server, database=database, other=other, bot=bot, owner=owner, ledger=f"ledger{tag}", prefix=f"j{tag}_"
    )
