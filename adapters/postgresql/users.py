"""Making a temporary user, and changing what may be changed of a live one."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg import sql

from adapters.base import NotOurs, Rejected, Target, UserSpec, username_pattern
from adapters.postgresql.connection import MARK, Connection, Server, column, quoted, run, value, version
from adapters.postgresql.levels import keep, kept_role, lock, refuse_dangerous, roles_of

CONNECTION_LIMIT = 5
SETS_MEMBERSHIP_OPTIONS = 16
"""From this version on a membership says whether it inherits and whether SET ROLE is allowed."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A user that is there, and ours by pattern and mark."""

    oid: int
    request_id: int
    expires_at: datetime | None


def find(connection: Connection, target: Target, username: str) -> Found | None:
    """The user, or None where there is none. Raises NotOurs for one without our mark; nothing is ever done to it."""
    row = connection.execute(
        "SELECT oid, shobj_description(oid, 'pg_authid'), rolvaliduntil, rolsuper OR rolcreaterole OR rolreplication"
        " FROM pg_roles WHERE rolname = %s",
        (username,),
    ).fetchone()
    if row is None:
        return None
    oid, comment, expires_at, is_mighty = row
    mark = MARK.fullmatch(comment or "")
    if not username_pattern(target.prefix).fullmatch(username):
        raise NotOurs(username, "its name is not of our pattern")
    if mark is None or mark[1] != target.ledger:
        raise NotOurs(username, "it carries no mark" if mark is None else "its mark names another ledger")
    if is_mighty:
        raise NotOurs(username, "somebody gave it SUPERUSER, CREATEROLE or REPLICATION, which dbaccess never does")
    return Found(oid=oid, request_id=int(mark[2]), expires_at=moment(expires_at))


def moment(found: object) -> datetime | None:
    return found if isinstance(found, datetime) else None


def create(server: Server, spec: UserSpec) -> None:
    """One transaction; repeated, it makes a half-made user whole and takes away what it should not have."""
    target = server.target
    if not username_pattern(target.prefix).fullmatch(spec.username):
        raise Rejected(f"{spec.username!r} is no name dbaccess makes")
    with server.session() as connection, connection.transaction():
        kept = kept_role(target, spec.level)
        if kept is not None:
            lock(connection, kept)
            keep(server, spec.level, kept)
        for role in spec.level.roles:
            refuse_dangerous(connection, role)
        if find(connection, target, spec.username) is None:
            _make(connection, target, spec)
        else:
            _make_again(connection, spec)
        _settle(connection, target, spec)


def _make(connection: Connection, target: Target, spec: UserSpec) -> None:
    attributes: LiteralString = "NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION"
    run(connection, "CREATE ROLE {} " + attributes, spec.username)
    run(connection, "COMMENT ON ROLE {} IS {mark}", spec.username, mark=mark_of(target, spec.request_id))
    become_member(connection, spec.username)


def _make_again(connection: Connection, spec: UserSpec) -> None:
    run(connection, "ALTER ROLE {} RESET ALL", spec.username)
    become_member(connection, spec.username)


def mark_of(target: Target, request_id: int) -> str:
    """What the comment on a user says; the sweep and every later step know it by this."""
    return f"dbaccess ledger={target.ledger} request={request_id}"


def _settle(connection: Connection, target: Target, spec: UserSpec) -> None:
    wanted = roles_of(target, spec.level)
    for extra in set(memberships(connection, spec.username)) - set(wanted):
        run(connection, "REVOKE {} FROM {}", extra, spec.username)
    for role in wanted:
        run(connection, "GRANT {} TO {}", role, spec.username)
    for name, setting in spec.level.settings.items():
        statement = sql.SQL("ALTER ROLE {} SET {} = {}")
        connection.execute(
            statement.format(sql.Identifier(spec.username), sql.Identifier(*name.split(".")), sql.Literal(setting))
        )
    run(
        connection,
        "ALTER ROLE {} LOGIN PASSWORD {verifier} VALID UNTIL {until} CONNECTION LIMIT {limit}",
        spec.username,
        verifier=verifier(connection, spec.username, spec.password),
        until=end_in(connection, spec.remaining),
        limit=CONNECTION_LIMIT,
    )
    _read_back(connection, spec, wanted)


def _read_back(connection: Connection, spec: UserSpec, wanted: list[str]) -> None:
    """A GRANT the bot may not give is a warning with status 0: only what the server has counts."""
    lacking = set(wanted) - set(memberships(connection, spec.username))
    if lacking:
        us, role = value(connection, "SELECT current_user"), min(lacking)
        raise Rejected(
            f"the bot cannot give the role {role}", mend=f"GRANT {quoted(role)} TO {quoted(us)} WITH ADMIN OPTION;"
        )


def memberships(connection: Connection, username: str) -> list[str]:
    """Roles the user is a direct member of."""
    return column(
        connection,
        "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = %s",
        (username,),
    )


def become_member(connection: Connection, username: str) -> None:
    """The bot's role becomes a member of the user: that is what lets it end sessions, hand over objects and roll back prepared transactions."""
    us = value(connection, "SELECT current_user")
    if value(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        return
    if version(connection) >= SETS_MEMBERSHIP_OPTIONS:
        run(connection, "GRANT {} TO {} WITH INHERIT TRUE, SET TRUE", username, us)
    elif not value(connection, "SELECT pg_has_role(%s, 'MEMBER')", (username,)):
        run(connection, "GRANT {} TO {}", username, us)


def verifier(connection: Connection, username: str, password: str) -> str:
    """SCRAM-SHA-256, made here: the server and its log never see the password itself."""
    made = connection.pgconn.encrypt_password(password.encode(), username.encode(), b"scram-sha-256")
    return made.decode()


def end_in(connection: Connection, remaining: float) -> str:
    """The server's own now plus ``remaining`` seconds, in UTC and said so: a value without zone would be read in the session's."""
    query: LiteralString = "SELECT to_char((clock_timestamp() + make_interval(secs => %s)) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')"
    return str(value(connection, query, (remaining,)))


def set_password(server: Server, username: str, password: str) -> None:
    """Raises Rejected where the user is absent; open sessions live on."""
    with server.session() as connection:
        _present(connection, server.target, username)
        run(
            connection, "ALTER ROLE {} PASSWORD {verifier}", username, verifier=verifier(connection, username, password)
        )


def set_expiry(server: Server, username: str, remaining: float) -> None:
    """Move VALID UNTIL. Raises Rejected where the user is absent."""
    with server.session() as connection:
        _present(connection, server.target, username)
        run(connection, "ALTER ROLE {} VALID UNTIL {until}", username, until=end_in(connection, remaining))


def _present(connection: Connection, target: Target, username: str) -> Found:
    found = find(connection, target, username)
    if found is None:
        raise Rejected(f"there is no user {username}")
    return found
