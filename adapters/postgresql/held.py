"""One held connection for each server, for the moment when no new connection gets in.

A user can fill the server's table of locks or its connections, or queue for a lock on the role catalogs that every login needs. An open
connection alone does not help: ``pg_terminate_backend`` looks up roles, and a lock on these shared catalogs needs room in the table of locks
(measured on PostgreSQL 15 and 18). So the held connection keeps a transaction open that has these locks already. It holds no snapshot
between two statements, so it does not delay VACUUM. A keeper releases the locks where only held connections delay another session.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import LiteralString

import psycopg
from psycopg import sql

from adapters.base import AdapterError, WrongServer
from adapters.postgresql.connection import OTHER_DATABASES, REVOKE_LIMIT_SECONDS, PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.errors import UNREADABLE, translated_errors
from adapters.postgresql.statements import column, value

KEEPER_SECONDS = 2.0
"""Seconds between two looks of the keeper, and so the longest time that the held locks delay somebody else."""
KEPT_SECONDS = 900.0
"""Seconds that a connection is held after the last create or listing of users on its server."""
BORROW_SECONDS = 20.0
"""Seconds that an end waits for the held connection while another end uses it."""
ANSWER_SECONDS = 5.0
"""Seconds that the keeper waits for an answer."""
REOPEN_TRIES, REOPEN_PAUSE_SECONDS = 3, 0.2
KEEPER = "dbaccess-held"
"""The name of the keepers' threads."""
APPLICATION_NAME: LiteralString = "dbaccess held"

TAKE_LOCKS: tuple[LiteralString, ...] = (
    "BEGIN",
    "SET LOCAL lock_timeout = '100ms'",
    "LOCK TABLE pg_roles, pg_auth_members IN ACCESS SHARE MODE",
    "SET LOCAL enable_seqscan = off",
    "SELECT 1 FROM pg_roles WHERE oid = 10::oid",
    "SELECT 1 FROM pg_roles WHERE rolname = 'nobody'",
    "SELECT 1 FROM pg_auth_members ORDER BY member, roleid LIMIT 1",
    "SELECT 1 FROM pg_auth_members ORDER BY roleid, member LIMIT 1",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL) WHERE usesysid = 1::oid",
)
"""Locks on the role catalogs and their indexes. They last as long as the transaction."""

FORGET_ACTIVITY: LiteralString = "SELECT pg_stat_clear_snapshot()"
"""Within a transaction the server answers every look at the sessions with the first one, unless it is told to look again."""
HOLDS_UP_SOMEBODY: LiteralString = """
SELECT 1 FROM pg_locks w, pg_stat_get_activity(pg_backend_pid()) me
 WHERE NOT w.granted AND me.pid = ANY(pg_blocking_pids(w.pid)) AND NOT EXISTS (
   SELECT 1 FROM unnest(pg_blocking_pids(w.pid)) b(pid) LEFT JOIN pg_stat_get_activity(NULL) a ON a.pid = b.pid
    WHERE a.usesysid IS DISTINCT FROM me.usesysid) LIMIT 1
"""
"""Whether a session waits for held connections of this login alone. Where somebody else holds the lock too, releasing it helps nobody."""
QUEUING_FOR_CATALOGS: LiteralString = """
SELECT DISTINCT l.pid FROM pg_locks l JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid JOIN pg_roles r ON r.oid = a.usesysid
 WHERE l.locktype = 'relation' AND l.database = 0 AND l.mode = 'AccessExclusiveLock' AND NOT l.granted AND NOT r.rolsuper
"""
"""Sessions of non-superusers that queue to lock a shared catalog. The server refuses them once they have the lock; until then every login waits behind them."""
LOCKS_AT_MOST = 1000
"""A session of a temporary user with more locks can fill the server's table of locks. Each table that a statement uses takes a few."""
FILLING_LOCKS: LiteralString = """
SELECT l.pid FROM pg_lock_status() l JOIN pg_stat_get_activity(NULL) a ON a.pid = l.pid JOIN pg_roles r ON r.oid = a.usesysid
 WHERE starts_with(r.rolname, %s) AND NOT r.rolsuper GROUP BY l.pid HAVING count(*) > %s
"""


