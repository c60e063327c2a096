"""Objects that an ended user leaves behind: the quarantine role becomes their owner.

A new owner needs CREATE on the schema of some objects. The quarantine role gets such privileges inside the transaction that
transfers the objects, and loses them in the same transaction. They exist only there. Code that runs with its owner's rights
(SECURITY DEFINER functions, views, rules) is disarmed first, because the quarantine role also owns what other users left behind.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import LiteralString

import psycopg

from adapters.base import Rejected
from adapters.postgresql.connection import (
    LEFT_BEHIND_LOCK,
    REVOKE_LIMIT_SECONDS,
    PostgreSQLConnection,
    PostgreSQLServer,
    advisory_lock,
    column,
    exists,
    major_version,
    quoted,
    quoted_acting_role,
    run,
    value,
)
from adapters.postgresql.locks import no_holder, run_unblocked
from adapters.postgresql.roles import QUARANTINE_ROLE, SETS_MEMBERSHIP_OPTIONS, become_member

HAS_INVOKER_VIEWS = 15
"""The first version where a view can run with its reader's rights. Users on an older, unsupported server are still ended."""
NAMED_AT_MOST = 200
"""Names of objects in a receipt."""
RELATIONS_AT_ONCE = 500
"""Relations that change their owner in one transaction. Each takes some locks, and a server has room for a few thousand in all."""

OWNED = """
SELECT i.identity || ' (' || i.type || ')'
  FROM pg_shdepend s, LATERAL pg_identify_object(s.classid, s.objid, s.objsubid) i
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid AND s.deptype = 'o' AND i.identity IS NOT NULL
   AND i.type NOT IN ('default acl', 'user mapping')
   AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1
"""
CLOSED_SCHEMAS = """
SELECT n.nspname FROM pg_namespace n WHERE NOT has_schema_privilege(%(to)s, n.oid, 'CREATE') AND n.oid IN (
  SELECT pronamespace FROM pg_proc WHERE proowner = %(of)s UNION SELECT oprnamespace FROM pg_operator WHERE oprowner = %(of)s
  UNION SELECT opcnamespace FROM pg_opclass WHERE opcowner = %(of)s UNION SELECT opfnamespace FROM pg_opfamily WHERE opfowner = %(of)s
  UNION SELECT collnamespace FROM pg_collation WHERE collowner = %(of)s UNION SELECT connamespace FROM pg_conversion WHERE conowner = %(of)s
  UNION SELECT cfgnamespace FROM pg_ts_config WHERE cfgowner = %(of)s UNION SELECT dictnamespace FROM pg_ts_dict WHERE dictowner = %(of)s
  UNION SELECT stxnamespace FROM pg_statistic_ext WHERE stxowner = %(of)s
  UNION SELECT relnamespace FROM pg_class WHERE relowner = %(of)s AND %(one_by_one)s AND relkind NOT IN ('i', 'I', 't')) ORDER BY 1
"""
RELATIONS = """
SELECT format('%%s %%s', CASE c.relkind WHEN 'c' THEN 'TYPE' ELSE 'TABLE' END, c.oid::regclass) FROM pg_class c
 WHERE c.relowner = %s::oid AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'c') AND NOT EXISTS (
   SELECT 1 FROM pg_depend d WHERE c.relkind = 'S' AND d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype IN ('a', 'i'))
 LIMIT %s
"""
DEFINERS = "SELECT oid::regprocedure::text FROM pg_proc WHERE proowner = %s::oid AND prosecdef"
VIEWS = (
    "SELECT oid::regclass::text FROM pg_class WHERE relowner = %s::oid AND relkind = 'v'"
    " AND NOT coalesce(reloptions @> ARRAY['security_invoker=true'], false)"
)
RULES = (
    "SELECT format('%%s DISABLE RULE %%I', c.oid::regclass, r.rulename) FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class"
    " WHERE c.relowner = %s::oid AND c.relkind IN ('r', 'p') AND r.ev_enabled <> 'D'"
)


