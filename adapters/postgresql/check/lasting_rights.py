"""Rights of a level that reach beyond the end of its users or beyond its database, each with a remedy. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import LiteralString

from adapters.base import Level, Rejected
from adapters.postgresql.connection import PostgreSQLConnection
from adapters.postgresql.level.grants import Privilege, expand_grants
from adapters.postgresql.roles import SETS_MEMBERSHIP_OPTIONS
from adapters.postgresql.statements import column, major_version, quoted

NAMED_AT_MOST = 5

OF_REACHED: LiteralString = """
SELECT oid FROM reached
UNION SELECT r.oid FROM pg_roles r, pg_database d WHERE r.rolname = 'pg_database_owner' AND d.datname = current_database()
  AND d.datdba IN (SELECT oid FROM reached)
"""
LEAVING = {
    "TRIGGER": "leave triggers on {} behind (TRIGGER)",
    "REFERENCES": "leave foreign keys to {} behind that hold up its owner (REFERENCES)",
    "CREATE": "leave tables and functions in {} behind (CREATE)",
}
OF_A_DATABASE = {
    "CREATE": "leave schemas and publications in the database {} behind (CREATE)",
    "CONNECT": "reach other databases of the server: {} (CONNECT)",
    "TEMPORARY": "create temporary tables and functions in the database {} (TEMPORARY)",
}

REACHED_BY_SET: LiteralString = (
    "WITH RECURSIVE reached(oid) AS (SELECT oid FROM pg_roles WHERE rolname = ANY(%(roles)s)"
    " UNION SELECT m.roleid FROM pg_auth_members m JOIN reached ON m.member = reached.oid) " + OF_REACHED
)
REACHED_BY_INHERITANCE: LiteralString = (
    "WITH RECURSIVE reached(oid) AS (SELECT oid FROM pg_roles WHERE rolname = ANY(%(roles)s)"
    " UNION SELECT m.roleid FROM pg_auth_members m JOIN reached ON m.member = reached.oid WHERE m.inherit_option) "
    + OF_REACHED
)
NAMES: LiteralString = (
    "SELECT quote_ident(rolname) FROM pg_roles WHERE oid = ANY(%(reach)s) AND rolname !~ '^pg_' ORDER BY 1"
)
EDGES: LiteralString = """
SELECT quote_ident(r.rolname), quote_ident(u.rolname) FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member
 WHERE r.rolname = ANY(%(roles)s) AND m.member = ANY(%(reach)s) AND u.rolname <> ALL(%(roles)s) ORDER BY 1, 2
"""
READERS: LiteralString = "SELECT rolname FROM pg_roles WHERE oid = ANY(%(reach)s) AND rolname = 'pg_read_all_data'"
ON_TABLES: LiteralString = """
SELECT a.privilege_type, count(*), (array_agg(format('%%I.%%I', n.nspname, c.relname)))[1:%(most)s], array_agg(DISTINCT quote_ident(n.nspname)),
       CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace, aclexplode(c.relacl) a
 WHERE a.privilege_type IN ('TRIGGER', 'REFERENCES') AND (a.grantee = 0 OR a.grantee = ANY(%(reach)s)) AND c.relowner <> ALL(%(reach)s)
   AND c.relpersistence <> 't' AND n.nspname !~ '^pg_|^information_schema$' GROUP BY a.privilege_type, a.grantee ORDER BY 1, 5
"""
ON_SCHEMAS: LiteralString = """
SELECT quote_ident(n.nspname), quote_ident(pg_get_userbyid(a.grantee)) FROM pg_namespace n, aclexplode(n.nspacl) a
 WHERE a.privilege_type = 'CREATE' AND a.grantee = ANY(%(reach)s) AND n.nspowner <> ALL(%(reach)s) ORDER BY 1, 2
"""
ON_DATABASES: LiteralString = """
SELECT a.privilege_type, quote_ident(d.datname), quote_ident(pg_get_userbyid(a.grantee)) FROM pg_database d, aclexplode(d.datacl) a
 WHERE a.grantee = ANY(%(reach)s) AND d.datdba <> ALL(%(reach)s) AND CASE a.privilege_type WHEN 'CONNECT' THEN d.datname <> current_database()
   WHEN 'TEMPORARY' THEN d.datname = current_database() ELSE true END ORDER BY 1, 2, 3
"""
OWNERS: LiteralString = """
SELECT DISTINCT r.rolname FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o' AND NOT r.rolsuper AND r.oid = ANY(%(reach)s) ORDER BY 1
"""
SECRETS: LiteralString = """
SELECT name FROM (VALUES ('pg_authid', 'rolpassword'), ('pg_shadow', 'passwd'), ('pg_user_mapping', 'umoptions'), ('pg_subscription', 'subconninfo'),
  ('pg_hba_file_rules', 'options')) v(name, secret)
 WHERE EXISTS (SELECT FROM unnest(%(reach)s::oid[]) r WHERE has_column_privilege(r, 'pg_catalog.' || name, secret, 'SELECT')) ORDER BY 1
