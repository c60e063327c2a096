"""Sessions of a user: kills them on one server until there is none, and reports them as activity.

MySQL copies the account when a login begins, and checks the copy when the login is complete. A login that began before the account
was locked, and keeps its last message back, therefore succeeds after the lock and even after DROP USER (measured on 9.7). Until then
the process list shows it as ``unauthenticated user``. MariaDB shows the user's name from the first message on.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any

import pymysql

from adapters.base import Activity, Blocked
from adapters.mysql.connection import MySQLConnection, literal_list
from adapters.mysql.errors import NO_RIGHT, NO_SUCH_PROCESS, code
from adapters.mysql.server import Server

END_LIMIT_SECONDS = 10.0
PAUSE_SECONDS, FIRST_PAUSE_SECONDS = 0.01, 0.001

NAMED_AT_MOST = 5

HALF_OPEN = "unauthenticated user"
HANDSHAKE_SECONDS = 1.0
"""A login that began before the account was locked may take so long to name its user. Then it is killed, whoever it is: its client tries again."""

FIRST_KILL_SECONDS = 0.5


def session_ids(connection: MySQLConnection, username: str) -> list[Any]:
    """Ids of the user's sessions, also after DROP USER."""
    return [session for session, _ in sessions_of(connection, [username])]


def sessions_of(connection: MySQLConnection, usernames: Sequence[str]) -> list[tuple[Any, str]]:
    """(id, user) of the sessions of these users. The process list compares names without case, so the names are compared here."""
    which = f"user IN ({literal_list(connection, usernames)})"
    rows = connection.run(f"SELECT id, user FROM information_schema.processlist WHERE {which}")
    return [(session, user) for session, user in rows if user in usernames]


def half_open_logins(connection: MySQLConnection) -> set[Any]:
    """Ids of logins that have not yet named their user."""
    return set(session_ids(connection, HALF_OPEN))


def kill_all(connection: MySQLConnection, username: str, ended: set[Any]) -> None:
    """Kill the user's sessions and wait at most FIRST_KILL_SECONDS until they release their locks. Adds their ids to ``ended``.

    A session that takes longer is no error: ``end_all`` follows later.
    """
    deadline, pause = time.monotonic() + FIRST_KILL_SECONDS, FIRST_PAUSE_SECONDS
    while alive := session_ids(connection, username):
        ended.update(alive)
        kill(connection, alive)
        if time.monotonic() > deadline:
            return
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_SECONDS)


def end_all(connection: MySQLConnection, username: str, ended: set[Any], half_open: Iterable[Any] = ()) -> None:
    """Kill the user's sessions until there is none. Adds their ids to ``ended``. Raises Blocked after END_LIMIT_SECONDS.

    ``half_open`` are logins that were half open when the account was locked. They are killed after HANDSHAKE_SECONDS.
    """
    began, pending = time.monotonic(), set(half_open)
    while (alive := session_ids(connection, username)) or pending:
        waited = time.monotonic() - began
        ended.update(alive)
        kill(connection, [*alive, *(pending if waited > HANDSHAKE_SECONDS else ())])
        if waited > END_LIMIT_SECONDS:
            raise _still_alive(username, alive or sorted(pending))
        time.sleep(PAUSE_SECONDS)
        pending &= half_open_logins(connection) if pending else set()


def _still_alive(username: str, ids: Sequence[Any]) -> Blocked:
    """Some functions of the server do not check for KILL until they have finished."""
    named = ", ".join(map(str, ids[:NAMED_AT_MOST]))
    remedy = f"wait, or restart the server; SELECT * FROM information_schema.processlist WHERE id IN ({named});"
    return Blocked(f"{len(ids)} sessions of {username} are killed and have not ended yet: {named}", remedy=remedy)


def kill(connection: MySQLConnection, ids: Iterable[Any], *, ignored: frozenset[int] = frozenset()) -> None:
    """Kill these sessions. A session that has ended meanwhile is no error; neither are the error numbers ``ignored``."""
    for session in ids:
        try:
            connection.run(f"KILL {int(session)}")
        except pymysql.MySQLError as error:
            if code(error) not in {NO_SUCH_PROCESS, *ignored}:
                raise


def activity(server: Server, usernames: Sequence[str]) -> list[Activity]:
    """Sessions from the process lists of the server and its replicas; statements from performance_schema, where the bot may read it."""
    with server.session() as connection:
        clients = _clients(connection, usernames)
        counts = _statement_counts(connection, usernames)
    for number in range(len(server.replicas)):
        with server.replica(number) as replica:
            clients += _clients(replica, usernames)
    return [_activity(name, [host for user, host in clients if user == name], counts.get(name)) for name in usernames]


def _activity(name: str, hosts: list[str], statements: int | None) -> Activity:
    clients = tuple(sorted({host.rpartition(":")[0] or host for host in hosts}))
    return Activity(username=name, sessions=len(hosts), clients=clients, statements=statements)


def _clients(connection: MySQLConnection, usernames: Sequence[str]) -> list[tuple[str, str]]:
    names = literal_list(connection, usernames)
    rows = connection.run(f"SELECT user, host FROM information_schema.processlist WHERE user IN ({names})")
    return [(user, host) for user, host in rows]


def _statement_counts(connection: MySQLConnection, usernames: Sequence[str]) -> dict[str, int]:
    """Counts since the server started, including sessions that have ended and users that are dropped."""
    query = (
        "SELECT user, SUM(count_star) FROM performance_schema.events_statements_summary_by_user_by_event_name"
        f" WHERE user IN ({literal_list(connection, usernames)}) GROUP BY user"
    )
    try:
        return {user: int(count) for user, count in connection.run(query)}
    except pymysql.MySQLError as error:
        if code(error) not in NO_RIGHT:
            raise
        return {}
