"""Ends a user: kill sessions, lock the account, kill until none is left here and on every replica, drop the user, read back.

Live sessions keep all their rights after lock, revoke and even DROP USER (measured on MySQL 9.7 and MariaDB 10.11): only KILL ends
them. They are killed before the lock too, because one of them may hold what the lock waits for. Cleaning up comes after the
read-back; where it fails, the receipt gets a note. The server's version is not looked at: a user on an older server is ended too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql

from adapters.base import AdapterError, ForeignUser, Level, Rejected, Removal, ServerDown
from adapters.level_state import LevelState
from adapters.mysql import events, locks, sessions, users
from adapters.mysql.clean_up import CleanUp
from adapters.mysql.connection import MySQLConnection, account
from adapters.mysql.errors import IS_DEFINER, code
from adapters.mysql.server import Server

REPLICA_SECONDS = 8.0
"""A replica may lag behind the drop so long; after that the revocation is repeated."""


def drop(server: Server, username: str, level: Level, before: LevelState | None = None) -> Removal:
    """End the user as the module says. Repeated after a crash at any point, it finishes.

    ``before`` is the level's state before the user existed; the notes name what changed since then.

    Raises ForeignUser for another ledger's user, Blocked where somebody else holds a lock that it needs, Rejected where the server
    refuses to drop the user, and ServerDown otherwise.
    """
    users.require_username(server, username)
    ended = set[tuple[str, Any]]()
    with server.session(for_end=True) as connection:
        clean_up = CleanUp(server=server, connection=connection, username=username, level=level, before=before)
        with _replica_sessions_killed_on_error(server, username):
            exists, event = _find(server, connection, username, ended)
            clean_up.look_at_transactions()
            _block(server, connection, username, ended, exists=exists)
            if exists:
                _drop_user(server, connection, username, clean_up)
            _end_sessions(connection, username, "here", ended)
        notes = _end_on_replicas(server, username, ended) or _unnamed_replicas(connection)
        notes += events.drop(server, connection, username)
        _read_back(server, connection, username)
        fired_at = event.fired_at if event is not None and not exists else None
        if fired_at is not None:
            notes.insert(0, f"the server's own event had ended it at {fired_at:%H:%M:%S} UTC")
        return Removal(
            was_absent=not exists and fired_at is None,
            sessions_ended=len(ended),
            left_behind=(),
            left_with=None,
            read_back_at=connection.now(),
            notes=(*notes, *clean_up.notes()),
        )


def _find(
    server: Server, connection: MySQLConnection, username: str, ended: set[tuple[str, Any]]
) -> tuple[bool, events.ExpiryEvent | None]:
    """See ``users.find_for_removal``. No session is killed before unless the tables of accounts or events are locked: another ledger's user is not touched."""
    ids = set[Any]()
    found = locks.call(
        server, connection, lambda: users.find_for_removal(server, connection, username), username, ended=ids
    )
    ended.update(("here", session) for session in ids)
    return found


def _block(
    server: Server, connection: MySQLConnection, username: str, ended: set[tuple[str, Any]], *, exists: bool
) -> None:
    """End all sessions and lock the account. Sessions are killed also where the server is read-only and the account cannot be locked."""
    ids = set[Any]()
    try:
        sessions.kill_all(connection, username, ids)
        users.refuse_read_only(server, connection)
        if exists:
            lock = f"ALTER USER IF EXISTS {account(username)} ACCOUNT LOCK"
            locks.run(server, connection, lock, username, ended=ids)
        sessions.end_all(connection, username, ids, sessions.half_open_logins(connection))
    finally:
        ended.update(("here", session) for session in ids)


def _end_sessions(
    connection: MySQLConnection, username: str, where: str, ended: set[tuple[str, Any]], half_open: Iterable[Any] = ()
) -> None:
    ids = set[Any]()
    sessions.end_all(connection, username, ids, half_open)
    ended.update((where, session) for session in ids)


def _drop_user(server: Server, connection: MySQLConnection, username: str, clean_up: CleanUp) -> None:
    try:
        locks.run(server, connection, f"DROP USER IF EXISTS {account(username)}", username, ended=set())
    except pymysql.MySQLError as error:
        if code(error) != IS_DEFINER:
            raise
        names = ", ".join(clean_up.left_objects()) or "objects the bot may not see"
        raise Rejected(
            f"{username} is locked and has no session, and cannot be dropped: it is the definer of {names}",
            remedy=f"GRANT {server.dialect.definer_rights[0]} ON *.* TO {server.address.user}; or give these objects another definer",
        ) from None


@contextmanager
def _replica_sessions_killed_on_error(server: Server, username: str) -> Iterator[None]:
    """If the end fails on the primary, kill the sessions on all replicas that answer, then raise."""
    try:
        yield
    except ForeignUser:
        raise
    except (AdapterError, pymysql.MySQLError):
        for number in range(len(server.replicas)):
            with suppress(AdapterError), server.replica(number, for_end=True) as replica:
                sessions.kill_all(replica, username, set())
        raise


def _end_on_replicas(server: Server, username: str, ended: set[tuple[str, Any]]) -> list[str]:
    """End the sessions on every replica: DROP USER is replicated, KILL is not. Raises the first error after all replicas were visited."""
    errors = list[AdapterError]()
    for number in range(len(server.replicas)):
        try:
            _end_on_replica(server, number, username, ended)
        except AdapterError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return [f"sessions were ended on the replica {reference}, too" for reference, _ in server.replicas]


def _end_on_replica(server: Server, number: int, username: str, ended: set[tuple[str, Any]]) -> None:
    reference, deadline = server.replicas[number][0], time.monotonic() + REPLICA_SECONDS
    with server.replica(number, for_end=True) as replica:
        _end_sessions(replica, username, reference, ended)
        while users.exists(server, replica, username):
            if time.monotonic() > deadline:
                raise ServerDown(f"the replica {reference} has not replayed the end of {username} yet")
            time.sleep(sessions.PAUSE_SECONDS)
            _end_sessions(replica, username, reference, ended)
        _end_sessions(replica, username, reference, ended, sessions.half_open_logins(replica))


def _unnamed_replicas(connection: MySQLConnection) -> list[str]:
    count = replicas_of(connection)
    return [f"{count} replicas read from this server and are not named: sessions there were not ended"] if count else []


def replicas_of(connection: MySQLConnection) -> int:
    """The number of servers that read the binary log of this one now."""
    query = "SELECT count(*) FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'"
    return int(connection.value(query) or 0)


def _read_back(server: Server, connection: MySQLConnection, username: str) -> None:
    if users.exists(server, connection, username) or sessions.session_ids(connection, username):
        raise ServerDown(f"{username} was there again when it was read back", is_ambiguous=True)
