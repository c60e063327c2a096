"""Taking a user away: end sessions, lock, end sessions to zero here and on every replica, drop, read back.

Live sessions keep all their rights after lock, revoke and even DROP USER (measured on MySQL 9.7 and MariaDB 10.11):
nothing but KILL ends them. They are killed before the lock too, for one of them may hold what the lock waits for.
What only tidies up comes after the reading back, and costs a note where it fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql

from adapters.base import AdapterError, ForeignUser, Level, Rejected, Removal, ServerDown, username_pattern
from adapters.mysql_family import events, locks, sessions, users
from adapters.mysql_family.connection import Connection, Server, account
from adapters.mysql_family.errors import IS_DEFINER, MAY_NOT_RECOVER, code
from adapters.mysql_family.levels import drop_unused
from adapters.mysql_family.proxies import take_back

NAMED_AT_MOST = 20
"""Things left behind, in a receipt."""

REPLICA_SECONDS = 8.0
"""How long a replica may lag behind the drop before the revocation is tried again."""

OBJECTS = (
    ("view", "SELECT table_schema, table_name FROM information_schema.views WHERE definer = {who}"),
    ("routine", "SELECT routine_schema, routine_name FROM information_schema.routines WHERE definer = {who}"),
    ("trigger", "SELECT trigger_schema, trigger_name FROM information_schema.triggers WHERE definer = {who}"),
    ("event", "SELECT event_schema, event_name FROM information_schema.events WHERE definer = {who}"),
)


def drop(server: Server, username: str, level: Level) -> Removal:
    """See the module. Repeated after a crash at any point, it finishes."""
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise Rejected(f"{username!r} is no name dbaccess makes")
    seen = set[tuple[str, Any]]()
    with server.session() as connection:
        with _replicas_not_forgotten(server, username):
            is_there, event = _found(server, connection, username, seen)
            _block(server, connection, username, seen, is_there=is_there)
            if is_there:
                _drop_user(server, connection, username)
            _end(connection, username, "here", seen)
        notes = _on_replicas(server, username, seen) or _unnamed(connection)
        notes += events.drop(server, connection, username)
        _read_back(server, connection, username)
        was_ended = event is not None and event.fired_at is not None and not is_there
        if was_ended and event is not None and event.fired_at is not None:
            notes.insert(0, f"the server's own event had ended it at {event.fired_at:%H:%M:%S} UTC")
        return Removal(
            was_absent=not is_there and not was_ended,
            sessions_ended=len(seen),
            left_behind=(),
            left_with=None,
            read_back_at=connection.now(),
            notes=(*notes, *_afterwards(server, connection, username, level)),
        )


def _found(
    server: Server, connection: Connection, username: str, seen: set[tuple[str, Any]]
) -> tuple[bool, events.Event | None]:
    """Without killing anybody first, unless the tables of accounts and events are locked: another ledger's user is not touched."""
    ids = set[Any]()
    found = locks.look(server, connection, lambda: users.to_end(server, connection, username), username, ended=ids)
    seen.update(("here", session) for session in ids)
    return found


def _block(
    server: Server, connection: Connection, username: str, seen: set[tuple[str, Any]], *, is_there: bool
) -> None:
    """Until nobody is in, and nobody gets in. Sessions are killed also where the server is read-only and the account cannot be locked."""
    ids = set[Any]()
    try:
        sessions.kill(connection, username, ids)
        users.refuse_read_only(server, connection)
        if is_there:
            lock = f"ALTER USER IF EXISTS {account(username)} ACCOUNT LOCK"
            locks.run(server, connection, lock, username, ended=ids)
        sessions.end(connection, username, ids, sessions.half_open(connection))
    finally:
        seen.update(("here", session) for session in ids)


def _end(
    connection: Connection, username: str, where: str, seen: set[tuple[str, Any]], begun: Iterable[Any] = ()
) -> None:
    ids = set[Any]()
    sessions.end(connection, username, ids, begun)
    seen.update((where, session) for session in ids)


def _drop_user(server: Server, connection: Connection, username: str) -> None:
    try:
        locks.run(server, connection, f"DROP USER IF EXISTS {account(username)}", username, ended=set())
    except pymysql.MySQLError as error:
        if code(error) != IS_DEFINER:
            raise
        names = ", ".join(left_by(connection, username)) or "objects the bot may not see"
        raise Rejected(
            f"{username} is locked and has no session, and cannot be dropped: it is the definer of {names}",
            remedy=f"GRANT {server.dialect.definer_rights[0]} ON *.* TO {server.address.user}; or give these objects another definer",
        ) from None


