"""The role kept for a level's grants: made, made equal to them, read back, and dropped when nobody uses it.

Roles belong to the whole server, so the name carries a hash of prefix, database, level and its grants: two databases
or two bots never share one by accident. Everything here runs under the lock ``MANAGED_ROLES_LOCK``.
"""

from __future__ import annotations

import re

from psycopg import sql

from adapters.base import Level, Rejected
from adapters.postgresql.connection import (
    MANAGED_ROLES_LOCK,
    PostgreSQLConnection,
    Server,
    advisory_lock,
    column,
    exists,
    quoted,
    quoted_acting_role,
    run,
    value,
)
from adapters.postgresql.left_behind import LeftBehind, leave_behind
from adapters.postgresql.levels import (
    Privilege,
    danger_of_role,
    expand_grants,
    level_database,
    managed_role,
    not_grantable,
)
from adapters.postgresql.members import become_member

MANAGED_ROLE_MARK = re.compile(r"dbaccess ledger=[a-z0-9]+ level=.*", re.DOTALL)


def ensure_managed_role(server: Server, level: Level, role: str) -> None:
    """Make the role, and make it equal to the level's grants. Under the lock, which the caller holds until the user is its member."""
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
        _read_back(connection, role, wanted)


def _refuse_foreign_role(connection: PostgreSQLConnection, role: str) -> None:
    """A role of that name that somebody else made, or made mightier, is never given to anybody."""
    comment = value(connection, "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = %s", (role,))
    if not MANAGED_ROLE_MARK.fullmatch(comment or ""):
        raise Rejected(f"there is a role {role} that dbaccess did not make", remedy=f"DROP ROLE {quoted(role)};")
    if why := danger_of_role(connection, role):
        raise Rejected(why, remedy=f"DROP ROLE {quoted(role)}; and dbaccess makes it anew")
    others = column(
        connection,
        "SELECT r.rolname FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member WHERE u.rolname = %s",
        (role,),
    )
    if others:
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


def _read_back(connection: PostgreSQLConnection, role: str, wanted: set[Privilege]) -> None:
    """A GRANT or REVOKE the bot may not do is only a warning: what counts is what the server has afterwards."""
    given = granted_privileges(connection, role)
    _refuse_not_grantable(connection, wanted - given)
    if extra := sorted(str(p) for p in given ^ wanted):
        remedy = " ".join(f"REVOKE {p} FROM {quoted(role)};" for p in extra)
        raise Rejected(
            f"{role} does not hold what its level gives ({extra[0]}), and the bot cannot change it", remedy=remedy
        )


def granted_privileges(connection: PostgreSQLConnection, role: str) -> set[Privilege]:
    """What the role was given on schemas and tables of this database, by whomever."""
    rows = connection.execute(
        "SELECT n.nspname, c.relname, a.privilege_type FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,"
        " LATERAL aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = %s AND c.relowner <> r.oid"
        " UNION ALL SELECT n.nspname, NULL, a.privilege_type FROM pg_namespace n,"
        " LATERAL aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = %s AND n.nspowner <> r.oid",
        (role, role),
    ).fetchall()
    return {Privilege(schema=schema, table=table, word=word) for schema, table, word in rows}


def drop_unused(server: Server, connection: PostgreSQLConnection, level: Level, kept: LeftBehind) -> None:
    """Drop the level's role when no user is its member any more. What a user made as this role is handed over like their own."""
    role = managed_role(server.target, level)
    if role is None:
        return
    with advisory_lock(connection, MANAGED_ROLES_LOCK):
        if not exists(connection, role) or _has_members(connection, role):
            return
        become_member(connection, role)
        database = level_database(server, level)
        if value(connection, "SELECT 1 FROM pg_database WHERE datname = %s", (database,)):
            with server.session(database) as there:
                for privilege in sorted(granted_privileges(there, role), key=str):
                    there.execute(sql.SQL("REVOKE {} FROM {}").format(privilege.clause(), sql.Identifier(role)))
        leave_behind(server, connection, role, kept, lend=())
        run(connection, "DROP ROLE {}", role)


def _has_members(connection: PostgreSQLConnection, role: str) -> bool:
    """Members besides the bot's own, which PostgreSQL 16 and later make one when it creates a role."""
    query = (
        "SELECT 1 FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member"
        " WHERE r.rolname = %s AND u.rolname NOT IN (current_user, session_user)"
    )
    return value(connection, query, (role,)) is not None
