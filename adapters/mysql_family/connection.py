"""Connections to the server: one for each use, kept by nobody, in UTC, with a known SQL mode and time limits.

DDL takes no bound parameters here, so values are quoted by PyMySQL's own means and identifiers by ``quoted``. What comes
from people is matched against ``username_pattern`` or a list of our own before it gets this far.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql

from adapters.base import CREATE_LIMIT_SECONDS, Rejected, Secrets, Target, Tls, WrongServer
from adapters.mysql_family.dialect import Dialect
from adapters.mysql_family.errors import translated

DEFAULT_PORT = 3306
CONNECT_SECONDS = 5
LOCK_SECONDS = 4
"""``lock_wait_timeout``: what DDL waits for at most. With it each statement of a create has run or failed within CREATE_LIMIT_SECONDS."""

SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
"""Neither ANSI_QUOTES nor NO_BACKSLASH_ESCAPES, which would make the driver's quoting wrong."""

SCHEMES = ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")
Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Address:
    """An admin URL in its parts."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str | None
    socket: str | None


class Connection:
    """An open connection; every statement goes through ``run``."""

    def __init__(self, driver: pymysql.Connection[Any], lock_limits: Sequence[str] = ("lock_wait_timeout",)) -> None:
        self._driver = driver
        self._lock_limits = lock_limits
        self._waits = 0

    def run(self, statement: str) -> list[Row]:
        """The rows, if it has any. The text is complete: see ``quoted`` and ``literal``."""
        with self._driver.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def value(self, query: str) -> Any:
        """The first column of the first row, or None."""
        rows = self.run(query)
        return rows[0][0] if rows else None

    def column(self, query: str) -> list[Any]:
        return [row[0] for row in self.run(query)]

    def literal(self, value: str) -> str:
        """A string as SQL."""
        return str(self._driver.escape(value))

    def wait_for_locks(self, seconds: int) -> None:
        """From now on, that long for each lock at most."""
        if seconds != self._waits:
            self.run("SET SESSION " + ", ".join(f"{name} = {seconds}" for name in self._lock_limits))
            self._waits = seconds

    def release(self, lock: str) -> None:
        """A lost connection has lost its locks."""
        with suppress(pymysql.MySQLError, OSError):
            self.run(f"DO RELEASE_LOCK({self.literal(lock)})")

    def now(self) -> datetime:
        """The server's clock."""
        found: datetime = self.value("SELECT UTC_TIMESTAMP(6)")
        return found.replace(tzinfo=UTC)

    @property
    def server_version(self) -> str:
        return str(self.value("SELECT VERSION()"))

    def close(self) -> None:
        with suppress(pymysql.MySQLError, OSError):
            self._driver.close()


class Server:
    """One server as its administrator sees it."""

    def __init__(self, target: Target, secrets: Secrets, dialect: Dialect, grace: timedelta) -> None:
        self.target = target
        self.dialect = dialect
        self.grace = grace
        self.address = parse(secrets.admin_url, target.admin_url)
        self.replicas = tuple(zip(target.replicas, secrets.replicas, strict=True))
        self._hidden = (secrets.admin_url, *secrets.replicas)

    @contextmanager
    def session(self, *secrets: str) -> Iterator[Connection]:
        """On the server the grant was made on. ``secrets`` are taken out of whatever goes wrong. Raises only AdapterError."""
        with self._at(self.address, *secrets) as connection:
            expected = self.target.identity
            if expected is not None and (found := self.identity(connection)) != expected:
                raise WrongServer(expected=expected, found=found)
            yield connection

    @contextmanager
    def replica(self, number: int) -> Iterator[Connection]:
        """On one of the further servers. Its URL is read here: a bad one must not keep the login from being blocked."""
        reference, url = self.replicas[number]
        with self._at(parse(url, reference), where=f"the replica {reference}") as connection:
            yield connection

    @contextmanager
    def _at(self, address: Address, *secrets: str, where: str = "the server") -> Iterator[Connection]:
        hidden = (address.password, self.address.password, *self._hidden, *secrets)
        with translated(hidden, login=address.user, where=where):
            driver = log_in(address, self.target.tls, address.user, address.password, None)
            connection = Connection(driver, self.dialect.lock_limits)
            try:
                connection.run("SET SESSION time_zone = '+00:00'")
                connection.wait_for_locks(LOCK_SECONDS)
                yield connection
            finally:
                connection.close()

    def identity(self, connection: Connection) -> str:
        """The server's own number; another on each replica."""
        return str(connection.value(f"SELECT {self.dialect.identity}"))


def log_in(address: Address, tls: Tls, user: str, password: str, database: str | None) -> pymysql.Connection[Any]:
    """Raises what the driver raises."""
    return pymysql.connect(
        host=address.host,
        port=address.port,
        unix_socket=address.socket,
        user=user,
        password=password,
        database=database,
        autocommit=True,
        charset="utf8mb4",
        sql_mode=SQL_MODE,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=int(CREATE_LIMIT_SECONDS),
        write_timeout=int(CREATE_LIMIT_SECONDS),
        program_name="dbaccess",
        **_tls(tls),
    )


def _tls(tls: Tls) -> dict[str, Any]:
    """``prefer`` is the driver's own way: TLS where the server has it, unverified."""
    if tls.mode == "disable":
        return {"ssl_disabled": True}
    if tls.mode == "prefer":
        return {}
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise Rejected(f"the authority in {tls.ca} cannot be read ({type(error).__name__})") from None
    context.check_hostname = tls.mode == "verify-full"
    if tls.mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def parse(url: str, reference: str) -> Address:
    """Raises Rejected, naming the reference and never the URL."""
    remedy = "mysql://user:password@host:port/database, with % signs for what is special in a URL"
    refused = Rejected(f"the admin URL behind {reference} cannot be read", remedy=remedy)
    try:
        parts = urlsplit(url)
        port, named = parts.port or DEFAULT_PORT, dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
    except ValueError:
        raise refused from None
    if parts.scheme not in SCHEMES or not parts.username or set(named) - {"unix_socket"}:
        raise refused
    return Address(
        host=unquote(parts.hostname or "localhost"),
        port=port,
        user=unquote(parts.username),
        password=unquote(parts.password or ""),
        database=unquote(parts.path.lstrip("/")) or None,
        socket=named.get("unix_socket"),
    )


def quoted(name: str) -> str:
    """An identifier."""
    return "`" + name.replace("`", "``") + "`"


def account(name: str) -> str:
    """A temporary user or a role: of any host, as all of ours are."""
    return f"{quoted(name)}@{quoted('%')}"


def listed(connection: Connection, values: Sequence[str]) -> str:
    """For IN: never empty."""
    return ", ".join(connection.literal(value) for value in values) or "NULL"


def shown(name: str) -> str:
    """An identifier as a DBA would paste it."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else quoted(name)
