"""Ending what a user has going: sessions by ``killAllSessions``, operations that have none by ``killOp``, on every member.

Never ``killAllSessions: []`` and never ``killAllSessionsByPattern``: without an owner both end everybody's. No command closes a
client's socket; once the user is dropped it stays open without rights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from adapters.base import ServerDown
from adapters.mongodb.connection import Connection, Server

PATIENCE_SECONDS = 10.0
PAUSE_SECONDS = 0.02


def everywhere(server: Server, connection: Connection, username: str) -> set[tuple[str, Any]]:
    """On every member, once it knows that the user is dropped; the connections that were seen. Raises Unreachable while a member is away or lags."""
    seen = set[tuple[str, Any]]()
    for opened in _members(server, connection):
        with opened as member:
            _forget(server, member, username)
            _kill(server, member, username, seen)
    return seen


def forget_on_routers(server: Server, connection: Connection) -> None:
    """Each router keeps users for up to 30 seconds, old passwords with them."""
    if connection.hello().is_router:
        for place in server.routers():
            with server.each(place) as router:
                router.run("admin", {"invalidateUserCache": 1})


def seen_now(server: Server, connection: Connection, usernames: list[str]) -> list[tuple[str, str, str]]:
    """(user, member and connection, client) of all that show these users now, on every member."""
    found = []
    for opened in _members(server, connection):
        with opened as member:
            for row in rows(member, is_idle_shown=True):
                owners = {owner["user"] for owner in row.get("effectiveUsers", ()) if owner["db"] == server.users}
                client = str(row.get("client") or "").rpartition(":")[0]
                found += [
                    (name, f"{member.where} {row.get('connectionId')}", client) for name in owners & set(usernames)
                ]
    return found


def _members(server: Server, connection: Connection) -> Iterator[AbstractContextManager[Connection]]:
    """Each member of the set straight; of routers each that the URL names, for they cache users of their own; then those named as replicas."""
    known = connection.hello()
    if known.is_router:
        yield from (server.each(place) for place in server.routers())
    elif known.members:
        yield from (server.each(place) for place in known.members)
    else:
        yield server.session()
    yield from (server.replica(number) for number in range(len(server.replicas)))


def _forget(server: Server, member: Connection, username: str) -> None:
    """A member that lags still lets the dropped user begin something."""
    if member.hello().is_router:
        member.run("admin", {"invalidateUserCache": 1})
    deadline = time.monotonic() + PATIENCE_SECONDS
    while member.run(server.users, {"usersInfo": {"user": username, "db": server.users}})["users"]:
        if time.monotonic() > deadline:
            raise ServerDown(f"{member.where} has not heard of the end of {username} yet")
        time.sleep(PAUSE_SECONDS)


def _kill(server: Server, member: Connection, username: str, seen: set[tuple[str, Any]]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    seen.update((member.where, row.get("connectionId")) for row in _of(server, member, username, is_idle_shown=True))
    while True:
        member.run("admin", {"killAllSessions": [{"user": username, "db": server.users}]})
        alive = _of(server, member, username)
        seen.update((member.where, row.get("connectionId")) for row in alive)
        if not alive:
            return
        for row in alive:
            member.run("admin", {"killOp": 1, "op": row["opid"]})
        if time.monotonic() > deadline:
            raise ServerDown(
                f"{len(alive)} operations of {username} are killed and have not ended yet", is_ambiguous=True
            )
        time.sleep(PAUSE_SECONDS)


def _of(server: Server, member: Connection, username: str, *, is_idle_shown: bool = False) -> list[dict[str, Any]]:
    """Rows of this user: what runs, or idle connections too where the server says whose they are (up to 8.0)."""
    owner = {"user": username, "db": server.users}
    return [
        row
        for row in rows(member, is_idle_shown=is_idle_shown)
        if owner in row.get("effectiveUsers", ()) and (is_idle_shown or row.get("active"))
    ]


def rows(member: Connection, *, is_idle_shown: bool = False) -> list[dict[str, Any]]:
    """All operations of this member. The first batch holds them up to 16 MB; further ones are fetched."""
    stage = {"$currentOp": {"allUsers": True, "idleConnections": is_idle_shown}}
    cursor = member.run("admin", {"aggregate": 1, "pipeline": [stage], "cursor": {"batchSize": 10_000}})["cursor"]
    found = list(cursor["firstBatch"])
    while cursor["id"]:
        cursor = member.run("admin", {"getMore": cursor["id"], "collection": cursor["ns"].partition(".")[2]})["cursor"]
        found += cursor["nextBatch"]
    return found