class HeldConnection:
    """The held connection to one server. One end at a time uses it."""

    def __init__(self, server: PostgreSQLServer) -> None:
        self._server = server
        self._turn = threading.Lock()
        self._connection: PostgreSQLConnection | None = None
        self._keeper: threading.Thread | None = None
        self._needed_until = 0.0

    @property
    def is_open(self) -> bool:
        return self._connection is not None and not self._connection.closed

    @property
    def has_locks(self) -> bool:
        connection = self._connection
        return connection is not None and connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS

    def ensure(self) -> None:
        """Let the keeper open the connection and hold it from now on. A failure is ignored: ends need it only where nothing else gets in."""
        self._needed_until = time.monotonic() + KEPT_SECONDS
        if self._keeper is None or not self._keeper.is_alive():
            self._keeper = threading.Thread(target=self._keep, daemon=True, name=KEEPER)
            self._keeper.start()

    def _opened(self) -> PostgreSQLConnection | None:
        """A connection to a database that nobody drops, if possible. None behind a pooler, where a session is not the bot's own."""
        for database in dict.fromkeys([OTHER_DATABASES[0], self._server.database]):
            with suppress(AdapterError, psycopg.Error):
                connection = self._server.open(database, REVOKE_LIMIT_SECONDS)
                if _is_prepared(connection):
                    return connection
                connection.close()
        return None

    def _take_locks(self) -> None:
        """Begin the transaction that holds the locks. Where one is not free, the keeper tries again."""
        connection = self._connection
        if connection is None or connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
            return
        try:
            for statement in TAKE_LOCKS:
                connection.execute(statement)
        except psycopg.Error:
            self._release()

    def _release(self) -> None:
        if self._connection is not None:
            with suppress(psycopg.Error):
                self._connection.execute("ROLLBACK")

    def _keep(self) -> None:
        """The keeper: opens the connection, and ends with it or when nobody needs it any more."""
        with self._turn:
            if self._connection is not None:
                self._connection.close()
            self._connection = self._opened()
            self._take_locks()
        while self.is_open and time.monotonic() < self._needed_until:
            time.sleep(KEEPER_SECONDS)
            if self._turn.acquire(blocking=False):
                try:
                    self._let_others_pass()
                finally:
                    self._turn.release()
        self.close()

    def _let_others_pass(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute(FORGET_ACTIVITY)
            if value(self._connection, HOLDS_UP_SOMEBODY):
                self._release()
            else:
                self._take_locks()
        except (psycopg.Error, ValueError, *UNREADABLE):  # the keeper goes on, whatever it was answered
            self._release()

    @contextmanager
    def borrowed(self) -> Iterator[PostgreSQLConnection | None]:
        """The connection with its locks, for one end. None where it is lost, or where other ends use it for too long."""
        if not self._turn.acquire(timeout=BORROW_SECONDS):
            yield None
            return
        try:
            connection = self._connection if self.is_open else None
            if connection is not None:
                connection.answer_limit = REVOKE_LIMIT_SECONDS
            yield connection
        finally:
            if self._connection is not None:
                self._connection.answer_limit = ANSWER_SECONDS
                self._release()
                self._take_locks()
            self._turn.release()

    def close(self) -> None:
        self._needed_until = 0.0
        with self._turn:
            if self._connection is not None:
                self._connection.close()


def _is_prepared(connection: PostgreSQLConnection) -> bool:
    """Prepare the connection for a long life. Returns False where it cannot be held."""
    if connection.is_pooled:
        return False
    connection.answer_limit = ANSWER_SECONDS
    try:
        connection.execute(sql.SQL("SET application_name = {}").format(sql.Literal(APPLICATION_NAME)))
        connection.execute("SET idle_in_transaction_session_timeout = 0")
    except psycopg.Error:
        return False
    return True


_held: dict[str, HeldConnection] = {}
_guard = threading.Lock()


def server_key(server: PostgreSQLServer) -> str:
    """A key for what this process shares for one server: by login and address, as a digest, because the password is a part: two targets with the same admin URL share one held connection."""
    parts = [f"{name}={server.conninfo[name]}" for name in sorted(server.conninfo)]
    return hashlib.sha256("\n".join([*parts, str(server.target.admin_role)]).encode()).hexdigest()


def ensure(server: PostgreSQLServer) -> None:
    """Hold a connection to this server from now on."""
    with _guard:
        held = _held.setdefault(server_key(server), HeldConnection(server))
    held.ensure()


def is_held(server: PostgreSQLServer) -> bool:
    """Whether a connection with its locks is held now."""
    held = _held.get(server_key(server))
    return held is not None and held.has_locks


def close_all() -> None:
    """Close all held connections of this process."""
    with _guard:
        known = list(_held.values())
        _held.clear()
    for held in known:
        held.close()


@contextmanager
def session_for_end(server: PostgreSQLServer, usernames: Sequence[str]) -> Iterator[PostgreSQLConnection]:
    """A connection for the end of these users. Where no new one gets in, the held one first ends their sessions.

    The held one serves for the whole end where there is still no other then. Raises the error of the new connection where none is held.
    """
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(server.session(limit=REVOKE_LIMIT_SECONDS))
        except WrongServer:
            raise
        except AdapterError as error:
            connection = _free_a_way(server, usernames, stack, error)
        yield connection


def _free_a_way(
    server: PostgreSQLServer, usernames: Sequence[str], stack: ExitStack, error: AdapterError
) -> PostgreSQLConnection:
    """A new connection after the held one ended sessions, or the held one itself. Raises ``error`` where none is held."""
    held = _held.get(server_key(server))
    if held is None:
        raise error
    with ExitStack() as borrowing:
        borrowed = borrowing.enter_context(held.borrowed())
        if borrowed is None:
            raise error
        borrowing.enter_context(translated_errors(server.hidden, login=server.login, database=borrowed.info.dbname))
        try:
            _end_what_is_in_the_way(borrowed, usernames, server.target.prefix)
        except psycopg.Error:  # the held connection was lost, too
            raise error from None
        for _ in range(REOPEN_TRIES):
            with suppress(AdapterError):
                return stack.enter_context(server.session(limit=REVOKE_LIMIT_SECONDS))
            time.sleep(REOPEN_PAUSE_SECONDS)
        borrowed.execute("ROLLBACK")
        stack.enter_context(borrowing.pop_all())
    return borrowed


def _end_what_is_in_the_way(connection: PostgreSQLConnection, usernames: Sequence[str], prefix: str) -> None:
    """End the sessions of these users, those that queue for a lock on a shared catalog, and those of temporary users that fill the table of locks.

    Sessions of a superuser cannot be ended and are left.
    """
    connection.execute(FORGET_ACTIVITY)
    own = (
        "SELECT a.pid FROM pg_stat_get_activity(NULL) a JOIN pg_roles r ON r.oid = a.usesysid WHERE r.rolname = ANY(%s)"
    )
    pids = [
        *column(connection, own, (list(usernames),)),
        *column(connection, QUEUING_FOR_CATALOGS),
        *column(connection, FILLING_LOCKS, (prefix, LOCKS_AT_MOST)),
    ]
    for pid in dict.fromkeys(pids):
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))
