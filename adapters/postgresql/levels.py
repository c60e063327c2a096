"""Levels as roles: existing ones, looked at for danger, or one kept for a level's grants.

Roles belong to the whole server, so the name of a kept role carries a hash of prefix, database, level and its
grants: two databases or two bots never share one by accident.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from psycopg import sql

from adapters.base import Grant, Level, Rejected, Target
from adapters.postgresql.connection import Connection, Server, column, quoted, run, value

TABLE_PRIVILEGES = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "MAINTAIN"})
SCHEMA_PRIVILEGES = frozenset({"USAGE", "CREATE"})
DANGEROUS_ROLES = ("pg_execute_server_program", "pg_read_server_files", "pg_write_server_files")
LOCK_SPACE = 0x64626163

DANGER = """
WITH RECURSIVE reached(oid, is_admin) AS (
  SELECT r.oid, false FROM pg_roles r WHERE r.rolname = %s
  UNION
  SELECT m.roleid, m.admin_option FROM pg_auth_members m JOIN reached ON m.member = reached.oid
)
SELECT r.rolname, r.rolsuper, r.rolcreaterole, r.rolreplication, r.rolbypassrls, reached.is_admin
  FROM reached JOIN pg_roles r ON r.oid = reached.oid
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


def kept_role(target: Target, level: Level) -> str | None:
    """The name of the role kept for a level's grants, or None where it has none."""
    if not level.grants:
        return None
    grants = [[sorted(g.on), sorted(p.upper() for p in g.privileges)] for g in level.grants]
    text = json.dumps([target.prefix, target.name, level.database, level.name, sorted(grants)])
    return f"dbaccess_{level.name[:12]}_{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def roles_of(target: Target, level: Level) -> list[str]:
    """All roles a user of this level is a member of."""
    kept = kept_role(target, level)
    return [*level.roles, *([kept] if kept else [])]


def danger(connection: Connection, role: str) -> str | None:
    """Why a role may never be given to a temporary user, or None. Looks at all it can become by SET ROLE."""
    for name, superuser, createrole, replication, bypass, is_admin in connection.execute(DANGER, (role,)).fetchall():
        via = "" if name == role else f" (as a member of {name})"
        if superuser or createrole or replication or bypass:
            what = (
                "SUPERUSER"
                if superuser
                else "CREATEROLE"
                if createrole
                else "REPLICATION"
                if replication
                else "BYPASSRLS"
            )
            return f"the role {role} has {what}{via}: whoever gets it could outlive the grant"
        if name in DANGEROUS_ROLES:
            return f"the role {role} is a member of {name}: that is a shell on the database's host"
        if is_admin:
            return f"the role {role} may give {name} to others (ADMIN OPTION)"
    return None


def exists(connection: Connection, role: str) -> bool:
    return value(connection, "SELECT 1 FROM pg_roles WHERE rolname = %s", (role,)) is not None


def refuse_dangerous(connection: Connection, role: str) -> None:
    """Raises Rejected for a role that is missing or must not be given."""
    if not exists(connection, role):
        raise Rejected(
            f"the role {role} does not exist",
            mend=f"CREATE ROLE {quoted(role)} NOLOGIN; and grant it what the level promises",
        )
    why = danger(connection, role)
    if why is not None:
        raise Rejected(why, mend="name a role without these in databases.yml")


# The kept role: made, made equal to the frozen grants, read back, and dropped when nobody uses it.


def lock(connection: Connection, role: str) -> None:
    """Whoever makes or drops this role waits for the other, until the end of the transaction."""
    number = int.from_bytes(hashlib.sha256(role.encode()).digest()[:4], signed=True)
    connection.execute("SELECT pg_advisory_xact_lock(%s, %s)", (LOCK_SPACE, number))


def keep(server: Server, level: Level, role: str) -> None:
    """Make the role of the level's grants equal to them. Under ``lock``, held by the caller on the admin database."""
    with server.session(level_database(server, level)) as connection:
        wanted = expanded(connection, level.grants)
        with connection.transaction():
            if not exists(connection, role):
                run(connection, "CREATE ROLE {} NOLOGIN", role)
                run(
                    connection,
                    "COMMENT ON ROLE {} IS {text}",
                    role,
                    text=f"dbaccess ledger={server.target.ledger} level={level.name}",
                )
            given = held(connection, role)
            for extra in given - wanted:
                connection.execute(sql.SQL("REVOKE {} FROM {}").format(extra.clause(), sql.Identifier(role)))
            for missing in sorted(wanted - given, key=str):
                connection.execute(sql.SQL("GRANT {} TO {}").format(missing.clause(), sql.Identifier(role)))
            _may_connect(connection, role)
            _read_back(connection, server, role, wanted)