def left_by(connection: Connection, username: str) -> list[str]:
    """Views, routines, triggers and events with this definer, as far as the bot may see them. They do nothing once the user is gone."""
    who = connection.literal(f"{username}@%")
    found = [
        f"{schema}.{name} ({kind})"
        for kind, query in OBJECTS
        for schema, name in connection.run(query.format(who=who))
        if name != username
    ]
    further = len(found) - NAMED_AT_MOST
    return [*found[:NAMED_AT_MOST], *([f"and {further} more"] if further > 0 else [])]


def _afterwards(server: Server, connection: Connection, username: str, level: Level) -> Iterator[str]:
    """What is said or tidied up once the end is proven. Nothing here may fail it."""
    steps: tuple[tuple[str, Callable[[], list[str]]], ...] = (
        ("what it left behind was not found out", lambda: _left(connection, username)),
        ("prepared XA transactions could not be seen", lambda: _prepared(server, connection)),
        ("PROXY that it gave was not taken back", lambda: take_back(connection, username)),
        (
            "the role kept for its level may be left, and goes with a later end",
            lambda: _tidied(server, connection, level),
        ),
    )
    for otherwise, step in steps:
        try:
            yield from step()
        except (AdapterError, pymysql.MySQLError, OSError) as trouble:
            yield f"{otherwise} ({trouble.args[-1] if trouble.args else type(trouble).__name__})"


def _left(connection: Connection, username: str) -> list[str]:
    return [f"left behind: {name}" for name in left_by(connection, username)]


def _prepared(server: Server, connection: Connection) -> list[str]:
    """These outlive their sessions and their user, with all their locks, and anybody may commit them. The server does not say whose they are."""
    try:
        found = server.dialect.prepared(connection)
    except pymysql.MySQLError as error:
        if code(error) != MAY_NOT_RECOVER:
            raise
        return []
    named = "; ".join(f"XA ROLLBACK {xid}" for xid in found[:NAMED_AT_MOST])
    further = f" and {len(found) - NAMED_AT_MOST} more" if len(found) > NAMED_AT_MOST else ""
    return [f"prepared XA transactions are open on this server, maybe of this user: {named}{further}"] if found else []


def _tidied(server: Server, connection: Connection, level: Level) -> list[str]:
    drop_unused(server, connection, level)
    return []


@contextmanager
def _replicas_not_forgotten(server: Server, username: str) -> Iterator[None]:
    """Where the end stops on the primary, sessions on the replicas are killed all the same, as far as these answer."""
    try:
        yield
    except ForeignUser:
        raise
    except (AdapterError, pymysql.MySQLError):
        for number in range(len(server.replicas)):
            with suppress(AdapterError), server.replica(number) as replica:
                sessions.kill(replica, username, set())
        raise


def _on_replicas(server: Server, username: str, seen: set[tuple[str, Any]]) -> list[str]:
    """The drop is replicated, the kill is not. Every replica is visited. Raises what the first one raised that lags or does not answer."""
    troubles = list[AdapterError]()
    for number in range(len(server.replicas)):
        try:
            _on_replica(server, number, username, seen)
        except AdapterError as trouble:
            troubles.append(trouble)
    if troubles:
        raise troubles[0]
    return [f"sessions were ended on the replica {reference}, too" for reference, _ in server.replicas]


def _on_replica(server: Server, number: int, username: str, seen: set[tuple[str, Any]]) -> None:
    reference, deadline = server.replicas[number][0], time.monotonic() + REPLICA_SECONDS
    with server.replica(number) as replica:
        _end(replica, username, reference, seen)
        while users.is_there(server, replica, username):
            if time.monotonic() > deadline:
                raise ServerDown(f"the replica {reference} has not replayed the end of {username} yet")
            time.sleep(sessions.PAUSE_SECONDS)
            _end(replica, username, reference, seen)
        _end(replica, username, reference, seen, sessions.half_open(replica))


def _unnamed(connection: Connection) -> list[str]:
    count = replicas_of(connection)
    return [f"{count} replicas read from this server and are not named: sessions there were not ended"] if count else []


def replicas_of(connection: Connection) -> int:
    """How many servers read the binary log of this one now."""
    query = "SELECT count(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    return int(connection.value(query) or 0)


def _read_back(server: Server, connection: Connection, username: str) -> None:
    if users.is_there(server, connection, username) or sessions.of(connection, username):
        raise ServerDown(f"{username} was there again when it was read back", is_ambiguous=True)
