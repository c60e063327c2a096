"""Connections to the server: a new one for each use, in UTC, with a known SQL mode and time limits.

DDL takes no bound parameters here, so PyMySQL quotes values and ``quoted`` quotes identifiers. Names that come from people
are matched against ``username_pattern`` or a list of allowed names before they get here.
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

from adapters.base import (
    CREATE_LIMIT_SECONDS,
    Level,
    LoginRefused,
    Rejected,
    Secrets,
    ServerDown,
    Target,
    Tls,
    WrongServer,
)
from adapters.mysql.dialect import Dialect
from adapters.mysql.errors import LOGIN_REFUSED, UNKNOWN_VARIABLE, code, translated
from adapters.usernames import scrub

DEFAULT_PORT = 3306
CONNECT_SECONDS = 5
LOCK_SECONDS = 4
"""``lock_wait_timeout``: DDL waits at most this long. Each statement of a create therefore has run or failed within CREATE_LIMIT_SECONDS."""

SQL_MODE = "STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION"
"""Excludes ANSI_QUOTES and NO_BACKSLASH_ESCAPES, with which the driver's quoting would be wrong."""

SCHEMES = ("mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql")
Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class Address:
    """The parts of an admin URL."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    database: str | None
    socket: str | None


class MySQLConnection:
    """An open connection. Every statement goes through ``run``."""

    def __init__(self, driver: pymysql.Connection[Any], lock_limits: Sequence[str] = ("lock_wait_timeout",)) -> None:
        self._driver = driver
        self._lock_limits = lock_limits
        self._lock_seconds = 0

    def run(self, statement: str) -> list[Row]:
        """The rows, if there are any. The statement has no parameters: see ``quoted`` and ``literal``."""
        with self._driver.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall())

    def value(self, query: str) -> Any:
        """The first column of the first row, or None."""
        rows = self.run(query)
        return rows[0][0] if rows else None

    def column(self, query: str) -> list[Any]:
        """The first column of all rows."""
        return [row[0] for row in self.run(query)]

    def literal(self, value: str) -> str:
        """A string literal in SQL."""
        return str(self._driver.escape(value))

    def set_lock_limit(self, seconds: int) -> None:
        """From now on, every statement waits at most so many seconds for each lock."""
        if seconds != self._lock_seconds:
            self.run("SET SESSION " + ", ".join(f"{name} = {seconds}" for name in self._lock_limits))
            self._lock_seconds = seconds

    def release(self, lock: str) -> None:
        """Release a lock of GET_LOCK. A connection that is lost has lost its locks, so errors are ignored."""
        with suppress(pymysql.MySQLError, OSError):
            self.run(f"DO RELEASE_LOCK({self.literal(lock)})")

    def now(self) -> datetime:
        """The time by the server's clock."""
        found: datetime = self.value("SELECT UTC_TIMESTAMP(6)")
        return found.replace(tzinfo=UTC)

    @property
    def server_version(self) -> str:
        """As ``SELECT VERSION()`` returns it: ``9.7.4``, ``10.11.19-MariaDB-log``."""
        return str(self.value("SELECT VERSION()"))

    def close(self) -> None:
        with suppress(pymysql.MySQLError, OSError):
            self._driver.close()


