"""The managed role of a level with grants: created, made equal to the grants, read back, and dropped when no user has it.

A create and the removal of an unused role exclude each other by a lock on the role itself, which no temporary user can hold: it takes the role's
owner to comment on it. There is no advisory lock, because everybody may take one.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import LiteralString, TypeVar

import psycopg
from psycopg import sql

from adapters.base import AdapterError, Level, Rejected, ServerDown
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.errors import ConcurrentChange, is_concurrent_change
from adapters.postgresql.left_behind import drop_or_rename
from adapters.postgresql.level.grants import Privilege, expand_grants, level_database, managed_role, not_grantable
from adapters.postgresql.locks import no_holder, run_unblocked
from adapters.postgresql.roles import become_member, danger_of_role, members, memberships
from adapters.postgresql.statements import bounded, column, exists, quoted, quoted_acting_role, run, value

MANAGED_ROLE_PREFIX = "dbaccess_"
MANAGED_ROLE_MARK = re.compile(r"dbaccess ledger=([a-z0-9]+) level=.*", re.DOTALL)
REFRESH_SECONDS = 5.0
"""Seconds of all tries to make one role equal to its level while others change the same rows."""
UNUSED: LiteralString = """
SELECT r.oid FROM pg_roles r WHERE r.rolname = %s AND NOT EXISTS (
  SELECT FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member WHERE m.roleid = r.oid AND u.rolname NOT IN (current_user, session_user))
