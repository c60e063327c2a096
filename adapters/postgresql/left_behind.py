"""Left-behind objects of an ended user stay with their maker: the user's own role, renamed out of the prefix.

That role is the quarantine of these objects. It has no login, no membership, no member and no privilege that somebody granted, so code that
it owns (triggers, SECURITY DEFINER functions, views, expression indexes) reaches nothing but its own objects. A rename changes one row: it takes
as long for a million objects as for one, and needs no lock on any of them (17 ms for 1,000,000 large objects; PostgreSQL 15 and 18).
A role that owns nothing is dropped.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from typing import LiteralString

import psycopg
from psycopg import sql

from adapters.base import AdapterError
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.left_privileges import LOCK_SECONDS, NAME_LENGTH, VISIT_SECONDS, revoke_privileges
from adapters.postgresql.pins import LOCK_TIMEOUT_SECONDS
from adapters.postgresql.roles import LEFT_PREFIX, become_member, leave_role, revoke_memberships
from adapters.postgresql.statements import bounded, column, exists, quoted, run, run_in_one_trip

LEFT_MARK = re.compile(r"dbaccess left ledger=([a-z0-9]+) request=([0-9]+) ended=(\S+)")
NAMED_AT_MOST = 50
"""Objects that a receipt names."""
LOOKED_AT_MOST = 1000
"""Objects of a role in one database that are looked at. A role with more owns lasting objects."""
LOOK_SECONDS = 1.0
"""Seconds after which no further database is looked at: the objects there are counted."""

OWNED_BY_DATABASE: LiteralString = """
SELECT d.datname, count(*) FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid AND s.deptype = 'o' GROUP BY 1 ORDER BY 1
"""
DATABASES_WITH_TRACES: LiteralString = """
SELECT DISTINCT d.datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid ORDER BY 1
"""
LASTING: LiteralString = """
SELECT name FROM (
  SELECT CASE WHEN length(i.identity) > %(length)s THEN left(i.identity, %(length)s) || '...' ELSE i.identity END || ' (' || i.type || ')' AS name
    FROM pg_shdepend s, LATERAL pg_identify_object(s.classid, s.objid, s.objsubid) i
   WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %(oid)s::oid AND s.deptype = 'o'
     AND s.classid NOT IN ('pg_default_acl'::regclass, 'pg_user_mapping'::regclass)
     AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
     AND i.identity IS NOT NULL AND coalesce(i.schema, '') NOT LIKE 'pg_temp%%' LIMIT %(limit)s) lasting ORDER BY 1
"""
"""Objects that last. Default privileges and user mappings serve nobody else, and temporary objects end with their session.

