"""Describes what a user of a level could change so that it outlives the user: see ``adapters.level_state``.

Other temporary users and managed roles come and go by dbaccess itself, so they are left out. A fact that the bot may not read is the fact
"could not be read"; only a lost connection is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import pymysql

from adapters.base import Level
from adapters.level_state import LevelState
from adapters.mysql import events
from adapters.mysql.connection import MySQLConnection, literal_list
from adapters.mysql.errors import CONNECTION_LOST, code
from adapters.mysql.levels import MANAGED_ROLE, managed_role, with_roles_below
from adapters.mysql.server import Server
from adapters.usernames import username_pattern

MEMBERS, GRANTS, PROXIES = "members of the level's roles", "grants of the level's roles", "proxies of the level's roles"
DEFINED, IN_DATABASE = (
    "objects whose definer is one of the level's roles",
    "views, routines, triggers and events in the level's database",
)
PREPARED = "prepared XA transactions"
UNREADABLE = "could not be read"

QUERY_SECONDS = 8
"""information_schema opens every view of the server. A query that takes longer is given up."""

OBJECTS = (("view", "table"), ("routine", "routine"), ("trigger", "trigger"), ("event", "event"))
"""A kind of object, and how the columns of its view in information_schema begin."""


@dataclass(frozen=True, kw_only=True)
class DefinedObject:
    """A view, routine, trigger or event. ``definer`` is as the server spells it: ``user@host``, and ``role`` or ``role@`` for a role of MariaDB."""

    kind: str
    schema: str
    name: str
    definer: str

    def __str__(self) -> str:
        return f"{' '.join(self.schema.split())}.{' '.join(self.name.split())} ({self.kind})"


def describe(server: Server, connection: MySQLConnection, level: Level, *, with_prepared: bool = True) -> LevelState:
    """The state of the level now, without transactions if not ``with_prepared``."""
    known = {name for name in level.roles if server.dialect.is_role(connection, name)}
    roles = [name for role in sorted(known) for name in with_roles_below(server, connection, role)]
    managed = managed_role(server.target, level)
    named = sorted({*roles, *((managed,) if managed else ())})
    readers: dict[str, Callable[[], Iterator[str]]] = {
        MEMBERS: lambda: _members(server, connection, named),
        GRANTS: lambda: _grants(server, connection, sorted(set(roles))),
        PROXIES: lambda: _proxies(server, connection, named),
        DEFINED: lambda: _defined(server, connection, named),
        IN_DATABASE: lambda: _in_database(server, connection, level, named),
    }
    if with_prepared:
        readers[PREPARED] = lambda: iter(server.dialect.prepared_transactions(connection))
    return LevelState.of((kind, fact) for kind, read in readers.items() for fact in _read(read))


def _read(read: Callable[[], Iterator[str]]) -> list[str]:
    try:
        return list(read())
    except pymysql.MySQLError as error:
        if code(error) in CONNECTION_LOST:
            raise
        return [UNREADABLE]


def _is_temporary(server: Server, known: set[str], name: str) -> bool:
    """Whether dbaccess itself gives and takes the membership: a temporary user, also of another ledger in the same schema, or a managed role."""
    is_user = username_pattern(server.target.prefix).fullmatch(name) or name in known
    return bool(is_user or MANAGED_ROLE.fullmatch(name))


def _members(server: Server, connection: MySQLConnection, roles: Sequence[str]) -> Iterator[str]:
    known = {name for name, event in events.find_all(connection, server.target).items() if event.ledger}
    for role in roles:
        for member in server.dialect.role_members(connection, role):
            if not _is_temporary(server, known, member):
                yield f"{role}: {member}"


def _grants(server: Server, connection: MySQLConnection, roles: Sequence[str]) -> Iterator[str]:
    for role in roles:
        for line in connection.column(f"SHOW GRANTS FOR {server.dialect.quoted_role(role)}"):
            if not line.startswith("GRANT PROXY"):
                yield line


def _proxies(server: Server, connection: MySQLConnection, roles: Sequence[str]) -> Iterator[str]:
    """The end itself revokes or names those that a temporary user gave."""
    names, ours = literal_list(connection, roles), username_pattern(server.target.prefix)
    query = f"SELECT user, proxied_user, grantor FROM mysql.proxies_priv WHERE user IN ({names}) OR proxied_user IN ({names})"
    for user, proxied, grantor in connection.run(query):
        if not ours.fullmatch(proxied) and not ours.fullmatch(grantor.partition("@")[0]):
            yield f"{user} as {proxied}"


def _defined(server: Server, connection: MySQLConnection, roles: Sequence[str]) -> Iterator[str]:
    for found in objects(server, connection, roles, definers=spellings(roles)):
        yield str(found)


def _in_database(server: Server, connection: MySQLConnection, level: Level, roles: Sequence[str]) -> Iterator[str]:
    """Without what temporary users define: their own receipts name it."""
    database, ours = server.database_of(level), username_pattern(server.target.prefix)
    for found in objects(server, connection, roles, schema=database) if database else ():
        if not ours.fullmatch(found.definer.rpartition("@")[0] or found.definer):
            yield f"{found} of {found.definer}"


def spellings(roles: Sequence[str]) -> list[str]:
    """The definers that the servers write for a role."""
    return [f"{role}{end}" for role in roles for end in ("", "@", "@%")]


def _query_of_objects(connection: MySQLConnection, definers: Sequence[str], schema: str | None) -> str:
    """One query for all kinds. The columns have different collations, which UNION does not mix."""
    by_definer = f"definer IN ({literal_list(connection, definers)})"
    by_schema = "" if schema is None else f"_schema = {connection.literal(schema)}"
    return " UNION ALL ".join(
        f"SELECT '{kind}', {_text(f'{stem}_schema')}, {_text(f'{stem}_name')}, {_text('definer')}"
        f" FROM information_schema.{kind}s WHERE {stem + by_schema if by_schema else by_definer}"
        for kind, stem in OBJECTS
    )


def _text(column: str) -> str:
    return f"CONVERT({column} USING utf8mb4) COLLATE utf8mb4_bin"


def objects(
    server: Server,
    connection: MySQLConnection,
    roles: Sequence[str],
    *,
    definers: Sequence[str] = (),
    schema: str | None = None,
) -> list[DefinedObject]:
    """Objects of these definers, or in this schema, that the bot may see by itself or as one of ``roles``, in the order of their names.

    A level's user could create them only where its role has rights, so the role may see them.
    """
    found = set[DefinedObject]()
    query = _query_of_objects(connection, definers, schema)
    for role in (None, *roles):
        with _acting_as(server, connection, role) as may_act:
            if may_act:
                rows = connection.run(server.dialect.with_time_limit(query, QUERY_SECONDS))
                found |= {DefinedObject(kind=kind, schema=s, name=n, definer=d) for kind, s, n, d in rows}
    own = server.target.ops_schema
    return sorted((o for o in found if o.schema != own), key=str)


@contextmanager
def _acting_as(server: Server, connection: MySQLConnection, role: str | None) -> Iterator[bool]:
    """Activate a role in this session, and the former roles again afterwards. Yields False where the bot was not granted the role."""
    if role is None:
        yield True
        return
    former = server.dialect.active_roles(connection)
    try:
        connection.run(f"SET ROLE {server.dialect.quoted_role(role)}")
    except pymysql.MySQLError as error:
        if code(error) in CONNECTION_LOST:
            raise
        yield False
        return
    try:
        yield True
    finally:
        with suppress(pymysql.MySQLError):
            connection.run(f"SET ROLE {former}")
