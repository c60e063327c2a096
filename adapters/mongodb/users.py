"""Creates, changes and drops temporary users.

Each change is one command: it is done or not done. An end drops the user first, which blocks every further command of the user, then ends
what runs on every member, then reads back that the user is gone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from pymongo.errors import OperationFailure

from adapters.base import AdapterError, ForeignUser, Level, Rejected, Removal, ServerDown, UserSpec, WrongServer
from adapters.level_state import LevelState
from adapters.mongodb import sessions
from adapters.mongodb.connection import UNMARKED, MongoDBConnection, Server, as_utc, identity
from adapters.mongodb.errors import NOT_ALLOWED, ROLE_NOT_FOUND, USER_EXISTS, USER_NOT_FOUND, code, suppress_code
from adapters.mongodb.levels import drop_unused_role, lock_of, managed_role, roles_of
from adapters.mongodb.state import IS_BLOCKED, describe, mark_of
from adapters.mongodb.supported import refuse_unsupported, refuse_without_authorization
from adapters.usernames import username_pattern

IDLE_SOCKETS = "no operation and no session of the user is left; idle connections stay open without rights until their client closes them"


@dataclass(frozen=True, kw_only=True)
class FoundUser:
    """A user on the server. ``ledger``, ``request_id`` and ``expires_at`` come from its mark; None where the mark lacks them.

    ``is_blocked``: it was created again to block it, see ``blocking``.
    """

    username: str
    ledger: str | None
    request_id: int | None
    expires_at: datetime | None
    is_blocked: bool = False


def from_document(document: dict[str, Any]) -> FoundUser:
    """Reads one user of ``usersInfo``. A mark that a person wrote by hand may hold anything."""
    mark = mark_of(document) or {}
    ledger, number, ends = mark.get("ledger"), mark.get("request"), mark.get("ends_at")
    return FoundUser(
        username=document["user"],
        ledger=ledger if isinstance(ledger, str) else None,
        request_id=number if isinstance(number, int) else None,
        expires_at=as_utc(ends) if isinstance(ends, datetime) else None,
        is_blocked=mark.get(IS_BLOCKED) is True,
    )


def find(
    server: Server, connection: MongoDBConnection, username: str, *, unmarked_too: bool = False
) -> FoundUser | None:
    """The user, or None where there is none.

    Raises ForeignUser for a user of another ledger, for a name that dbaccess does not make, and for a user without a mark unless ``unmarked_too``.
    """
    found = connection.run(server.users, {"usersInfo": {"user": username, "db": server.users}})["users"]
    if not found:
        return None
    user = from_document(found[0])
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise ForeignUser(username, "dbaccess does not make such names")
    is_unmarked = user.ledger is None and unmarked_too
    if user.ledger != server.target.ledger and not is_unmarked:
        raise ForeignUser(username, "its mark names another ledger" if user.ledger else "it carries no mark")
    return user


def _existing(server: Server, connection: MongoDBConnection, username: str) -> FoundUser:
    """Raises Rejected where there is no such user."""
    found = find(server, connection, username)
    if found is None:
        raise Rejected(f"there is no user {username}")
    return found


def _refuse_other_names(server: Server, username: str) -> None:
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise Rejected(f"dbaccess does not make names like {username!r}")


def create(server: Server, spec: UserSpec) -> None:
    """Creates the user. A user of this name and ledger is dropped first: nobody has received its password yet.

    Raises Rejected on a server that is not supported (see ``supported``) and for a level that cannot be given.
    """
    _refuse_other_names(server, spec.username)
    refuse_without_authorization(server)
    with server.session(spec.password) as connection:
        refuse_unsupported(connection)
        if find(server, connection, spec.username) is not None:
            _drop_user(server, connection, spec.username)
            sessions.end_everywhere(server, connection, spec.username)
        if managed_role(server, spec.level) is None:
            _create_user(server, connection, spec)
        else:
            with lock_of(server):
                _create_user(server, connection, spec)


def _create_user(server: Server, connection: MongoDBConnection, spec: UserSpec) -> None:
    """Sends the password in plain text: SCRAM-SHA-256 users cannot be created otherwise. The server's log shows ``xxx``."""
    command = {
        "createUser": spec.username,
        "pwd": spec.password,
        "mechanisms": ["SCRAM-SHA-256"],
        "roles": roles_of(server, connection, spec.level),
        "customData": _mark(server, connection, spec.request_id, spec.remaining),
    }
    try:
        connection.change(server.users, command)
    except OperationFailure as error:
        if code(error) == USER_EXISTS:
            raise ServerDown("another process creates the same user at this moment", is_ambiguous=True) from None
        if code(error) == ROLE_NOT_FOUND:
            raise ServerDown("a role of the level was dropped at this moment") from None
        raise


