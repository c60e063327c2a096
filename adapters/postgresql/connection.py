"""Connections to the server, hardened against what a temporary user may have planted, and the one translation of its errors.

Every connection starts with ``search_path=pg_catalog``: an operator made in ``public`` by a temporary user was once run by
the very statement that counts its sessions. Identifiers are quoted by psycopg, values are bound.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString, TypeAlias
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from adapters.base import CREATE_LIMIT_SECONDS, AdapterError, Rejected, Secrets, Target, Unreachable, WrongServer, scrub

Connection: TypeAlias = psycopg.Connection[TupleRow]
Statement: TypeAlias = LiteralString | sql.SQL | sql.Composed

CONNECT_SECONDS = 5
LOCK_SECONDS = 5
REVOKE_LIMIT_SECONDS = 30.0
MARK = re.compile(r"dbaccess ledger=([a-z0-9]+) request=([0-9]+)")

RETRYABLE_CLASSES = ("08", "40", "53", "57P", "58")
RETRYABLE = frozenset({"55P03", "55006", "57014", "23505", "42710"})
CONCURRENT = ("concurrently", "could not find tuple")
REFUSED_LOGIN = (
    "authentication failed",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied",
    "not permitted to log in",
    "certificate",
    "SSL",
)


class Server:
    """One PostgreSQL server as its administrator sees it; opens a connection for each use and keeps none."""

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self.secrets = secrets
        self.conninfo = _conninfo(target, secrets)

    @property
    def database(self) -> str:
        """The database of the admin URL: where roles are made and where advisory locks are taken."""
        return str(self.conninfo.get("dbname") or self.conninfo.get("user") or "postgres")

    @contextmanager
    def session(self, database: str | None = None, *, limit: float = CREATE_LIMIT_SECONDS) -> Iterator[Connection]:
        """An autocommit connection as the admin role, on the server the grant was made on. Raises only AdapterError."""
        with self._translated(), self._connected(database or self.database, limit) as connection:
            self._same_server(connection)
            self._as_owner(connection)
            yield connection

    @contextmanager
    def _connected(self, database: str, limit: float) -> Iterator[Connection]:
        limits = f"-c statement_timeout={int(limit * 1000)} -c lock_timeout={LOCK_SECONDS * 1000}"
        options = (
            f"-c search_path=pg_catalog,pg_temp {limits} -c idle_in_transaction_session_timeout={int(limit * 2000)}"
        )
        settings = {**self.conninfo, "dbname": database, "options": options}
        try:
            connection = psycopg.connect(**settings, autocommit=True, prepare_threshold=None)
        except psycopg.OperationalError as error:
            raise self._no_connection(error) from None
        with connection:
            yield connection

    def _no_connection(self, error: psycopg.OperationalError) -> AdapterError:
        words = self._clean(str(error))
        if any(part in words for part in REFUSED_LOGIN) and "starting up" not in words:
            return Rejected(f"the server refused the bot's own login: {words}")
        return Unreachable(f"no connection: {words}")

    def _same_server(self, connection: Connection) -> None:
        expected = self.target.identity
        if expected is not None and (found := identity(connection)) != expected:
            raise WrongServer(expected=expected, found=found)

    def _as_owner(self, connection: Connection) -> None:
        role = self.target.admin_role
        if role is None:
            return
        try:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        except psycopg.Error as error:
            login = str(self.conninfo.get("user"))
            mend = f"CREATE ROLE {quoted(role)} NOLOGIN CREATEROLE; GRANT {quoted(role)} TO {quoted(login)};"
            raise Rejected(
                f"the bot's login cannot take on the role {role}: {self._clean(str(error))}", mend=mend
            ) from None

    def _clean(self, words: str) -> str:
        first = " ".join(words.split())[:300]
        return scrub(first, str(self.conninfo.get("password") or ""), self.secrets.admin_url)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """The one point at which errors of the driver become an adapter's; their cause is cut off, since a statement may hang on it."""
        try:
            yield
        except psycopg.Error as error:
            raise self.translate(error) from None

    def translate(self, error: psycopg.Error) -> AdapterError:
        """Try again, or not: by SQLSTATE, as measured (engines that answer otherwise under load)."""
        state = error.sqlstate or ""
        primary = error.diag.message_primary or type(error).__name__
        words = self._clean(primary)
        if not state or state in RETRYABLE or state.startswith(RETRYABLE_CLASSES):
            return Unreachable(f"the server did not finish ({words or state})", is_ambiguous=True)
        if state == "XX000" and any(part in primary for part in CONCURRENT):
            return Unreachable(f"the server was busy with the same rows ({words})", is_ambiguous=True)
        if state == "42501":
            return Rejected(
                f"the bot lacks a right: {words}", mend="run dbaccess doctor: it prints the statement that gives it"
            )
        return Rejected(f"the server refused ({state}): {words}")


def _conninfo(target: Target, secrets: Secrets) -> dict[str, Any]:
    scheme = urlsplit(secrets.admin_url).scheme
    if scheme not in ("postgresql", "postgres"):
        raise Rejected(f"the admin URL behind {target.admin_url} is no postgresql:// URL")
    try:
        found = conninfo_to_dict(secrets.admin_url)
    except psycopg.Error:
        raise Rejected(
            f"the admin URL behind {target.admin_url} cannot be read; postgresql://user:password@host:port/database"
        ) from None
    tls = {"sslmode": target.tls.mode, **({"sslrootcert": target.tls.ca} if target.tls.ca else {})}
    keepalives = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    return {**found, **tls, **keepalives, "connect_timeout": CONNECT_SECONDS, "application_name": "dbaccess"}


def identity(connection: Connection) -> str:
    """The server's own number; allowed to everyone, the same over restarts and on its standbys."""
    return str(value(connection, "SELECT system_identifier FROM pg_control_system()"))


def value(connection: Connection, query: Statement, parameters: tuple[object, ...] = ()) -> Any:
    """The first column of the first row, or None."""
    row = connection.execute(_composed(query), parameters).fetchone()
    return row[0] if row else None


def column(connection: Connection, query: Statement, parameters: tuple[object, ...] = ()) -> list[Any]:
    """The first column of all rows."""
    return [row[0] for row in connection.execute(_composed(query), parameters).fetchall()]


def _composed(query: Statement) -> sql.SQL | sql.Composed:
    return query if isinstance(query, sql.SQL | sql.Composed) else sql.SQL(query)


def run(connection: Connection, template: LiteralString, *names: str, **literals: object) -> None:
    """A statement without parameters of its own: ``{}`` takes quoted identifiers in order, ``{name}`` quoted literals."""
    identifiers = [sql.Identifier(name) for name in names]
    connection.execute(sql.SQL(template).format(*identifiers, **{k: sql.Literal(v) for k, v in literals.items()}))


def quoted(name: str) -> str:
    """An identifier as a DBA would paste it."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def version(connection: Connection) -> int:
    """The major version: 15, 16, 18."""
    return connection.info.server_version // 10000
