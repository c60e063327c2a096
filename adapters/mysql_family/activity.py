"""What the server knows of users now."""

from __future__ import annotations

from collections.abc import Sequence

import pymysql

from adapters.base import Activity
from adapters.mysql_family.connection import Connection, Server, listed
from adapters.mysql_family.errors import NO_RIGHT, code


def activity(server: Server, usernames: Sequence[str]) -> list[Activity]:
    """Sessions by the process list, here and on the replicas; statements by performance_schema, where it is on and may be read."""
    with server.session() as connection:
        seen = _sessions(connection, usernames)
        counted = _statements(connection, usernames)
    for number in range(len(server.replicas)):
        with server.replica(number) as replica:
            seen += _sessions(replica, usernames)
    return [_of(name, [host for user, host in seen if user == name], counted.get(name)) for name in usernames]


def _of(name: str, hosts: list[str], statements: int | None) -> Activity:
    clients = tuple(sorted({host.rpartition(":")[0] or host for host in hosts}))
    return Activity(username=name, sessions=len(hosts), clients=clients, statements=statements)


def _sessions(connection: Connection, usernames: Sequence[str]) -> list[tuple[str, str]]:
    rows = connection.run(
        f"SELECT user, host FROM information_schema.processlist WHERE user IN ({listed(connection, usernames)})"
    )
    return [(user, host) for user, host in rows]


def _statements(connection: Connection, usernames: Sequence[str]) -> dict[str, int]:
    """All since the server started, also of users and sessions that are gone."""
    query = (
        "SELECT user, SUM(count_star) FROM performance_schema.events_statements_summary_by_user_by_event_name"
        f" WHERE user IN ({listed(connection, usernames)}) GROUP BY user"
    )
    try:
        return {user: int(count) for user, count in connection.run(query)}
    except pymysql.MySQLError as error:
        if code(error) not in NO_RIGHT:
            raise
        return {}
