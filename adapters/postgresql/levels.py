"""Levels as roles: existing ones, looked at for danger, or one kept for a level's grants (``kept``), and what grants mean today."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from psycopg import sql

from adapters.base import Grant, Level, Rejected, Target
from adapters.postgresql.connection import PostgreSQLConnection, Server, column, exists, major_version, quoted, value

TABLE_PRIVILEGES = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"})
MAINTAIN_SINCE = 17
SCHEMA_PRIVILEGES = frozenset({"USAGE", "CREATE"})
QUARANTINE_ROLE = "dbaccess_graveyard"
DANGEROUS_ROLES = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")

DANGER = """
WITH RECURSIVE reached(oid, is_admin) AS (
  SELECT r.oid, false FROM pg_roles r WHERE r.rolname = %s
  UNION
  SELECT m.roleid, m.admin_option FROM pg_auth_members m JOIN reached ON m.member = reached.oid
)
SELECT r.rolname, CASE WHEN r.rolsuper THEN 'SUPERUSER' WHEN r.rolcreaterole THEN 'CREATEROLE' WHEN r.rolreplication THEN 'REPLICATION' END,
  reached.is_admin FROM reached JOIN pg_roles r ON r.oid = reached.oid ORDER BY r.oid
"""


@dataclass(frozen=True, kw_only=True)
class Privilege:
    """One privilege on one thing: ``table`` is None for a schema."""

    schema: str
    table: str | None
    word: str

    def clause(self) -> sql.Composable:
        """``SELECT ON TABLE "shop"."orders"``."""
        word = sql.SQL(self.word)  # one of our own lists, see _words
        if self.table is None:
            return sql.SQL("{} ON SCHEMA {}").format(word, sql.Identifier(self.schema))
        return sql.SQL("{} ON TABLE {}").format(word, sql.Identifier(self.schema, self.table))

    def __str__(self) -> str:
        kind, name = (
            ("SCHEMA", quoted(self.schema))
            if self.table is None
            else ("TABLE", f"{quoted(self.schema)}.{quoted(self.table)}")
        )
        return f"{self.word} ON {kind} {name}"


def level_database(server: Server, level: Level) -> str:
    """Where the level's objects are."""
    return level.database or server.target.connect.database or server.database


def managed_role(target: Target, level: Level) -> str | None:
    """The name of the role kept for a level's grants, or None where it has none."""
    if not level.grants:
        return None
    grants = [[sorted(g.on), sorted(p.upper() for p in g.privileges)] for g in level.grants]
    text = json.dumps([target.prefix, target.name, level.database, level.name, sorted(grants)])
    return f"dbaccess_{level.name[:12]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def roles_of(target: Target, level: Level) -> list[str]:
    """All roles a user of this level is a member of."""
    kept = managed_role(target, level)
    return [*level.roles, *([kept] if kept else [])]


def danger_of_role(connection: PostgreSQLConnection, role: str, *, itself: bool = False) -> str | None:
    """Why a role may never be given to a temporary user, or None. Looks at all it can become by SET ROLE. ``itself``: it is the graveyard."""
    for name, attribute, is_admin in connection.execute(DANGER, (role,)).fetchall():
        via = "" if name == role else f" (as a member of {name})"
        if attribute:
            return f"the role {role} has {attribute}{via}: whoever gets it could outlive the grant"
        if name in DANGEROUS_ROLES:
            return f"the role {role} is a member of {name}: that is a shell on the database's host"
        if name == QUARANTINE_ROLE and not itself:
            return f"the role {role} is a member of {name}: that opens what other users left behind"
        if is_admin:
            return f"the role {role} may give {name} to others (ADMIN OPTION)"
    return None


def refuse_dangerous(connection: PostgreSQLConnection, role: str) -> None:
    """Raises Rejected for a role that is missing or must not be given."""
    if not exists(connection, role):
        raise Rejected(
            f"the role {role} does not exist",
            remedy=f"CREATE ROLE {quoted(role)} NOLOGIN; and grant it what the level promises",
        )
    why = danger_of_role(connection, role)
    if why is not None:
        raise Rejected(why, remedy="name a role without these in databases.yml")


# What grants mean.


def expand_grants(connection: PostgreSQLConnection, grants: tuple[Grant, ...]) -> set[Privilege]:
    """What the grants mean today: ``schema.table``, ``schema.*`` (tables of now), or ``schema``. Raises Rejected for what does not exist."""
    found: set[Privilege] = set()
    for grant in grants:
        for name in grant.on:
            schema, dot, table = name.partition(".")
            if not value(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)):
                raise Rejected(f"there is no schema {schema} in {connection.info.dbname}")
            if not dot:
                found |= {
                    Privilege(schema=schema, table=None, word=w)
                    for w in _privilege_names(grant, SCHEMA_PRIVILEGES, name)
                }
                continue
            found.add(Privilege(schema=schema, table=None, word="USAGE"))
            words = _privilege_names(grant, _table_privileges(connection), name)
            found |= {
                Privilege(schema=schema, table=t, word=w) for t in _tables(connection, schema, table) for w in words
            }
    return found


def _table_privileges(connection: PostgreSQLConnection) -> frozenset[str]:
    return TABLE_PRIVILEGES if major_version(connection) >= MAINTAIN_SINCE else TABLE_PRIVILEGES - {"MAINTAIN"}


def not_grantable(connection: PostgreSQLConnection, wanted: set[Privilege]) -> list[Privilege]:
    """Those of ``wanted`` that the bot itself does not hold with the right to pass them on."""
    return [privilege for privilege in sorted(wanted, key=str) if not _may_grant(connection, privilege)]


def _may_grant(connection: PostgreSQLConnection, privilege: Privilege) -> bool:
    word = f"{privilege.word} WITH GRANT OPTION"
    if privilege.table is None:
        return bool(value(connection, "SELECT has_schema_privilege(%s, %s)", (privilege.schema, word)))
    name = f"{quoted(privilege.schema)}.{quoted(privilege.table)}"
    return bool(value(connection, "SELECT has_table_privilege(%s, %s)", (name, word)))


def _privilege_names(grant: Grant, known: frozenset[str], name: str) -> set[str]:
    words = {word.upper() for word in grant.privileges}
    if unknown := words - known:
        raise Rejected(f"{min(unknown)} is no privilege on {name}", remedy=f"there are {', '.join(sorted(known))}")
    return words


def _tables(connection: PostgreSQLConnection, schema: str, table: str) -> list[str]:
    found = column(
        connection,
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relname = %s OR %s = '*')",
        (schema, table, table),
    )
    if not found and table != "*":
        raise Rejected(f"there is no table {schema}.{table} in {connection.info.dbname}")
    return found