class Server:
    """One server with the bot's administrator login, and its replicas."""

    def __init__(self, target: Target, secrets: Secrets, dialect: Dialect, grace: timedelta) -> None:
        self.target = target
        self.dialect = dialect
        self.grace = grace
        self.address = parse(secrets.admin_url, target.admin_url)
        self.replicas = tuple(zip(target.replicas, secrets.replicas, strict=True))
        self._secrets = (secrets.admin_url, *secrets.replicas)

    @contextmanager
    def session(self, *secrets: str) -> Iterator[MySQLConnection]:
        """A connection to the server on which the grant was made. Raises only AdapterError, without ``secrets``; WrongServer for another identity."""
        with self._at(self.address, *secrets) as connection:
            expected = self.target.identity
            if expected is not None and (found := self.identity(connection)) != expected:
                raise WrongServer(expected=expected, found=found)
            yield connection

    @contextmanager
    def replica(self, number: int) -> Iterator[MySQLConnection]:
        """A connection to a replica. Its URL is parsed here, so that an invalid one does not prevent the block of the login on the primary."""
        reference, url = self.replicas[number]
        with self._at(parse(url, reference), where=f"the replica {reference}") as connection:
            yield connection

    @contextmanager
    def _at(self, address: Address, *secrets: str, where: str = "the server") -> Iterator[MySQLConnection]:
        hidden = (address.password, self.address.password, *self._secrets, *secrets)
        with translated(hidden, login=address.user, where=where):
            driver = log_in(address, self.target.tls, address.user, address.password, None)
            connection = MySQLConnection(driver, self.dialect.lock_limits)
            try:
                connection.run("SET SESSION time_zone = '+00:00'")
                connection.set_lock_limit(LOCK_SECONDS)
                yield connection
            finally:
                connection.close()

    def identity(self, connection: MySQLConnection) -> str:
        """The server's UUID or UID. Each replica has another one. Raises Rejected on a server that is too old to have one."""
        dialect = self.dialect
        try:
            return str(connection.value(f"SELECT {dialect.identity}"))
        except pymysql.MySQLError as error:
            if code(error) != UNKNOWN_VARIABLE:
                raise
        what = f"the server has no variable {dialect.identity}, by which dbaccess identifies it"
        raise Rejected(what, remedy=f"upgrade the server to {dialect.label} {dialect.identity_since} or later")

    def database_of(self, level: Level) -> str | None:
        """The database that contains the level's objects."""
        return level.database or self.target.connect.database or self.address.database


class MySQLLogin:
    """Implements ``adapters.base.Login``."""

    def __init__(self, driver: pymysql.Connection[Any]) -> None:
        self._connection = MySQLConnection(driver)

    def is_alive(self) -> bool:
        """Whether the server answers. A session whose user is dropped still counts while it does."""
        try:
            self._connection.run("SELECT 1")
        except (pymysql.MySQLError, OSError):
            return False
        return True

    def close(self) -> None:
        """Close the connection. Never raises."""
        self._connection.close()


def log_in_as(server: Server, username: str, password: str, level: Level) -> MySQLLogin:
    """Log in as the temporary user, at the address of the admin URL.

    Raises LoginRefused, or ServerDown where the server did not answer about the password.
    """
    try:
        return MySQLLogin(log_in(server.address, server.target.tls, username, password, server.database_of(level)))
    except (pymysql.MySQLError, OSError) as error:
        message = scrub(" ".join(str(error).split()), password)
        if isinstance(error, pymysql.MySQLError) and code(error) in LOGIN_REFUSED:
            raise LoginRefused(message) from None
        raise ServerDown(f"no login as {username}: {message}") from None


def log_in(address: Address, tls: Tls, user: str, password: str, database: str | None) -> pymysql.Connection[Any]:
    """Open a connection. Raises the driver's errors."""
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
    """Arguments of the driver. ``prefer`` is its default: TLS where the server offers it, without verification."""
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
    """The parts of an admin URL. Raises Rejected, which names the reference and never the URL."""
    remedy = "mysql://user:password@host:port/database, with special characters percent-encoded"
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
    """An identifier in backquotes."""
    return "`" + name.replace("`", "``") + "`"


def account(name: str) -> str:
    """The account of a temporary user or a role. All of them have the host ``%``."""
    return f"{quoted(name)}@{quoted('%')}"


def literal_list(connection: MySQLConnection, values: Sequence[str]) -> str:
    """String literals for IN; ``NULL`` for no values."""
    return ", ".join(connection.literal(value) for value in values) or "NULL"


def quoted_if_needed(name: str) -> str:
    """An identifier for statements that a DBA pastes: in backquotes only where it needs them."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else quoted(name)
