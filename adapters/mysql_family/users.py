"""Making a temporary user, and changing what may be changed of a live one.

DDL commits by itself here, so a user is made in steps: event, account (locked), role, default role, unlock. A crash before the
last one leaves nobody who can log in, and repeating makes it anew.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta

import pymysql

from adapters.base import ForeignUser, Rejected, ServerDown, UserSpec, username_pattern
from adapters.mysql_family import events, locks, sessions
from adapters.mysql_family.connection import Connection, Server, account
from adapters.mysql_family.errors import NO_SUCH_USER, code
from adapters.mysql_family.levels import given_role, kept_roles_locked, limits_of

STRICT_TLS = frozenset({"require", "verify-ca", "verify-full"})


@dataclass(frozen=True, kw_only=True)
class Found:
    """An account with a name of ours, and whose it says it is."""

    username: str
    host: str
    ledger: str | None
    request_id: int | None
    expires_at: datetime | None


def look(server: Server, connection: Connection, username: str | None = None) -> list[Found]:
    """One name's accounts, or all of our prefix. The event of that name is the mark; an account's own counts where there is no event."""
    target, grace = server.target, server.grace
    known = events.find(connection, target, username)
    found = []
    for name, host, mark in server.dialect.accounts(connection, target, username):
        event = known.get(name)
        ledger, request_id = (event.ledger, event.request_id) if event else mark or (None, None)
        ends = event.fires_at - grace if event and event.fires_at else None
        found.append(Found(username=name, host=host, ledger=ledger, request_id=request_id, expires_at=ends))
    return found


def to_end(server: Server, connection: Connection, username: str) -> tuple[bool, events.Event | None]:
    """Whether the account is there, and its event. The caller vouches that we made it, so an account without a mark is ended.

    Raises NotOurs where the event, which no user can change, names another ledger; and where all there is is an account of another host.
    """
    event = events.find(connection, server.target, username).get(username)
    if event is not None and event.ledger not in (None, server.target.ledger):
        raise ForeignUser(username, "its mark names another ledger")
    hosts = _hosts(server, connection, username)
    if hosts and "%" not in hosts and event is None:
        raise ForeignUser(username, f"there is one for the host {hosts[0]}, and dbaccess makes none")
    return "%" in hosts, event


def _hosts(server: Server, connection: Connection, username: str) -> list[str]:
    return [host for _, host, _ in server.dialect.accounts(connection, server.target, username)]


def find(server: Server, connection: Connection, username: str) -> Found | None:
    """The user, or None where there is none. Raises NotOurs for one without our mark: nothing that gives it more is ever done to it."""
    accounts = look(server, connection, username)
    if not accounts:
        return None
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise ForeignUser(username, "its name is not of our pattern")
    for one in accounts:
        if one.host != "%":
            raise ForeignUser(username, f"there is one for the host {one.host}, and dbaccess makes none")
        if one.ledger != server.target.ledger:
            raise ForeignUser(username, "its mark names another ledger" if one.ledger else "it carries no mark")
    return accounts[0]


def existing(server: Server, connection: Connection, username: str) -> Found:
    """Raises Rejected where there is none."""
    found = locks.look(server, connection, lambda: find(server, connection, username), username)
    if found is None:
        raise Rejected(f"there is no user {username}")
    return found


def create(server: Server, spec: UserSpec) -> None:
    """Made anew where it is half made: nobody has been told its password yet."""
    if not username_pattern(server.target.prefix).fullmatch(spec.username):
        raise Rejected(f"{spec.username!r} is no name dbaccess makes")
    with server.session(spec.password) as connection:
        refuse_read_only(server, connection)
        if (why := server.dialect.unfit(connection)) is not None:
            raise Rejected(why[0], remedy=why[1])
        limits = limits_of(server, spec.level)
        with kept_roles_locked(connection) if spec.level.grants or len(spec.level.roles) > 1 else nullcontext():
            role = given_role(server, connection, spec.level)
            if find(server, connection, spec.username) is not None:
                _unmake(server, connection, spec.username)
            _set_end(server, connection, spec.username, spec.request_id, spec.remaining)
            _make(server, connection, spec, limits)
            connection.run(f"GRANT {server.dialect.role(role)} TO {account(spec.username)}")
        server.dialect.set_default_role(connection, server.target, spec.username, role)
        if spec.remaining > 0:
            connection.run(f"ALTER USER {account(spec.username)} ACCOUNT UNLOCK")


def _make(server: Server, connection: Connection, spec: UserSpec, limits: str) -> None:
    dialect = server.dialect
    told = server.target.connect.tls or server.target.tls.mode
    tls = "REQUIRE SSL" if told in STRICT_TLS else "REQUIRE NONE"
    identified = dialect.password_clause(connection, spec.password)
    statement = (
        f"CREATE USER {account(spec.username)} {identified} {tls} WITH {limits} PASSWORD EXPIRE NEVER ACCOUNT LOCK"
    )
    try:
        connection.run(statement)
    except pymysql.MySQLError as error:
        if code(error) != NO_SUCH_USER:
            raise
        raise ServerDown("somebody makes the same user at this moment") from None


def _unmake(server: Server, connection: Connection, username: str) -> None:
    sessions.kill(connection, username, set())
    locks.run(server, connection, f"ALTER USER {account(username)} ACCOUNT LOCK", username)
    sessions.end(connection, username, set(), sessions.half_open(connection))
    locks.run(server, connection, f"DROP USER {account(username)}", username)


def _set_end(server: Server, connection: Connection, username: str, request_id: int, remaining: float) -> None:
    """By the server's clock. An end that is over is one second away, which the event needs."""
    after = max(timedelta(seconds=remaining) + server.grace, timedelta())
    events.set_up(server, connection, username, request_id=request_id, at=connection.now() + after)


def set_password(server: Server, username: str, password: str) -> None:
    with server.session(password) as connection:
        existing(server, connection, username)
        clause = server.dialect.password_clause(connection, password)
        locks.run(server, connection, f"ALTER USER {account(username)} {clause}", username)


def set_expiry(server: Server, username: str, remaining: float) -> None:
    """Moves the event; where the end is over, the login is locked at once."""
    with server.session() as connection:
        found = existing(server, connection, username)
        if remaining <= 0:
            locks.run(server, connection, f"ALTER USER {account(username)} ACCOUNT LOCK", username)
        _set_end(server, connection, username, found.request_id or 0, remaining)
        if remaining > 0:
            locks.run(server, connection, f"ALTER USER {account(username)} ACCOUNT UNLOCK", username)


def refuse_read_only(server: Server, connection: Connection) -> None:
    """An account made on a replica by a bot that may is one that its primary does not know."""
    for variable in server.dialect.read_only:
        if connection.value(f"SELECT @@{variable}"):
            raise ServerDown(f"the server is read-only ({variable}): a replica, or one that is becoming one")


def is_there(server: Server, connection: Connection, username: str) -> bool:
    """The account that dbaccess makes."""
    return "%" in _hosts(server, connection, username)
