"""Roles of the server: their memberships, and the roles that dbaccess never gives to a temporary user."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import LiteralString, TypeAlias

import psycopg

from adapters.base import Rejected
from adapters.postgresql.connection import PostgreSQLConnection
from adapters.postgresql.statements import (
    bounded,
    column,
    major_version,
    quoted,
    quoted_acting_role,
    run,
    run_in_one_trip,
    value,
)

Edge: TypeAlias = tuple[str, str, str | None]
"""A membership: the role, its member, and who granted it. The grantor is None where it was dropped."""
SETS_MEMBERSHIP_OPTIONS = 16
"""The first version where a membership has the options INHERIT and SET."""
LEFT_PREFIX = "dbaccess_left_"
"""The start of the names of roles that ended users left, with what they own."""
LOCK_SECONDS = 0.3
"""Seconds that a REVOKE of a membership waits for a lock."""
QUARANTINE_ROLE = "dbaccess_graveyard"
"""The role that owned what all ended users left behind, before each kept its own. Nothing is given to it any more."""
DANGEROUS_ROLES = {
    "pg_execute_server_program": "that is a shell on the database's host",
    "pg_read_server_files": "that is a shell on the database's host",
    "pg_write_server_files": "that is a shell on the database's host",
    "pg_signal_backend": "its users can end the bot's own sessions, and so hold up every end",
    "pg_maintain": "its users can lock the role catalogs, and so hold up every end",
}
"""Predefined roles that no level may have, each with its reason."""
REACHABLE_ROLES = """
WITH RECURSIVE reached(oid, is_admin) AS (
  SELECT r.oid, false FROM pg_roles r WHERE r.rolname = %s
  UNION
  SELECT m.roleid, m.admin_option FROM pg_auth_members m JOIN reached ON m.member = reached.oid
)
SELECT r.rolname, CASE WHEN r.rolsuper THEN 'SUPERUSER' WHEN r.rolcreaterole THEN 'CREATEROLE' WHEN r.rolreplication THEN 'REPLICATION' END,
  r.rolcanlogin, reached.is_admin FROM reached JOIN pg_roles r ON r.oid = reached.oid ORDER BY r.oid
"""
BLOCK_LOGIN: LiteralString = "ALTER ROLE {} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0 VALID UNTIL '-infinity'"

EDGES = """
SELECT r.rolname, u.rolname, g.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
  LEFT JOIN pg_roles g ON g.oid = m.grantor
 WHERE (u.rolname = %(name)s OR r.rolname = %(name)s) AND u.rolname NOT IN (current_user, session_user)
"""
"""The memberships of a role and in it, each with its grantor. The bot's own memberships are left out."""
ACTS_AS = """
WITH RECURSIVE reached(oid) AS (
  SELECT m.member FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member
   WHERE m.roleid = %(oid)s::oid AND u.rolname NOT IN (current_user, session_user) AND NOT u.rolsuper
  UNION
  SELECT m.member FROM pg_auth_members m JOIN reached ON m.roleid = reached.oid JOIN pg_roles u ON u.oid = m.member
   WHERE u.rolname NOT IN (current_user, session_user) AND NOT u.rolsuper
)
SELECT DISTINCT r.rolname FROM reached JOIN pg_roles r ON r.oid = reached.oid ORDER BY 1
"""
"""Roles that can act as the role, directly or through others, without the bot's own and without superusers."""

# Memberships.


def become_member(connection: PostgreSQLConnection, role: str) -> None:
    """Make the bot's role a member of ``role``, so that it can end its sessions, take its objects and roll back its transactions.

    Raises Rejected where the bot may not.
    """
    if major_version(connection) >= SETS_MEMBERSHIP_OPTIONS:  # a superuser has every role
        is_member = value(connection, "SELECT pg_has_role(%s, 'USAGE') AND pg_has_role(%s, 'SET')", (role, role))
        statement: LiteralString = "GRANT {} TO {} WITH INHERIT TRUE, SET TRUE"
    else:
        is_member = value(connection, "SELECT pg_has_role(%s, 'MEMBER')", (role,))
        statement = "GRANT {} TO {}"
    if is_member:
        return
    try:
        run(connection, statement, role, connection.acting_role)
    except psycopg.errors.InsufficientPrivilege:
        remedy = f"GRANT {quoted(role)} TO {quoted_acting_role(connection)} WITH ADMIN OPTION;"
        raise Rejected(f"the bot may not become a member of {role}", remedy=remedy) from None


def memberships(connection: PostgreSQLConnection, role: str) -> list[str]:
    """The roles that ``role`` is a direct member of."""
    return column(
        connection,
        "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = %s",
        (role,),
    )