def _mark(server: Server, connection: MongoDBConnection, request_id: int, remaining: float) -> dict[str, Any]:
    """The end is ``remaining`` seconds from now by the server's clock. It is information for people: the server does not act on it."""
    ends_at = connection.hello().now + timedelta(seconds=remaining)
    return {"dbaccess": {"ledger": server.target.ledger, "request": request_id, "ends_at": ends_at}}


def set_password(server: Server, username: str, password: str) -> None:
    """Sets the password of a managed user. Open connections of the user continue."""
    with server.session(password) as connection:
        _existing(server, connection, username)
        connection.change(server.users, {"updateUser": username, "pwd": password, "mechanisms": ["SCRAM-SHA-256"]})
        sessions.refresh_routers(server, connection)


def set_expiry(server: Server, username: str, remaining: float) -> None:
    """Writes the new end into the mark."""
    with server.session() as connection:
        found = _existing(server, connection, username)
        mark = _mark(server, connection, found.request_id or 0, remaining)
        connection.change(server.users, {"updateUser": username, "customData": mark})


def drop(server: Server, username: str, level: Level, before: LevelState | None = None) -> Removal:
    """Drops the user, ends what it runs, and reads back. A repeated call after a crash at any point finishes the work."""
    _refuse_other_names(server, username)
    with server.session(to_end=True) as connection:
        is_there, is_blocked = _check_marks(server, connection, username)
        if is_there:
            _drop_user(server, connection, username)
        seen = sessions.end_everywhere(server, connection, username, with_idle=not is_blocked)
        notes = (IDLE_SOCKETS, *_drop_managed_role(server, connection, level), *_changes(server, level, before))
        if find(server, connection, username, unmarked_too=True) is not None:
            raise ServerDown(f"{username} was there again when it was read back", is_ambiguous=True)
        return Removal(
            was_absent=not is_there,
            sessions_ended=len(seen),
            left_behind=(),
            left_with=None,
            read_back_at=connection.hello().now,
            notes=notes,
        )


def _check_marks(server: Server, connection: MongoDBConnection, username: str) -> tuple[bool, bool]:
    """Whether the user is there, or may be, and whether it is blocked. A mark that the bot may not read delays nothing.

    Raises ForeignUser for a user of another ledger, and WrongServer for another server. A server without a mark is the right one if it has
    the user with the mark of this ledger.
    """
    is_there, user = True, None
    with suppress_code(NOT_ALLOWED):
        user = find(server, connection, username, unmarked_too=True)
        is_there = user is not None
    expected, found = server.target.identity, None
    with suppress_code(NOT_ALLOWED):
        found = identity(connection, server.users)
    is_lost = found == UNMARKED and user is not None and user.ledger == server.target.ledger
    if expected is not None and found not in (None, expected) and not is_lost:
        raise WrongServer(expected=expected, found=str(found))
    return is_there, user is not None and user.is_blocked


def _changes(server: Server, level: Level, before: LevelState | None) -> tuple[str, ...]:
    """What differs from the state before the grant. An error is a note: the user is gone already."""
    if before is None:
        return ()
    try:
        return before.differences(describe(server, level))
    except AdapterError as error:
        return (f"Whether anything else changed while the grant was live is not known: {error}",)


def _drop_user(server: Server, connection: MongoDBConnection, username: str) -> None:
    """Afterwards the user can start nothing on this member. A user that is already gone is no error."""
    try:
        connection.change(server.users, {"dropUser": username})
    except OperationFailure as error:
        if code(error) != USER_NOT_FOUND:
            raise


def _drop_managed_role(server: Server, connection: MongoDBConnection, level: Level) -> tuple[str, ...]:
    """A note where the role cannot be dropped: an unused role does not delay the end of a user."""
    try:
        drop_unused_role(server, connection, level)
    except AdapterError as trouble:
        return (f"The managed role of the level {level.name} was not dropped: {trouble}",)
    return ()