"""
FUNCTIONS: LiteralString = """
SELECT n.nspname = 'cron', p.oid::regprocedure::text, array_to_string(ARRAY(SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE
         quote_ident(pg_get_userbyid(a.grantee)) END FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         WHERE a.grantee = 0 OR a.grantee = ANY(%(reach)s)), ', ')
  FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
 WHERE (p.proname = ANY(%(names)s) OR (n.nspname = 'cron' AND p.proname IN ('schedule', 'schedule_in_database', 'alter_job')))
   AND EXISTS (SELECT FROM unnest(%(reach)s::oid[]) r WHERE has_function_privilege(r, p.oid, 'EXECUTE') AND has_schema_privilege(r, n.oid, 'USAGE')) ORDER BY 2
"""
REACHING_FUNCTIONS = [
    "pg_read_file",
    "pg_read_binary_file",
    "pg_ls_dir",
    "pg_stat_file",
    "pg_file_write",
    "lo_import",
    "lo_export",
    "pg_reload_conf",
    "pg_promote",
    "dblink",
    "dblink_exec",
    "dblink_connect",
    "dblink_connect_u",
    "dblink_open",
    "dblink_send_query",
]
"""Functions that reach files of the server, its configuration, or other servers."""
SERVERS: LiteralString = """
SELECT quote_ident(s.srvname), quote_ident(pg_get_userbyid(a.grantee)) FROM pg_foreign_server s, aclexplode(s.srvacl) a
 WHERE a.grantee = ANY(%(reach)s) ORDER BY 1, 2
"""
PARAMETERS: LiteralString = """
SELECT quote_ident(p.parname), quote_ident(pg_get_userbyid(a.grantee)) FROM pg_parameter_acl p, aclexplode(p.paracl) a
 WHERE a.privilege_type = 'ALTER SYSTEM' AND a.grantee = ANY(%(reach)s) ORDER BY 1, 2
"""


@dataclass(frozen=True, kw_only=True)
class LastingRight:
    """What users of a level can do: completes "its users can …". ``leaves``: what they make this way outlives their access.

    ``instead`` is the sentence for the approval card where ``what`` says more than an approver needs.
    """

    what: str
    remedy: str
    leaves: bool = True
    instead: str | None = None

    @property
    def on_card(self) -> str | None:
        """The sentence for the approval card. None where nothing outlives the access."""
        return (self.instead or f"Users of this level can {self.what}.") if self.leaves else None


def lasting_rights(connection: PostgreSQLConnection, level: Level) -> Iterator[LastingRight]:
    """The rights of the level in this database and on this server. ``owners_reached`` has what an owner may do."""
    reach = reached(connection, level)
    yield from _of_grants(connection, level)
    yield from _of_tables(connection, reach)
    yield from _of_schemas(connection, reach)
    yield from _of_databases(connection, reach)
    yield from _of_functions(connection, reach)
    yield from _of_server(connection, reach)


def reached(connection: PostgreSQLConnection, level: Level) -> list[int]:
    """The oids of the roles whose rights users of the level have: by SET ROLE where they may, else by inheritance."""
    follows_set = level.set_role or major_version(connection) < SETS_MEMBERSHIP_OPTIONS
    query = REACHED_BY_SET if follows_set else REACHED_BY_INHERITANCE
    return column(connection, query, {"roles": list(level.roles)})


def owners_reached(connection: PostgreSQLConnection, level: Level) -> Iterator[LastingRight]:
    """The owners of objects that users of the level have the rights of."""
    reach = reached(connection, level)
    owners = column(connection, OWNERS, {"reach": reach})
    if not owners:
        return
    remedy = _leave_roles(connection, reach, owners)
    what = (
        f"leave things behind as {_named(owners)}, the owner of objects (functions, triggers, rights granted to others)"
    )
    on_card = f"Members of {_named(owners)} can leave functions and tables behind that outlive this access."
    yield LastingRight(what=what, remedy=remedy, instead=on_card)


def secrets_read(connection: PostgreSQLConnection, level: Level) -> Iterator[LastingRight]:
    """The catalogs with password verifiers, or passwords for other servers, that users of the level can read."""
    reach = reached(connection, level)
    if readable := column(connection, SECRETS, {"reach": reach}):
        via = column(connection, READERS, {"reach": reach})
        remedy = _leave_roles(connection, reach, via) if via else _revoke_all(connection, readable, reach)
        yield LastingRight(
            what=f"read password verifiers or passwords ({_named(readable)})", remedy=remedy, leaves=False
        )


def _leave_roles(connection: PostgreSQLConnection, reach: Sequence[int], roles: Sequence[str]) -> str:
    """The statements that take the level's roles out of ``roles``. A level that names one of them needs another role."""
    edges = connection.execute(EDGES, {"reach": list(reach), "roles": list(roles)}).fetchall()
    if edges:
        return " ".join(f"REVOKE {role} FROM {member};" for role, member in edges)
    return f"name a role that is no member of {_named(roles)} in databases.yml"


