"""Sessions of a user on one server: seen by the user's oid, since its name is gone after the drop, and told to end."""

from __future__ import annotations

from collections.abc import Collection

import psycopg

from adapters.base import Blocked, Rejected
from adapters.postgresql.connection import Connection, column, us

SESSIONS_WITHIN = 8.0
NAMED_AT_MOST = 5
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2

ORPHANS = (
    "SELECT pid FROM pg_stat_activity a WHERE usesysid IS NOT NULL"
    " AND NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = a.usesysid) ORDER BY 1"
)

Seen = tuple[int, object]
"""A session is its pid and when it began: pids come again."""


def terminate(connection: Connection, oid: int) -> set[Seen]:
    """Every session there is now, told to end. Raises Rejected where the bot may not."""
    query = "SELECT pid, backend_start, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = %s::oid"
    try:
        rows = connection.execute(query, (oid,)).fetchall()
    except psycopg.errors.InsufficientPrivilege:
        mend = f"GRANT pg_signal_backend TO {us(connection)};"
        raise Rejected("the bot may not end the user's sessions", mend=mend) from None
    return {(pid, began) for pid, began, _ in rows}


def do_not_end(pids: Collection[int], where: str = "") -> Blocked:
    """Told to end, and still there: some functions of the server look for no interrupt, and only the operating system ends their process."""
    named = ", ".join(map(str, sorted(pids)[:NAMED_AT_MOST]))
    remedy = f"on the server's host, end the process of each as the server's own user: kill {named.replace(',', '')}"
    return Blocked(f"{len(pids)} sessions were told to end and do not{where}: processes {named}", remedy=remedy)


def orphans_note(connection: Connection, where: str = "") -> list[str]:
    """A session outlives its role, and one that did SET ROLE keeps what it had; whose it was, the server no longer knows."""
    pids = column(connection, ORPHANS)
    steps = " ".join(f"SELECT pg_terminate_backend({pid});" for pid in pids)
    return (
        [f"{len(pids)} sessions of users that are no more are still open{where}. To end them: {steps}"] if pids else []
    )