def members(connection: PostgreSQLConnection, role: str) -> list[str]:
    """The direct members of ``role`` without the bot's own: the bot needs its membership, and version 16 and later give it one."""
    return column(
        connection,
        "SELECT DISTINCT u.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member"
        " WHERE r.rolname = %s AND u.rolname NOT IN (current_user, session_user) ORDER BY 1",
        (role,),
    )


def members_of_members(connection: PostgreSQLConnection, oid: int) -> list[str]:
    """All roles that can act as the role with this oid. Their sessions may have done so with SET ROLE, and keep its rights then."""
    return column(connection, ACTS_AS, {"oid": oid})


def leave_role(connection: PostgreSQLConnection, role: str) -> None:
    """Take back the bot's own membership in ``role``. The membership that version 16 and later give the role's creator stays."""
    with suppress(psycopg.Error), connection.transaction():
        run(connection, "REVOKE {} FROM {}", role, connection.acting_role)


def revoke_memberships(
    connection: PostgreSQLConnection, username: str, known: Sequence[Edge] | None = None
) -> list[str]:
    """Revoke the user's roles, and the user's role from its members. Returns the statements that the bot was not allowed to run or that had to wait.

    ``known`` are the memberships, where the caller has just read them.

    Live sessions lose these rights at once, also while the user's row in ``pg_authid`` is locked. Who may give one of these roles to others
    can hold a lock on it with an open GRANT.
    """
    edges = known if known is not None else connection.execute(EDGES, {"name": username}).fetchall()
    if not edges:
        return []
    statements = [_revocation(connection, *edge) for edge in edges]
    with suppress(psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable):
        run_in_one_trip(connection, *statements, wait=LOCK_SECONDS)
        return []
    refused = list[str]()
    for statement in statements:
        try:
            run_in_one_trip(connection, statement, wait=LOCK_SECONDS)
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable):
            refused.append(f"{statement};")
    return refused


def _revocation(connection: PostgreSQLConnection, role: str, member: str, grantor: str | None) -> str:
    knows_grantors = major_version(connection) >= SETS_MEMBERSHIP_OPTIONS
    by = f" GRANTED BY {quoted(grantor)}" if knows_grantors and grantor is not None else ""
    return f"REVOKE {quoted(role)} FROM {quoted(member)}{by} CASCADE"


def note_remaining_memberships(connection: PostgreSQLConnection, left: str | None) -> list[str]:
    """A note on the memberships of the left role that the bot could not revoke. A dropped role has none."""
    refused = revoke_memberships(connection, left) if left is not None else []
    if not refused:
        return []
    return [
        f"Memberships of {left} that could not be revoked yet, for lack of a right or because of a lock: {bounded(refused)}"
    ]


def may_grant(connection: PostgreSQLConnection, role: str) -> bool:
    """Whether the bot may grant the role.

    On PostgreSQL 15, CREATEROLE may grant every role that is no superuser. Version 16 and later need ADMIN OPTION.
    """
    if value(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        return True
    if major_version(connection) < SETS_MEMBERSHIP_OPTIONS and value(
        connection, "SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user"
    ):
        return True
    return bool(value(connection, "SELECT pg_has_role(%s, 'USAGE WITH ADMIN OPTION')", (role,)))


# Roles that are never given.


def danger_of_role(connection: PostgreSQLConnection, role: str) -> str | None:
    """The reason why the role may never be given to a temporary user, or None. All roles that it can reach by SET ROLE count."""
    return _danger(role, connection.execute(REACHABLE_ROLES, (role,)).fetchall())


def _danger(role: str, reachable: Sequence[tuple[str, str | None, bool, bool]]) -> str | None:
    for name, attribute, can_log_in, is_admin in reachable:
        via = "" if name == role else f" (as a member of {name})"
        if attribute:
            return f"the role {role} has {attribute}{via}: a user with this role can outlive the grant"
        if name in DANGEROUS_ROLES:
            return f"the role {role} is a member of {name}: {DANGEROUS_ROLES[name]}"
        if name == QUARANTINE_ROLE or name.startswith(LEFT_PREFIX):
            return f"the role {role} is a member of {name}: that opens what other users left behind"
        if can_log_in:
            return f"the role {role} can log in{via}: a member that acts as it could set its password"
        if is_admin:
            return f"the role {role} may give {name} to others (ADMIN OPTION)"
    return None


def refuse_dangerous(connection: PostgreSQLConnection, role: str) -> None:
    """Raises Rejected for a role that does not exist or must not be given."""
    reachable = connection.execute(REACHABLE_ROLES, (role,)).fetchall()
    if not reachable:
        raise Rejected(
            f"the role {role} does not exist",
            remedy=f"CREATE ROLE {quoted(role)} NOLOGIN; and grant it what the level promises",
        )
    danger = _danger(role, reachable)
    if danger is not None:
        raise Rejected(danger, remedy="name a role without these in databases.yml")
