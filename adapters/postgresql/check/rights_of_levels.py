"""The part of ``check`` for each level: its roles, its privileges, and what its users could leave behind. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from adapters.base import AdapterError, Finding, Level, Rejected
from adapters.postgresql.check.lasting_rights import lasting_rights, owners_reached, secrets_read
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.errors import fatal, fatal_error, ok, warning
from adapters.postgresql.level.grants import expand_grants, level_database, not_grantable
from adapters.postgresql.roles import SETS_MEMBERSHIP_OPTIONS, danger_of_role, may_grant
from adapters.postgresql.statements import exists, major_version, quoted, quoted_acting_role, value

POWERFUL_ROLES = {
    "pg_signal_autovacuum_worker": "end the server's own maintenance",
    "pg_create_subscription": "leave a subscription behind that runs without them",
    "pg_write_all_data": "write each table of each database that they can connect to",
    "pg_read_all_stats": "read the statements of other users",
    "pg_read_all_settings": "read settings that may contain passwords",
    "pg_checkpoint": "slow the server down with checkpoints",
    "pg_use_reserved_connections": "take the connections that are reserved for others",
}
OWNER_OF_DATABASE = (
    "SELECT r.rolname FROM pg_database d JOIN pg_roles r ON r.oid = d.datdba"
    " WHERE d.datname = current_database() AND NOT r.rolsuper AND pg_has_role(%s, r.oid, 'MEMBER')"
)
SUPERUSER = "SELECT quote_ident(rolname) FROM pg_roles WHERE rolsuper ORDER BY oid LIMIT 1"


def check_roles(connection: PostgreSQLConnection, level: Level) -> Iterator[Finding]:
    """Check the existing roles that a level names."""
    for role in level.roles:
        for finding in _role(connection, level, role):
            yield replace(finding, level=level.name)


def _role(connection: PostgreSQLConnection, level: Level, role: str) -> Iterator[Finding]:
    if not exists(connection, role):
        yield fatal(f"level {level.name}: the role {role} does not exist", f"CREATE ROLE {quoted(role)} NOLOGIN;")
        return
    if (danger := danger_of_role(connection, role)) is not None:
        yield fatal(f"level {level.name}: {danger}", "name a role without it in databases.yml")
        return
    if may_grant(connection, role):
        yield ok(f"level {level.name}: the bot may give {role}")
    else:
        remedy = f"GRANT {quoted(role)} TO {quoted_acting_role(connection)} WITH ADMIN OPTION;"
        yield fatal(f"level {level.name}: the bot may not give the role {role}", remedy)
    yield from _powers(connection, level, role)


def _powers(connection: PostgreSQLConnection, level: Level, role: str) -> Iterator[Finding]:
    """Powers beyond reading and writing. They are a warning and no refusal, because a team may want them."""
    for name, what in POWERFUL_ROLES.items():
        if exists(connection, name) and value(connection, "SELECT pg_has_role(%s, %s, 'MEMBER')", (role, name)):
            yield warning(f"level {level.name}: its users are members of {name}, so they can {what}")
    if value(connection, "SELECT rolbypassrls FROM pg_roles WHERE rolname = %s", (role,)):
        yield warning(f"level {level.name}: {role} has BYPASSRLS, so row security does not hold for its users")
    if owner := value(connection, OWNER_OF_DATABASE, (role,)):
        database = connection.info.dbname
        yield warning(
            f"level {level.name}: its users act as {owner}, the owner of {database}, which the bot connects to: they can change"
            " settings of the bot's own connections",
            f"ALTER DATABASE {quoted(database)} OWNER TO {value(connection, SUPERUSER)};",
        )


def check_database(server: PostgreSQLServer, level: Level) -> Iterator[Finding]:
    """Check what only the level's own database knows."""
    try:
        with server.session(level_database(server, level)) as connection:
            for finding in _in_database(connection, level):
                yield replace(finding, level=level.name)
            yield from _public_schema(connection)
    except AdapterError as error:
        found = fatal_error(error, f"level {level.name}: its database cannot be examined: ")
        yield replace(found, level=level.name)


def _in_database(connection: PostgreSQLConnection, level: Level) -> Iterator[Finding]:
    yield from _privileges(connection, level)
    for role in level.roles:
        if exists(connection, role):
            yield from _may_connect(connection, level, role)
    yield from _lasting_rights(connection, level)


def _privileges(connection: PostgreSQLConnection, level: Level) -> Iterator[Finding]:
    if not level.grants:
        return
    try:
        wanted = expand_grants(connection, level.grants)
    except Rejected as error:
        yield fatal_error(error, f"level {level.name}: ")
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


def _lasting_rights(connection: PostgreSQLConnection, level: Level) -> Iterator[Finding]:
    """What users of the level can leave behind, or reach beyond the level's database."""
    for rights in (owners_reached, secrets_read, lasting_rights):
        for right in rights(connection, level):
            found = warning(f"level {level.name}: its users can {right.what}", right.remedy)
            yield replace(found, on_card=right.on_card)
    if "role" in level.settings and not level.set_role and major_version(connection) >= SETS_MEMBERSHIP_OPTIONS:
        what = f"level {level.name}: its users may not act as the role {level.settings['role']} of its settings"
        yield warning(what, "set_role: true for this level in databases.yml")


def _public_schema(connection: PostgreSQLConnection) -> Iterator[Finding]:
    """Whether everybody may create in ``public``: the default before PostgreSQL 15, and still so in an upgraded database."""
    if value(
        connection,
        "SELECT 1 FROM pg_namespace n, LATERAL aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a"
        " WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE'",
    ):
        what = f"everybody may create in the schema public of {connection.info.dbname}"
        yield warning(what, "REVOKE CREATE ON SCHEMA public FROM PUBLIC;")
