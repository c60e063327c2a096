"""Memberships: the roles a user has, who has the user's role, and the bot's own membership in a user."""

from __future__ import annotations

from typing import LiteralString

import psycopg

from adapters.base import Rejected
from adapters.postgresql.connection import (
    PostgreSQLConnection,
    column,
    major_version,
    quoted,
    quoted_acting_role,
    run,
    value,
)

SETS_MEMBERSHIP_OPTIONS = 16
"""From this version on a membership says whether it inherits and whether SET ROLE is allowed."""


def become_member(connection: PostgreSQLConnection, role: str) -> None:
    """The bot's role becomes a member of a user: that lets it end sessions, hand over objects and roll back prepared transactions."""
    if value(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        return
    if major_version(connection) >= SETS_MEMBERSHIP_OPTIONS:
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


def memberships(connection: PostgreSQLConnection, username: str) -> list[str]:
    """Roles the user is a direct member of."""
    return column(
        connection,
        "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = %s",
        (username,),
    )


def members(connection: PostgreSQLConnection, username: str) -> list[str]:
    """Roles that are direct members of the user. The bot's own is left out: it needs that to end the user."""
    return column(
        connection,
        "SELECT u.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member"
        " WHERE r.rolname = %s AND u.rolname NOT IN (current_user, session_user)",
        (username,),
    )


def revoke_memberships(connection: PostgreSQLConnection, username: str) -> None:
    """Live sessions lose the level's rights at once, also while the user's own row is locked. Members of the user lose it."""
    for role in memberships(connection, username):
        run(connection, "REVOKE {} FROM {}", role, username)
    for member in members(connection, username):
        run(connection, "REVOKE {} FROM {}", username, member)
