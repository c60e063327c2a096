"""The meaning of an access level on the server: its roles, its database, and the privileges that its grants name.

A level names existing roles, or grants, for which dbaccess keeps a managed role (``managed_roles``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from psycopg import sql

from adapters.base import Level, PrivilegeGrant, Rejected, Target
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.statements import column, major_version, quoted, value

TABLE_PRIVILEGES = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"})
MAINTAIN_SINCE = 17
SCHEMA_PRIVILEGES = frozenset({"USAGE", "CREATE"})


@dataclass(frozen=True, kw_only=True)
class Privilege:
    """One privilege, such as SELECT, on a table or on a schema. ``table`` is None for a schema."""

    schema: str
    table: str | None
    name: str

    def clause(self) -> sql.Composable:
        """``SELECT ON TABLE "shop"."orders"``."""
        name = sql.SQL(self.name)  # from the lists above, see _privilege_names
        if self.table is None:
            return sql.SQL("{} ON SCHEMA {}").format(name, sql.Identifier(self.schema))
        return sql.SQL("{} ON TABLE {}").format(name, sql.Identifier(self.schema, self.table))

    def __str__(self) -> str:
        kind, target = (
            ("SCHEMA", quoted(self.schema))
            if self.table is None
            else ("TABLE", f"{quoted(self.schema)}.{quoted(self.table)}")
        )
        return f"{self.name} ON {kind} {target}"


def level_database(server: PostgreSQLServer, level: Level) -> str:
    """The database that the level's objects are in."""
    return level.database or server.target.connect.database or server.database


def managed_role(target: Target, level: Level) -> str | None:
    """The name of the managed role for a level's grants, or None for a level without grants.

    Roles belong to the whole server. The name has a hash of prefix, database, level and grants, so that two databases or two bots
    never share a role by accident.
    """
    if not level.grants:
        return None
    grants = [[sorted(g.on), sorted(p.upper() for p in g.privileges)] for g in level.grants]
    text = json.dumps([target.prefix, target.name, level.database, level.name, sorted(grants)])
    return f"dbaccess_{level.name[:12]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def roles_of(target: Target, level: Level) -> list[str]:
    """All roles that a user of this level is a member of."""
    managed = managed_role(target, level)
    return [*level.roles, *([managed] if managed else [])]


# The privileges that grants name.


def expand_grants(connection: PostgreSQLConnection, grants: tuple[PrivilegeGrant, ...]) -> set[Privilege]:
    """The privileges that the grants name now: on ``schema.table``, on each present table of ``schema.*``, or on ``schema``.

    Raises Rejected for a schema, table or privilege that does not exist.
    """
    found: set[Privilege] = set()
    for grant in grants:
        for name in grant.on:
            schema, dot, table = name.partition(".")
            if not value(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)):
                raise Rejected(f"there is no schema {schema} in {connection.info.dbname}")
            if not dot:
                names = _privilege_names(grant, SCHEMA_PRIVILEGES, name)
                found |= {Privilege(schema=schema, table=None, name=n) for n in names}
                continue
            found.add(Privilege(schema=schema, table=None, name="USAGE"))
            names = _privilege_names(grant, _table_privileges(connection), name)
            found |= {
                Privilege(schema=schema, table=t, name=n) for t in _tables(connection, schema, table) for n in names
            }
    return found


def _table_privileges(connection: PostgreSQLConnection) -> frozenset[str]:
    return TABLE_PRIVILEGES if major_version(connection) >= MAINTAIN_SINCE else TABLE_PRIVILEGES - {"MAINTAIN"}


def not_grantable(connection: PostgreSQLConnection, wanted: set[Privilege]) -> list[Privilege]:
    """The privileges of ``wanted`` that the bot does not hold with GRANT OPTION."""
    return [privilege for privilege in sorted(wanted, key=str) if not _may_grant(connection, privilege)]


def _may_grant(connection: PostgreSQLConnection, privilege: Privilege) -> bool:
    grantable = f"{privilege.name} WITH GRANT OPTION"
    if privilege.table is None:
        return bool(value(connection, "SELECT has_schema_privilege(%s, %s)", (privilege.schema, grantable)))
    name = f"{quoted(privilege.schema)}.{quoted(privilege.table)}"
    return bool(value(connection, "SELECT has_table_privilege(%s, %s)", (name, grantable)))


def _privilege_names(grant: PrivilegeGrant, known: frozenset[str], on: str) -> set[str]:
    names = {privilege.upper() for privilege in grant.privileges}
    if unknown := names - known:
        raise Rejected(f"{min(unknown)} is no privilege on {on}", remedy=f"there are {', '.join(sorted(known))}")
    return names


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
