"""Taking a user away: lock, end sessions to zero here and on every replica, drop, read back.

Live sessions keep all their rights after lock, revoke and even DROP USER (measured on MySQL 9.7 and MariaDB 10.11):
nothing but KILL ends them.
"""

from __future__ import annotations

import time
from typing import Any

import pymysql

from adapters.base import Level, NotOurs, Receipt, Rejected, Unreachable, username_pattern
from adapters.mysql_family import events, sessions, users
from adapters.mysql_family.connection import Connection, Server, account
from adapters.mysql_family.errors import IS_DEFINER, code
from adapters.mysql_family.levels import drop_unused

REPLICA_SECONDS = 8.0
"""How long a replica may lag behind the drop before the revocation is tried again."""

OBJECTS = (
    ("view", "SELECT table_schema, table_name FROM information_schema.views WHERE definer = {who}"),
    ("routine", "SELECT routine_schema, routine_name FROM information_schema.routines WHERE definer = {who}"),
    ("trigger", "SELECT trigger_schema, trigger_name FROM information_schema.triggers WHERE definer = {who}"),
    ("event", "SELECT event_schema, event_name FROM information_schema.events WHERE definer = {who}"),
)


def drop(server: Server, username: str, level: Level) -> Receipt:
    """See the module. Repeated after a crash at any point, it finishes."""
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise Rejected(f"{username!r} is no name dbaccess makes")
    notes, seen = list[str](), set[tuple[str, Any]]()
    with server.session() as connection:
        users.refuse_read_only(server, connection)
        found = users.find(server, connection, username)
        event = _our_event(server, connection, username)
        if found is not None:
            connection.run(f"ALTER USER IF EXISTS {account(username)} ACCOUNT LOCK")
        _end(connection, username, "here", seen)
        notes += [f"left behind: {name}" for name in left_by(connection, username)]
        if found is not None:
            _drop_user(server, connection, username)
        _end(connection, username, "here", seen)
        events.drop(connection, server.target, username)
        drop_unused(server, connection, level)
        notes += _on_replicas(server, username, seen) or _unnamed(connection)
        _read_back(server, connection, username)
        was_ended = event is not None and event.fired_at is not None and found is None
        if was_ended and event is not None and event.fired_at is not None:
            notes.insert(0, f"the server's own event had ended it at {event.fired_at:%H:%M:%S} UTC")
        return Receipt(
            was_absent=found is None and not was_ended,
            sessions_ended=len(seen),
            kept=(),
            kept_by=None,
            read_back_at=connection.now(),
            notes=tuple(notes),
        )


def _our_event(server: Server, connection: Connection, username: str) -> events.Event | None:
    """Raises NotOurs for one that another ledger made: its user may be made in this moment."""
    event = events.find(connection, server.target, username).get(username)
    if event is not None and event.ledger != server.target.ledger:
        raise NotOurs(username, "its event carries another mark")
    return event


def _end(connection: Connection, username: str, where: str, seen: set[tuple[str, Any]]) -> None:
    ids = set[Any]()
    sessions.end(connection, username, ids)
    seen.update((where, session) for session in ids)


def _drop_user(server: Server, connection: Connection, username: str) -> None:
    try:
        connection.run(f"DROP USER IF EXISTS {account(username)}")
    except pymysql.MySQLError as error:
        if code(error) != IS_DEFINER:
            raise
        names = ", ".join(left_by(connection, username)) or "objects the bot may not see"
        raise Rejected(
            f"{username} is locked and has no session, and cannot be dropped: it is the definer of {names}",
            mend=f"GRANT {server.dialect.definer_rights[0]} ON *.* TO {server.address.user}; or give these objects another definer",
        ) from None


def left_by(connection: Connection, username: str) -> list[str]:
    """Views, routines, triggers and events with this definer, as far as the bot may see them. They do nothing once the user is gone."""
    who = connection.literal(f"{username}@%")
    return [
        f"{schema}.{name} ({kind})"
        for kind, query in OBJECTS
        for schema, name in connection.run(query.format(who=who))
        if name != username
    ]


def _on_replicas(server: Server, username: str, seen: set[tuple[str, Any]]) -> list[str]:
    """The drop is replicated, the kill is not. Raises Unreachable while a replica lags or does not answer."""
    for number, (reference, _) in enumerate(server.replicas):
        deadline = time.monotonic() + REPLICA_SECONDS
        with server.replica(number) as replica:
            _end(replica, username, reference, seen)
            while users.is_there(server, replica, username):
                if time.monotonic() > deadline:
                    raise Unreachable(f"the replica {reference} has not replayed the end of {username} yet")
                time.sleep(sessions.PAUSE_SECONDS)
                _end(replica, username, reference, seen)
            _end(replica, username, reference, seen)
    return [f"sessions were ended on the replica {reference}, too" for reference, _ in server.replicas]


def _unnamed(connection: Connection) -> list[str]:
    count = replicas_of(connection)
    return [f"{count} replicas read from this server and are not named: sessions there were not ended"] if count else []


def replicas_of(connection: Connection) -> int:
    """How many servers read the binary log of this one now."""
    query = "SELECT count(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    return int(connection.value(query) or 0)


def _read_back(server: Server, connection: Connection, username: str) -> None:
    if users.is_there(server, connection, username) or sessions.of(connection, username):
        raise Unreachable(f"{username} was there again when it was read back", is_ambiguous=True)
