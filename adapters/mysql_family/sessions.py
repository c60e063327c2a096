"""Sessions of a user on one server: killed until there are none, in any phase of connecting, counted by their ids.

MySQL copies the account when a login begins, and looks at the copy when it is done. So a login that began before the account
was locked, and waits with its last message, comes through after the lock, and even after DROP USER (measured on 9.7). Until then
the process list has it under ``unauthenticated user``. MariaDB shows the name from the first message on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import pymysql

from adapters.base import Blocked
from adapters.mysql_family.connection import Connection
from adapters.mysql_family.errors import NO_SUCH_PROCESS, code

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.01

NAMED_AT_MOST = 5

HALF_OPEN = "unauthenticated user"
HANDSHAKE_SECONDS = 1.0
"""How long a login that had begun before the account was locked may take to say whose it is. It is killed then, whoever it is: its client tries again."""

FIRST_KILL_SECONDS = 0.5


def of(connection: Connection, username: str) -> list[Any]:
    """Their ids. The user's name stays visible when the account is gone. The process list compares without case, accounts differ by it."""
    query = f"SELECT id, user FROM information_schema.processlist WHERE user = {connection.literal(username)}"
    return [session for session, user in connection.run(query) if user == username]


def half_open(connection: Connection) -> set[Any]:
    """Logins that have not said yet whose they are."""
    return set(of(connection, HALF_OPEN))


def kill(connection: Connection, username: str, seen: set[Any]) -> None:
    """Kill what is there now, and wait a moment for it to let go of its locks. What takes longer to end is no error: ``end`` comes later."""
    deadline = time.monotonic() + FIRST_KILL_SECONDS
    while alive := of(connection, username):
        seen.update(alive)
        kill_each(connection, alive)
        if time.monotonic() > deadline:
            return
        time.sleep(PAUSE_SECONDS)


def end(connection: Connection, username: str, seen: set[Any], begun: Iterable[Any] = ()) -> None:
    """Kill until there is none; adds the ids to ``seen``. Raises Unreachable when some will not go.

    ``begun`` are logins that were half open when the account was locked: waited for, then killed as well.
    """
    began, pending = time.monotonic(), set(begun)
    while (alive := of(connection, username)) or pending:
        waited = time.monotonic() - began
        seen.update(alive)
        kill_each(connection, [*alive, *(pending if waited > HANDSHAKE_SECONDS else ())])
        if waited > PATIENCE_SECONDS:
            raise _do_not_end(username, alive or sorted(pending))
        time.sleep(PAUSE_SECONDS)
        pending &= half_open(connection) if pending else set()


def _do_not_end(username: str, ids: Sequence[Any]) -> Blocked:
    """Killed, and still there: some functions of the server look at no KILL before they are through."""
    named = ", ".join(map(str, ids[:NAMED_AT_MOST]))
    remedy = f"wait, or restart the server; SELECT * FROM information_schema.processlist WHERE id IN ({named});"
    return Blocked(f"{len(ids)} sessions of {username} are killed and have not ended yet: {named}", remedy=remedy)


def kill_each(connection: Connection, ids: Iterable[Any]) -> None:
    """One that ended meanwhile is no error."""
    for session in ids:
        try:
            connection.run(f"KILL {int(session)}")
        except pymysql.MySQLError as error:
            if code(error) != NO_SUCH_PROCESS:
                raise
