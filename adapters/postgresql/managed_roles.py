"""The managed role of a level with grants: created, made equal to the grants, read back, and dropped when no user has it.

The functions here run under the advisory lock ``MANAGED_ROLES_LOCK``.
"""

from __future__ import annotations

import re

from psycopg import sql

from adapters.base import Level, Rejected
from adapters.postgresql.connection import (
    MANAGED_ROLES_LOCK,
    PostgreSQLConnection,
    PostgreSQLServer,
    advisory_lock,
    exists,
    quoted,
    quoted_acting_role,
    run,
    value,
)
from adapters.postgresql.left_behind import LeftBehind, leave_behind
from adapters.postgresql.levels import Privilege, expand_grants, level_database, managed_role, not_grantable
from adapters.postgresql.roles import become_member, danger_of_role, members, memberships

MANAGED_ROLE_MARK = re.compile(r"dbaccess ledger=[a-z0-9]+ level=.*", re.DOTALL)


def ensure_managed_role(server: PostgreSQLServer, level: Level, role: str) -> None:
    """Create the role and make its privileges equal to the level's grants.

    The caller holds the lock until the user is a member of the role. Raises Rejected where the bot cannot give a privilege, or
    where the role is not one that dbaccess created.
    """
    with server.session(level_database(server, level)) as connection, connection.transaction():
        wanted = expand_grants(connection, level.grants)
        if exists(connection, role):
            _refuse_foreign_role(connection, role)
        else:
            run(connection, "CREATE ROLE {} NOLOGIN", role)
            mark = f"dbaccess ledger={server.target.ledger} level={level.name}"
            run(connection, "COMMENT ON ROLE {} IS {mark}", role, mark=mark)
        given = granted_privileges(connection, role)
        for extra in sorted(given - wanted, key=str):
            connection.execute(sql.SQL("REVOKE {} FROM {}").format(extra.clause(), sql.Identifier(role)))
        _refuse_not_grantable(connection, wanted - given)
        for missing in sorted(wanted - given, key=str):
            connection.execute(sql.SQL("GRANT {} TO {}").format(missing.clause(), sql.Identifier(role)))
        _allow_connect(connection, role)
        _require_equal(connection, role, wanted)


def _refuse_foreign_role(connection: PostgreSQLConnection, role: str) -> None:
    """Raises Rejected for a role of this name that somebody else created, or that somebody gave more power."""
    comment = value(connection, "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s", (role,))
    if not MANAGED_ROLE_MARK.fullmatch(comment or ""):
        raise Rejected(f"there is a role {role} that dbaccess did not create", remedy=f"DROP ROLE {quoted(role)};")
    if danger := danger_of_role(connection, role):
        raise Rejected(danger, remedy=f"DROP ROLE {quoted(role)}; then dbaccess creates it again")
    if others := memberships(connection, role):
        remedy = f"REVOKE {quoted(others[0])} FROM {quoted(role)};"
        raise Rejected(f"somebody made {role} a member of {others[0]}, which its level does not give", remedy=remedy)


def _allow_connect(connection: PostgreSQLConnection, role: str) -> None:
    database = connection.info.dbname
    if value(connection, "SELECT has_database_privilege(%s, %s, 'CONNECT')", (role, database)):
        return
    remedy = f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted_acting_role(connection)} WITH GRANT OPTION;"
    if value(connection, "SELECT has_database_privilege(%s, 'CONNECT WITH GRANT OPTION')", (database,)):
        run(connection, "GRANT CONNECT ON DATABASE {} TO {}", database, role)
    if not value(connection, "SELECT has_database_privilege(%s, %s, 'CONNECT')", (role, database)):
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


def drop_unused_managed_role(
    server: PostgreSQLServer, connection: PostgreSQLConnection, level: Level, left_behind: LeftBehind
) -> None:
    """Drop the level's managed role when no user is its member any more.

    Objects that a user created as this role are left behind like the user's own, and are added to ``left_behind``.
    """
    role = managed_role(server.target, level)
    if role is None:
        return
    with advisory_lock(connection, MANAGED_ROLES_LOCK):
        if not exists(connection, role) or members(connection, role):
            return
        become_member(connection, role)
        database = level_database(server, level)
        if value(connection, "SELECT 1 FROM pg_database WHERE datname = %s", (database,)):
            with server.session(database) as in_database:
                for privilege in sorted(granted_privileges(in_database, role), key=str):
                    in_database.execute(sql.SQL("REVOKE {} FROM {}").format(privilege.clause(), sql.Identifier(role)))
        leave_behind(server, connection, role, left_behind, lent_roles=())
        run(connection, "DROP ROLE {}", role)
