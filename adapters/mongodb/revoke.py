"""Taking a user away: drop first, which blocks and strips at once, then end what runs on every member, then read back."""

from __future__ import annotations

from adapters.base import AdapterError, Level, Rejected, Removal, ServerDown, username_pattern
from adapters.mongodb import kill, users
from adapters.mongodb.connection import Connection, Server
from adapters.mongodb.levels import drop_unused

SOCKETS = "no operation and no session of the user is left; idle connections stay open without rights until their client closes them"


def drop(server: Server, username: str, level: Level) -> Removal:
    """See the module. Repeated after a crash at any point, it finishes."""
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise Rejected(f"{username!r} is no name dbaccess makes")
    with server.session() as connection:
        is_there = users.find(server, connection, username, to_end=True) is not None
        if is_there:
            users.drop(server, connection, username)
        seen = kill.everywhere(server, connection, username)
        notes = (SOCKETS, *_drop_kept_role(server, connection, level))
        _read_back(server, connection, username)
        return Removal(
            was_absent=not is_there,
            sessions_ended=len(seen),
            left_behind=(),
            left_with=None,
            read_back_at=connection.hello().now,
            notes=notes,
        )


def _drop_kept_role(server: Server, connection: Connection, level: Level) -> tuple[str, ...]:
    """A note where it cannot be dropped: a role that nobody has does not hold up the end of a user."""
    try:
        drop_unused(server, connection, level)
    except AdapterError as trouble:
        return (f"The role kept for the level {level.name} was not dropped: {trouble}",)
    return ()


def _read_back(server: Server, connection: Connection, username: str) -> None:
    if users.find(server, connection, username, to_end=True) is not None:
        raise ServerDown(f"{username} was there again when it was read back", is_ambiguous=True)
