"""Lists and ends what a user runs, on every member: sessions by ``killAllSessions``, operations without a session by ``killOp``.

``killAllSessions: []`` and ``killAllSessionsByPattern`` are never used: without an owner both end the sessions of every user. No command
closes a client's socket. The socket of a dropped user stays open without rights.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

from pymongo.errors import OperationFailure

from adapters.base import AdapterError, Blocked, ServerDown
from adapters.mongodb.connection import MongoDBConnection, Server
from adapters.mongodb.errors import NOT_ALLOWED, code

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.02
NAMED_AT_MOST, LONGEST_NAME = 5, 60
"""Operations that an error names, and characters of a namespace in it."""


def end_everywhere(
    server: Server, connection: MongoDBConnection, username: str, *, with_idle: bool = True
) -> set[tuple[str, Any]]:
    """Ends what this dropped user runs, on each member once that member knows of the drop.

    Returns the connections that showed the user, as (member, connection id), without idle ones if not ``with_idle``. Raises ServerDown while a member is away or lags, once all other
    members are done. A member that may not be asked for the user (viewUser) raises Rejected after the kill.
    """
    seen, errors = set[tuple[str, Any]](), list[AdapterError]()
    for opened in _members(server, connection):
        try:
            with opened as member:
                refused = _await_drop(server, member, username)
                _end(server, member, username, seen, with_idle=with_idle)
                if refused is not None:
                    raise refused
        except AdapterError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    return seen


def refresh_routers(server: Server, connection: MongoDBConnection) -> None:
    """Empties the user cache of each router. A router keeps users for up to 30 seconds, with their old passwords."""
    if connection.hello().is_router:
        for address in server.addresses():
            with server.member(address) as router:
                router.run("admin", {"invalidateUserCache": 1})


def current(server: Server, connection: MongoDBConnection, usernames: list[str]) -> list[tuple[str, str, str]]:
    """(user, member and connection id, client address) of each connection that shows one of these users now, on every member."""
    found = []
    for opened in _members(server, connection):
        with opened as member:
            for row in operations(member, with_idle=True):
                owners = {owner["user"] for owner in users_of(row) if owner["db"] == server.users}
                client = str(row.get("client") or "").rpartition(":")[0]
                found += [
                    (name, f"{member.where} {row.get('connectionId')}", client) for name in owners & set(usernames)
                ]
    return found


def _members(server: Server, connection: MongoDBConnection) -> Iterator[AbstractContextManager[MongoDBConnection]]:
    """A direct connection to each member of a set, or to each router of the URL (each caches users); then to each configured replica."""
    hello = connection.hello()
    if hello.is_router:
        yield from (server.member(address) for address in server.addresses())
    elif hello.members:
        yield from (server.member(address) for address in hello.members)
    else:
        yield server.session(to_end=True)
    yield from (server.replica(number) for number in range(len(server.replicas)))


def _await_drop(server: Server, member: MongoDBConnection, username: str) -> OperationFailure | None:
    """Waits until this member knows of the drop: a member that lags still accepts commands of the user. Returns the error where the bot may not look."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    try:
        if member.hello().is_router:
            member.run("admin", {"invalidateUserCache": 1})
        while member.run(server.users, {"usersInfo": {"user": username, "db": server.users}})["users"]:
            if time.monotonic() > deadline:
                raise ServerDown(f"{member.where} has not received the drop of {username} yet")
            time.sleep(PAUSE_SECONDS)
    except OperationFailure as error:
        if code(error) != NOT_ALLOWED:
            raise
        return error
    return None


def _end(
    server: Server, member: MongoDBConnection, username: str, seen: set[tuple[str, Any]], *, with_idle: bool
) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    seen.update((member.where, row.get("connectionId")) for row in _of(server, member, username, with_idle=with_idle))
    while True:
        member.run("admin", {"killAllSessions": [{"user": username, "db": server.users}]})
        running = _of(server, member, username)
        seen.update((member.where, row.get("connectionId")) for row in running)
        if not running:
            return
        for row in running:
            member.run("admin", {"killOp": 1, "op": row["opid"]})
        if time.monotonic() > deadline:
            raise _blocked(member, username, running)
        time.sleep(PAUSE_SECONDS)


def end_together(server: Server, member: MongoDBConnection, usernames: Sequence[str], seconds: float) -> set[str]:
    """Ends what these dropped users run on this member. Returns those that still run something after so many seconds."""
    deadline = time.monotonic() + seconds
    owners = [{"user": name, "db": server.users} for name in usernames]
    while True:
        member.run("admin", {"killAllSessions": owners})
        active = [row for row in operations(member) if row.get("active")]
        running = [(row, owner["user"]) for row in active for owner in users_of(row) if owner in owners]
        if not running or time.monotonic() > deadline:
            return {name for _, name in running}
        for row, _ in running:
            member.run("admin", {"killOp": 1, "op": row["opid"]})
        time.sleep(PAUSE_SECONDS)


def _blocked(member: MongoDBConnection, username: str, running: list[dict[str, Any]]) -> Blocked:
    """Names the operations that were killed and still run, and the statement that kills one again."""
    named = [f"{row['opid']} ({row.get('op')} on {str(row.get('ns'))[:LONGEST_NAME]})" for row in running]
    further = f" and {len(named) - NAMED_AT_MOST} more" if len(named) > NAMED_AT_MOST else ""
    what = f"{len(named)} operations of {username} are killed and still run on {member.where}: {', '.join(named[:NAMED_AT_MOST])}{further}"
    return Blocked(what, remedy=f"db.killOp({json.dumps(running[0]['opid'])})")


def _of(server: Server, member: MongoDBConnection, username: str, *, with_idle: bool = False) -> list[dict[str, Any]]:
    """Rows of this user: running operations; with ``with_idle`` also idle connections, whose user MongoDB shows up to 8.0."""
    owner = {"user": username, "db": server.users}
    return [
        row
        for row in operations(member, with_idle=with_idle)
        if owner in users_of(row) and (with_idle or row.get("active"))
    ]


def users_of(row: dict[str, Any]) -> list[dict[str, str]]:
    """The users in whose name the operation runs."""
    return [{"user": str(one.get("user")), "db": str(one.get("db"))} for one in row.get("effectiveUsers") or ()]


def operations(member: MongoDBConnection, *, with_idle: bool = False) -> list[dict[str, Any]]:
    """All rows of ``$currentOp`` on this member.

    The commands in the rows are not read, see UNREAD: an operation whose command cannot be read must be found and killed all the same.
    """
    stage = {"$currentOp": {"allUsers": True, "idleConnections": with_idle}}
    return member.rows("admin", {"aggregate": 1, "pipeline": [stage]})