@dataclass
class LeftBehind:
    """The objects that a user left behind: the first names, their number, and how many of them were disarmed."""

    names: list[str] = field(default_factory=list)
    count: int = 0
    disarmed: int = 0

    def add(self, names: Sequence[str]) -> None:
        self.names += names[: max(0, NAMED_AT_MOST - len(self.names))]
        self.count += len(names)

    def notes(self) -> list[str]:
        """Sentences for the receipt that the list of names does not say."""
        notes = []
        if self.count > len(self.names):
            notes.append(f"{self.count} objects were left behind, of which {len(self.names)} are named here.")
        if self.disarmed:
            notes.append(
                f"{self.disarmed} functions, views or rules ran with their owner's rights. They now run with their caller's rights, or not at all."
            )
        return notes


def leave_behind(
    server: PostgreSQLServer,
    connection: PostgreSQLConnection,
    role: str,
    left_behind: LeftBehind,
    *,
    lent_roles: Sequence[str],
) -> None:
    """Give everything that the role owns to the quarantine role, in each database, and revoke the role's privileges. Read it back.

    ``lent_roles`` are roles that may create in the schemas of these objects. Raises Rejected where something stays with the role.
    """
    oid = value(connection, "SELECT oid FROM pg_roles WHERE rolname = %s", (role,))
    databases = column(
        connection,
        "SELECT DISTINCT d.datname FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid",
        (oid,),
    )
    if not databases:
        return
    with advisory_lock(connection, LEFT_BEHIND_LOCK):
        for database in sorted({name or server.database for name in databases}):
            with server.session(database, limit=REVOKE_LIMIT_SECONDS) as in_database:
                owned = column(in_database, OWNED, (oid,))
                if owned:
                    _ensure_quarantine_role(connection)
                    run_unblocked(
                        server,
                        in_database,
                        partial(_reassign, in_database, role, oid, lent_roles, left_behind),
                        may_end=no_holder,
                    )
                    left_behind.add(owned)
                run_unblocked(
                    server, in_database, partial(run, in_database, "DROP OWNED BY {}", role), may_end=no_holder
                )
    _require_nothing_left(connection, role, oid)


def _ensure_quarantine_role(connection: PostgreSQLConnection) -> None:
    """Create the quarantine role where it is missing. The bot must be a member of it to give it objects."""
    if not exists(connection, QUARANTINE_ROLE):
        run(connection, "CREATE ROLE {} NOLOGIN", QUARANTINE_ROLE)
    become_member(connection, QUARANTINE_ROLE)


def _reassign(
    connection: PostgreSQLConnection, role: str, oid: int, lent_roles: Sequence[str], left_behind: LeftBehind
) -> None:
    """Disarm what runs as its owner, then transfer everything. Many relations are transferred in portions before the rest."""
    with _quarantine_role_may_create(connection, oid, lent_roles, one_by_one=False):
        disarmed = _disarm(connection, oid)
    left_behind.disarmed += disarmed
    while len(portion := column(connection, RELATIONS, (oid, RELATIONS_AT_ONCE))) == RELATIONS_AT_ONCE:
        with _quarantine_role_may_create(connection, oid, lent_roles, one_by_one=True):
            for relation in portion:
                _run_raw(connection, f"ALTER {relation} OWNER TO {QUARANTINE_ROLE}")
    with _quarantine_role_may_create(connection, oid, lent_roles, one_by_one=False):
        run(connection, "REASSIGN OWNED BY {} TO {}", role, QUARANTINE_ROLE)


@contextmanager
def _quarantine_role_may_create(
    connection: PostgreSQLConnection, oid: int, lent_roles: Sequence[str], *, one_by_one: bool
) -> Iterator[None]:
    """Open a transaction in which the quarantine role has CREATE where a new owner needs it, from a lent role or from the bot."""
    needed: dict[str, object] = {"of": oid, "to": QUARANTINE_ROLE, "one_by_one": one_by_one}
    with connection.transaction():
        lent = [name for name in lent_roles if _lend_role(connection, name)]
        opened = [name for name in column(connection, CLOSED_SCHEMAS, needed) if _grant_create(connection, name)]
        if closed := column(connection, CLOSED_SCHEMAS, needed):
            raise _cannot_create(connection, closed)
        yield
        for name in opened:
            if not _owns_schema(connection, name):
                run(connection, "REVOKE CREATE ON SCHEMA {} FROM {}", name, QUARANTINE_ROLE)
        for name in lent:
            run(connection, "REVOKE {} FROM {}", name, QUARANTINE_ROLE)


