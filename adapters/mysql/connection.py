"""Connections to the server, with time limits, and the quoting of names and values.

DDL takes no bound parameters here, so PyMySQL quotes values and ``quoted`` quotes identifiers. Names that come from people
are matched against ``username_pattern`` or a list of allowed names before they get here.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, unquote, urlsplit

import pymysql
from pymysql.connections import Connection

from adapters.base import CREATE_LIMIT_SECONDS, Rejected, Tls

DEFAULT_PORT = 3306
CONNECT_SECONDS = 5
LOCK_SECONDS = 4
"""``lock_wait_timeout``: DDL waits at most this long. Each statement of a create therefore has run or failed within CREATE_LIMIT_SECONDS."""

END_LOCK_SECONDS = 1
"""The same at the first try of an end."""

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
    """An open connection. Every statement goes through ``run``. ``differences``: see ``own_session``. ``is_contested``: see ``locks``."""

    differences: tuple[str, ...] = ()
    is_contested = False

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
    def thread_id(self) -> int:
        """The number of the connection, from the handshake."""
        return int(self._driver.thread_id())  # type: ignore[no-untyped-call]

    @property
    def server_version(self) -> str:
        """As ``SELECT VERSION()`` returns it: ``9.7.4``, ``10.11.19-MariaDB-log``."""
        return str(self.value("SELECT VERSION()"))

    def close(self) -> None:
        with suppress(pymysql.MySQLError, OSError):
            self._driver.close()


class _Driver(Connection):
    """The driver, which loads the machine's certificates for each connection (20 ms or more), although it verifies nothing by them."""

    def _create_ssl_ctx(self, sslp: Any) -> ssl.SSLContext:
        return sslp if isinstance(sslp, ssl.SSLContext) else _unverified()


def log_in(address: Address, tls: Tls, user: str, password: str, database: str | None) -> pymysql.Connection[Any]:
    """Open a connection. Raises the driver's errors."""
    return _Driver(
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
    if tls.mode == "require" and tls.ca is None:
        return {"ssl": _unverified()}
    try:
        context = ssl.create_default_context(cafile=tls.ca)
    except OSError as error:
        raise Rejected(f"the authority in {tls.ca} cannot be read ({type(error).__name__})") from None
    context.check_hostname = tls.mode == "verify-full"
    if tls.mode == "require":
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


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


def matches(pattern: str, schema: str) -> bool:
    """Whether a schema pattern of GRANT matches. ``_`` and ``%`` are wildcards unless escaped."""
    parts = re.findall(r"\\.|.", pattern, re.DOTALL)
    regex = "".join({"_": ".", "%": ".*"}.get(part, re.escape(part[-1])) for part in parts)
    return re.fullmatch(regex, schema, re.IGNORECASE) is not None


def literal_list(connection: MySQLConnection, values: Sequence[str]) -> str:
    """String literals for IN; ``NULL`` for no values."""
    return ", ".join(connection.literal(value) for value in values) or "NULL"


def names_condition(connection: MySQLConnection, column: str, usernames: Sequence[str] | None, prefix: str) -> str:
    """The condition for these names, or for all names with the prefix."""
    if usernames is None:
        return f"LEFT({column}, {len(prefix)}) = {connection.literal(prefix)}"
    return f"{column} IN ({literal_list(connection, usernames)})"


def quoted_if_needed(name: str) -> str:
    """An identifier for statements that a DBA pastes: in backquotes only where it needs them."""
    return name if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name) else quoted(name)
