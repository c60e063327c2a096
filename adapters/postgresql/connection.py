"""Connections to the server that nothing of a temporary user can influence.

Each connection pins the settings that its statements depend on and reads them back (``pins``). psycopg quotes the identifiers and binds
the values. Every statement has a time limit on the server, and every answer has a time limit here.
"""

from __future__ import annotations

import math
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import psycopg
from psycopg import sql
from psycopg.abc import PQGen
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from adapters.base import CREATE_LIMIT_SECONDS, AdapterError, Rejected, Secrets, Target, WrongServer
from adapters.postgresql.errors import (
    UNKNOWN_SETTING,
    UNSUPPORTED_OPTIONS,
    is_no_answer,
    refused_role,
    translated_errors,
)
from adapters.postgresql.pins import READ_BACK, READ_BACK_AND_ACT, SET_PINS, is_equal, pins, startup_options
from adapters.postgresql.statements import exists, major_version, quoted, value

RV = TypeVar("RV")

CONNECT_SECONDS = 5
ANSWER_MARGIN_SECONDS = 3.0
"""Seconds that the bot waits for an answer after the server's own time limit."""
REVOKE_LIMIT_SECONDS = 30.0
STATEMENT_SECONDS = CREATE_LIMIT_SECONDS / 2
"""Time limit of one statement outside revocation. ``users.create`` sends its COMMIT within the other half of the limit."""
SUPPORTED_SINCE = 15
"""The first major version with new grants. On an older one a user can grant its own role to others."""
UPGRADE = f"upgrade the server to PostgreSQL {SUPPORTED_SINCE} or later"
FIRST_GUESS = SUPPORTED_SINCE
"""The major version whose settings the first connection to a server pins. The next ones know the server's version."""
OTHER_DATABASES = ("postgres", "template1")
"""Roles belong to the whole server, so they can be changed from each of its databases."""
NO_POOLER = "let the admin URL name the server itself, not the pooler in front of it"

MARK = re.compile(r"dbaccess ledger=([a-z0-9]+) request=([0-9]+)")

_versions: dict[tuple[str, str], int] = {}
"""The major versions of the servers that this process has seen, by host and port."""


class PostgreSQLConnection(psycopg.Connection[TupleRow]):
    """A connection that knows its role and its pins, and that waits for an answer for a limited time.

    The time limits of the server end a statement. They do not help when the server is frozen or the network loses the answer.
    ``acting_role`` is the role that the statements run as. ``answer_limit`` is in seconds. ``is_pooled``: a pooler is in between, which may
    use another connection to the server for each transaction. There every transaction sets ``pinned`` and the role again.
    """

    acting_role: str = ""
    answer_limit: float = CREATE_LIMIT_SECONDS
    is_pooled: bool = False
    pinned: dict[str, str] = {}

    def wait(self, gen: PQGen[RV], *rest: Any, **named: Any) -> RV:
        """Wait like the driver. After ``answer_limit`` seconds the connection is closed, and the driver reports it as lost."""
        return super().wait(self._limited(gen), *rest, **named)

    def _limited(self, gen: PQGen[RV]) -> PQGen[RV]:
        """The steps of the driver's own generator. The driver resumes it at least ten times a second, also where nothing arrived."""
        latest = time.monotonic() + self.answer_limit
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if time.monotonic() > latest:
                    self._disconnect()
                wanted = gen.send(ready)
        except StopIteration as done:
            found: RV = done.value
            return found

    def _disconnect(self) -> None:
        with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.fileno())) as opened:
            opened.shutdown(socket.SHUT_RDWR)

    def execute(self, query: Any, params: Any = None, **rest: Any) -> psycopg.Cursor[TupleRow]:
        """Run the statement, behind a pooler in a transaction that sets the pins first."""
        if self.is_pooled and self.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            with self.transaction():
                return super().execute(query, params, **rest)
        return super().execute(query, params, **rest)

    @contextmanager
    def transaction(
        self, savepoint_name: str | None = None, force_rollback: bool = False
    ) -> Iterator[psycopg.Transaction]:
        """A transaction. Behind a pooler the outermost one sets the pins and the role before anything else."""
        is_outermost = self.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        with super().transaction(savepoint_name, force_rollback) as opened:
            if self.is_pooled and is_outermost:
                names, settings = list(self.pinned), list(self.pinned.values())
                super().execute(SET_PINS, (names, settings))
                if self.acting_role:
                    super().execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(self.acting_role)))
            yield opened

    def set_lock_timeout(self, seconds: float) -> None:
        """From now on, every statement waits at most so many seconds for a lock."""
        self.pinned = {**self.pinned, "lock_timeout": f"{int(seconds * 1000)}ms"}
        if not self.is_pooled:
            super().execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(int(seconds * 1000))))

    def act_again(self) -> None:
        """Return to the bot's own role after ``SET ROLE`` to another."""
        self.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(self.acting_role)))