def _may_connect(connection: Connection, role: str) -> None:
    database = connection.info.dbname
    if value(connection, "SELECT has_database_privilege(%s, %s, 'CONNECT')", (role, database)):
        return
    run(connection, "GRANT CONNECT ON DATABASE {} TO {}", database, role)
    if not value(connection, "SELECT has_database_privilege(%s, %s, 'CONNECT')", (role, database)):
        us = value(connection, "SELECT current_user")
        mend = f"GRANT CONNECT ON DATABASE {quoted(database)} TO {quoted(us)} WITH GRANT OPTION;"
        raise Rejected(f"the bot cannot let {role} connect to {database}", mend=mend)


def _read_back(connection: Connection, server: Server, role: str, wanted: set[Privilege]) -> None:
    """A GRANT the bot may not give is only a warning: what counts is what the server has afterwards."""
    given = held(connection, role)
    if given == wanted:
        return
    us = value(connection, "SELECT current_user")
    lacking = sorted(str(p) for p in wanted - given)
    if lacking:
        raise Rejected(
            f"the bot cannot give {lacking[0]}",
            mend=" ".join(f"GRANT {p} TO {quoted(us)} WITH GRANT OPTION;" for p in lacking),
        )
    raise Rejected(
        f"the role {role} holds more than its level gives ({min(str(p) for p in given - wanted)}) and the bot cannot take it away on {server.target.name}"
    )


def expanded(connection: Connection, grants: tuple[Grant, ...]) -> set[Privilege]:
    """What the grants mean today: ``schema.table``, ``schema.*`` (tables of now), or ``schema``. Raises Rejected for what does not exist."""
    found: set[Privilege] = set()
    for grant in grants:
        for name in grant.on:
            schema, dot, table = name.partition(".")
            if not value(connection, "SELECT 1 FROM pg_namespace WHERE nspname = %s", (schema,)):
                raise Rejected(f"there is no schema {schema} in {connection.info.dbname}")
            if not dot:
                found |= {Privilege(schema=schema, table=None, word=w) for w in _words(grant, SCHEMA_PRIVILEGES, name)}
                continue
            found.add(Privilege(schema=schema, table=None, word="USAGE"))
            words = _words(grant, TABLE_PRIVILEGES, name)
            found |= {
                Privilege(schema=schema, table=t, word=w) for t in _tables(connection, schema, table) for w in words
            }
    return found


def _words(grant: Grant, known: frozenset[str], name: str) -> set[str]:
    words = {word.upper() for word in grant.privileges}
    if unknown := words - known:
        raise Rejected(f"{min(unknown)} is no privilege on {name}", mend=f"there are {', '.join(sorted(known))}")
    return words


def _tables(connection: Connection, schema: str, table: str) -> list[str]:
    found = column(
        connection,
        "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = %s AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND (c.relname = %s OR %s = '*')",
        (schema, table, table),
    )
    if not found and table != "*":
        raise Rejected(f"there is no table {schema}.{table} in {connection.info.dbname}")
    return found


def held(connection: Connection, role: str) -> set[Privilege]:
    """What the role was given on schemas and tables of this database, by whomever."""
    rows = connection.execute(
        "SELECT n.nspname, c.relname, a.privilege_type FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,"
        " LATERAL aclexplode(c.relacl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = %s"
        " UNION ALL SELECT n.nspname, NULL, a.privilege_type FROM pg_namespace n,"
        " LATERAL aclexplode(n.nspacl) a JOIN pg_roles r ON r.oid = a.grantee WHERE r.rolname = %s",
        (role, role),
    ).fetchall()
    return {Privilege(schema=schema, table=table, word=word) for schema, table, word in rows}


def drop_unused(server: Server, connection: Connection, level: Level) -> str | None:
    """Drop the level's kept role when no user is a member any more. A sentence where it had to stay (it gives nobody anything), else None."""
    role = kept_role(server.target, level)
    if role is None:
        return None
    with connection.transaction():
        lock(connection, role)
        if not exists(connection, role) or _has_members(connection, role):
            return None
        with server.session(level_database(server, level)) as there:
            for privilege in held(there, role):
                there.execute(sql.SQL("REVOKE {} FROM {}").format(privilege.clause(), sql.Identifier(role)))
            run(there, "REVOKE ALL ON DATABASE {} FROM {}", there.info.dbname, role)
        depends = value(
            connection,
            "SELECT count(*) FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = (SELECT oid FROM pg_roles WHERE rolname = %s)",
            (role,),
        )
        if depends:
            return f"The role {role} has no member any more but stays: others gave it rights the bot cannot take away"
        run(connection, "DROP ROLE {}", role)
    return None


def _has_members(connection: Connection, role: str) -> bool:
    """Members besides the bot's own role, which PostgreSQL 16 and later make one when it creates a role."""
    query = (
        "SELECT 1 FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.roleid JOIN pg_roles u ON u.oid = m.member"
        " WHERE r.rolname = %s AND u.rolname NOT IN (current_user, session_user)"
    )
    return value(connection, query, (role,)) is not None