"""
PAUSE_SECONDS = (0.01, 0.2)
"""The shortest and the longest pause after another bot changed the same rows. Each is chosen by chance, so that two bots do not meet again."""

T = TypeVar("T")


def with_retries(action: Callable[[], T], *, until: float) -> T:
    """Run ``action`` again while others change the same rows or drop the managed role, until the monotonic time ``until``. Raises ServerDown then.

    Half of the parallel changes of one access control list fail with "tuple concurrently updated" (PostgreSQL 15, 17, 18).
    """
    while True:
        try:
            return action()
        except (psycopg.Error, ConcurrentChange) as error:
            if not (
                isinstance(error, ConcurrentChange | psycopg.errors.UndefinedObject) or is_concurrent_change(error)
            ):
                raise
            if time.monotonic() > until:
                raise ServerDown("others kept changing the same roles and privileges") from None
        time.sleep(random.uniform(*PAUSE_SECONDS))  # noqa: S311 - no secret


def ensure_exists(connection: PostgreSQLConnection, ledger: str, level: Level, role: str) -> None:
    """Create the role and commit it, so that another connection can see it. Raises Rejected for a role that somebody else created."""
    if (comment := _comment(connection, role)) is not None:
        _refuse_foreign_role(connection, role, comment)
        return
    with connection.transaction():
        run(connection, "CREATE ROLE {} NOLOGIN", role)
        run(connection, "COMMENT ON ROLE {} IS {mark}", role, mark=f"dbaccess ledger={ledger} level={level.name}")


def lock(connection: PostgreSQLConnection, role: str) -> None:
    """Lock the role until the end of the transaction, so that nobody else changes who has it. Writing its own comment again does so."""
    run(connection, "COMMENT ON ROLE {} IS {mark}", role, mark=_comment(connection, role))


def _comment(connection: PostgreSQLConnection, role: str) -> str | None:
    """The comment of the role, empty where it has none. None where there is no such role."""
    query: LiteralString = "SELECT coalesce(shobj_description(oid, 'pg_authid'), '') FROM pg_roles WHERE rolname = %s"
    found: str | None = value(connection, query, (role,))
    return found


def is_equal(server: PostgreSQLServer, connection: PostgreSQLConnection, level: Level, role: str) -> bool:
    """Whether the role's privileges equal the level's grants, where this connection can tell: its database is that of the level.

    Raises Rejected for grants on things that do not exist.
    """
    if connection.info.dbname != level_database(server, level):
        return False
    if expand_grants(connection, level.grants) != granted_privileges(connection, role):
        return False
    return _may_connect(connection, role)


def make_equal(server: PostgreSQLServer, level: Level, role: str) -> None:
    """Make the role's privileges equal to the level's grants. The caller has locked the role.

    Raises Rejected where the bot cannot give a privilege, or where the role is not one that dbaccess created, and Blocked with the session
    that changes the same privileges in an open transaction. That session is not ended: it may be a migration of the team.
    """
    with server.session(level_database(server, level)) as connection:
        change = partial(_make_equal, connection, level, role)
        run_unblocked(server, connection, change, may_end=no_holder)


def _make_equal(connection: PostgreSQLConnection, level: Level, role: str) -> None:
    with connection.transaction():
        wanted = expand_grants(connection, level.grants)
        given = granted_privileges(connection, role)
        for extra in sorted(given - wanted, key=str):
            connection.execute(sql.SQL("REVOKE {} FROM {}").format(extra.clause(), sql.Identifier(role)))
        _refuse_not_grantable(connection, wanted - given)
        for missing in sorted(wanted - given, key=str):
            connection.execute(sql.SQL("GRANT {} TO {}").format(missing.clause(), sql.Identifier(role)))
        _allow_connect(connection, role)
        _require_equal(connection, role, wanted)


# New tables and changed privileges, for live users.


def refresh(server: PostgreSQLServer, levels: Sequence[Level]) -> list[str]:
    """Make the managed roles that users have equal to their levels again. Returns a sentence for each role that was changed or could not be.

    A role that is equal is only read. An error on one level is a sentence and does not stop the others.
    """
    by_role = {role: level for level in levels if (role := managed_role(server.target, level)) is not None}
    if not by_role:
        return []
    sentences = list[str]()
    with server.session() as connection:
        for role, level in by_role.items():
            try:
                if members(connection, role) and (changed := _refreshed(server, connection, level, role)):
                    sentences.append(f"The managed role of the level {level.name} has now {changed}.")
            except (psycopg.Error, AdapterError) as error:
                if connection.broken:
                    raise
                reason = str(error) if isinstance(error, AdapterError) else error.diag.message_primary
                sentences.append(f"The managed role of the level {level.name} was not made equal to it: {reason}")
    return sentences


def _refreshed(server: PostgreSQLServer, connection: PostgreSQLConnection, level: Level, role: str) -> str:
    """Make the role equal to its level. Returns what it got and lost, or an empty text where it was equal."""
    before, wanted = _given_and_wanted(server, level, role)
    if before == wanted:
        return ""
    _refuse_foreign_role(connection, role, _comment(connection, role))

    def once() -> None:
        with connection.transaction():
            lock(connection, role)
            make_equal(server, level, role)

    with_retries(once, until=time.monotonic() + REFRESH_SECONDS)
    parts = {"": wanted - before, "no longer ": before - wanted}
    return " and ".join(word + bounded(sorted(map(str, found))) for word, found in parts.items() if found)


def _given_and_wanted(server: PostgreSQLServer, level: Level, role: str) -> tuple[set[Privilege], set[Privilege]]:
    with server.session(level_database(server, level)) as connection:
        return granted_privileges(connection, role), expand_grants(connection, level.grants)


def _refuse_foreign_role(connection: PostgreSQLConnection, role: str, comment: str | None) -> None:
    """Raises Rejected for a role of this name that somebody else created, or that somebody gave more power."""
    if not MANAGED_ROLE_MARK.fullmatch(comment or ""):
        raise Rejected(f"there is a role {role} that dbaccess did not create", remedy=f"DROP ROLE {quoted(role)};")
    if danger := danger_of_role(connection, role):
        raise Rejected(danger, remedy=f"DROP ROLE {quoted(role)}; then dbaccess creates it again")
    if others := memberships(connection, role):
        remedy = f"REVOKE {quoted(others[0])} FROM {quoted(role)};"
        raise Rejected(f"somebody made {role} a member of {others[0]}, which its level does not give", remedy=remedy)


def _may_connect(connection: PostgreSQLConnection, role: str) -> bool:
    return bool(value(connection, "SELECT has_database_privilege(%s, current_database(), 'CONNECT')", (role,)))


def _allow_connect(connection: PostgreSQLConnection, role: str) -> None:
    database = connection.info.dbname
    if _may_connect(connection, role):
        return
    remedy = f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted_acting_role(connection)} WITH GRANT OPTION;"
    if value(connection, "SELECT has_database_privilege(%s, 'CONNECT WITH GRANT OPTION')", (database,)):
        run(connection, "GRANT CONNECT ON DATABASE {} TO {}", database, role)
    if not _may_connect(connection, role):
        raise Rejected(f"the bot cannot let {role} connect to {database}", remedy=remedy)


def _refuse_not_grantable(connection: PostgreSQLConnection, missing: set[Privilege]) -> None:
    if lacking := not_grantable(connection, missing):
        remedy = " ".join(f"GRANT {p} TO {quoted_acting_role(connection)} WITH GRANT OPTION;" for p in lacking)
        raise Rejected(f"the bot cannot give {lacking[0]}", remedy=remedy)


def _require_equal(connection: PostgreSQLConnection, role: str, wanted: set[Privilege]) -> None:
    """Read the privileges back: a GRANT or REVOKE that the bot may not do is a mere warning of the server."""
    given = granted_privileges(connection, role)
    _refuse_not_grantable(connection, wanted - given)
    if extra := sorted(str(p) for p in given ^ wanted):
        remedy = " ".join(f"REVOKE {p} FROM {quoted(role)};" for p in extra)
        raise Rejected(
            f"{role} does not hold what its level gives ({extra[0]}), and the bot cannot change it", remedy=remedy
        )


def granted_privileges(connection: PostgreSQLConnection, role: str) -> set[Privilege]:
    """The privileges that anybody granted to the role on schemas and tables of this database."""
    rows = connection.execute(
        "SELECT n.nspname, c.relname, a.privilege_type FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,"
        " LATERAL aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = %s AND c.relowner <> r.oid"
        " UNION ALL SELECT n.nspname, NULL, a.privilege_type FROM pg_namespace n,"
        " LATERAL aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = %s AND n.nspowner <> r.oid",
        (role, role),
    ).fetchall()
    return {Privilege(schema=schema, table=table, name=name) for schema, table, name in rows}


# The end of a managed role.


def drop_unused(server: PostgreSQLServer, connection: PostgreSQLConnection, role: str) -> list[str] | None:
    """Drop the role when no user has it any more. Objects that a user created as this role stay with it, under another name.

    Returns the notes about such objects, or None where the role is in use or absent.
    """
    oid = value(connection, UNUSED, (role,))
    if oid is None:
        return None
    become_member(connection, role)
    with connection.transaction():
        lock(connection, role)
        if members(connection, role):
            return None
        left = drop_or_rename(server, connection, role, oid, request_id=0, renames_empty=False)
    return [f"left behind by {role}: {name}" for name in left.names[:5]] + left.all_notes()


def drop_unused_of_level(server: PostgreSQLServer, connection: PostgreSQLConnection, level: Level) -> list[str]:
    """As ``drop_unused``, for the role of this level. A failure becomes a note: a role without members gives no access."""
    role = managed_role(server.target, level)
    if role is None:
        return []
    try:
        return drop_unused(server, connection, role) or []
    except (psycopg.Error, AdapterError) as error:
        if connection.broken:
            raise
        if isinstance(error, psycopg.Error) and (is_concurrent_change(error) or not exists(connection, role)):
            return []  # another end drops it, or a new grant needs it
        reason = str(error) if isinstance(error, AdapterError) else error.diag.message_primary
        return [f"The managed role of the level {level.name} has no user any more and could not be dropped: {reason}"]


def drop_all_unused(server: PostgreSQLServer, connection: PostgreSQLConnection) -> list[str]:
    """Drop every managed role of this ledger that no user has. Returns a sentence for each."""
    dropped = list[str]()
    names = column(connection, "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)", (MANAGED_ROLE_PREFIX,))
    for role in names:
        mark = MANAGED_ROLE_MARK.fullmatch(_comment(connection, role) or "")
        if mark is None or mark[1] != server.target.ledger:
            continue
        with suppress(psycopg.Error, AdapterError):
            if drop_unused(server, connection, role) is not None:
                dropped.append(f"dropped the managed role {role}, which no user had any more")
    return dropped