def _run_raw(connection: PostgreSQLConnection, statement: str) -> None:
    """Run a statement whose names came from the server, quoted and qualified."""
    connection.execute(statement.encode(connection.info.encoding))


def _disarm(connection: PostgreSQLConnection, oid: int) -> int:
    definers = column(connection, DEFINERS, (oid,))
    views = column(connection, VIEWS, (oid,))
    rules = column(connection, RULES, (oid,))
    for routine in definers:
        _run_raw(connection, f"ALTER ROUTINE {routine} SECURITY INVOKER")
    for view in views:
        if major_version(connection) >= HAS_INVOKER_VIEWS:
            _run_raw(connection, f"ALTER VIEW {view} SET (security_invoker = true)")
        else:
            _revoke_view_grants(connection, view)
    for rule in rules:
        _run_raw(connection, f"ALTER TABLE {rule}")
    return len(definers) + len(views) + len(rules)


def _revoke_view_grants(connection: PostgreSQLConnection, view: str) -> None:
    grantees = column(
        connection,
        "SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE a.grantee::regrole::text END FROM pg_class c, aclexplode(c.relacl) a"
        " WHERE c.oid = %s::regclass AND a.grantee <> c.relowner",
        (view,),
    )
    for grantee in grantees:
        _run_raw(connection, f"REVOKE ALL ON TABLE {view} FROM {grantee} CASCADE")


def _lend_role(connection: PostgreSQLConnection, role: str) -> bool:
    if not exists(connection, role) or value(
        connection, "SELECT pg_has_role(%s, %s, 'MEMBER')", (QUARANTINE_ROLE, role)
    ):
        return False
    how: LiteralString = " WITH INHERIT TRUE" if major_version(connection) >= SETS_MEMBERSHIP_OPTIONS else ""
    return _try_run(connection, "GRANT {} TO {}" + how, role, QUARANTINE_ROLE)


def _grant_create(connection: PostgreSQLConnection, schema: str) -> bool:
    """Grant CREATE as the schema's owner, which may be the ended user, or with GRANT OPTION. Returns whether it took effect."""
    granted = _try_run(connection, "GRANT CREATE ON SCHEMA {} TO {}", schema, QUARANTINE_ROLE)
    return granted and bool(
        value(connection, "SELECT has_schema_privilege(%s, %s, 'CREATE')", (QUARANTINE_ROLE, schema))
    )


def _cannot_create(connection: PostgreSQLConnection, closed: Sequence[str]) -> Rejected:
    remedy = " ".join(
        f"GRANT CREATE ON SCHEMA {quoted(s)} TO {quoted_acting_role(connection)} WITH GRANT OPTION;" for s in closed
    )
    where = f"{closed[0]} of {connection.info.dbname}"
    return Rejected(f"objects in the schema {where} cannot get another owner: nobody may create there", remedy=remedy)


def _owns_schema(connection: PostgreSQLConnection, schema: str) -> bool:
    query: LiteralString = (
        "SELECT 1 FROM pg_namespace WHERE nspname = %s AND nspowner = (SELECT oid FROM pg_roles WHERE rolname = %s)"
    )
    return value(connection, query, (schema, QUARANTINE_ROLE)) is not None


def _try_run(connection: PostgreSQLConnection, statement: LiteralString, *names: str) -> bool:
    """Run the statement and return whether the bot was allowed to. The next step names what is missing."""
    try:
        with connection.transaction():
            run(connection, statement, *names)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.InvalidGrantOperation):
        return False
    return True


def _require_nothing_left(connection: PostgreSQLConnection, role: str, oid: int) -> None:
    """Ask the server what still depends on the role: DROP OWNED succeeds also where it could not revoke what others granted."""
    left = column(
        connection,
        "SELECT DISTINCT coalesce(d.datname, 'the server itself') FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid ORDER BY 1",
        (oid,),
    )
    if left:
        remedy = f"as a superuser, in {left[0]}: REASSIGN OWNED BY {quoted(role)} TO {QUARANTINE_ROLE}; DROP OWNED BY {quoted(role)};"
        raise Rejected(f"others gave {role} rights in {', '.join(left)} that the bot cannot revoke", remedy=remedy)
