"""Connections to the server that no object of a temporary user can influence.

Every connection starts with ``search_path=pg_catalog``. Without it, an operator that a temporary user creates in ``public`` is
run by the statement that counts the user's sessions. psycopg quotes the identifiers and binds the values. Every statement has a
time limit on the server, and every answer has a time limit here.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, LiteralString, TypeAlias, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from adapters.base import CREATE_LIMIT_SECONDS, Rejected, Secrets, Target, WrongServer
from adapters.postgresql.errors import refused_role, translated_errors

RV = TypeVar("RV")
Statement: TypeAlias = LiteralString | sql.SQL | sql.Composed
Parameters: TypeAlias = tuple[object, ...] | dict[str, object]

CONNECT_SECONDS = 5
LOCK_TIMEOUT_SECONDS = 4
ANSWER_MARGIN_SECONDS = 3.0
"""Seconds that the bot waits for an answer after the server's own time limit."""
REVOKE_LIMIT_SECONDS = 30.0
STATEMENT_SECONDS = CREATE_LIMIT_SECONDS / 2
"""Time limit of one statement outside revocation. ``users.create`` sends its COMMIT within the other half of the limit."""
SUPPORTED_SINCE = 15
"""The first major version with new grants. On an older one a user can grant its own role to others."""
UPGRADE = f"upgrade the server to PostgreSQL {SUPPORTED_SINCE} or later"

MARK = re.compile(r"dbaccess ledger=([a-z0-9]+) request=([0-9]+)")
LOCK_SPACE = 0x64626163
MANAGED_ROLES_LOCK, LEFT_BEHIND_LOCK = "kept roles", "hand-over"
"""Names of the advisory locks. They stay the same in all releases, so that two releases exclude each other."""


class PostgreSQLConnection(psycopg.Connection[TupleRow]):
    """A connection that knows its role, also in a failed transaction, and that waits for an answer for a limited time.

    The time limits of the server end a statement. They do not help when the server is frozen or the network loses the answer.
    ``acting_role`` is the role that the statements run as. ``answer_limit`` is in seconds.
    """

    acting_role: str = ""
    answer_limit: float = CREATE_LIMIT_SECONDS

    def wait(self, gen: PQGen[RV], *rest: Any, **named: Any) -> RV:
        """Wait like the driver. After ``answer_limit`` seconds the connection is closed, and the driver reports it as lost."""
        timer = threading.Timer(self.answer_limit, self._disconnect)
        timer.daemon = True
        timer.start()
        try:
            return super().wait(gen, *rest, **named)
        finally:
            timer.cancel()

    def _disconnect(self) -> None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as opened:
            opened.shutdown(socket.SHUT_RDWR)


class PostgreSQLServer:
    """One PostgreSQL server, reached with the admin URL. It opens a connection for each use and keeps none."""

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self.secrets = secrets
        self.conninfo = _conninfo(target, secrets)

    @property
    def database(self) -> str:
        """The database of the admin URL. Roles are created and advisory locks are taken there."""
        return str(self.conninfo.get("dbname") or self.conninfo.get("user") or "postgres")

    @property
    def login(self) -> str:
        """The role that the admin URL logs in as."""
        return str(self.conninfo.get("user") or "")

    @contextmanager
    def session(
        self, database: str | None = None, *, limit: float = STATEMENT_SECONDS
    ) -> Iterator[PostgreSQLConnection]:
        """Open an autocommit connection as the admin role.

        ``database`` is the database of the admin URL by default. ``limit`` is the time limit of one statement in seconds.
        Raises only AdapterError: WrongServer where the server is not the one that the grant was made on.
        """
        hidden = (str(self.conninfo.get("password") or ""), self.secrets.admin_url)
        name = database or self.database
        with translated_errors(hidden, login=self.login, database=name), self._connected(name, limit) as connection:
            self._check_identity(connection)
            self._set_admin_role(connection)
            yield connection

    @contextmanager
    def _connected(self, database: str, limit: float) -> Iterator[PostgreSQLConnection]:
        limits = f"-c statement_timeout={int(limit * 1000)} -c lock_timeout={LOCK_TIMEOUT_SECONDS * 1000}"
        options = f"{self.conninfo.get('options') or ''} -c search_path=pg_catalog,pg_temp -c timezone=UTC {limits} -c idle_in_transaction_session_timeout={int(limit * 2000)}"
        settings = {**self.conninfo, "dbname": database, "options": options.strip(), "client_encoding": "UTF8"}
        with PostgreSQLConnection.connect(**settings, autocommit=True, prepare_threshold=None) as connection:
            connection.answer_limit = limit + ANSWER_MARGIN_SECONDS
            if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
                # A name there may hold any bytes. One that UTF-8 cannot read must not stop a revocation.
                connection.execute("SET client_encoding TO 'LATIN1'")
            yield connection

    def _check_identity(self, connection: PostgreSQLConnection) -> None:
        expected = self.target.identity
        if expected is not None and (found := identity(connection)) != expected:
            raise WrongServer(expected=expected, found=found)

    def _set_admin_role(self, connection: PostgreSQLConnection) -> None:
        role = self.target.admin_role
        connection.acting_role = role or connection.info.user
        if role is None:
            return
        try:
            connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue):
            raise refused_role(quoted(role), quoted(self.login), is_there=exists(connection, role)) from None


