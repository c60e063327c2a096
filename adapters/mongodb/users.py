"""Making a temporary user, and changing what may be changed of a live one. Each is one command, done or not done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.errors import OperationFailure

from adapters.base import ForeignUser, Rejected, ServerDown, UserSpec, username_pattern
from adapters.mongodb import kill
from adapters.mongodb.connection import Connection, Server, answers_strangers
from adapters.mongodb.errors import ROLE_NOT_FOUND, USER_EXISTS, USER_NOT_FOUND, code
from adapters.mongodb.levels import kept_role, lock_of, roles_of
from adapters.mongodb.lookalikes import refuse_look_alikes

NO_AUTHORIZATION = "the server answers those who do not log in: users and roles count for nothing there"
MEND_AUTHORIZATION = "start mongod with --auth (security.authorization: enabled)"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A user that is there, and whose it says it is."""

    username: str
    ledger: str | None
    request_id: int | None
    expires_at: datetime | None


def of(document: dict[str, Any]) -> Found:
    """From what ``usersInfo`` says. A mark somebody wrote by hand may hold anything."""
    mark = (document.get("customData") or {}).get("dbaccess")
    mark = mark if isinstance(mark, dict) else {}
    ledger, number, ends = mark.get("ledger"), mark.get("request"), mark.get("ends_at")
    return Found(
        username=document["user"],
        ledger=ledger if isinstance(ledger, str) else None,
        request_id=number if isinstance(number, int) else None,
        expires_at=_utc(ends) if isinstance(ends, datetime) else None,
    )


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def find(server: Server, connection: Connection, username: str, *, to_end: bool = False) -> Found | None:
    """The user, or None where there is none. Raises NotOurs for a user of another ledger, and for one without a mark unless it is ``to_end``."""
    found = connection.run(server.users, {"usersInfo": {"user": username, "db": server.users}})["users"]
    if not found:
        return None
    user = of(found[0])
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise ForeignUser(username, "its name is not of our pattern")
    is_lost = user.ledger is None and to_end
    if user.ledger != server.target.ledger and not is_lost:
        raise ForeignUser(username, "its mark names another ledger" if user.ledger else "it carries no mark")
    return user


def existing(server: Server, connection: Connection, username: str) -> Found:
    """Raises Rejected where there is none."""
    found = find(server, connection, username)
    if found is None:
        raise Rejected(f"there is no user {username}")
    return found


def create(server: Server, spec: UserSpec) -> None:
    """Made anew where it is there already: nobody has been told its password yet."""
    if not username_pattern(server.target.prefix).fullmatch(spec.username):
        raise Rejected(f"{spec.username!r} is no name dbaccess makes")
    if answers_strangers(server):
        raise Rejected(NO_AUTHORIZATION, remedy=MEND_AUTHORIZATION)
    with server.session(spec.password) as connection:
        refuse_look_alikes(connection)
        if find(server, connection, spec.username) is not None:
            drop(server, connection, spec.username)
            kill.everywhere(server, connection, spec.username)
        if kept_role(server, spec.level) is None:
            _make(server, connection, spec)
        else:
            with lock_of(server):
                _make(server, connection, spec)


def _make(server: Server, connection: Connection, spec: UserSpec) -> None:
    """The password crosses the wire as it is, for there is no other way; the server writes ``xxx`` in its place."""
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
            raise ServerDown("somebody makes the same user at this moment", is_ambiguous=True) from None
        if code(error) == ROLE_NOT_FOUND:
            raise ServerDown("a role of the level was dropped at this moment") from None
        raise


def _mark(server: Server, connection: Connection, request_id: int, remaining: float) -> dict[str, Any]:
    """The end is written by the server's clock. Nothing there acts on it: it is for those who look."""
    ends_at = connection.hello().now + timedelta(seconds=remaining)
    return {"dbaccess": {"ledger": server.target.ledger, "request": request_id, "ends_at": ends_at}}


def set_password(server: Server, username: str, password: str) -> None:
    """Of a user that is ours. Open connections go on."""
    with server.session(password) as connection:
        existing(server, connection, username)
        connection.change(server.users, {"updateUser": username, "pwd": password, "mechanisms": ["SCRAM-SHA-256"]})
        kill.forget_on_routers(server, connection)


def set_expiry(server: Server, username: str, remaining: float) -> None:
    """The end in the mark."""
    with server.session() as connection:
        found = existing(server, connection, username)
        mark = _mark(server, connection, found.request_id or 0, remaining)
        connection.change(server.users, {"updateUser": username, "customData": mark})


def drop(server: Server, connection: Connection, username: str) -> bool:
    """Whether it was there. Nothing can start in its name on this member afterwards."""
    try:
        connection.change(server.users, {"dropUser": username})
    except OperationFailure as error:
        if code(error) != USER_NOT_FOUND:
            raise
        return False
    return True
