"""Creation of temporary users, and changes of a live user's password and expiry.

A user is created in one transaction, and its memberships are read back before the COMMIT. A server older than ``SUPPORTED_SINCE``
gets no new user, password or expiry.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import LiteralString

import psycopg
from psycopg import sql

from adapters.base import (
    CREATE_LIMIT_SECONDS,
    ForeignUser,
    Rejected,
    ServerDown,
    Target,
    UserSpec,
)
from adapters.postgresql import held
from adapters.postgresql.connection import (
    MARK,
    STATEMENT_SECONDS,
    PostgreSQLConnection,
    PostgreSQLServer,
    require_fit_for_grants,
)
from adapters.postgresql.level.grants import managed_role, roles_of
from adapters.postgresql.level.managed_roles import ensure_exists, is_equal, lock, make_equal, with_retries
from adapters.postgresql.locks import only_sessions_of, run_unblocked
from adapters.postgresql.roles import SETS_MEMBERSHIP_OPTIONS, become_member, memberships, refuse_dangerous
from adapters.postgresql.statements import major_version, quoted, quoted_acting_role, run, value
from adapters.usernames import username_pattern

CONNECTION_LIMIT = 5
EXPIRES_AT: LiteralString = (
    "CASE WHEN rolvaliduntil > '1970-01-01Z' AND rolvaliduntil < '9999-01-01Z' THEN rolvaliduntil END"
)
"""A blocked role has VALID UNTIL -infinity, which is no datetime. An administrator may have set another such value by hand."""
GRANTED: LiteralString = (
    "SELECT r.rolname, coalesce(g.rolname, '?'), m.admin_option, coalesce((to_jsonb(m) ->> 'set_option')::bool, false) FROM pg_auth_members m"
    " LEFT JOIN pg_roles g ON g.oid = m.grantor JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = %s"
)
"""Each membership of a user with its grantor and its options. Before version 16 there is no option SET."""
LIST_SETTINGS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"})


@dataclass(frozen=True, kw_only=True)
class FoundRole:
    """A role on the server that is a managed user by its name and mark.

    ``has_admin_attributes``: it has an attribute that dbaccess never gives, such as SUPERUSER or CREATEROLE.
    """

    oid: int
    has_admin_attributes: bool


def find(
    connection: PostgreSQLConnection, target: Target, username: str, *, for_removal: bool = False
) -> FoundRole | None:
    """Return the user, or None where there is none. Raises ForeignUser for a user with the mark of another ledger or without a mark.

    ``for_removal``: a user without a mark is accepted. The caller has the name from the ledger, and a lost mark never keeps a user alive.
    """
    row = connection.execute(
        "SELECT oid, shobj_description(oid, 'pg_authid'), rolsuper OR rolcreaterole OR rolreplication OR rolbypassrls OR rolcreatedb"
        " FROM pg_roles WHERE rolname = %s",
        (username,),
    ).fetchone()
    if row is None:
        return None
    oid, comment, has_admin_attributes = row
    require_own(target, username, comment, for_removal=for_removal)
    return FoundRole(oid=oid, has_admin_attributes=has_admin_attributes)


def require_own(target: Target, username: str, comment: str | None, *, for_removal: bool) -> None:
    """Raises ForeignUser where the name or the comment of an existing user says that it is not of this ledger. See ``find``."""
    mark = MARK.fullmatch(comment or "")
    if not username_pattern(target.prefix).fullmatch(username):
        raise ForeignUser(username, "its name is not one that dbaccess makes")
    if mark is None and not for_removal:
        raise ForeignUser(username, "it has no mark")
    if mark is not None and mark[1] != target.ledger:
        raise ForeignUser(username, "its mark names another ledger")


def create(server: PostgreSQLServer, spec: UserSpec) -> None:
    """Create the user in one transaction. Repeated, it completes the user and revokes what the user should not have.

    The transaction is rolled back where its COMMIT could land after the time that the caller waits for it. Raises Rejected,
    ForeignUser and ServerDown.
    """
    latest = time.monotonic() + CREATE_LIMIT_SECONDS - STATEMENT_SECONDS
    if not username_pattern(server.target.prefix).fullmatch(spec.username):
        raise Rejected(f"{spec.username!r} is no name that dbaccess makes")
    with server.session() as connection:
        require_fit_for_grants(connection)
        held.ensure(server)
        with_retries(partial(_create_once, server, connection, spec, latest), until=latest)


def _create_once(server: PostgreSQLServer, connection: PostgreSQLConnection, spec: UserSpec, latest: float) -> None:
    role = managed_role(server.target, spec.level)
    if role:
        ensure_exists(connection, server.target.ledger, spec.level, role)
    with connection.transaction():
        if role:
            lock(connection, role)
            if not is_equal(server, connection, spec.level, role):
                make_equal(server, spec.level, role)
        _create_or_complete(connection, server.target, spec)
        if time.monotonic() > latest:
            raise ServerDown("the server was too slow to create the user")


def _create_or_complete(connection: PostgreSQLConnection, target: Target, spec: UserSpec) -> None:
    for role in spec.level.roles:
        refuse_dangerous(connection, role)
    found = find(connection, target, spec.username)
    if found is None:
        _create_role(connection, target, spec)
        has = list[str]()
    elif found.has_admin_attributes:
        remedy = f"ALTER ROLE {quoted(spec.username)} NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS;"
        raise Rejected(f"somebody gave {spec.username} attributes that dbaccess never gives", remedy=remedy)
    else:
        run(connection, "ALTER ROLE {} RESET ALL", spec.username)
        has = memberships(connection, spec.username)
    become_member(connection, spec.username)
    _configure(connection, target, spec, has)


def _create_role(connection: PostgreSQLConnection, target: Target, spec: UserSpec) -> None:
    attributes: LiteralString = "NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
    try:
        run(
            connection,
            "CREATE ROLE {} " + attributes + "; COMMENT ON ROLE {} IS {mark}",
            spec.username,
            spec.username,
            mark=mark_text(target, spec.request_id),
        )
    except psycopg.errors.InsufficientPrivilege:
        remedy = f"ALTER ROLE {quoted_acting_role(connection)} CREATEROLE;"
        raise Rejected("the bot may not create users", remedy=remedy) from None


def mark_text(target: Target, request_id: int) -> str:
    """The comment of a user. The sweep and every later step recognise the user by it."""
    return f"dbaccess ledger={target.ledger} request={request_id}"


def _configure(connection: PostgreSQLConnection, target: Target, spec: UserSpec, has: Sequence[str]) -> None:
    _set_memberships(
        connection, spec, has, wanted=roles_of(target, spec.level), managed=managed_role(target, spec.level)
    )
    for name, setting in spec.level.settings.items():
        _set_setting(connection, spec.username, name, setting)
    run(
        connection,
        "ALTER ROLE {} LOGIN PASSWORD {verifier} VALID UNTIL {until} CONNECTION LIMIT {limit}",
        spec.username,
        verifier=verifier(connection, spec.username, spec.password),
        until=expiry_after(connection, spec.remaining),
        limit=CONNECTION_LIMIT,
    )


def _set_memberships(
    connection: PostgreSQLConnection, spec: UserSpec, has: Sequence[str], *, wanted: list[str], managed: str | None
) -> None:
    """Give these memberships and no others, and read them back: a GRANT that the bot may not give can be a mere warning.

    ``has`` are the roles that the user has now.
    """
    for extra in sorted(set(has) - set(wanted)):
        run(connection, "REVOKE {} FROM {}", extra, spec.username)
    settable = set(wanted) - {managed} if spec.level.set_role else set[str | None]()
    for role in sorted(wanted):
        _grant_role(connection, spec.username, role, may_set=role in settable)
    found = set[str]()
    for role, grantor, is_admin, may_set in connection.execute(GRANTED, (spec.username,)).fetchall():
        found.add(role)
        if role in wanted and (is_admin or (may_set and role not in settable)):
            raise _too_much(spec.username, role, grantor)
    if lacking := sorted(set(wanted) - found):
        raise _cannot_grant(connection, lacking[0])
    if foreign := sorted(found - set(wanted)):
        remedy = f"REVOKE {quoted(foreign[0])} FROM {quoted(spec.username)};"
        raise Rejected(f"somebody made {spec.username} a member of {foreign[0]}", remedy=remedy)


def _grant_role(connection: PostgreSQLConnection, username: str, role: str, *, may_set: bool) -> None:
    """Grant the role with these options, also where the user has it with others.

    Where the server knows the option SET, a user may act as a role only if its level says so. Nobody acts as a managed role.
    """
    options: LiteralString = ""
    if major_version(connection) >= SETS_MEMBERSHIP_OPTIONS:
        options = " WITH ADMIN FALSE, INHERIT TRUE, SET " + ("TRUE" if may_set else "FALSE")
    try:
        run(connection, "GRANT {} TO {}" + options, role, username)
    except psycopg.errors.InsufficientPrivilege:
        raise _cannot_grant(connection, role) from None


def _too_much(username: str, role: str, grantor: str) -> Rejected:
    remedy = f"REVOKE {quoted(role)} FROM {quoted(username)} GRANTED BY {quoted(grantor)};"
    return Rejected(
        f"{grantor} gave {username} the role {role} with options that its level does not give", remedy=remedy
    )


def _cannot_grant(connection: PostgreSQLConnection, role: str) -> Rejected:
    remedy = f"GRANT {quoted(role)} TO {quoted_acting_role(connection)} WITH ADMIN OPTION;"
    return Rejected(f"the bot cannot give the role {role}", remedy=remedy)


def _set_setting(connection: PostgreSQLConnection, username: str, name: str, setting: str) -> None:
    """Set a setting of the user. A list is split: as one literal, ``a, b`` would be a single name with a comma in it."""
    parts = [part.strip() for part in setting.split(",")] if name.lower() in LIST_SETTINGS else [setting]
    statement = sql.SQL("ALTER ROLE {} SET {} = {}")
    values = sql.SQL(", ").join(sql.Literal(part) for part in parts)
    try:
        connection.execute(statement.format(sql.Identifier(username), sql.Identifier(*name.lower().split(".")), values))
    except psycopg.errors.InsufficientPrivilege:
        remedy = f"GRANT SET ON PARAMETER {name} TO {quoted_acting_role(connection)};"
        raise Rejected(f"the bot may not set {name}", remedy=remedy) from None


def verifier(connection: PostgreSQLConnection, username: str, password: str) -> str:
    """The SCRAM-SHA-256 verifier of the password. The server and its log never see the password itself."""
    return connection.pgconn.encrypt_password(password.encode(), username.encode(), b"scram-sha-256").decode()


def expiry_after(connection: PostgreSQLConnection, remaining: float) -> str:
    """The server's clock plus ``remaining`` seconds, in UTC. It names the zone: the server reads a value without one in the session's."""
    query: LiteralString = "SELECT to_char((clock_timestamp() + make_interval(secs => %s)) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    return str(value(connection, query, (remaining,)))


def set_password(server: PostgreSQLServer, username: str, password: str) -> None:
    """Change the password. Open sessions live on, except one that holds a lock on the user's role. Raises Rejected where the user is absent."""
    with server.session() as connection:
        require_fit_for_grants(connection)
        found = _existing_user(connection, server.target, username)
        secret = verifier(connection, username, password)
        change = partial(run, connection, "ALTER ROLE {} PASSWORD {verifier}", username, verifier=secret)
        run_unblocked(server, connection, change, may_end=only_sessions_of(found.oid))


def set_expiry(server: PostgreSQLServer, username: str, remaining: float) -> None:
    """Set VALID UNTIL to ``remaining`` seconds from now. Raises Rejected where the user is absent."""
    with server.session() as connection:
        require_fit_for_grants(connection)
        found = _existing_user(connection, server.target, username)
        until = expiry_after(connection, remaining)
        change = partial(run, connection, "ALTER ROLE {} VALID UNTIL {until}", username, until=until)
        run_unblocked(server, connection, change, may_end=only_sessions_of(found.oid))


def _existing_user(connection: PostgreSQLConnection, target: Target, username: str) -> FoundRole:
    found = find(connection, target, username)
    if found is None:
        raise Rejected(f"there is no user {username}")
    return found
