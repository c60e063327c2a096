"""What ``check`` looks at for each level: its roles, its privileges, and what whoever gets it could leave behind."""

from __future__ import annotations

from collections.abc import Iterator

from adapters.base import AdapterError, Finding, Level, Rejected
from adapters.postgresql.connection import (
    PostgreSQLConnection,
    Server,
    column,
    exists,
    major_version,
    quoted,
    quoted_acting_role,
    value,
)
from adapters.postgresql.findings import fatal, ok, warning
from adapters.postgresql.levels import danger_of_role, expand_grants, level_database, not_grantable
from adapters.postgresql.members import SETS_MEMBERSHIP_OPTIONS

POWERFUL_ROLES = {
    "pg_signal_backend": "end the bot's own sessions while it revokes",
    "pg_create_subscription": "leave a subscription that goes on without them",
    "pg_maintain": "run what others left in indexes",
}


def may_grant(connection: PostgreSQLConnection, role: str) -> bool:
    """Before 16 CREATEROLE may grant any role that is no superuser's; from then on only with ADMIN OPTION."""
    if value(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        return True
    if major_version(connection) < SETS_MEMBERSHIP_OPTIONS and value(
        connection, "SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user"
    ):
        return True
    return bool(value(connection, "SELECT pg_has_role(%s, 'USAGE WITH ADMIN OPTION')", (role,)))


def check_role(connection: PostgreSQLConnection, level: Level, role: str) -> Iterator[Finding]:
    """One existing role that a level names."""
    if not exists(connection, role):
        yield fatal(f"level {level.name}: the role {role} does not exist", f"CREATE ROLE {quoted(role)} NOLOGIN;")
        return
    if (why := danger_of_role(connection, role)) is not None:
        yield fatal(f"level {level.name}: {why}", "name a role without it in databases.yml")
        return
    if may_grant(connection, role):
        yield ok(f"level {level.name}: the bot may give {role}")
    else:
        remedy = f"GRANT {quoted(role)} TO {quoted_acting_role(connection)} WITH ADMIN OPTION;"
        yield fatal(f"level {level.name}: the bot may not give the role {role}", remedy)
    yield from _powers(connection, level, role)


def _powers(connection: PostgreSQLConnection, level: Level, role: str) -> Iterator[Finding]:
    """Not refused, since a team may want it; said, since it is more than reading and writing."""
    for name, what in POWERFUL_ROLES.items():
        if exists(connection, name) and value(connection, "SELECT pg_has_role(%s, %s, 'MEMBER')", (role, name)):
            yield warning(f"level {level.name}: as a member of {name}, whoever gets it can {what}")
    if value(connection, "SELECT rolbypassrls FROM pg_roles WHERE rolname = %s", (role,)):
        yield warning(f"level {level.name}: {role} has BYPASSRLS, so row security does not hold for whoever gets it")


def check_database(server: Server, level: Level) -> Iterator[Finding]:
    """What only the level's own database knows."""
    try:
        with server.session(level_database(server, level)) as connection:
            yield from _privileges(connection, level)
            for role in level.roles:
                if exists(connection, role):
                    yield from _may_connect(connection, level, role)
                    yield from _leaves_behind(connection, level, role)
            yield from _public_schema(connection)
    except AdapterError as error:
        remedy = error.remedy if isinstance(error, Rejected) else None
        what = error.what if isinstance(error, Rejected) else str(error)
        yield fatal(f"level {level.name}: its database cannot be looked at: {what}", remedy)


def _privileges(connection: PostgreSQLConnection, level: Level) -> Iterator[Finding]:
    if not level.grants:
        return
    try:
        wanted = expand_grants(connection, level.grants)
    except Rejected as error:
        yield fatal(f"level {level.name}: {error.what}", error.remedy)
        return
    lacking = not_grantable(connection, wanted)
    for privilege in lacking:
        remedy = f"GRANT {privilege} TO {quoted_acting_role(connection)} WITH GRANT OPTION;"
        yield fatal(f"level {level.name}: the bot cannot give {privilege}", remedy)
    database = connection.info.dbname
    if not value(connection, "SELECT has_database_privilege(%s, 'CONNECT WITH GRANT OPTION')", (database,)):
        remedy = f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted_acting_role(connection)} WITH GRANT OPTION;"
        yield fatal(f"level {level.name}: the bot cannot let its users connect to {database}", remedy)
    elif not lacking:
        yield ok(f"level {level.name}: the bot may give each of its {len(wanted)} privileges")


def _may_connect(connection: PostgreSQLConnection, level: Level, role: str) -> Iterator[Finding]:
    database = connection.info.dbname
    if not value(connection, "SELECT has_database_privilege(%s, %s, 'CONNECT')", (role, database)):
        remedy = f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(role)};"
        yield fatal(f"level {level.name}: {role} may not connect to {database}", remedy)


def _leaves_behind(connection: PostgreSQLConnection, level: Level, role: str) -> Iterator[Finding]:
    """A member of an owner can grant others rights as that owner, and leave functions behind that run as it."""
    owners = column(
        connection,
        "SELECT DISTINCT r.rolname FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid WHERE s.refclassid = 'pg_authid'::regclass"
        " AND s.deptype = 'o' AND NOT r.rolsuper AND pg_has_role(%s, r.oid, 'MEMBER') ORDER BY 1",
        (role,),
    )
    if owners:
        yield warning(
            f"level {level.name}: through {role} it acts as {', '.join(owners)}, who own objects: whoever gets it can leave things behind"
            " (rights given to others, functions that run as the owner)"
        )


def _public_schema(connection: PostgreSQLConnection) -> Iterator[Finding]:
    """So it was by default before PostgreSQL 15, and still is in databases that were upgraded."""
    if value(
        connection,
        "SELECT 1 FROM pg_namespace n, LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a"
        " WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE'",
    ):
        what = f"everybody may create in the schema public of {connection.info.dbname}"
        yield warning(what, "REVOKE CREATE ON SCHEMA public FROM PUBLIC;")
