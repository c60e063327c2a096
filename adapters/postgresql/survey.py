"""The state of a user for its end: one statement before it begins, one when no session is left, one at the end.

Most users have no member, no prepared transaction, and own nothing. One look shows that, and the steps for these things are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, LiteralString

from adapters.base import Target
from adapters.postgresql.connection import MARK, PostgreSQLConnection
from adapters.postgresql.roles import SETS_MEMBERSHIP_OPTIONS, Edge
from adapters.postgresql.standbys import ATTACHED
from adapters.postgresql.statements import major_version
from adapters.postgresql.users import FoundRole, require_own

EDGES: LiteralString = """
ARRAY(SELECT ARRAY[r.rolname, u.rolname, g.rolname]::text[] FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid
   JOIN pg_roles u ON u.oid = m.member LEFT JOIN pg_roles g ON g.oid = m.grantor
  WHERE (m.member = me.oid OR m.roleid = me.oid) AND u.rolname NOT IN (current_user, session_user))
"""
SESSIONS: LiteralString = "EXISTS (SELECT FROM pg_stat_get_activity(NULL) a WHERE a.usesysid = me.oid)"
PREPARED: LiteralString = "EXISTS (SELECT FROM pg_prepared_xact())"
BEFORE: LiteralString = (
    "SELECT pg_is_in_recovery(), me.oid, shobj_description(me.oid, 'pg_authid'),"
    " me.rolsuper OR me.rolcreaterole OR me.rolreplication OR me.rolbypassrls OR me.rolcreatedb,"
    f" {SESSIONS}, {PREPARED}, {EDGES}, "
)
FROM_NAME: LiteralString = " FROM (SELECT 1) one LEFT JOIN pg_roles me ON me.rolname = %s"
MAY_ACT: LiteralString = "pg_has_role(me.oid, 'USAGE') AND pg_has_role(me.oid, 'SET')"
MAY_ACT_BEFORE_16: LiteralString = "pg_has_role(me.oid, 'MEMBER')"
WITHOUT_SESSIONS: LiteralString = (
    f"SELECT {PREPARED}, EXISTS (SELECT FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = me.oid), {EDGES}"
    " FROM (SELECT %s::oid AS oid) me"
)
AT_THE_END: LiteralString = (
    f"SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = %s), {SESSIONS}, ({ATTACHED}), clock_timestamp()"
    " FROM (SELECT %s::oid AS oid) me"
)


@dataclass(frozen=True, kw_only=True)
class UserBefore:
    """The user before its end. ``found`` is None where it is absent. ``request_id`` is None where its mark is lost.

    ``has_prepared``: there is a prepared transaction on the server, of whomever. ``is_member``: the bot's role may act as the user.
    """

    is_standby: bool
    found: FoundRole | None
    request_id: int | None
    has_sessions: bool
    has_prepared: bool
    is_member: bool
    edges: list[Edge]


@dataclass(frozen=True, kw_only=True)
class AtTheEnd:
    """The last look. ``attached_standbys`` counts those that the server knows, named or not."""

    exists: bool
    has_sessions: bool
    attached_standbys: int
    at: datetime


def before(connection: PostgreSQLConnection, target: Target, username: str) -> UserBefore:
    """Look before the end. Raises ForeignUser for the mark of another ledger, except on a standby. A user without a mark is accepted: see ``users.find``."""
    may_act = MAY_ACT if major_version(connection) >= SETS_MEMBERSHIP_OPTIONS else MAY_ACT_BEFORE_16
    is_standby, oid, comment, has_admin_attributes, has_sessions, has_prepared, edges, is_member = _row(
        connection, BEFORE + may_act + FROM_NAME, username
    )
    found = FoundRole(oid=oid, has_admin_attributes=has_admin_attributes) if oid is not None else None
    if found is not None and not is_standby:
        require_own(target, username, comment, for_removal=True)
    mark = MARK.fullmatch(comment or "")
    return UserBefore(
        is_standby=is_standby,
        found=found,
        request_id=int(mark[2]) if mark is not None else None,
        has_sessions=has_sessions,
        has_prepared=has_prepared,
        is_member=bool(is_member),
        edges=[(role, member, grantor) for role, member, grantor in edges],
    )


def is_bare(connection: PostgreSQLConnection, oid: int) -> bool:
    """Whether the role has no membership, no member, no object and no privilege, and whether nobody has a prepared transaction."""
    has_prepared, has_traces, edges = _row(connection, WITHOUT_SESSIONS, oid)
    return not (has_prepared or has_traces or edges)


def at_the_end(connection: PostgreSQLConnection, username: str, oid: int | None) -> AtTheEnd:
    exists, has_sessions, attached, at = _row(connection, AT_THE_END, username, oid)
    return AtTheEnd(exists=exists, has_sessions=has_sessions, attached_standbys=attached, at=at)


def _row(connection: PostgreSQLConnection, query: LiteralString, *parameters: object) -> tuple[Any, ...]:
    row = connection.execute(query, parameters).fetchone()
    assert row is not None, "each of these statements has one row"
    return row