def _revoke_all(connection: PostgreSQLConnection, tables: Sequence[str], reach: Sequence[int]) -> str:
    names = ", ".join(column(connection, NAMES, {"reach": list(reach)}))
    return f"REVOKE SELECT ON {', '.join(f'pg_catalog.{table}' for table in tables)} FROM PUBLIC, {names};"


def _of_grants(connection: PostgreSQLConnection, level: Level) -> Iterator[LastingRight]:
    """What the level's own ``grants`` give. A check reports grants that name nothing."""
    try:
        wanted = expand_grants(connection, level.grants)
    except Rejected:
        return
    for name, what in LEAVING.items():
        places = sorted({_place(privilege) for privilege in wanted if privilege.name == name})
        if places:
            remedy = f"take {name} out of the grants of this level in databases.yml"
            yield LastingRight(what=what.format(_named(places)), remedy=remedy)


def _place(privilege: Privilege) -> str:
    schema = quoted(privilege.schema)
    return f"the schema {schema}" if privilege.table is None else f"{schema}.{quoted(privilege.table)}"


def _of_tables(connection: PostgreSQLConnection, reach: list[int]) -> Iterator[LastingRight]:
    parameters = {"reach": reach, "most": NAMED_AT_MOST}
    for name, number, tables, schemas, grantee in connection.execute(ON_TABLES, parameters).fetchall():
        if number <= NAMED_AT_MOST:
            remedy = f"REVOKE {name} ON {', '.join(tables)} FROM {grantee};"
        else:
            remedy = f"REVOKE {name} ON ALL TABLES IN SCHEMA {', '.join(schemas)} FROM {grantee};"
        yield LastingRight(what=LEAVING[name].format(_named(tables, number)), remedy=remedy)


def _of_schemas(connection: PostgreSQLConnection, reach: list[int]) -> Iterator[LastingRight]:
    rows = connection.execute(ON_SCHEMAS, {"reach": reach}).fetchall()
    if rows:
        remedy = " ".join(f"REVOKE CREATE ON SCHEMA {schema} FROM {grantee};" for schema, grantee in rows)
        yield LastingRight(
            what=LEAVING["CREATE"].format(_named([f"the schema {schema}" for schema, _ in rows])), remedy=remedy
        )


def _of_databases(connection: PostgreSQLConnection, reach: list[int]) -> Iterator[LastingRight]:
    rows = connection.execute(ON_DATABASES, {"reach": reach}).fetchall()
    for name, what in OF_A_DATABASE.items():
        found = [(database, grantee) for privilege, database, grantee in rows if privilege == name]
        if found:
            remedy = " ".join(f"REVOKE {name} ON DATABASE {database} FROM {grantee};" for database, grantee in found)
            places = _named(sorted({database for database, _ in found}))
            yield LastingRight(what=what.format(places), remedy=remedy, leaves=name == "CREATE")


def _of_functions(connection: PostgreSQLConnection, reach: list[int]) -> Iterator[LastingRight]:
    parameters = {"reach": reach, "names": REACHING_FUNCTIONS}
    rows = connection.execute(FUNCTIONS, parameters).fetchall()
    for of_cron, what in ((True, "leave jobs behind that run on ({})"), (False, "reach beyond the database by {}")):
        found = [(function, grantees) for is_cron, function, grantees in rows if is_cron == of_cron]
        if found:
            remedy = " ".join(f"REVOKE EXECUTE ON FUNCTION {function} FROM {grantees};" for function, grantees in found)
            yield LastingRight(
                what=what.format(_named([function for function, _ in found])), remedy=remedy, leaves=of_cron
            )


def _of_server(connection: PostgreSQLConnection, reach: list[int]) -> Iterator[LastingRight]:
    servers = connection.execute(SERVERS, {"reach": reach}).fetchall()
    if servers:
        remedy = " ".join(f"REVOKE USAGE ON FOREIGN SERVER {name} FROM {grantee};" for name, grantee in servers)
        what = f"use the foreign servers {_named([name for name, _ in servers])}"
        yield LastingRight(what=what, remedy=remedy, leaves=False)
    parameters = connection.execute(PARAMETERS, {"reach": reach}).fetchall()
    if parameters:
        remedy = " ".join(f"REVOKE ALTER SYSTEM ON PARAMETER {name} FROM {grantee};" for name, grantee in parameters)
        what = f"leave other settings of the whole server behind ({_named([name for name, _ in parameters])})"
        yield LastingRight(what=what, remedy=remedy)


def _named(names: Sequence[str], number: int | None = None) -> str:
    further = (number or len(names)) - NAMED_AT_MOST
    return ", ".join(names[:NAMED_AT_MOST]) + (f" and {further} more" if further > 0 else "")