def _conninfo(target: Target, secrets: Secrets) -> dict[str, Any]:
    remedy = "postgresql://user:password@host:port/database"
    try:
        scheme = urlsplit(secrets.admin_url).scheme
        found = conninfo_to_dict(secrets.admin_url)
    except (psycopg.Error, ValueError):
        scheme, found = "", {}
    if scheme not in ("postgresql", "postgres"):
        raise Rejected(f"the admin URL behind {target.admin_url} cannot be read", remedy=remedy)
    tls = {"sslmode": target.tls.mode, **({"sslrootcert": target.tls.ca} if target.tls.ca else {})}
    keepalives = {"keepalives": 1, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    limits = {"connect_timeout": CONNECT_SECONDS, "tcp_user_timeout": int(REVOKE_LIMIT_SECONDS * 1000)}
    return {**found, **tls, **keepalives, **limits, "application_name": "dbaccess"}


@contextmanager
def advisory_lock(connection: PostgreSQLConnection, name: str) -> Iterator[None]:
    """Hold the advisory lock of this name. All bots on a server take turns: half of the parallel statements on one ACL fail."""
    key = (LOCK_SPACE, zlib.crc32(name.encode()) & 0x7FFFFFFF)
    connection.execute("SELECT pg_advisory_lock(%s, %s)", key)
    try:
        yield
    finally:
        with suppress(psycopg.Error):  # a lost connection holds no locks any more
            connection.execute("SELECT pg_advisory_unlock(%s, %s)", key)


def identity(connection: PostgreSQLConnection) -> str:
    """``system_identifier``: every role may read it, and it is the same after a restart and on the standbys."""
    return str(value(connection, "SELECT system_identifier FROM pg_control_system()"))


def exists(connection: PostgreSQLConnection, role: str) -> bool:
    return value(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)) is not None


def quoted_acting_role(connection: PostgreSQLConnection) -> str:
    """The role that the statements run as, quoted: the admin role, or the login where there is none."""
    return quoted(connection.acting_role)


def value(connection: PostgreSQLConnection, query: Statement, parameters: Parameters = ()) -> Any:
    """The first column of the first row, or None."""
    row = connection.execute(_composed(query), parameters).fetchone()
    return row[0] if row else None


def column(connection: PostgreSQLConnection, query: Statement, parameters: Parameters = ()) -> list[Any]:
    """The first column of all rows."""
    return [row[0] for row in connection.execute(_composed(query), parameters).fetchall()]


def _composed(query: Statement) -> sql.SQL | sql.Composed:
    return query if isinstance(query, sql.SQL | sql.Composed) else sql.SQL(query)


def run(connection: PostgreSQLConnection, template: LiteralString, *names: str, **literals: object) -> None:
    """Run a statement that cannot have parameters: ``{}`` takes the quoted identifiers in order, ``{name}`` a quoted literal."""
    identifiers = [sql.Identifier(name) for name in names]
    connection.execute(sql.SQL(template).format(*identifiers, **{k: sql.Literal(v) for k, v in literals.items()}))


def quoted(name: str) -> str:
    """An identifier as an administrator pastes it: in quotes only where it needs them."""
    return name if re.fullmatch(r"[a-z_][a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def major_version(connection: PostgreSQLConnection) -> int:
    """The major version: 15, 16, 18."""
    return connection.info.server_version // 10000


def unsupported_version(connection: PostgreSQLConnection) -> str | None:
    """The reason why the server's version gets no new grants, or None. Users on such a server are still ended."""
    version = major_version(connection)
    if version >= SUPPORTED_SINCE:
        return None
    return f"PostgreSQL {version} is too old: a user can grant its own role to others there"


def require_supported(connection: PostgreSQLConnection) -> None:
    """Raises Rejected where the server's version gets no new grants."""
    if (what := unsupported_version(connection)) is not None:
        raise Rejected(what, remedy=UPGRADE)
