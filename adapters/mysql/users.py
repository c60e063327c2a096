"""Finds temporary users, creates them, and changes the password or the end of a live one.

DDL commits by itself here, so a user is created in steps: event, locked account, role, default role, unlock. After a crash before
the last step the user cannot log in, and the next create replaces it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import datetime, timedelta

import pymysql

from adapters.base import ForeignUser, Rejected, ServerDown, UserSpec
from adapters.mysql import events, locks, sessions
from adapters.mysql.connection import MySQLConnection, account
from adapters.mysql.errors import NO_SUCH_USER, code
from adapters.mysql.levels import limits_of, managed_role, managed_roles_locked, role_to_grant
from adapters.mysql.own_session import require_own
from adapters.mysql.server import Server
from adapters.usernames import username_pattern

STRICT_TLS = frozenset({"require", "verify-ca", "verify-full"})
NUMBERS = re.compile(r"([0-9]+)\.([0-9]+)")


@dataclass(frozen=True, kw_only=True)
class FoundAccount:
    """An account with the name of a temporary user. ``ledger`` and ``request_id`` are its mark, None where it has none."""

    username: str
    host: str
    ledger: str | None
    request_id: int | None
    expires_at: datetime | None


def find_accounts(
    server: Server, connection: MySQLConnection, usernames: Sequence[str] | None = None
) -> list[FoundAccount]:
    """Accounts of these names, or of all names with the prefix. The mark is the user's event; an account's own mark counts only without an event."""
    target, grace = server.target, server.grace
    known = events.find(connection, target, usernames)
    found = []
    for name, host, mark in server.dialect.accounts(connection, target, usernames):
        event = known.get(name)
        ledger, request_id = (event.ledger, event.request_id) if event else mark or (None, None)
        ends = event.fires_at - grace if event and event.fires_at else None
        found.append(FoundAccount(username=name, host=host, ledger=ledger, request_id=request_id, expires_at=ends))
    return found


def find_for_removal(
    server: Server, connection: MySQLConnection, username: str
) -> tuple[bool, events.ExpiryEvent | None]:
    """Whether the account exists, and its event. The caller knows from its ledger that the user is its own, so a missing mark is no obstacle.

    Raises ForeignUser where the event, which no user can change, names another ledger, and where only an account with another host exists.
    """
    event = events.find(connection, server.target, [username]).get(username)
    if event is not None and event.ledger not in (None, server.target.ledger):
        raise ForeignUser(username, "its mark names another ledger")
    hosts = _hosts(server, connection, username)
    if hosts and "%" not in hosts and event is None:
        raise ForeignUser(username, f"it has the host {hosts[0]}, and dbaccess creates users with the host % only")
    return "%" in hosts, event


def _hosts(server: Server, connection: MySQLConnection, username: str) -> list[str]:
    return [host for _, host, _ in server.dialect.accounts(connection, server.target, [username])]


def find_managed(server: Server, connection: MySQLConnection, username: str) -> FoundAccount | None:
    """The user, or None where it does not exist. Raises ForeignUser where it lacks this ledger's mark: such a user never gets more access."""
    accounts = find_accounts(server, connection, [username])
    if not accounts:
        return None
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise ForeignUser(username, "its name does not match the pattern of dbaccess")
    for found in accounts:
        if found.host != "%":
            raise ForeignUser(
                username, f"it has the host {found.host}, and dbaccess creates users with the host % only"
            )
        if found.ledger != server.target.ledger:
            raise ForeignUser(username, "its mark names another ledger" if found.ledger else "it carries no mark")
    return accounts[0]


def get_managed(server: Server, connection: MySQLConnection, username: str) -> FoundAccount:
    """The user. Raises Rejected where it does not exist, and ForeignUser as ``find_managed`` does."""
    found = locks.call(server, connection, lambda: find_managed(server, connection, username), username)
    if found is None:
        raise Rejected(f"there is no user {username}")
    return found


def create(server: Server, spec: UserSpec) -> None:
    """Create the user. A user that exists already is replaced: a create that was cut short has shown its password to nobody.

    Raises Rejected on a server that is too old or has an unsafe setting, ServerDown on one that is read-only, and ForeignUser as ``find_managed`` does.
    """
    require_username(server, spec.username)
    with server.session(spec.password) as connection:
        server.dialect.prepare_kills(connection)
        _refuse_unfit_server(server, connection)
        limits = limits_of(server, spec.level)
        is_managed = managed_role(server.target, spec.level) is not None
        with managed_roles_locked(connection) if is_managed else nullcontext():
            role = role_to_grant(server, connection, spec.level)
            found = locks.call(
                server, connection, lambda: find_managed(server, connection, spec.username), spec.username
            )
            if found is not None:
                _drop_existing(server, connection, spec.username)
            _set_end(server, connection, spec.username, spec.request_id, spec.remaining)
            _create_account(server, connection, spec, limits)
            grant = f"GRANT {server.dialect.quoted_role(role)} TO {account(spec.username)}"
            locks.run(server, connection, grant, spec.username)
        _set_default_role(server, connection, spec.username, role)
        if spec.remaining > 0:
            locks.run(server, connection, f"ALTER USER {account(spec.username)} ACCOUNT UNLOCK", spec.username)