The limit counts objects that last: however many temporary ones there are, none of the others may be overlooked, because the role would be dropped
with it. The name of a function has the names of the types of all its arguments, and is cut."""


@dataclass
class LeftBehind:
    """The objects that a user left behind: the first names, their number, their databases and their owner. ``notes`` are for the receipt."""

    names: list[str] = field(default_factory=list)
    count: int = 0
    databases: list[str] = field(default_factory=list)
    owner: str | None = None
    notes: list[str] = field(default_factory=list)

    def all_notes(self) -> list[str]:
        """The notes, and the statements that give the objects to somebody."""
        if self.owner is None:
            return self.notes
        of = quoted(self.owner)
        if self.count == 0:
            return [
                *self.notes,
                f"{of} owns nothing that lasts and could not be dropped yet. It has no login, and dbaccess drops it later.",
            ]
        where = f" (in {self.databases[0]})" if len(self.databases) == 1 else ""
        places = [f"The objects are in the databases {bounded(self.databases)}."] if len(self.databases) > 1 else []
        give = f"To give the objects to a role{where}: REASSIGN OWNED BY {of} TO that_role; DROP OWNED BY {of}; then DROP ROLE {of};"
        return [*self.notes, *places, give]


# The end of a role.


def drop_or_rename(
    server: PostgreSQLServer,
    connection: PostgreSQLConnection,
    role: str,
    oid: int,
    *,
    request_id: int,
    renames_empty: bool = True,
) -> LeftBehind:
    """Drop the role if it owns nothing that lasts. Otherwise rename it, so that it keeps what it owns.

    No step waits for a lock on an object. A role that cannot be dropped now, for example because somebody else's open transaction names it,
    is renamed, too, unless ``renames_empty`` is False. The caller has blocked its login, ended its sessions and revoked its memberships.
    """
    left = _find_lasting_objects(server, connection, oid)
    if left.count == 0 and (_dropped(server, connection, role, oid) or not renames_empty):
        return left
    _disable_subscriptions(server, connection, oid, left)
    left.notes += revoke_privileges(server, connection, role, oid)
    left.owner = _rename(connection, server.target.ledger, server.target.prefix, role, oid, request_id=request_id)
    leave_role(connection, left.owner)
    return left


def drop_bare(connection: PostgreSQLConnection, role: str) -> bool:
    """Drop a role that owns nothing and has no privilege. Returns False where the server refuses or a lock is not free."""
    with suppress(psycopg.Error):
        run_in_one_trip(connection, sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(role)), wait=LOCK_SECONDS)
        return True
    return False


def _find_lasting_objects(server: PostgreSQLServer, connection: PostgreSQLConnection, oid: int) -> LeftBehind:
    """What the role owns. After LOOK_SECONDS the objects of further databases are counted and not looked at."""
    left, owned = LeftBehind(), connection.execute(OWNED_BY_DATABASE, (oid,)).fetchall()
    deadline = time.monotonic() + LOOK_SECONDS  # counting a million objects takes longer, and is no look
    for database, number in owned:
        is_late = time.monotonic() > deadline
        _add(left, database, number, None if is_late else _names_in(server, connection, database, oid))
    return left


def _names_in(
    server: PostgreSQLServer, connection: PostgreSQLConnection, database: str | None, oid: int
) -> list[str] | None:
    """Names of what lasts in this database, or None where nobody can look."""
    try:
        return _lasting(server, connection, database, oid)
    except (AdapterError, psycopg.Error):
        return None


def _add(left: LeftBehind, database: str | None, number: int, names: list[str] | None) -> None:
    """Add what lasts in a database. Where nobody can look, all ``number`` objects that the server has on record count."""
    if names is None:
        names = [f"{number} objects in {database}"]
    elif len(names) < LOOKED_AT_MOST:
        number = len(names)
    if names:
        left.names += names[: max(0, NAMED_AT_MOST - len(left.names))]
        left.count += number
        left.databases += [database] if database is not None else []


def _lasting(server: PostgreSQLServer, connection: PostgreSQLConnection, database: str | None, oid: int) -> list[str]:
    limits: dict[str, object] = {"oid": oid, "limit": LOOKED_AT_MOST, "length": NAME_LENGTH}
    if database is None or database == connection.info.dbname:
        return column(connection, LASTING, limits)
    with server.session(database, limit=VISIT_SECONDS) as in_database:
        return column(in_database, LASTING, limits)


def _dropped(server: PostgreSQLServer, connection: PostgreSQLConnection, role: str, oid: int) -> bool:
    """Drop the role with its privileges, default privileges and temporary leftovers. Returns whether it is gone."""
    try:
        for database in column(connection, DATABASES_WITH_TRACES, (oid,)):
            with server.session(database) as in_database:
                in_database.set_lock_timeout(LOCK_SECONDS)
                run(in_database, "DROP OWNED BY {}", role)
        connection.set_lock_timeout(LOCK_SECONDS)
        with connection.transaction():
            run(connection, "DROP ROLE IF EXISTS {}", role)
    except (AdapterError, psycopg.Error):
        if connection.broken:
            raise
    finally:
        if not connection.broken:
            connection.set_lock_timeout(LOCK_TIMEOUT_SECONDS)
    return not exists(connection, role)


def _rename(connection: PostgreSQLConnection, ledger: str, prefix: str, role: str, oid: int, *, request_id: int) -> str:
    """Rename the role and mark it with the ledger, the request and the time. Returns its new name."""
    name = next(n for n in _names(role, prefix, oid) if not exists(connection, n))
    ended = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with connection.transaction():
        run(connection, "ALTER ROLE {} RENAME TO {}", role, name)
        run(
            connection,
            "COMMENT ON ROLE {} IS {mark}",
            name,
            mark=f"dbaccess left ledger={ledger} request={request_id} ended={ended}",
        )
    return name


def _disable_subscriptions(
    server: PostgreSQLServer, connection: PostgreSQLConnection, oid: int, left: LeftBehind
) -> None:
    """Disable the role's subscriptions: the server runs their workers as their owner, also without a login."""
    rows = connection.execute(
        "SELECT s.subname, d.datname FROM pg_subscription s JOIN pg_database d ON d.oid = s.subdbid"
        " WHERE s.subowner = %s::oid AND s.subenabled ORDER BY 1 LIMIT %s",
        (oid, NAMED_AT_MOST),
    ).fetchall()
    for name, database in rows:
        try:
            with server.session(database) as in_database:
                run(in_database, "ALTER SUBSCRIPTION {} DISABLE", name)
        except (AdapterError, psycopg.Error):
            left.notes.append(f"In {database} a subscription goes on: ALTER SUBSCRIPTION {quoted(name)} DISABLE;")


