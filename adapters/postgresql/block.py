"""The block of users whose ends fall together: sessions ended and logins refused over one connection, without waiting for any of them.

Each login is blocked in a transaction of its own. A user that holds the lock on its own role, for example by a prepared transaction, is left
out after a short wait; ``revoke.drop`` finds the holder. Standbys are not visited: ``revoke.drop`` ends the sessions there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import LiteralString

import psycopg
from psycopg import sql

from adapters.base import ServerDown, Target
from adapters.postgresql.connection import MARK, PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.held import session_for_end
from adapters.postgresql.pins import LOCK_TIMEOUT_SECONDS
from adapters.postgresql.roles import BLOCK_LOGIN, SETS_MEMBERSHIP_OPTIONS
from adapters.postgresql.sessions import FIRST_PAUSE, LATE_LOGIN_SECONDS
from adapters.postgresql.statements import column, major_version, quoted
from adapters.usernames import username_pattern

LOCK_WAITS_SECONDS = (0.02, 0.2)
"""Seconds that the first and the second try to block a login wait for a lock. The session that held it may just be ending."""
SECOND_TRIES_SECONDS = 2.0
"""Seconds after which no further login gets a second try."""
SESSIONS_SECONDS = 2.0
"""Seconds in which the sessions of blocked users must be gone. A user whose session is not is left out."""

FOUND: LiteralString = """
SELECT r.rolname, r.oid, shobj_description(r.oid, 'pg_authid'), r.rolcanlogin, pg_has_role(r.oid, 'USAGE') FROM pg_roles r
 WHERE r.rolname = ANY(%s)
"""
TERMINATE: LiteralString = """
SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity a JOIN pg_roles r ON r.oid = a.usesysid, pg_roles me
 WHERE a.usesysid = ANY(%s::oid[]) AND me.rolname = current_user AND (me.rolsuper OR NOT r.rolsuper)
   AND (pg_has_role(r.oid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))
"""
"""Sessions that the bot may not end are left out: an error would leave the sessions of all others."""
STATES: LiteralString = """
SELECT u.oid, coalesce(r.rolcanlogin, false), u.oid = ANY(ARRAY(SELECT usesysid FROM pg_stat_activity WHERE usesysid IS NOT NULL))
  FROM unnest(%s::oid[]) u(oid) LEFT JOIN pg_roles r ON r.oid = u.oid
"""
CAN_LOG_IN: LiteralString = "SELECT rolname FROM pg_roles WHERE rolname = ANY(%s) AND rolcanlogin"


@dataclass(frozen=True, kw_only=True)
class UserToBlock:
    """A user of this ledger, or one whose mark is lost. ``is_ours_to_end``: the bot's role has the user's rights, and so may end its sessions."""

    username: str
    oid: int
    can_log_in: bool
    is_ours_to_end: bool


def block(server: PostgreSQLServer, usernames: Sequence[str]) -> frozenset[str]:
    """The names of the users that cannot log in and have no session on the primary, as read back. Raises ServerDown on a standby."""
    pattern = username_pattern(server.target.prefix)
    names = [name for name in dict.fromkeys(usernames) if pattern.fullmatch(name)]
    with session_for_end(server, names) as connection, _short_waits(connection):
        rows = connection.execute(FOUND, (names,)).fetchall()
        users = list(_own(server.target, rows))
        _terminate(connection, users)
        _refuse_standby(connection)
        _block_logins(connection, users)
        blocked = _read_back(connection, users)
    absent = set(names) - {row[0] for row in rows}
    return frozenset(absent | {user.username for user in users if user.oid in blocked})


def statements_by_hand(username: str) -> tuple[str, ...]:
    """The statements that end this user's access, for ``psql``. The sessions come first: one of them may hold the lock that ALTER ROLE needs."""
    literal = username.replace("'", "''")
    terminate = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{literal}';"
    return terminate, f"ALTER ROLE {quoted(username)} NOLOGIN;", terminate


@contextmanager
def _short_waits(connection: PostgreSQLConnection) -> Iterator[None]:
    connection.set_lock_timeout(LOCK_WAITS_SECONDS[1])
    try:
        yield
    finally:
        if not connection.broken:
            connection.set_lock_timeout(LOCK_TIMEOUT_SECONDS)


