"""Sessions of a user on one server: seen by the user's oid, since its name is gone after the drop, and told to end."""

from __future__ import annotations

import time
from collections.abc import Collection

import psycopg

from adapters.base import Blocked, Rejected
from adapters.postgresql.connection import PostgreSQLConnection, column, quoted_acting_role, value

SESSIONS_WITHIN = 8.0
NAMED_AT_MOST = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2

ORPHANS = (
    "SELECT pid FROM pg_stat_activity a WHERE usesysid IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = a.usesysid) ORDER BY 1"
)

WAITING_LOGINS = """
SELECT DISTINCT l.pid FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE NOT l.granted AND l.pid IS NOT NULL AND a.usesysid IS NULL AND coalesce(a.backend_type, 'client backend') = 'client backend'
"""
"""Before 18 they are in no list of sessions; from 18 on they are, and a bot that is no superuser does not see what they are. The server's own workers it may not end."""

SessionKey = tuple[int, object]
"""A session is its pid and when it began: pids come again."""


def terminate(connection: PostgreSQLConnection, oid: int) -> set[SessionKey]:
    """Every session there is now, told to end. Raises Rejected where the bot may not."""
    query = "SELECT pid, backend_start, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = %s::oid"
    try:
        rows = connection.execute(query, (oid,)).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        remedy = f"GRANT pg_signal_backend TO {quoted_acting_role(connection)};"
        raise Rejected("the bot may not end the user's sessions", remedy=remedy) from None
    return {(pid, began) for pid, began, _ in rows}


def end_waiting_logins(connection: PostgreSQLConnection) -> int:
    """Ends logins that wait for a lock before the server says whose they are; how many there were.

    Such a login is past the question whether it may log in, and would come in after the drop. Whose it is cannot be seen, so
    every one that the bot may end is ended: its client may try again. Raises Blocked where one does not end.
    """
    told = [pid for pid in column(connection, WAITING_LOGINS) if _terminate_one(connection, pid)]
    deadline = time.monotonic() + SESSIONS_WITHIN
    while left := set(told) & set(column(connection, WAITING_LOGINS)):
        if time.monotonic() > deadline:
            raise unresponsive(left)
        time.sleep(FIRST_PAUSE)
    return len(told)


def _terminate_one(connection: PostgreSQLConnection, pid: int) -> bool:
    try:
        return bool(value(connection, "SELECT pg_terminate_backend(%s)", (pid,)))
    except psycopg.errors.InsufficientPrivilege:
        return False  # a superuser's: none of our users


def unresponsive(pids: Collection[int], where: str = "") -> Blocked:
    """Told to end, and still there: some functions of the server look for no interrupt, and only the operating system ends their process."""
    named = ", ".join(map(str, sorted(pids)[:NAMED_AT_MOST]))
    remedy = f"on the server's host, end the process of each as the server's own user: kill {named.replace(',', '')}"
    return Blocked(f"{len(pids)} sessions were told to end and do not{where}: processes {named}", remedy=remedy)


def orphans_note(connection: PostgreSQLConnection, where: str = "") -> list[str]:
    """A session outlives its role, and one that did SET ROLE keeps what it had; whose it was, the server no longer knows."""
    pids = column(connection, ORPHANS)
    steps = " ".join(f"SELECT pg_terminate_backend({pid});" for pid in pids)
    return (
        [f"{len(pids)} sessions of users that are no more are still open{where}. To end them: {steps}"] if pids else []
    )