def _names(role: str, prefix: str, oid: int) -> Iterator[str]:
    """``dbaccess_left_42_lea`` for ``jit_42_lea_ab12``, then longer ones where that exists."""
    stem = role.removeprefix(prefix).removeprefix("dbaccess_")
    yield LEFT_PREFIX + re.sub(r"_[a-z0-9]{4}\Z", "", stem)
    yield LEFT_PREFIX + stem
    yield f"{LEFT_PREFIX}{stem}_{oid}"
    yield from (f"{LEFT_PREFIX}{stem}_{oid}_{number}" for number in count(2))


# Roles that were left before.


@dataclass(frozen=True, kw_only=True)
class LeftRole:
    """A renamed role of an ended user. ``objects`` counts what it owns on the whole server."""

    name: str
    oid: int
    ledger: str
    request_id: int
    ended: str
    objects: int


def left_roles(connection: PostgreSQLConnection) -> list[LeftRole]:
    """All renamed roles with a mark, of every ledger."""
    rows = connection.execute(
        "SELECT r.rolname, r.oid, shobj_description(r.oid, 'pg_authid'), (SELECT count(*) FROM pg_shdepend s"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = r.oid AND s.deptype = 'o')"
        " FROM pg_roles r WHERE starts_with(r.rolname, %s) ORDER BY r.oid",
        (LEFT_PREFIX,),
    ).fetchall()
    marked = ((name, oid, LEFT_MARK.fullmatch(comment or ""), objects) for name, oid, comment, objects in rows)
    return [
        LeftRole(name=name, oid=oid, ledger=mark[1], request_id=int(mark[2]), ended=mark[3], objects=objects)
        for name, oid, mark, objects in marked
        if mark is not None
    ]


def left_by(connection: PostgreSQLConnection, ledger: str, username: str, prefix: str) -> LeftRole | None:
    """The role that this user became in an earlier run, or None."""
    number = re.match(r"[0-9]+", username.removeprefix(prefix))
    known: Sequence[LeftRole] = [r for r in left_roles(connection) if r.ledger == ledger]
    return next((r for r in known if number is not None and r.request_id == int(number[0])), None)


def drop_empty(server: PostgreSQLServer, connection: PostgreSQLConnection) -> list[str]:
    """Drop the renamed roles of this ledger that own nothing that lasts. Returns a sentence for each."""
    dropped = list[str]()
    for role in left_roles(connection):
        if role.ledger != server.target.ledger:
            continue
        with suppress(AdapterError, psycopg.Error):
            become_member(connection, role.name)
            revoke_memberships(connection, role.name)
            if _find_lasting_objects(server, connection, role.oid).count == 0 and _dropped(
                server, connection, role.name, role.oid
            ):
                dropped.append(f"dropped the role {role.name} of #{role.request_id}, which owned nothing any more")
            else:
                leave_role(connection, role.name)
    return dropped