class PostgreSQLServer:
    """One PostgreSQL server, reached with the admin URL. It opens a connection for each use.

    ``identity`` is the ``system_identifier`` that its last connection read; None before the first one.
    """

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.identity: str | None = None
        self.target = target
        self.secrets = secrets
        self.conninfo = _conninfo(target, secrets)

    @property
    def database(self) -> str:
        """The database of the admin URL."""
        return str(self.conninfo.get("dbname") or self.conninfo.get("user") or "postgres")

    @property
    def login(self) -> str:
        """The role that the admin URL logs in as."""
        return str(self.conninfo.get("user") or "")

    @property
    def hidden(self) -> tuple[str, ...]:
        """The secrets that no error may contain."""
        return str(self.conninfo.get("password") or ""), self.secrets.admin_url

    @contextmanager
    def session(
        self, database: str | None = None, *, limit: float = STATEMENT_SECONDS
    ) -> Iterator[PostgreSQLConnection]:
        """Open an autocommit connection as the admin role.

        ``database`` is the database of the admin URL by default; where that lets nobody in, another database of the server serves.
        ``limit`` is the time limit of one statement in seconds. Raises only AdapterError: WrongServer where the server is not the one that
        the grant was made on.
        """
        connection = self._open_anywhere(limit) if database is None else self.open(database, limit)
        with translated_errors(self.hidden, login=self.login, database=connection.info.dbname), connection:
            yield connection

    def _open_anywhere(self, limit: float) -> PostgreSQLConnection:
        """A connection to the database of the admin URL. Its owner may have closed it, and then to another one."""
        try:
            return self.open(self.database, limit)
        except AdapterError as error:
            if isinstance(error, WrongServer) or is_no_answer(str(error)):
                raise
            for other in OTHER_DATABASES:
                with suppress(AdapterError):
                    return self.open(other, limit)
            raise

    def open(self, database: str, limit: float) -> PostgreSQLConnection:
        """A connection that the caller closes: pinned, read back, checked to be the right server, and acting as the admin role."""
        with translated_errors(self.hidden, login=self.login, database=database):
            connection = self._connected(database, limit)
            try:
                self._verify(connection)
            except BaseException:
                connection.close()
                raise
            return connection

    def _connected(self, database: str, limit: float) -> PostgreSQLConnection:
        """Connect with the pins of the server's version. A connection with those of another version is replaced."""
        address = (str(self.conninfo.get("host")), str(self.conninfo.get("port")))
        for _ in range(2):
            version = _versions.get(address, FIRST_GUESS)
            try:
                connection = self._connect(database, limit, version)
            except psycopg.OperationalError as error:
                if UNSUPPORTED_OPTIONS.search(str(error)):
                    return self._connect(database, limit, None)
                if not UNKNOWN_SETTING.search(str(error)):
                    raise
                _versions[address] = SUPPORTED_SINCE - 2
                continue
            found = major_version(connection)
            _versions[address] = found
            if pins(found, limit=limit) == pins(version, limit=limit):
                return connection
            connection.close()
        return self._connect(database, limit, _versions[address])

    def _connect(self, database: str, limit: float, version: int | None) -> PostgreSQLConnection:
        """``version`` is None for a pooler that refuses options at the start."""
        own = str(self.conninfo.get("options") or "")
        pinned = pins(version, limit=limit) if version is not None else {}
        options = {"options": f"{own} {startup_options(pinned)}".strip()} if version is not None else {}
        known = {key: found for key, found in self.conninfo.items() if key != "options"}
        patience = {"connect_timeout": min(CONNECT_SECONDS, math.ceil(limit))}
        settings: dict[str, Any] = {**known, **patience, "dbname": database, **options, "client_encoding": "UTF8"}
        connection = PostgreSQLConnection.connect(**settings, autocommit=True, prepare_threshold=None)
        connection.answer_limit = limit + ANSWER_MARGIN_SECONDS
        connection.pinned = pinned or pins(major_version(connection), limit=limit)
        if connection.info.parameter_status("server_encoding") == "SQL_ASCII":
            # A name there may hold any bytes. One that UTF-8 cannot read must not stop a revocation.
            connection.execute("SET client_encoding TO 'LATIN1'")
        return connection

    def _verify(self, connection: PostgreSQLConnection) -> None:
        """Act as the admin role, and read back the process, the server's identity and the pins.

        Raises WrongServer, and Rejected where a pin does not hold or where the login may not act as the admin role.
        """
        connection.acting_role = self.target.admin_role or connection.info.user
        names, role_error = list(connection.pinned), None
        parameters = names, connection.info.backend_pid, connection.acting_role
        try:
            row = connection.execute(READ_BACK_AND_ACT, parameters).fetchone()
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidParameterValue) as error:
            role_error = error
            row = connection.execute(READ_BACK, (names,)).fetchone()
        assert row is not None, "a SELECT without FROM has one row"
        pid, identifier, settings = row[:3]
        expected = self.target.identity
        if expected is not None and str(identifier) != expected:
            raise WrongServer(expected=expected, found=str(identifier))
        self.identity = str(identifier)
        connection.is_pooled = pid != connection.info.backend_pid
        wrong = [n for n, found in zip(names, settings, strict=True) if not is_equal(n, connection.pinned[n], found)]
        if wrong and not connection.is_pooled:
            raise Rejected(
                f"the server does not keep the bot's setting of {wrong[0]}",
                remedy=f"ALTER ROLE {quoted(self.login)} RESET {wrong[0]}; and see options in the admin URL",
            )
        if role_error is not None:
            role = connection.acting_role
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


def identity(connection: PostgreSQLConnection) -> str:
    """``system_identifier``: every role may read it, and it is the same after a restart and on the standbys."""
    return str(value(connection, "SELECT system_identifier FROM pg_control_system()"))


def pooled_finding(connection: PostgreSQLConnection) -> str | None:
    """The reason why no grant is made over this connection, or None: a pooler answers instead of the server."""
    if not connection.is_pooled:
        return None
    return "the admin URL leads to a connection pooler, which may change the bot's settings between two statements"


def unsupported_version(connection: PostgreSQLConnection) -> str | None:
    """The reason why the server's version gets no new grants, or None. Users on such a server are still ended."""
    version = major_version(connection)
    if version >= SUPPORTED_SINCE:
        return None
    return f"PostgreSQL {version} is too old: a user can grant its own role to others there"


def require_fit_for_grants(connection: PostgreSQLConnection) -> None:
    """Raises Rejected where the server's version gets no new grants, or where a pooler is in between. Ends never call this."""
    if (what := unsupported_version(connection)) is not None:
        raise Rejected(what, remedy=UPGRADE)
    if (what := pooled_finding(connection)) is not None:
        raise Rejected(what, remedy=NO_POOLER)