def _own(target: Target, rows: Sequence[tuple[object, ...]]) -> Iterator[UserToBlock]:
    """The users without those whose mark names another ledger."""
    for name, oid, comment, can_log_in, is_ours_to_end in rows:
        mark = MARK.fullmatch(str(comment or ""))
        if mark is None or mark[1] == target.ledger:
            yield UserToBlock(
                username=str(name), oid=int(str(oid)), can_log_in=bool(can_log_in), is_ours_to_end=bool(is_ours_to_end)
            )


def _terminate(connection: PostgreSQLConnection, users: Sequence[UserToBlock]) -> None:
    connection.execute(TERMINATE, ([user.oid for user in users],))


def _refuse_standby(connection: PostgreSQLConnection) -> None:
    """A user that is absent on a standby may be there on the primary."""
    if column(connection, "SELECT 1 WHERE pg_is_in_recovery()"):
        raise ServerDown("this server is a standby now; users are ended on the primary")


def _block_logins(connection: PostgreSQLConnection, users: Sequence[UserToBlock]) -> None:
    """Try to block each login, and those that could not be blocked once more with a longer wait for the lock."""
    _run_each(connection, [_grant_to_bot(connection, user) for user in users if not user.is_ours_to_end])
    left = [user.username for user in users if user.can_log_in]
    first, second = LOCK_WAITS_SECONDS
    if left := _block_each(connection, left, wait=first, until=None):
        _terminate(connection, users)
        _block_each(connection, left, wait=second, until=time.monotonic() + SECOND_TRIES_SECONDS)


def _grant_to_bot(connection: PostgreSQLConnection, user: UserToBlock) -> sql.Composed:
    options = " WITH INHERIT TRUE, SET TRUE" if major_version(connection) >= SETS_MEMBERSHIP_OPTIONS else ""
    names = sql.Identifier(user.username), sql.Identifier(connection.acting_role)
    return sql.SQL("GRANT {} TO {}").format(*names) + sql.SQL(options)


def _run_each(connection: PostgreSQLConnection, statements: Sequence[sql.Composed]) -> None:
    """Run each statement that the server accepts. The caller reads back."""
    for statement in statements:
        with suppress(psycopg.Error), connection.transaction():
            connection.execute(statement)


def _block_each(
    connection: PostgreSQLConnection, usernames: Sequence[str], *, wait: float, until: float | None
) -> list[str]:
    """Block the logins. Returns the names that can still log in.

    All statements go to the server at once, each with its COMMIT. The server stops at the first that fails, and the names after it are sent again.
    """
    connection.set_lock_timeout(wait)
    waiting, failed = list(usernames), list[str]()
    while waiting and (until is None or time.monotonic() < until):
        if _all_run(connection, [sql.SQL(BLOCK_LOGIN).format(sql.Identifier(name)) for name in waiting]):
            return failed
        still = set(column(connection, CAN_LOG_IN, (waiting,)))
        failed += [name for name in waiting if name in still][:1]
        waiting = [name for name in waiting if name in still][1:]
    return failed + waiting


def _all_run(connection: PostgreSQLConnection, statements: Sequence[sql.Composed]) -> bool:
    """Run the statements, each in a transaction of its own. Returns False where one failed; those before it are committed."""
    if connection.is_pooled:
        _run_each(connection, statements)
        return True
    parts = [sql.SQL("BEGIN; {}; COMMIT").format(statement) for statement in statements]
    try:
        connection.execute(sql.SQL("; ").join(parts))
    except psycopg.Error:
        if connection.broken:
            raise
        connection.execute("ROLLBACK")
        return False
    return True


def _read_back(connection: PostgreSQLConnection, users: Sequence[UserToBlock]) -> set[int]:
    """The oids of the users that cannot log in and have no session. A login that just succeeded is listed with a delay, so the last look is later."""
    oids = [user.oid for user in users]
    earliest, latest = time.monotonic() + LATE_LOGIN_SECONDS, time.monotonic() + SESSIONS_SECONDS
    while True:
        is_last = time.monotonic() > earliest
        states = connection.execute(STATES, (oids,)).fetchall()
        still_open = any(has_session and not can_log_in for _, can_log_in, has_session in states)
        if (is_last and not still_open) or time.monotonic() > latest:
            return {oid for oid, can_log_in, has_session in states if not can_log_in and not has_session}
        if still_open:
            _terminate(connection, users)
        time.sleep(FIRST_PAUSE)