def _set_default_role(server: Server, connection: MySQLConnection, username: str, role: str) -> None:
    def act() -> None:
        server.dialect.set_default_role(connection, server.target, username, role)

    locks.call(server, connection, act, username, step="setting the default role")


def _refuse_unfit_server(server: Server, connection: MySQLConnection) -> None:
    """Raises what ``create`` names. The version comes first: an old server may lack what the other checks read."""
    if (unsupported := unsupported_version(server, connection)) is not None:
        raise Rejected(unsupported[0], remedy=unsupported[1])
    require_own(connection)
    refuse_read_only(server, connection)
    if (unsafe := server.dialect.unsafe_setting(connection)) is not None:
        raise Rejected(unsafe[0], remedy=unsafe[1])


def _create_account(server: Server, connection: MySQLConnection, spec: UserSpec, limits: str) -> None:
    dialect = server.dialect
    tls = "REQUIRE SSL" if requires_tls(server) else "REQUIRE NONE"
    identified = dialect.password_clause(connection, spec.password)
    statement = (
        f"CREATE USER {account(spec.username)} {identified} {tls} WITH {limits} PASSWORD EXPIRE NEVER ACCOUNT LOCK"
    )
    try:
        locks.run(server, connection, statement, spec.username)
    except pymysql.MySQLError as error:
        if code(error) != NO_SUCH_USER:
            raise
        raise ServerDown("another connection creates the same user at this moment") from None


def requires_tls(server: Server) -> bool:
    """Whether new users have to log in with TLS."""
    return (server.target.connect.tls or server.target.tls.mode) in STRICT_TLS


def _drop_existing(server: Server, connection: MySQLConnection, username: str) -> None:
    sessions.kill_all(connection, username, set())
    locks.run(server, connection, f"ALTER USER {account(username)} ACCOUNT LOCK", username)
    sessions.end_all(connection, username, set(), sessions.half_open_logins(connection))
    locks.run(server, connection, f"DROP USER {account(username)}", username)


def _set_end(server: Server, connection: MySQLConnection, username: str, request_id: int, remaining: float) -> None:
    """Set the event by the server's clock. An end in the past becomes one second from now, because an event needs a time in the future."""
    after = max(timedelta(seconds=remaining) + server.grace, timedelta())
    events.set_up(server, connection, username, request_id=request_id, at=connection.now() + after)


def set_password(server: Server, username: str, password: str) -> None:
    """Set a new password. Open sessions live on."""
    with server.session(password) as connection:
        server.dialect.prepare_kills(connection)
        require_own(connection)
        get_managed(server, connection, username)
        clause = server.dialect.password_clause(connection, password)
        locks.run(server, connection, f"ALTER USER {account(username)} {clause}", username)


def set_expiry(server: Server, username: str, remaining: float) -> None:
    """Move the event to ``remaining`` seconds from now. Where that is not in the future, the account is locked at once."""
    with server.session() as connection:
        server.dialect.prepare_kills(connection)
        require_own(connection)
        found = get_managed(server, connection, username)
        if remaining <= 0:
            locks.run(server, connection, f"ALTER USER {account(username)} ACCOUNT LOCK", username)
        _set_end(server, connection, username, found.request_id or 0, remaining)
        if remaining > 0:
            locks.run(server, connection, f"ALTER USER {account(username)} ACCOUNT UNLOCK", username)


def refuse_read_only(server: Server, connection: MySQLConnection) -> None:
    """Raises ServerDown. A bot with the right to write on a replica would create an account there that the primary does not know."""
    variables = server.dialect.read_only
    (values,) = connection.run("SELECT " + ", ".join(f"@@{variable}" for variable in variables))
    for variable, value in zip(variables, values, strict=True):
        if value:
            raise ServerDown(f"the server is read-only ({variable}): a replica, or one that is becoming one")


def exists(server: Server, connection: MySQLConnection, username: str) -> bool:
    """Whether the account exists, with the host that dbaccess uses."""
    return "%" in _hosts(server, connection, username)


def require_username(server: Server, username: str) -> None:
    """Raises Rejected for a name that dbaccess never creates."""
    if not username_pattern(server.target.prefix).fullmatch(username):
        raise Rejected(f"{username!r} is no name dbaccess makes")


def unsupported_version(server: Server, connection: MySQLConnection) -> tuple[str, str] | None:
    """The reason why this server gets no new users, and the remedy; None for a supported version.

    Only ``create`` and ``check`` call this. A user that lives on an older server is listed and ended like any other.
    """
    version, oldest = connection.server_version, server.dialect.oldest_version
    numbers = NUMBERS.match(version)
    if numbers is not None and (int(numbers[1]), int(numbers[2])) >= oldest:
        return None
    label = server.dialect.label
    reason = f"{label} {version} is not supported: no grant is made on it, and users that live on it are still ended"
    return reason, f"upgrade the server to {label} {oldest[0]}.{oldest[1]} or later"
